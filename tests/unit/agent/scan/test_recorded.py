"""What cannot be made on this machine: a GPU, a job at a terminal; and what a recorded /proc is read as."""

from __future__ import annotations

import dataclasses
import os
from pathlib import Path

import pytest

from agent.scan import descriptors, procfs, sockets, tasks, tmpfs, watches
from agent.scan.finding import Blocker
from agent.scan.procfs import Connection, Mount, OpenFile, Snapshot, Task

pytestmark = pytest.mark.unit

LIMIT = 256 << 20
OVERLAY = Mount(number=40, device=(0, 52), kind="overlay", point="/")
INIT = Task(pid=100, name="train.py", inner=1, parent=90, namespaces={"pid": "pid:[1]", "mnt": "mnt:[1]"})


def seen(*files: OpenFile, **changes: object) -> Snapshot:
    return Snapshot(init=100, tasks=(dataclasses.replace(INIT, files=files, **changes),), mounts=(OVERLAY,))  # type: ignore[arg-type]


def opened(target: str, **values: object) -> OpenFile:
    return OpenFile(descriptor="7", target=target, **values)  # type: ignore[arg-type]


def one(found: list[Blocker]) -> Blocker:
    (only,) = found
    return only


def test_a_gpu() -> None:
    """Told as what it is; /dev/null and terminals are not told."""
    gpu = opened("/dev/nvidia0", kind="char", number=(195, 0))
    found = one(list(descriptors.check(seen(gpu), LIMIT)))
    assert (found.check, found.pid, found.descriptor, found.path) == ("device-open", 100, "7", "/dev/nvidia0")
    assert "c 195:0" in found.what
    assert "GPU" in found.what
    usual = (opened("/dev/null", kind="char", number=(1, 3)), opened("/dev/pts/0", kind="char", number=(136, 0)))
    assert list(descriptors.check(seen(*usual), LIMIT)) == []
    mapped = dataclasses.replace(gpu, descriptor="mapped", target="/dev/dri/card0", number=(226, 0))
    assert "is mapped" in one(list(descriptors.check(seen(mapped=(mapped,)), LIMIT))).what


def test_a_disk() -> None:
    """A block device."""
    assert "b 8:0" in one(list(descriptors.check(seen(opened("/dev/sda", kind="block", number=(8, 0))), LIMIT))).what


def test_a_job_in_the_foreground() -> None:
    """/dev/tty of a process whose session leader waits for it."""
    file = opened("/dev/tty", kind="char", number=(5, 0))
    assert one(list(descriptors.check(seen(file, leads=False), LIMIT))).check == "terminal"
    assert list(descriptors.check(seen(file), LIMIT)) == []


def test_a_deleted_file_is_told_once() -> None:
    """Two processes have it open and mapped."""
    file = opened("/srv/log (deleted)", kind="regular", device=(0, 52), inode=9, size=300 << 20, links=0)
    task = dataclasses.replace(INIT, files=(file,), mapped=(dataclasses.replace(file, descriptor="mapped"),))
    both = Snapshot(init=100, tasks=(task, dataclasses.replace(task, pid=101, parent=100)))
    found = one(list(descriptors.check(both, LIMIT)))
    assert (found.check, found.warning, "/srv/log is deleted" in found.what) == ("deleted-file", False, True)
    held = dataclasses.replace(file, links=1)  # by another name: CRIU links it
    memory = dataclasses.replace(file, target="/memfd:x (deleted)")
    assert list(descriptors.check(seen(held, memory), LIMIT)) == []


def test_connections_are_told_by_their_listener() -> None:
    """Half of a handshake, and one that waits in the queue; one that a process has is no matter."""
    listener = OpenFile(descriptor="4", target="socket:[77]", kind="socket", inode=77, protocol="TCPv6")
    states = [(80, 10, 77), (80, 3, 0), (80, 1, 0), (80, 1, 78), (81, 1, 0)]
    connections = tuple(Connection(port=port, state=state, inode=inode) for port, state, inode in states)
    found = one(list(sockets.check(dataclasses.replace(seen(listener), connections=connections), None)))
    assert (found.check, found.warning, found.descriptor) == ("half-open", True, "4")
    assert found.what.startswith("2 connections to port 80 ")


def test_an_end_that_is_on_its_way() -> None:
    """A unix socket in another one's queue is in nobody's table: then nobody is sure that it is outside."""
    ends = [OpenFile(descriptor="3", target="socket:[5]", kind="socket", inode=5, protocol="UNIX-STREAM")]
    table = [{"inode": 5, "peer": 6}, {"inode": 6, "peer": 5}, {"inode": 8, "peer": 0}]
    assert not one(list(sockets.check(seen(*ends), table))).warning
    ends.append(OpenFile(descriptor="4", target="socket:[8]", kind="socket", inode=8, protocol="UNIX", passing=1))
    assert one(list(sockets.check(seen(*ends), table))).warning


