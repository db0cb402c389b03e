"""The door and dial, over real sockets and pipes; dial runs as its own process, as sshd would start it."""

from __future__ import annotations

import contextlib
import grp
import os
import socket
import subprocess
import tempfile
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from agent import dial, door
from agent.errors import AlreadyExists, InvalidArgument, TransferError, WrongState

pytestmark = pytest.mark.unit

MOVE = "0123456789abcdef0123456789abcdef"


class Host:
    """A door, the echoing "agent" behind it and a copy of dial that knows this door."""

    def __init__(self, directory: Path) -> None:
        self.directory = directory
        self.agent_socket = directory / "agent.sock"
        self.door = door.Door(directory / "door.sock", grp.getgrgid(os.getgid()).gr_name, self.agent_socket)
        self.dial = directory / "dial"
        source = Path(dial.__file__).read_text()
        self.dial.write_text(source.replace(f'DOOR = "{dial.DOOR}"', f'DOOR = "{directory}/door.sock"'))
        self.agent = socket.socket(socket.AF_UNIX)
        self.agent.bind(str(self.agent_socket))
        self.agent.listen(64)
        self.served = 0
        threading.Thread(target=self._serve, daemon=True).start()

    def _serve(self) -> None:
        while True:
            try:
                connection, _ = self.agent.accept()
            except OSError:
                return
            threading.Thread(target=self._echo, args=(connection,), daemon=True).start()

    def _echo(self, connection: socket.socket) -> None:
        with connection, contextlib.suppress(ConnectionError):  # some sessions end without waiting for the answer
            while (data := connection.recv(65536)) not in (b"", b"bye"):
                connection.sendall(data)
            connection.sendall(b"<end>")
        self.served += 1

    def run(self, command: str) -> subprocess.Popen[bytes]:
        argv = ["/usr/bin/python3", "-I", "-S", str(self.dial), "-c", command]
        return subprocess.Popen(argv, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.PIPE)


@pytest.fixture
def host() -> Iterator[Host]:
    with tempfile.TemporaryDirectory(prefix="htun") as directory:
        made = Host(Path(directory))
        made.door.start()
        yield made
        made.door.stop()
        made.agent.shutdown(socket.SHUT_RDWR)
        made.agent.close()


def hand_over(host: Host, line: bytes) -> tuple[socket.socket, int, int]:
    """What dial does, in this process: (connection, our end of its stdin, our end of its stdout)."""
    connection = socket.socket(socket.AF_UNIX)
    connection.connect(str(host.directory / "door.sock"))
    stdin_read, stdin_write = os.pipe()
    stdout_read, stdout_write = os.pipe()
    with contextlib.suppress(BrokenPipeError):  # refused unheard
        socket.send_fds(connection, [line], [stdin_read, stdout_write])
    os.close(stdin_read)
    os.close(stdout_write)
    return connection, stdin_write, stdout_read


def read_all(fd: int) -> bytes:
    with open(fd, "rb") as stream:
        return stream.read()


def open_fds() -> int:
    return sum(1 for _ in Path("/proc/self/fd").iterdir())


def eventually(fact: object, expected: object, timeout_s: float = 60) -> None:
    deadline = time.monotonic() + timeout_s
    while (seen := fact()) != expected:  # type: ignore[operator]
        assert time.monotonic() < deadline, f"{seen!r} is not {expected!r}"
        time.sleep(0.01)


def test_control_carries_bytes_and_half_close(host: Host) -> None:
    """More bytes than any buffer come back unchanged, and what the agent says after our end of file still arrives."""
    payload = os.urandom(3 << 20)
    process = host.run("control")
    out, err = process.communicate(payload, timeout=20)
    assert (process.returncode, err) == (0, b"")
    assert out == payload + b"<end>"


@pytest.mark.parametrize("end", ["the agent closes", "the door stops"])
def test_control_ends_with_the_agent(host: Host, end: str) -> None:
    """When the agent closes the connection, or stops, dial ends although its stdin is still open."""
    process = host.run("control")
    process.stdin.write(b"x")
    process.stdin.flush()
    assert process.stdout.read(1) == b"x"
    if end == "the agent closes":
        process.stdin.write(b"bye")
        process.stdin.flush()
    else:
        host.door.stop()
    assert process.wait(5) == 0
    process.communicate()


