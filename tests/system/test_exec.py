"""Sessions in a running container, from the request to the exit code."""

from __future__ import annotations

import errno
import os
import signal
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from agent.engine import enter
from agent.engine.attach import Output
from agent.engine.session import Session, SessionError
from tests.system.small_container import SmallContainer, busybox_like_layer, plan

pytestmark = pytest.mark.system


@pytest.fixture(scope="module")
def container(tmp_path_factory: pytest.TempPathFactory) -> Iterator[SmallContainer]:
    directory = tmp_path_factory.mktemp("exec")
    the_plan = plan(directory, argv=["sh", "-c", "while :; do sleep 1; done"])
    with SmallContainer(directory, [busybox_like_layer(directory)], the_plan) as small:
        small.start()
        assert small.error is None
        yield small


def request(container: SmallContainer, argv: list[str], **changes: Any) -> enter.Request:
    stat = Path(f"/proc/{container.pid}/stat").read_text().rpartition(")")[2].split()
    values: enter.Request = {
        "pid": container.pid,
        "start_ticks": int(stat[19]),
        "cgroups": [],
        "argv": argv,
        "env": [],
        "cwd": "/",
        "user": "",
        "capabilities": container.plan["capabilities"],
        "hostname": "small",
        "rlimits": {},
        "oom_score_adj": 0,
        "tty": False,
        "rows": 0,
        "columns": 0,
    }
    values.update(changes)  # type: ignore[typeddict-item]
    return values


class Reader:
    """Reads a session's output piece by piece: what has come so far, by stream."""

    def __init__(self, running: Session) -> None:
        self.streams = {"stdout": b"", "stderr": b""}
        self._output = iter(running)

    def until(self, text: bytes) -> bytes:
        while text not in self.streams["stdout"]:
            self._take(next(self._output))
        return self.streams["stdout"]

    def rest(self) -> bytes:
        for piece in self._output:
            self._take(piece)
        return self.streams["stdout"]

    def _take(self, piece: Output) -> None:
        self.streams[piece.stream] += piece.data


def run(container: SmallContainer, script: str, **changes: Any) -> tuple[int | None, bytes, bytes]:
    with Session(request(container, ["sh", "-c", script], **changes), stdin=False) as running:
        reader = Reader(running)
        reader.rest()
        return running.exit_code, reader.streams["stdout"], reader.streams["stderr"]


def namespaces_of(pid: int | str) -> dict[str, str]:
    return {path.name: str(path.readlink()) for path in Path(f"/proc/{pid}/ns").iterdir()}


def test_exit_code_and_both_streams(container: SmallContainer) -> None:
    """Output arrives on the stream that it was written to, and so does the exit code."""
    assert run(container, "echo out; echo err >&2; exit 3") == (3, b"out\n", b"err\n")


def test_a_session_is_in_every_namespace_of_the_container(container: SmallContainer) -> None:
    """The program shares each namespace with init; this process shares none that it did not share before."""
    before = namespaces_of("self")
    with Session(request(container, ["sleep", "30"])) as session:
        inside, init = namespaces_of(session.pid), namespaces_of(container.pid)
        session.signal(signal.SIGKILL)
        assert list(session) == []
        assert session.exit_code == 128 + signal.SIGKILL
    assert inside == init
    assert namespaces_of("self") == before


def test_privileges_are_those_of_the_container(container: SmallContainer) -> None:
    """A session as root has the bounding set that init has, and no new privileges."""
    fields = "^(Cap|NoNew|Uid)"
    _, out, _ = run(container, f"grep -E '{fields}' /proc/self/status")
    expected = [
        line for line in Path(f"/proc/{container.pid}/status").read_text().splitlines() if line[:3] in ("Cap", "NoN")
    ]
    assert [line for line in out.decode().splitlines() if line[:3] in ("Cap", "NoN")] == expected
    assert b"Uid:\t0\t0\t0\t0" in out


def test_user_directory_and_environment(container: SmallContainer) -> None:
    """User, working directory and environment are the request's, with the container's defaults."""
    script = "id -u; pwd; echo $HOME $HOSTNAME $A $TERM $PATH"
    status, out, err = run(container, script, user="app", cwd="/home/app", env=["A=1"])
    assert (status, err) == (0, b"")
    path = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"
    assert out.decode().splitlines() == ["1000", "/home/app", f"/home/app small 1 {path}"]


def test_stdin_is_given_and_ends(container: SmallContainer) -> None:
    """A megabyte of input comes back in order, and the end of input ends the program."""
    data = os.urandom(1 << 20)
    with Session(request(container, ["cat"])) as session:

        def give() -> None:
            session.write(data)
            session.close_stdin()

        writer = threading.Thread(target=give)
        writer.start()
        assert Reader(session).rest() == data
        writer.join()
        assert session.exit_code == 0


def test_without_stdin_the_program_reads_nothing(container: SmallContainer) -> None:
    """A session that asked for no input sees an end of file at once."""
    assert run(container, "cat; echo done") == (0, b"done\n", b"")


def test_a_terminal_has_a_name_and_a_size(container: SmallContainer) -> None:
    """With a tty the program has a terminal of the container's own devpts, with the client's size, and sees resizes."""
    script = "tty; stty size; trap 'stty size; exit 9' WINCH; echo r''eady; while :; do sleep 0.1; done"
    with Session(request(container, ["sh", "-c", script], tty=True, rows=33, columns=99, user="app")) as session:
        reader = Reader(session)
        reader.until(b"ready")
        session.resize(44, 111)
        seen = reader.rest()
        assert session.exit_code == 9
    assert seen.replace(b"\r", b"").split(b"\n")[:4] == [b"/dev/pts/0", b"33 99", b"ready", b"44 111"]


