"""hard_to_dump.py THING...: holds things that CRIU cannot save, or should not, each in namespaces of its own as a container does.

Prints one line of JSON, thing -> descriptor (or pid of a child, for what is of a process), then waits for the end of its stdin.
"""
# ruff: noqa: PTH102, PTH108, SIM115
# One small program with descriptors that stay open: os, not pathlib.

import ctypes
import fcntl
import json
import mmap
import os
import signal
import socket
import struct
import sys
import tty

libc = ctypes.CDLL(None, use_errno=True)
NEWNS, NEWUTS, NEWIPC, NEWNET = 0x20000, 0x4000000, 0x8000000, 0x40000000
MPTCP, VSOCK = 262, 40
held = []  # what must not be collected


def called(function, *arguments):
    result = function(*arguments)
    if result == -1:
        raise OSError(ctypes.get_errno(), f"{function.__name__}: {os.strerror(ctypes.get_errno())}")
    return result


def syscall(number, *arguments):
    return called(libc.syscall, number, *arguments)


def keep(made):
    held.append(made)
    return made.fileno() if hasattr(made, "fileno") else made


def ordinary(directory):
    """Much that is no matter: a deleted small file, timers, pipes, memfd, shared memory, a pair of unix sockets, a pty of its own."""
    keep(os.eventfd(1)), keep(os.pipe()), keep(os.memfd_create("m")), keep(mmap.mmap(-1, 1 << 20))
    keep(socket.socketpair())
    keep(socket.create_server(("127.0.0.1", 7300)))
    keep(os.openpty())
    small = keep(open(f"{directory}/small", "w"))
    os.unlink(f"{directory}/small")
    watch = keep(called(libc.inotify_init1, 0))
    called(libc.inotify_add_watch, watch, directory.encode(), 2)
    file = keep(open(f"{directory}/locked by itself", "w"))
    fcntl.flock(file, fcntl.LOCK_EX)
    return small


def io_uring(_):
    return keep(syscall(425, 4, ctypes.create_string_buffer(120)))


def perf_event(_):
    return keep(syscall(298, ctypes.create_string_buffer(struct.pack("II", 1, 112) + bytes(104)), 0, -1, -1, 0))


def userfaultfd(_):
    return keep(syscall(323, 1))


def memfd_secret(_):
    fd = keep(syscall(447, 0))
    os.ftruncate(fd, 4096)
    keep(mmap.mmap(fd, 4096))
    return fd


def landlock(_):
    return keep(syscall(444, struct.pack("Q", 1), 8, 0))


def mptcp(_):
    return keep(socket.socket(socket.AF_INET, socket.SOCK_STREAM, MPTCP))


def vsock(_):
    return keep(socket.socket(VSOCK, socket.SOCK_STREAM))


def packet(_):
    return keep(socket.socket(socket.AF_PACKET, socket.SOCK_RAW))


def raw(_):
    return keep(socket.socket(socket.AF_INET, socket.SOCK_RAW, 1))


def connected_outside(directory):
    client = socket.socket(socket.AF_UNIX)
    client.connect(f"{directory}/outside.sock")
    return keep(client)


def not_accepted(_):
    listener = socket.create_server(("127.0.0.1", 7301))
    keep(socket.create_connection(("127.0.0.1", 7301)))
    return keep(listener)


def device(_):
    return keep(open("/dev/fuse", "rb+", buffering=0))


def deleted_file(directory):
    file = open(f"{directory}/log", "wb")
    file.write(bytes(range(256)) * (20 << 12))
    file.flush()
    os.unlink(f"{directory}/log")
    return keep(file)


def deleted_mapping(directory):
    with open(f"{directory}/data", "wb+") as file:
        file.write(bytes(range(256)) * (20 << 12))
        file.flush()
        address = libc.mmap(None, 20 << 20, 1, 1, file.fileno(), 0)  # mmap.mmap would keep a descriptor
        assert address != -1
    os.unlink(f"{directory}/data")
    return "mapped"


def locked_outside(directory):
    return keep(open(f"{directory}/locked"))


def watch_on_overlay(directory):
    for name in ("lower", "upper", "work", "merged"):
        os.mkdir(f"{directory}/{name}")
    options = f"lowerdir={directory}/lower,upperdir={directory}/upper,workdir={directory}/work".encode()
    called(libc.mount, b"overlay", f"{directory}/merged".encode(), b"overlay", 0, options)
    open(f"{directory}/merged/watched", "w").close()
    fd = keep(called(libc.inotify_init1, 0))
    called(libc.inotify_add_watch, fd, f"{directory}/merged/watched".encode(), 2)
    return fd


def big_tmpfs(directory):
    os.mkdir(f"{directory}/memory")
    called(libc.mount, b"tmpfs", f"{directory}/memory".encode(), b"tmpfs", 0, None)
    with open(f"{directory}/memory/file", "wb") as file:
        for _ in range(66):
            file.write(bytes(range(256)) * 4096)
    return 0


def terminal_outside(_):
    """Descriptor 3 is one of another devpts than the one that is mounted here."""
    called(libc.umount2, b"/dev/pts", 2)
    called(libc.mount, b"devpts", b"/dev/pts", b"devpts", 0, b"newinstance,ptmxmode=0666")
    tty.setraw(3)
    return 3


def hosts_segment(_):
    libc.shmat.restype = ctypes.c_void_p
    segment = called(libc.shmget, 0, 8192, 0o1600)
    address = libc.shmat(segment, None, 0)
    assert address not in (None, ctypes.c_void_p(-1).value)
    called(libc.shmctl, segment, 0, None)  # IPC_RMID: it goes with the last who has it mapped
    return "mapped"


def child(work):
    """The pid of a child that has done `work` and waits."""
    ready, done = os.pipe()
    if not (pid := os.fork()):
        libc.prctl(1, 9)  # PR_SET_PDEATHSIG, SIGKILL
        work()
        os.write(done, b".")
        while True:
            os.read(0, 1) or os._exit(0)
    os.read(ready, 1)
    return pid


def nested_uts(_):
    return child(lambda: called(libc.unshare, NEWUTS))


def nested_net(_):
    """This one CRIU can."""
    return child(lambda: called(libc.unshare, NEWNET))


def traced(_):
    pid = child(lambda: None)
    called(libc.ptrace, 0x4206, pid, 0, 0)  # PTRACE_SEIZE
    return pid


def loopback_up():
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as asking:
        fcntl.ioctl(asking, 0x8914, struct.pack("16sH22x", b"lo", 0x49))  # SIOCSIFFLAGS: up, running, loopback


def main():
    directory, *things = sys.argv[1:]
    if os.getpid() != 1:  # else a container's init has them
        called(libc.unshare, NEWNS | NEWNET | (0 if "hosts_segment" in things else NEWIPC))
        called(libc.mount, b"none", b"/", None, 0x44000, None)
        loopback_up()
    print(json.dumps({thing: globals()[thing](directory) for thing in things}), flush=True)
    sys.stdin.read() if os.getpid() != 1 else signal.pause()


if __name__ == "__main__":
    main()