def test_threads_that_are_traced_and_sandboxes() -> None:
    """The thread is named where it is not the first; namespaces that CRIU can dump below init are left out."""
    spaces = {"pid": "pid:[2]", "mnt": "mnt:[2]", "net": "net:[9]"}
    child = Task(pid=101, name="bwrap", parent=100, tracers={105: 44}, namespaces=spaces)
    found = list(tasks.check(Snapshot(init=100, tasks=(INIT, child))))
    assert [(each.check, each.pid) for each in found] == [("ptrace", 101), ("nested-namespace", 101)]
    assert "its thread 105 is traced by pid 44" in found[0].what
    assert "pid:[2]" in found[1].what


def test_an_exec_session_is_named_with_its_command_and_age() -> None:
    """A child of init is none; what is not known of one is left out."""
    child = Task(pid=101, name="sh", parent=100)
    session = Task(pid=102, name="sh", inner=7, parent=44, command="sh -c read x", age_s=200.0)
    unknown = Task(pid=103, name="kthread", parent=44)
    found = list(tasks.check(Snapshot(init=100, tasks=(INIT, child, session, unknown))))
    assert [(each.check, each.pid) for each in found] == [("exec", 102), ("exec", 103)]
    assert found[0].what.startswith("`sh -c read x` came in by exec 3 min ago and is not")
    assert (
        found[0].remedy
        == "end that exec session (inside: kill 7) and move again; or move with --end-exec, which ends it"
    )
    assert found[1].what.startswith("`kthread` came in by exec and is not")


def test_a_small_tmpfs_and_one_that_goes_ahead() -> None:
    """Neither is told."""
    assert list(tmpfs.check("web1", {"/run": 1 << 20, "/dev/shm": 1 << 30}, ["/dev/shm"])) == []


@pytest.fixture
def recorded(tmp_path: Path) -> Path:
    """A process as /proc shows it, in plain files and links."""
    root = tmp_path / "100"
    for name in ("fd", "fdinfo", "ns", "task/100", "task/103", "net"):
        (root / name).mkdir(parents=True)
    status = "Name:\tredis server\nPPid:\t90\nNSpid:\t100\t1\n"
    (root / "status").write_text(status)
    (root / "stat").write_text(
        f"100 (redis) server) S 90 100 100 34816 105 {'0 ' * 13}{100 * os.sysconf('SC_CLK_TCK')}"
    )
    (root / "cmdline").write_bytes(b"redis-server\0--port\x007300\0")
    (tmp_path / "uptime").write_text("160.25 300.00\n")
    (root / "task/100/status").write_text(status + "TracerPid:\t0\n")
    (root / "task/103/status").write_text(status + "TracerPid:\t55\n")
    (root / "fd/10").symlink_to("anon_inode:[io_uring]")
    (root / "fd/9").symlink_to("anon_inode:inotify")
    (root / "ns/pid").symlink_to("pid:[7]")
    (root / "fdinfo/9").write_text(
        "pos:\t0\nflags:\t00\nmnt_id:\t15\ninotify wd:1 ino:9e7e sdev:34 mask:2 ignored_mask:0\n"
    )
    (root / "maps").write_text(
        "7f00-7f10 rw-s 00000000 00:01 3  /secretmem (deleted)\n7f20-7f30 r-xp 00000000 fe:00 9  /usr/lib/libc.so\n"
    )
    (root / "mountinfo").write_text(
        "40 30 0:52 / / rw - overlay overlay rw\n41 40 0:60 / /a\\040b rw - tmpfs tmpfs rw\n"
    )
    (root / "net/tcp").write_text(
        "  sl  local_address rem_address   st tx_queue rx_queue tr tm->when retrnsmt   uid  timeout inode\n"
        "   0: 0100007F:1C84 00000000:0000 0A 00000000:00000000 00:00000000 00000000     0        0 77 1 0\n"
    )
    return tmp_path


def test_a_recorded_process(recorded: Path) -> None:
    """All of it becomes data; a pid that has ended is left out; a name with a bracket does not shift the fields of stat."""
    found = procfs.read(100, [100, 999], recorded)
    (task,) = found.tasks
    assert (task.name, task.inner, task.parent, task.tracers) == ("redis server", 1, 90, {103: 55})
    assert (task.command, task.age_s) == ("redis-server --port 7300", 60.25)
    assert not task.leads  # session 100, foreground 105
    assert task.namespaces == {"pid": "pid:[7]"}
    assert [(each.descriptor, each.target) for each in task.files] == [
        ("9", "anon_inode:inotify"),
        ("10", "anon_inode:[io_uring]"),
    ]
    assert [each.target for each in task.mapped] == ["/secretmem (deleted)"]
    assert found.mounts == (OVERLAY, Mount(number=41, device=(0, 60), kind="tmpfs", point="/a b"))
    assert found.connections == (Connection(port=0x1C84, state=10, inode=77),)
    checks = {
        each.check for each in (*tasks.check(found), *descriptors.check(found, LIMIT), *watches.check(found, recorded))
    }
    assert checks == {"ptrace", "io-uring", "memfd-secret", "inotify-overlay"}
