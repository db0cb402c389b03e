"""kernel_objects.py [STATUS [KIND...]]: one of each kind of kernel object that a program can hold, checked over and over.

Proves, kind by kind: timerfd, eventfd, signalfd, interval timers, SysV shared memory, semaphores and messages, POSIX shared
memory, a fifo with bytes in it, threads that wait for each other, listening and connected unix sockets, UDP, a descriptor on
its way through a socket, a TCP listener with connections that nobody has accepted yet.

Each kind is a generator: set up, then one list of problems a round. Without KIND: all of them.
"""
# ruff: noqa: PTH105, PTH108, PTH110
# One small program with descriptors that stay open: os, not pathlib.

import ctypes
import json
import mmap
import os
import signal
import socket
import struct
import sys
import threading
import time

libc = ctypes.CDLL(None, use_errno=True)
BACKLOG_PORT = 7200  # a listener that accepts only when it is told to, by a file


def called(name, *arguments):
    """A libc function's result. Raises OSError."""
    function = getattr(libc, name)
    function.restype = ctypes.c_void_p if name == "shmat" else ctypes.c_int
    result = function(*arguments)
    if result == -1 or (name == "shmat" and result == ctypes.c_void_p(-1).value):
        raise OSError(ctypes.get_errno(), f"{name}: {os.strerror(ctypes.get_errno())}")
    return result


def differs(what, found, wanted):
    return [] if found == wanted else [f"{what} is {found!r:.100}, not {wanted!r:.100}"]


def timerfd():
    """Ticks on, at its interval, whatever happened in between."""
    fd = called("timerfd_create", time.CLOCK_MONOTONIC, os.O_NONBLOCK)
    every = struct.pack("qqqq", 0, 20_000_000, 0, 20_000_000)
    called("timerfd_settime", fd, 0, every, None)
    while True:
        yield []
        time.sleep(0.05)
        try:
            ticks = struct.unpack("Q", os.read(fd, 8))[0]
        except BlockingIOError:
            yield ["timerfd has not ticked in 50 ms at an interval of 20"]
            continue
        yield [] if ticks >= 1 else [f"timerfd ticked {ticks} times"]


def eventfd():
    fd = os.eventfd(41, os.EFD_NONBLOCK)
    while True:
        yield []
        found = os.eventfd_read(fd)
        os.eventfd_write(fd, 41)
        yield differs("the eventfd", found, 41)


def signalfd():
    """A blocked signal that is pending comes out of the descriptor."""
    number = signal.SIGRTMIN + 3
    signal.pthread_sigmask(signal.SIG_BLOCK, {number})
    fd = called("signalfd", -1, struct.pack("Q", 1 << (number - 1)), os.O_NONBLOCK)
    while True:
        os.kill(os.getpid(), number)
        yield []
        try:
            found = struct.unpack("I", os.read(fd, 128)[:4])[0]
        except BlockingIOError:
            found = 0
        yield differs("the signal in the signalfd", found, number)


def interval_timer():
    """SIGALRM every 20 ms."""
    seen = [0]
    signal.signal(signal.SIGALRM, lambda *_: seen.__setitem__(0, seen[0] + 1))
    signal.setitimer(signal.ITIMER_REAL, 0.02, 0.02)
    while True:
        before = seen[0]
        yield []
        time.sleep(0.05)
        yield [] if seen[0] > before else ["no SIGALRM in 50 ms at an interval of 20"]


def sysv_memory():
    key = called("shmget", 0x51, 8192, 0o1600)
    address = called("shmat", key, None, 0)
    memory = (ctypes.c_char * 8192).from_address(address)
    memory[:4096] = os.urandom(4096)
    wanted = bytes(memory)
    while True:
        yield []
        yield differs("SysV shared memory", bytes(memory), wanted) + differs(
            "the id of its key", called("shmget", 0x51, 8192, 0), key
        )


def sysv_semaphore():
    key = called("semget", 0x52, 1, 0o1600)
    called("semctl", key, 0, 16, 5)  # SETVAL
    while True:
        yield []
        yield differs("the SysV semaphore", called("semctl", key, 0, 12), 5)  # GETVAL


def sysv_messages():
    key = called("msgget", 0x53, 0o1600)
    called("msgsnd", key, struct.pack("l", 7) + b"a message", 9, 0)
    while True:
        yield []
        buffer = ctypes.create_string_buffer(64)
        size = called("msgrcv", key, buffer, 32, 0, 0o4000)  # IPC_NOWAIT
        found = (struct.unpack("l", buffer.raw[:8])[0], buffer.raw[8 : 8 + size])
        called("msgsnd", key, struct.pack("l", 7) + b"a message", 9, 0)
        yield differs("the SysV message", found, (7, b"a message"))


def posix_memory():
    fd = os.open("/dev/shm/held", os.O_RDWR | os.O_CREAT | os.O_TRUNC, 0o600)
    os.ftruncate(fd, 8192)
    memory = mmap.mmap(fd, 8192)
    count = 0
    while True:
        count += 1
        memory[:8] = count.to_bytes(8, "big")
        yield []
        with open("/dev/shm/held", "rb") as other:
            yield differs("POSIX shared memory", other.read(8), count.to_bytes(8, "big"))


def fifo():
    path = "/srv/fifo"
    if not os.path.exists(path):
        os.mkfifo(path)
    fd = os.open(path, os.O_RDWR | os.O_NONBLOCK)
    os.write(fd, b"in the fifo")
    while True:
        yield []
        found = os.read(fd, 100)
        os.write(fd, b"in the fifo")
        yield differs("the fifo", found, b"in the fifo")


