"""The parts of a monitor: loop, stdio, clients. Without root and without a container."""

from __future__ import annotations

import base64
import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from agent.engine import sync
from agent.engine.eventloop import Loop
from agent.engine.logs import LogWriter, read_log
from agent.engine.monitor_clients import QUEUE_BYTES, Client, Message, Server, short_name
from agent.engine.monitor_stdio import Stdio

pytestmark = pytest.mark.unit


@pytest.fixture
def loop() -> Iterator[Loop]:
    before = signal.getsignal(signal.SIGCHLD)
    loop = Loop()
    yield loop
    loop.after_fork()
    signal.signal(signal.SIGCHLD, before)


def run_for(loop: Loop, seconds: float) -> None:
    loop.call_later(seconds, loop.stop)
    loop.run()


def run_until(loop: Loop, condition: Callable[[], bool], limit_s: float = 10) -> None:
    """For what the kernel or another process does in its own time; at the limit the assertion that follows says what is missing."""
    deadline = time.monotonic() + limit_s
    while not condition() and time.monotonic() < deadline:
        run_for(loop, 0.01)


def child(code: str) -> int:
    return os.posix_spawn(sys.executable, [sys.executable, "-I", "-S", "-c", code], os.environ)


def test_exit_status_of_a_child_arrives(loop: Loop) -> None:
    """Each child's callback gets its own code: the status, or minus the signal."""
    codes: dict[str, int] = {}

    def note(name: str, code: int) -> None:
        codes[name] = code
        if len(codes) == 2:
            loop.stop()

    loop.on_exit(child("raise SystemExit(7)"), lambda code: note("status", code))
    loop.on_exit(child("import os; os.kill(os.getpid(), 9)"), lambda code: note("signal", code))
    loop.call_later(10, loop.stop)
    began = time.monotonic()
    loop.run()
    assert codes == {"status": 7, "signal": -9}
    assert time.monotonic() - began < 5  # stop() in an exit callback ends the loop without a further event


def test_child_that_ended_before_anybody_asked(loop: Loop) -> None:
    """A status reaped before on_exit() is kept for it: init's pid is learnt after its birth."""
    pid = child("raise SystemExit(5)")
    os.waitid(os.P_PID, pid, os.WEXITED | os.WNOWAIT)
    run_for(loop, 0.01)
    codes: list[int] = []
    loop.on_exit(pid, codes.append)
    run_until(loop, lambda: bool(codes))
    assert codes == [5]


def test_blocking_command_inside_a_callback_keeps_its_status(loop: Loop) -> None:
    """subprocess.run in a callback is not robbed of its child by the loop."""
    statuses: list[int] = []
    loop.call_later(
        0, lambda: statuses.append(subprocess.run([sys.executable, "-c", "raise SystemExit(3)"]).returncode)
    )
    run_for(loop, 0.5)
    assert statuses == [3]


def test_timers_run_in_order_and_can_be_cancelled(loop: Loop) -> None:
    """The earliest first, a cancelled one never."""
    order: list[str] = []
    loop.call_later(0.03, lambda: order.append("late"))
    loop.call_later(0.01, lambda: order.append("early"))
    loop.cancel(loop.call_later(0.02, lambda: order.append("cancelled")))
    run_for(loop, 0.06)
    assert order == ["early", "late"]


class Rig:
    """Stdio over pipes with its log and what came out."""

    def __init__(self, loop: Loop, directory: Path, *, tty: bool = False, stdin_open: bool = False) -> None:
        self.path = directory / "log"
        self.seen: list[tuple[str, bytes]] = []
        self.stdio = Stdio(loop, LogWriter(self.path), lambda stream, data: self.seen.append((stream, data)))
        self.ends = self.stdio.make(tty=tty, stdin_open=stdin_open)

    def logged(self) -> list[tuple[str, bytes]]:
        return [(entry.stream, entry.data) for entry in read_log(self.path)]


