"""What CRIU cannot save is found in real processes that have it: by pid, descriptor and path."""

from __future__ import annotations

import fcntl
import json
import os
import pty
import socket
import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from pathlib import Path

import pytest

from agent.scan import container, tmpfs
from agent.scan.finding import Blocker

pytestmark = pytest.mark.system

PROGRAM = Path(__file__).resolve().parents[1] / "workloads" / "hard_to_dump.py"
GHOST_LIMIT = 256 << 20


class Holding:
    """A process that holds things; `found()` is what the scan of it and its children says."""

    def __init__(self, directory: Path, *things: str, pass_fds: tuple[int, ...] = ()) -> None:
        argv = [sys.executable, str(PROGRAM), str(directory), *things]
        self.process = subprocess.Popen(argv, stdin=subprocess.PIPE, stdout=subprocess.PIPE, pass_fds=pass_fds)
        assert self.process.stdout is not None
        line = self.process.stdout.readline()
        self.said = json.loads(line or "{}")
        if not self.said:
            self.process.communicate()
        assert self.said, f"it holds nothing: exit status {self.process.returncode}"

    @property
    def pids(self) -> list[int]:
        children = Path(f"/proc/{self.process.pid}/task/{self.process.pid}/children").read_text().split()
        return [self.process.pid, *map(int, children)]

    def found(self, *others: int, ghost_limit: int = GHOST_LIMIT) -> list[Blocker]:
        pids = [*self.pids, *others]
        return container.scan("web1", self.process.pid, pids, ghost_limit=ghost_limit, ahead=hosts_tmpfs())


def hosts_tmpfs() -> set[str]:
    """Those of this machine, which a process here has too, unlike a container: what others keep in them is no matter."""
    return set(tmpfs.sizes(os.getpid()))


Hold = Callable[..., Holding]


@pytest.fixture
def hold(tmp_path: Path) -> Iterator[Hold]:
    held: list[Holding] = []

    def begin(*things: str, pass_fds: tuple[int, ...] = ()) -> Holding:
        held.append(Holding(tmp_path, *things, pass_fds=pass_fds))
        return held[-1]

    yield begin
    for each in held:
        each.process.communicate()


def test_an_ordinary_program_has_nothing_against_it(hold: Hold) -> None:
    """Small deleted files, watches on other file systems, its own locks, ptys and sockets: none of them is told."""
    assert hold("ordinary").found() == []


@pytest.mark.parametrize(
    ("thing", "check", "path", "warning"),
    [
        ("io_uring", "io-uring", "anon_inode:[io_uring]", False),
        ("perf_event", "perf-event", "anon_inode:[perf_event]", False),
        ("userfaultfd", "userfaultfd", "anon_inode:[userfaultfd]", False),
        ("landlock", "kernel-object", "anon_inode:[landlock-ruleset]", False),
        ("mptcp", "mptcp", "socket:[", False),
        ("vsock", "socket-kind", "socket:[", False),
        ("packet", "raw-socket", "socket:[", True),
        ("raw", "raw-socket", "socket:[", True),
        ("not_accepted", "half-open", "socket:[", True),
        ("device", "device-open", "/dev/fuse", False),
        ("deleted_file", "deleted-file", "/log (deleted)", True),
        ("deleted_mapping", "deleted-mapping", "/data (deleted)", True),
        ("watch_on_overlay", "inotify-overlay", "anon_inode:inotify", False),
    ],
)
def test_what_a_process_has_open(hold: Hold, thing: str, check: str, path: str, warning: bool) -> None:
    """One finding, of this process and this descriptor, with what to do."""
    holding = hold(thing)
    (one,) = holding.found()
    assert (one.check, one.warning, one.pid) == (check, warning, holding.process.pid)
    assert one.descriptor == str(holding.said[thing])
    assert path in one.path
    assert f"pid {one.pid} (python" in one.where
    assert one.remedy


def test_secret_memory(hold: Hold) -> None:
    """Open and mapped: each is told."""
    holding = hold("memfd_secret")
    found = holding.found()
    assert {each.check for each in found} == {"memfd-secret"}
    assert {each.descriptor for each in found} == {str(each) for each in (holding.said["memfd_secret"], "mapped")} | {
        each.descriptor
        for each in found
        if each.descriptor.isdigit()  # mmap keeps a descriptor of its own
    }


def test_a_deleted_file_above_the_limit(hold: Hold) -> None:
    """CRIU refuses it: no warning any more."""
    (one,) = hold("deleted_file").found(ghost_limit=10 << 20)
    assert (one.check, one.warning, "20 MiB" in one.what) == ("deleted-file", False, True)


