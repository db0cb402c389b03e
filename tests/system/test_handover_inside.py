"""Files of a container that change without a trace, found from outside, on a real overlay."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from agent.handover import inside

pytestmark = pytest.mark.system

# Maps argv[2:] of an overlay shared and writable, as a container does: its root is not in our mount namespace.
PROGRAM = """
import ctypes, mmap, os, sys
libc = ctypes.CDLL(None)
assert libc.unshare(0x20000) == 0
assert libc.mount(b"none", b"/", None, 0x44000, None) == 0
os.chdir(sys.argv[1])
assert libc.mount(b"overlay", b"merged", b"overlay", 0, b"lowerdir=lower,upperdir=upper,workdir=work,xino=off") == 0
os.chdir("merged")
held = []
for name in sys.argv[2:]:
    name, _, what = name.partition("|")
    fd = os.open(name, os.O_RDWR)
    os.write(fd, b"before")
    held.append(mmap.mmap(fd, 4096))
    if what:
        os.link(name, what)
    if what or name.endswith("gone"):
        os.unlink(name)
shared = mmap.mmap(-1, 4096)  # anonymous and shared: /dev/zero (deleted)
assert libc.umount2(b".", 2) == 0
print("mapped", flush=True)
sys.stdin.read()
"""
Mapped = Callable[..., set[str]]


@pytest.fixture
def mapped(tmp_path: Path) -> Iterator[Mapped]:
    """mapped(NAME...): the names in the upper directory that held_in_layer() finds, while a task maps NAME...; a name
    "a|b" is linked to b and removed after that.
    """
    processes: list[subprocess.Popen[bytes]] = []
    for name in ("lower", "upper", "work", "merged"):
        (tmp_path / name).mkdir()

    def find(*names: str) -> set[str]:
        argv = [sys.executable, "-c", PROGRAM, str(tmp_path), *names]
        process = subprocess.Popen(argv, stdin=subprocess.PIPE, stdout=subprocess.PIPE)
        processes.append(process)
        assert process.stdout is not None
        assert process.stdout.readline() == b"mapped\n"
        upper = tmp_path / "upper"
        found = inside.held_in_layer([process.pid], upper).unseen
        statuses = {path: path.lstat() for path in upper.rglob("*")}
        return {p.name for p, status in statuses.items() if (status.st_dev, status.st_ino) in found}

    yield find
    for process in processes:
        process.communicate()


def make(tmp_path: Path, layer: str, *names: str, size: int = 8192) -> None:
    for name in names:
        (tmp_path / layer / name).write_bytes(bytes(size))


def test_names_that_maps_escapes(mapped: Mapped, tmp_path: Path) -> None:
    """A newline, a backslash and blanks in a name do not hide the file; one that is not mapped is not named."""
    names = ("a\nb", "a\\012b", "a b ", "plain", "x (deleted)")
    make(tmp_path, "upper", *names, "other", size=5000)
    assert mapped(*names) >= set(names)
    assert "other" not in mapped("plain")


@pytest.mark.parametrize("layer", ["upper", "lower"])
def test_a_file_that_lives_on_under_another_name(mapped: Mapped, tmp_path: Path, layer: str) -> None:
    """The mapped name is removed, a second one is left: it is found, also where the overlay shows the image's inode."""
    make(tmp_path, layer, "first")
    make(tmp_path, "upper", "other", size=5000)
    assert mapped("first|second") == {"second"}


def test_a_file_without_a_name_and_shared_memory_are_not_the_layers(mapped: Mapped, tmp_path: Path) -> None:
    """Nothing is read again for what CRIU carries itself."""
    make(tmp_path, "upper", "gone", "other")
    assert mapped("gone") == set()