def test_control_notices_that_ssh_died(host: Host) -> None:
    """A killed dial, or an ssh that closed its pipes, ends the session on the agent's side too."""
    process = host.run("control")
    process.stdin.write(b"x")
    process.stdin.flush()
    assert process.stdout.read(1) == b"x"
    process.kill()
    eventually(lambda: host.served, 1)
    process.communicate()
    connection, write, read = hand_over(host, b'{"verb": "control"}\n')
    os.write(write, b"y")
    assert os.read(read, 1) == b"y"
    os.close(read)  # nobody will read: POLLERR on the agent's side
    eventually(lambda: host.served, 2)
    os.close(write)
    connection.close()


def test_no_descriptor_is_left(host: Host) -> None:
    """150 sessions of every kind, good and bad, leave as many descriptors open as there were before."""
    for count in (20, 150):  # the first batch warms up whatever is opened once
        before = open_fds()
        for number in range(count):
            line = (b'{"verb": "control"}\n', b'{"verb": "nonsense"}\n', b'{"verb": "bulk", "migration": "00"}\n')[
                number % 3
            ]
            connection, write, read = hand_over(host, line)
            os.close(write)
            assert read_all(read) == (b"<end>" if number % 3 == 0 else b"")
            connection.close()
        eventually(open_fds, before)


def test_many_sessions_at_once(host: Host) -> None:
    """Forty sessions side by side each get their own bytes."""
    opened = [hand_over(host, b'{"verb": "control"}\n') for _ in range(40)]
    for number, (_, write, _) in enumerate(opened):
        os.write(write, b"session %d" % number)
        os.close(write)
    for number, (connection, _, read) in enumerate(opened):
        assert read_all(read) == b"session %d<end>" % number
        connection.close()


def test_bulk_hands_over_the_pipes(host: Host) -> None:
    """The receiver gets ssh's own pipes, reads and writes them, and dial lives until it closes the connection."""
    with host.door.expect(MOVE) as waiting:
        process = host.run(f"bulk {MOVE}")
        rx, tx, connection = waiting.wait(10)
        process.stdin.write(b"pages")
        process.stdin.close()
        process.stdin = None
        assert read_all(rx) == b"pages"
        os.write(tx, b"confirmed")
        os.close(tx)
        with pytest.raises(subprocess.TimeoutExpired):
            process.wait(0.3)
        connection.close()
        assert process.communicate(timeout=5) == (b"confirmed", b"")
        assert process.returncode == 0


def test_no_child_of_the_agent_inherits_a_tunnel(host: Host) -> None:
    """The pipes and the connection are close-on-exec: a monitor started meanwhile would keep a dead tunnel open."""
    with host.door.expect(MOVE) as waiting:
        process = host.run(f"bulk {MOVE}")
        rx_fd, tx_fd, connection = waiting.wait(5)
        inheritable = [os.get_inheritable(fd) for fd in (rx_fd, tx_fd, connection.fileno())]
        os.close(rx_fd)
        os.close(tx_fd)
        connection.close()
        process.communicate(timeout=20)
    assert inheritable == [False, False, False]


def test_bulk_for_nobody_is_refused(host: Host) -> None:
    """A migration that nothing waits for: the ssh client reads why and gets status 1, and nothing hangs."""
    with host.door.expect(MOVE):
        process = host.run("bulk 00ff")
        out, err = process.communicate(timeout=10)
    assert (process.returncode, out) == (1, b"")
    assert err == b"dial: no migration 00ff waits for a tunnel here\n"