def test_the_terminals_interrupt_key_works(container: SmallContainer) -> None:
    """^C typed into a session's terminal interrupts the program: the terminal controls its session."""
    with Session(request(container, ["sh", "-c", "echo r''eady; exec sleep 60"], tty=True)) as session:
        reader = Reader(session)
        reader.until(b"ready")
        session.write(b"\x03")
        reader.rest()
        assert session.exit_code == 128 + signal.SIGINT


def test_two_sessions_have_two_terminals(container: SmallContainer) -> None:
    """Sessions at the same time do not share a terminal."""
    with (
        Session(request(container, ["sh", "-c", "tty; sleep 60"], tty=True)) as first,
        Session(request(container, ["sh", "-c", "tty; sleep 60"], tty=True)) as second,
    ):
        names = {Reader(session).until(b"\n") for session in (first, second)}
        assert names == {b"/dev/pts/0\r\n", b"/dev/pts/1\r\n"}


@pytest.mark.parametrize(
    ("changes", "step", "number"),
    [
        ({"argv": ["no-such-program"]}, "exec", errno.ENOENT),
        ({"argv": ["/etc/passwd"]}, "exec", errno.EACCES),
        ({"user": "bob"}, "user", errno.ENOENT),
        ({"cwd": "/etc/passwd"}, "cwd", errno.ENOTDIR),
        ({"start_ticks": 12345}, "enter", errno.ESRCH),
        ({"cgroups": ["/sys/fs/cgroup/no-such-thing"]}, "cgroup", errno.ENOENT),
    ],
)
def test_what_cannot_start_says_which_step_and_why(
    container: SmallContainer, changes: dict[str, Any], step: str, number: int
) -> None:
    """A session that cannot start is an error with step, errno and a hint, and leaves no process."""
    children = Path(f"/proc/self/task/{os.getpid()}/children")
    before = set(children.read_text().split())
    with pytest.raises(SessionError) as caught:
        Session(request(container, **{"argv": ["true"], **changes}))
    assert (caught.value.step, caught.value.errno) == (step, number)
    assert set(children.read_text().split()) <= before


def test_signals_reach_the_program(container: SmallContainer) -> None:
    """A signal sent to a session arrives at its program, whatever user that runs as."""
    script = "trap 'exit 21' USR1; echo ready; while :; do sleep 0.1; done"
    with Session(request(container, ["sh", "-c", script], user="app")) as session:
        reader = Reader(session)
        reader.until(b"ready\n")
        session.signal(signal.SIGUSR1)
        reader.rest()
        assert session.exit_code == 21


def test_letting_go_of_a_session_ends_it(container: SmallContainer) -> None:
    """A client that goes away leaves no program behind, not even one that ignores the hang-up."""
    script = "trap '' HUP; echo ready; while :; do sleep 0.1; done"
    session = Session(request(container, ["sh", "-c", script]))
    Reader(session).until(b"ready\n")
    pid = session.pid
    started = time.monotonic()
    session.close()
    assert not Path(f"/proc/{pid}").exists()
    assert time.monotonic() - started < enter.HANG_UP_GRACE_S + 3


def test_a_session_joins_the_containers_cgroups(container: SmallContainer) -> None:
    """The program is in the cgroups that the request names; the helper that waits for it is not."""
    directory = Path("/sys/fs/cgroup/unified")
    if not (directory / "cgroup.procs").exists():
        directory = Path("/sys/fs/cgroup")
    directory = directory / f"hinit-{os.getpid()}"
    directory.mkdir()
    try:
        with Session(request(container, ["sleep", "30"], cgroups=[str(directory)])) as session:
            assert (directory / "cgroup.procs").read_text().split() == [str(session.pid)]
    finally:
        directory.rmdir()


def test_no_descriptor_of_the_helper_gets_in(container: SmallContainer) -> None:
    """A session's program has 0, 1 and 2 and nothing else."""
    assert run(container, "ls /proc/self/fd")[1].split() == [b"0", b"1", b"2", b"3"]


def test_the_end_of_the_container_ends_its_sessions(tmp_path: Path) -> None:
    """When init dies its sessions are killed with it, and their clients learn so."""
    with SmallContainer(tmp_path, [busybox_like_layer(tmp_path)], plan(tmp_path, argv=["sleep", "60"])) as small:
        small.start()
        with Session(request(small, ["sleep", "60"])) as session:
            os.kill(small.pid, signal.SIGKILL)
            assert list(session) == []
            assert session.exit_code == 128 + signal.SIGKILL


def test_what_a_program_leaves_behind_does_not_hold_the_session(container: SmallContainer) -> None:
    """A background process with the pipe in its hands does not keep the session open after the program's end."""
    started = time.monotonic()
    assert run(container, "sleep 30 & echo out; exit 4") == (4, b"out\n", b"")
    assert time.monotonic() - started < 10


def test_hanging_up_ends_reader_and_writer(container: SmallContainer) -> None:
    """A client that goes away while its program reads nothing and writes nothing leaves no thread of ours waiting."""
    session = Session(request(container, ["sleep", "60"]))
    refused: list[int | None] = []

    def give() -> None:
        try:
            session.write(b"x" * (1 << 20))  # more than a pipe holds
        except OSError as exc:
            refused.append(exc.errno)

    writer = threading.Thread(target=give)
    writer.start()
    threading.Timer(0.3, session.hang_up).start()
    assert list(session) == []
    assert session.exit_code is None
    session.close()
    writer.join(5)
    assert refused and refused[0] in (errno.EBADF, errno.EPIPE)