def test_a_unix_socket_with_a_program_outside(hold: Hold, tmp_path: Path) -> None:
    """By path, as of a mounted /run/x.sock; and one that was inherited."""
    with ExitStack() as opened:
        server = opened.enter_context(socket.socket(socket.AF_UNIX))
        server.bind(str(tmp_path / "outside.sock"))
        server.listen()
        ours, theirs = socket.socketpair()
        opened.callback(ours.close)
        holding = hold("connected_outside", pass_fds=(theirs.fileno(),))
        inherited = str(theirs.fileno())
        theirs.close()
        accepted, _ = server.accept()
        opened.callback(accepted.close)
        found = {each.descriptor: each for each in holding.found()}
    assert {each.check for each in found.values()} == {"unix-peer"}
    assert set(found) == {inherited, str(holding.said["connected_outside"])}
    assert "not of the container's network" in found[inherited].what
    assert "connected to a program outside" in found[str(holding.said["connected_outside"])].what


def test_a_lock_of_somebody_outside(hold: Hold, tmp_path: Path) -> None:
    """Told with whose it is, while there is one."""
    (tmp_path / "locked").touch()
    holding = hold("locked_outside")
    assert holding.found() == []
    with (tmp_path / "locked").open() as file:
        fcntl.flock(file, fcntl.LOCK_SH)
        (one,) = holding.found()
    assert (one.check, one.warning, one.descriptor) == ("file-lock", True, str(holding.said["locked_outside"]))
    assert f"pid {os.getpid()} outside" in one.what


def test_a_terminal_of_another_devpts(hold: Hold) -> None:
    """Its other end is with us."""
    master, slave = pty.openpty()
    try:
        moved = fcntl.fcntl(slave, fcntl.F_DUPFD, 3)
        os.set_inheritable(moved, True)
        argv = f"exec 3<&{moved} {moved}<&-; exec {sys.executable} {PROGRAM} / terminal_outside"
        with subprocess.Popen(
            ["/bin/bash", "-c", argv], pass_fds=(moved,), stdin=subprocess.PIPE, stdout=subprocess.PIPE
        ) as process:
            assert process.stdout is not None
            assert process.stdout.readline()
            found = container.scan("web1", process.pid, [process.pid], ghost_limit=GHOST_LIMIT, ahead=hosts_tmpfs())
            process.communicate()
        os.close(moved)
    finally:
        os.close(master)
        os.close(slave)
    assert [(each.check, each.descriptor) for each in found] == [("pty-peer", "3")]


def test_a_segment_of_the_hosts(hold: Hold) -> None:
    """SysV memory that is in no IPC namespace of the container's."""
    (one,) = hold("hosts_segment").found()
    assert (one.check, one.descriptor, one.path[:5]) == ("sysv-ipc", "mapped", "/SYSV")


def test_a_large_tmpfs(hold: Hold, tmp_path: Path) -> None:
    """One that a program has mounted itself; what goes ahead as files is not told."""
    holding = hold("big_tmpfs")
    point = str(tmp_path / "memory")
    (one,) = holding.found()
    assert (one.check, one.warning, one.path) == ("tmpfs", True, point)
    pid = holding.process.pid
    assert container.scan("web1", pid, [pid], ghost_limit=GHOST_LIMIT, ahead={point} | hosts_tmpfs()) == []


def test_what_processes_are(hold: Hold) -> None:
    """One that is traced, one with a host name of its own, one that came in from outside. A network of its own is no matter."""
    holding = hold("traced", "nested_uts", "nested_net")
    with subprocess.Popen(["/bin/sleep", "60"]) as stranger:
        found = {each.check: each for each in holding.found(stranger.pid) if each.check != "nested-namespace"}
        nested = [each for each in holding.found() if each.check == "nested-namespace"]
        stranger.kill()
    assert {check: each.pid for check, each in found.items()} == {
        "ptrace": holding.said["traced"],
        "exec": stranger.pid,
    }
    assert f"traced by pid {holding.process.pid}" in found["ptrace"].what
    assert [each.pid for each in nested] == [holding.said["nested_uts"]]
    assert "uts namespace" in nested[0].what


def test_a_container_that_has_just_ended() -> None:
    """Nothing to find, and no error."""
    with subprocess.Popen(["/bin/true"]) as process:
        process.wait()
    assert container.scan("web1", process.pid, [process.pid], ghost_limit=GHOST_LIMIT, ahead=()) == []
    assert container.scan("web1", 0, [], ghost_limit=GHOST_LIMIT, ahead=()) == []