def test_a_move_gets_one_tunnel(host: Host) -> None:
    """The second dial of a move is refused; after expect() anew, one more is let in."""
    with host.door.expect(MOVE) as waiting:
        first = hand_over(host, b'{"verb": "bulk", "migration": "%s"}\n' % MOVE.encode())
        rx, tx, connection = waiting.wait(5)
        second = hand_over(host, b'{"verb": "bulk", "migration": "%s"}\n' % MOVE.encode())
        assert b"no migration" in second[0].recv(200)
        with host.door.expect(MOVE) as again:
            third = hand_over(host, b'{"verb": "bulk", "migration": "%s"}\n' % MOVE.encode())
            for thing in again.wait(5):
                thing.close() if isinstance(thing, socket.socket) else os.close(thing)
    for fd in (rx, tx, *first[1:], *second[1:], *third[1:]):
        os.close(fd)
    for thing in (connection, first[0], second[0], third[0]):
        thing.close()


def test_waiting_has_an_end(host: Host) -> None:
    """wait() gives up after its time, naming the move; a tunnel that comes too late is closed with the Waiting."""
    waiting = host.door.expect(MOVE)
    with pytest.raises(TransferError, match=MOVE):
        waiting.wait(0.05)
    with pytest.raises(AlreadyExists):
        host.door.expect(MOVE)
    connection, write, read = hand_over(host, b'{"verb": "bulk", "migration": "%s"}\n' % MOVE.encode())
    time.sleep(0.2)
    waiting.close()
    assert read_all(read) == b""
    os.close(write)
    connection.close()
    with pytest.raises(TransferError):
        waiting.wait(1)
    host.door.expect(MOVE).close()


def test_garbage_is_refused(host: Host) -> None:
    """Not JSON, no descriptors, too many, wrong types: one line back, descriptors closed, the door goes on."""
    for line in (b"hello\n", b"[]\n", b'{"verb": "bulk"}\n', b'{"verb": "bulk", "migration": "../x"}\n', b"{}\n"):
        connection, write, read = hand_over(host, line)
        assert connection.recv(200).endswith(b"\n"), line
        assert read_all(read) == b""
        os.close(write)
        connection.close()
    for fds in (0, 1, 3):
        with socket.socket(socket.AF_UNIX) as connection, open("/dev/null") as null:
            connection.connect(str(host.directory / "door.sock"))
            if fds:
                socket.send_fds(connection, [b'{"verb": "control"}\n'], [null.fileno()] * fds)
            else:
                connection.sendall(b'{"verb": "control"}\n')
            assert connection.recv(200) != b""
    assert host.run("control").communicate(b"still", timeout=10)[0] == b"still<end>"


def test_a_silent_client_is_dropped(host: Host, monkeypatch: pytest.MonkeyPatch) -> None:
    """Who says nothing is dropped after the deadline, and the waiting room has a size; then others get in again."""
    monkeypatch.setattr(door, "HEADER_TIMEOUT_S", 0.5)
    silent = [socket.socket(socket.AF_UNIX) for _ in range(door.MAX_PENDING + 8)]
    for connection in silent:
        connection.connect(str(host.directory / "door.sock"))
    started = time.monotonic()
    assert b"no request within" in silent[0].recv(200)
    assert time.monotonic() - started < 3
    assert b"too many" in silent[-1].recv(200)  # above the limit: told at once, no thread
    for connection in silent:
        connection.close()
    assert host.run("control").communicate(b"x", timeout=10)[0] == b"x<end>"


def test_only_the_group_is_let_in(host: Host, monkeypatch: pytest.MonkeyPatch) -> None:
    """SO_PEERCRED decides, not the file's mode: a peer outside of root and the group is refused by its uid."""
    real = door.struct.unpack
    monkeypatch.setattr(door.struct, "unpack", lambda form, data: (real(form, data)[0], 4242, 4242))
    connection, write, read = hand_over(host, b'{"verb": "control"}\n')
    assert b"uid 4242 is not in group" in connection.recv(200)
    assert read_all(read) == b""
    os.close(write)
    connection.close()