def test_output_reaches_log_and_listener(loop: Loop, tmp_path: Path) -> None:
    """Both streams are read while nobody is attached, and the end comes when the last writer is gone."""
    rig = Rig(loop, tmp_path)
    os.write(rig.ends.stdout, b"out\n")
    os.write(rig.ends.stderr, b"err")
    run_for(loop, 0.05)
    assert not rig.stdio.ended
    rig.stdio.close_container_ends()
    run_for(loop, 0.05)
    assert rig.stdio.ended
    assert sorted(rig.seen) == [("stderr", b"err"), ("stdout", b"out\n")]
    assert sorted(rig.logged()) == [("stderr", b"err"), ("stdout", b"out\n")]


def test_container_without_stdin_reads_end_of_file(loop: Loop, tmp_path: Path) -> None:
    """stdin is /dev/null, and input is refused with EBADF."""
    rig = Rig(loop, tmp_path)
    assert os.read(rig.ends.stdin, 10) == b""
    with pytest.raises(OSError) as caught:
        rig.stdio.write(b"x", lambda: None)
    assert caught.value.errno == 9
    rig.stdio.close()


def test_input_larger_than_a_pipe_is_answered_when_it_is_taken(loop: Loop, tmp_path: Path) -> None:
    """`done` comes only after the reader took enough; then end of file follows the data."""
    rig = Rig(loop, tmp_path, stdin_open=True)
    data = os.urandom(300_000)
    done: list[bool] = []
    rig.stdio.write(data, lambda: done.append(True))
    rig.stdio.close_input()
    run_for(loop, 0.03)
    assert done == []
    taken = bytearray()
    loop.add_reader(rig.ends.stdin, lambda: taken.extend(os.read(rig.ends.stdin, 65536)))
    run_until(loop, lambda: len(taken) == len(data))
    loop.remove_reader(rig.ends.stdin)
    assert done == [True]
    assert bytes(taken) == data
    assert os.read(rig.ends.stdin, 10) == b""
    rig.stdio.close()


def test_input_for_a_reader_that_is_gone_is_thrown_away(loop: Loop, tmp_path: Path) -> None:
    """A container that closed its stdin never holds up who writes to it."""
    rig = Rig(loop, tmp_path, stdin_open=True)
    rig.stdio.close_container_ends()
    done: list[bool] = []
    rig.stdio.write(b"x" * 1000, lambda: done.append(True))
    assert done == [True]
    rig.stdio.close()


def test_terminal_echoes_resizes_and_ends(loop: Loop, tmp_path: Path) -> None:
    """A pty is one stream, takes input and a window size, and its hang-up is the end."""
    rig = Rig(loop, tmp_path, tty=True)
    rig.stdio.close_container_ends()
    master, slave = os.openpty()
    rig.stdio.take_terminal(master)
    rig.stdio.resize(33, 111)
    assert os.get_terminal_size(slave) == os.terminal_size((111, 33))
    assert rig.stdio.keys() == {"stdin": "", "stdout": "", "stderr": ""}
    rig.stdio.write(b"typed\n", lambda: None)
    os.write(slave, b"shown\n")
    run_until(loop, lambda: len(b"".join(data for _, data in rig.seen)) == len(b"typed\r\nshown\r\n"))
    assert os.read(slave, 100) == b"typed\n"
    said = b"".join(data for _, data in rig.seen)
    assert sorted(said) == sorted(b"typed\r\nshown\r\n")  # the kernel may put one into the middle of the other
    os.close(slave)
    run_until(loop, lambda: rig.stdio.ended)
    assert rig.stdio.ended
    assert {stream for stream, _ in rig.logged()} == {"stdout"}


class Peer:
    """A server whose requests are kept, and a raw client of it."""

    def __init__(self, loop: Loop, directory: Path) -> None:
        self.requests: list[tuple[Client, Message]] = []
        self.gone = 0
        self.server = Server(loop, self._take, self._left)
        self.server.listen(directory / "m.sock")
        self.socket = socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        with short_name(directory / "m.sock") as name:
            self.socket.connect(name)

    def _take(self, client: Client, request: Message, fds: list[int]) -> None:
        self.requests.append((client, request))

    def _left(self) -> None:
        self.gone += 1