def threads():
    """Four, each of which passes a number on to the next: futexes, stacks, thread-local storage."""
    local, turns, baton = threading.local(), [threading.Semaphore(0) for _ in range(4)], [0]

    def run(number):
        local.mark = number
        while True:
            turns[number].acquire()
            baton.append(local.mark)
            turns[(number + 1) % 4].release() if number < 3 else done.release()

    done = threading.Semaphore(0)
    for number in range(4):
        threading.Thread(target=run, args=(number,), daemon=True).start()
    while True:
        yield []
        baton.clear()
        turns[0].release()
        yield differs("the round of the threads", (done.acquire(timeout=5), list(baton)), (True, [0, 1, 2, 3]))


def unix_listener():
    """A listening socket with its file; a datagram socket with a message in it."""
    for path in ("/srv/listener", "/srv/datagrams"):
        if os.path.exists(path):
            os.unlink(path)
    listener = socket.socket(socket.AF_UNIX)
    listener.bind("/srv/listener")
    listener.listen(4)
    datagrams = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
    datagrams.bind("/srv/datagrams")
    sender = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
    sender.connect("/srv/datagrams")
    sender.send(b"a datagram")
    while True:
        yield []
        with socket.socket(socket.AF_UNIX) as asking:
            asking.connect("/srv/listener")
            answering, _ = listener.accept()
            answering.sendall(b"yes")
            answering.close()
            found = asking.recv(10)
        datagram = datagrams.recv(100)
        sender.send(b"a datagram")
        yield differs("the unix listener", found, b"yes") + differs("the datagram", datagram, b"a datagram")


def passed_descriptor():
    """An open file that is in no process's table: it is on its way through a socket."""
    left, right = socket.socketpair()
    number = 0
    while True:
        number += 1
        with open("/srv/passed", "wb+") as file:
            file.write(b"passed %d" % number)
            file.flush()
            socket.send_fds(left, [b"x"], [file.fileno()])
        yield []
        _, fds, _, _ = socket.recv_fds(right, 10, 4)
        found = [os.pread(fd, 100, 0) for fd in fds]
        for fd in fds:
            os.close(fd)
        yield differs("the file that was passed", found, [b"passed %d" % number])


def udp():
    bound = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
    bound.bind(("127.0.0.1", 7201))
    sender = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
    sender.connect(("127.0.0.1", 7201))
    while True:
        yield []
        sender.send(b"over udp")
        bound.settimeout(2)
        yield differs("udp", bound.recv(100), b"over udp")


def tcp_loopback():
    """A connection inside of the container, with bytes on their way in both directions."""
    listener = socket.create_server(("127.0.0.1", 7202))
    left = socket.create_connection(("127.0.0.1", 7202))
    right, _ = listener.accept()
    left.sendall(b"there")
    right.sendall(b"back")
    while True:
        yield []
        found = (right.recv(100), left.recv(100))
        left.sendall(b"there")
        right.sendall(b"back")
        yield differs("the connection over lo", found, (b"there", b"back"))


def inotify():
    """A watch on a file of the container's tmpfs."""
    fd = called("inotify_init1", os.O_NONBLOCK)
    open("/dev/shm/watched", "w").close()
    called("inotify_add_watch", fd, b"/dev/shm/watched", 0x2)  # IN_MODIFY
    while True:
        yield []
        with open("/dev/shm/watched", "w") as file:
            file.write("x")
        try:
            events = len(os.read(fd, 4096))
        except BlockingIOError:
            events = 0
        yield [] if events else ["inotify saw nothing"]


def tcp_backlog():
    """Connections that the kernel has taken, whose program has not. It does when /srv/accept appears, and says how many."""
    listener = socket.create_server(("0.0.0.0", BACKLOG_PORT), backlog=16)
    listener.setblocking(False)
    while True:
        yield []
        answered = 0
        while os.path.exists("/srv/accept"):
            try:
                connection, _ = listener.accept()
            except BlockingIOError:
                with open("/srv/accepted", "w") as file:
                    file.write(str(answered))
                os.unlink("/srv/accept")
                break
            connection.settimeout(5)
            connection.sendall(b"late " + connection.recv(100))
            connection.close()
            answered += 1
        yield []


KINDS = (
    timerfd, eventfd, signalfd, interval_timer, sysv_memory, sysv_semaphore, sysv_messages, posix_memory, fifo, threads,
    unix_listener, passed_descriptor, udp, tcp_loopback, inotify, tcp_backlog,
)  # fmt: skip


def main() -> None:
    status = sys.argv[1] if len(sys.argv) > 1 else "/srv/kernel_objects.json"
    names = sys.argv[2:]
    held = {kind.__name__: kind() for kind in KINDS if not names or kind.__name__ in names}
    token = os.urandom(16).hex()
    for kind in held.values():
        next(kind)
    count, problems = 0, []
    while True:
        count += 1
        for name, kind in held.items():
            try:
                problems += [f"round {count}: {name}: {text}" for text in next(kind)]
                next(kind)  # back to the state with something in it
            except (OSError, StopIteration) as exc:
                problems.append(f"round {count}: {name}: {exc!r}")
        with open(status + ".new", "w") as file:
            json.dump({"token": token, "count": count, "kinds": len(held), "problems": problems[:20]}, file)
        os.replace(status + ".new", status)
        time.sleep(0.1)


if __name__ == "__main__":
    main()