def test_dial_reads_the_refusal_of_a_door_that_did_not_listen(tmp_path: Path) -> None:
    """A door that refuses before it has read the request: dial still shows its line, and ends with 1."""
    path = tmp_path / "door.sock"
    copy = tmp_path / "dial"
    copy.write_text(Path(dial.__file__).read_text().replace(dial.DOOR, str(path)))
    with socket.socket(socket.AF_UNIX) as listener:
        listener.bind(str(path))
        listener.listen(1)
        argv = ["/usr/bin/python3", "-I", "-S", str(copy), "-c", "control"]
        process = subprocess.Popen(argv, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.PIPE)
        connection, _ = listener.accept()
        with connection:
            connection.sendall(b"go away\n")
        out, err = process.communicate(timeout=10)
    assert (process.returncode, out, err) == (1, b"", b"dial: go away\n")


def test_the_socket_is_closed_to_others(host: Host) -> None:
    """Mode 0660, and stop() removes it."""
    path = host.directory / "door.sock"
    assert path.stat().st_mode & 0o777 == 0o660
    host.door.stop()
    assert not path.exists()


def test_a_dead_agents_socket_is_replaced_a_living_ones_not(host: Host) -> None:
    """start() takes over a stale file, and refuses while somebody serves it."""
    path = host.directory / "stale.sock"
    with socket.socket(socket.AF_UNIX) as dead:
        dead.bind(str(path))
    second = door.Door(path, "nosuchgroup", host.agent_socket)
    second.start()
    with pytest.raises(WrongState, match="stale"):
        door.Door(path, "nosuchgroup", host.agent_socket).start()
    second.stop()


@pytest.mark.parametrize("bad", ["", "-x", "A0", "0/0", "00\n", "0 0", "0" * 65, "é"])
def test_ids_that_are_none(host: Host, bad: str) -> None:
    """Only hexadecimal digits and hyphens make a migration id, for the door as for dial."""
    with pytest.raises(InvalidArgument):
        host.door.expect(bad)
    assert dial.parse(["dial", "-c", f"bulk {bad}"]) is None


@pytest.mark.parametrize(
    "command", ["", "sh", "control x", "control; id", "bulk", "internal-sftp", "CONTROL", "control\n"]
)
def test_dial_has_two_verbs(host: Host, command: str) -> None:
    """Anything but `control` and `bulk ID` is one line on stderr and status 126, without touching the door."""
    process = host.run(command)
    out, err = process.communicate(timeout=10)
    assert (process.returncode, out) == (126, b"")
    assert err.count(b"\n") == 1


def test_dial_as_a_login_shell() -> None:
    """Started without -c, as for an interactive login, dial refuses too."""
    process = subprocess.run(["/usr/bin/python3", "-I", "-S", dial.__file__], capture_output=True, timeout=10)
    assert process.returncode == 126


def test_dial_without_an_agent(tmp_path: Path) -> None:
    """No door: the ssh client reads which socket is missing, status 1."""
    copy = tmp_path / "dial"
    copy.write_text(Path(dial.__file__).read_text().replace(dial.DOOR, str(tmp_path / "none")))
    argv = ["/usr/bin/python3", "-I", "-S", str(copy), "-c", "control"]
    process = subprocess.run(argv, capture_output=True, stdin=subprocess.DEVNULL, timeout=10)
    assert process.returncode == 1
    assert str(tmp_path / "none").encode() in process.stderr


def test_a_move_of_several_connections_waits_for_all_of_them(host: Host) -> None:
    """They are handed over together; one more is nobody's, and so are those that came when it is given up."""
    waiting = host.door.expect(MOVE, 2)
    line = f'{{"verb": "bulk", "migration": "{MOVE}"}}\n'.encode()
    first = hand_over(host, line)
    with pytest.raises(TransferError, match="or not all 2 connections"):
        waiting.wait_all(0.2)
    second = hand_over(host, line)
    tunnels = waiting.wait_all(20)
    assert len(tunnels) == 2
    third = hand_over(host, line)
    assert b"no migration" in third[0].recv(4096)
    for rx_fd, tx_fd, connection in tunnels:
        os.close(rx_fd)
        os.close(tx_fd)
        connection.close()
    again = host.door.expect(MOVE, 2)
    fourth = hand_over(host, line)
    eventually(lambda: len(again._tunnels), 1)
    again.close()
    assert fourth[0].recv(1) == b""
    for connection, *fds in (first, second, third, fourth):
        connection.close()
        for fd in fds:
            os.close(fd)