def test_replies_may_come_later_and_out_of_order(loop: Loop, tmp_path: Path) -> None:
    """Each reply carries its request's seq, whenever it is given."""
    peer = Peer(loop, tmp_path)
    for number in (1, 2):
        sync.send(peer.socket, {"cmd": "x", "seq": number})
    run_for(loop, 0.05)
    (client, first), (_, second) = peer.requests
    client.answer(second, value="b")
    client.fail(first, "step", 2, "text")
    assert sync.receive(peer.socket)[0] == {"seq": 2, "ok": True, "value": "b"}
    assert sync.receive(peer.socket)[0] == {"seq": 1, "ok": False, "step": "step", "errno": 2, "text": "text"}
    peer.server.close()
    peer.socket.close()


def test_answer_to_a_client_that_left_is_dropped(loop: Loop, tmp_path: Path) -> None:
    """Going away changes nothing for the monitor."""
    peer = Peer(loop, tmp_path)
    sync.send(peer.socket, {"cmd": "x", "seq": 1})
    run_for(loop, 0.05)
    peer.socket.close()
    run_for(loop, 0.05)
    client, request = peer.requests[0]
    client.answer(request)
    assert peer.gone == 1
    assert peer.server.clients == []
    peer.server.close()


def test_client_that_does_not_read_is_cut_off(loop: Loop, tmp_path: Path) -> None:
    """Events queue up to a bound; past it the client is closed and the others go on."""
    peer = Peer(loop, tmp_path)
    run_for(loop, 0.05)
    data = base64.b64encode(b"x" * 30000).decode()
    for _ in range(QUEUE_BYTES // len(data) + 20):
        peer.server.broadcast("output", data=data)
    assert peer.server.clients == []
    peer.server.close()
    peer.socket.close()


def test_last_words_survive_the_end(loop: Loop, tmp_path: Path) -> None:
    """What was sent before close() is read after it, although requests of the client were still unread."""
    peer = Peer(loop, tmp_path)
    run_for(loop, 0.05)
    sync.send(peer.socket, {"cmd": "x", "seq": 1})
    peer.server.broadcast("exit", exit_code=3)
    peer.server.close()
    assert sync.receive(peer.socket)[0] == {"event": "exit", "exit_code": 3}
    assert sync.receive(peer.socket)[0] is None
    peer.socket.close()


def test_socket_path_may_be_long(loop: Loop, tmp_path: Path) -> None:
    """107 bytes are no limit: the directory is named through a descriptor."""
    deep = tmp_path / ("d" * 100) / ("e" * 100)
    deep.mkdir(parents=True)
    peer = Peer(loop, deep)
    sync.send(peer.socket, {"cmd": "x", "seq": 1})
    run_for(loop, 0.05)
    assert len(peer.requests) == 1
    peer.server.close()
    peer.socket.close()


def test_monitor_is_single_threaded_and_light(tmp_path: Path) -> None:
    """Started as the agent starts it, it imports neither gRPC nor anything outside the standard library, and has one thread."""
    root = Path(__file__).parents[4]
    code = (
        "import sys; sys.path.insert(0, sys.argv[1]); import agent.engine.monitor, threading;"
        "print(threading.active_count(), sorted(n for n in sys.modules if n.partition('.')[0] not in sys.stdlib_module_names))"
    )
    done = subprocess.run(
        [sys.executable, "-I", "-S", "-c", code, str(root)], capture_output=True, text=True, check=True
    )
    count, _, modules = done.stdout.strip().partition(" ")
    assert count == "1"
    foreign = [name for name in eval(modules) if name != "__main__" and name.partition(".")[0] != "agent"]
    assert foreign == []
