"""Flags of mounts, put back in a mount namespace of a user namespace, as a restored container's is."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from agent.criu import mount_flags
from agent.errors import AgentError

pytestmark = pytest.mark.system

# A root with two mounts at one point and one with a space in its name; then a child with mounts of its own, if asked for.
PROGRAM = r"""
import ctypes, os, sys
libc = ctypes.CDLL(None, use_errno=True)
def mount(source, target, flags, data=None):
    assert libc.mount(source, target, b"tmpfs", flags, data) == 0, (target, os.strerror(ctypes.get_errno()))
RDONLY, NOSUID, NODEV, NOEXEC, REMOUNT, BIND, PRIVATE = 1, 2, 4, 8, 32, 4096, 0x44000
assert libc.unshare(0x10000000 | 0x20000) == 0
print("unshared", flush=True)
sys.stdin.readline()
mount(b"none", b"/", PRIVATE)
top = sys.argv[1].encode()
mount(b"root", top, NODEV)
os.chdir(top)
for name in ("twice", "a space", "proc"):
    os.mkdir(name)
mount(b"lower", b"twice", RDONLY)
mount(b"upper", b"twice", NOSUID | NOEXEC)
mount(b"spaced", b"a space", 0)
assert libc.syscall(155, b".", b".") == 0 and libc.umount2(b".", 2) == 0
for point, flags in ((b"/", RDONLY | NODEV), (b"/a space", RDONLY | NOSUID)) if "strict" in sys.argv else ():
    mount(None, point, REMOUNT | BIND | flags)
if "hidden" in sys.argv:
    assert libc.umount(b"/twice") == 0
    mount(None, b"/twice", REMOUNT | BIND)
    mount(b"upper", b"/twice", NOSUID | NOEXEC)
print("mounted", flush=True)
sys.stdin.readline()
"""
PUT_BACK = """
import json, os, sys
from agent.criu import mount_flags
from agent.errors import AgentError
here = os.stat("/proc/self/ns/mnt").st_ino
try:
    answer = {"said": mount_flags.put_back(*json.load(sys.stdin))}
except (AgentError, OSError) as exc:
    answer = {"error": str(exc)}
assert os.stat("/proc/self/ns/mnt").st_ino == here, "left behind"
print(json.dumps(answer))
"""
ROOT = Path(__file__).resolve().parents[2]
Mounted = Callable[..., int]


@pytest.fixture
def mounted(tmp_path: Path) -> Iterator[Mounted]:
    """mounted(WORD...): the pid of a process with these mounts; "strict": with more flags, "hidden": without the lower mount's."""
    processes: list[subprocess.Popen[str]] = []

    def start(*words: str) -> int:
        argv = [sys.executable, "-c", PROGRAM, str(tmp_path), *words]
        process = subprocess.Popen(argv, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
        processes.append(process)
        assert process.stdout is not None and process.stdin is not None
        assert process.stdout.readline() == "unshared\n"
        for kind in ("uid", "gid"):
            Path(f"/proc/{process.pid}/{kind}_map").write_text("0 0 65536\n")
        process.stdin.write("\n")
        process.stdin.flush()
        assert process.stdout.readline() == "mounted\n"
        return process.pid

    yield start
    for process in processes:
        process.kill()
        process.communicate()


def put_back(pid: int, before: dict[str, mount_flags.Flags], *others: int) -> list[str]:
    """In a process of one thread, as a monitor is; what it raises is raised here. A fork of this one would have gRPC's threads as well."""
    request = json.dumps([pid, before, [pid, *others]])
    child = subprocess.run(
        [sys.executable, "-c", PUT_BACK], input=request, capture_output=True, text=True, cwd=ROOT, timeout=60
    )
    assert child.returncode == 0, child.stderr
    answer = json.loads(child.stdout)
    if "error" in answer:
        raise AgentError(answer["error"])
    said: list[str] = answer["said"]
    return said


def test_lost_flags_are_put_back(mounted: Mounted) -> None:
    """Of the root too; what is there already is left alone, and a second time nothing is missing."""
    source, target = mounted("strict"), mounted()
    before = mount_flags.of_tasks(source, [source])
    assert set(put_back(target, before)) == {"/: ro", "/a space: ro,nosuid"}
    assert mount_flags.of_tasks(target, []) == before
    assert put_back(target, before) == []


def test_a_flag_that_cannot_be_put_back_is_an_error(mounted: Mounted) -> None:
    """A mount under another one cannot be reached."""
    source, target = mounted(), mounted("hidden")
    with pytest.raises(AgentError, match="less restricted than on the source, and it cannot be mended: /twice: ro"):
        put_back(target, mount_flags.of_tasks(source, []))


def test_a_task_with_mounts_of_its_own(mounted: Mounted) -> None:
    """Each mount namespace is looked at once; one whose task is not there is an error."""
    first, second = mounted("strict"), mounted("strict")
    before = mount_flags.of_tasks(first, [first, second, second])
    assert before.keys() == {mount_flags.INIT, str(second)}
    init = mounted()
    other = mounted()
    before[str(other)] = before.pop(str(second))  # restored, it has the same number in the container
    assert len(put_back(init, before, other)) == 4
    with pytest.raises(AgentError, match=f"process {other}, which had mounts of its own, was not restored"):
        put_back(init, before)
