"""What a container's tasks look like from outside: memory, files that change without a trace. Read-only."""

from __future__ import annotations

import errno
import itertools
import os
import stat
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from agent.memory import areas
from agent.scan import tmpfs
from agent.storage import tree_scan


def memory_bytes(pids: Iterable[int]) -> int:
    """Resident anonymous and shared memory; file pages come with the layers."""
    return sum(sum(areas.resident_bytes(pid)) for pid in pids)


def tmpfs_bytes(init_pid: int) -> int:
    """In the container's file systems in memory: what does not go ahead as files, CRIU carries with its images."""
    return sum(tmpfs.sizes(init_pid).values())


@dataclass(frozen=True, kw_only=True)
class Held:
    """(device, inode) of files that tasks can still write to. `unseen`: what they wrote may have changed no time: mapped shared and
    opened for writing, whatever the mapping allows now, or open for writing in a task with AIO contexts. `open`: for writing; a kernel
    need not say what was spliced into them.
    """

    unseen: list[tuple[int, int]]
    open: list[tuple[int, int]]


def held_in_trees(pids: Iterable[int], roots: Sequence[object]) -> list[dict[str, Any]]:
    """For each of the trees that go with a container, its writable layer first, as the sender takes it. The tasks stand still."""
    found = [held_in_layer(pids, Path(str(roots[0])))]
    if len(roots) > 1:
        found += [held_in_volumes(pids)] * (len(roots) - 1)
    return [asdict(each) for each in found]


def held_in_volumes(pids: Iterable[int]) -> Held:
    """As a volume numbers them, or a tmpfs: an overlay would not."""
    unseen: set[tuple[int, int]] = set()
    opened: set[tuple[int, int]] = set()
    for pid in pids:
        for _, status, silent in _held_by(pid):
            (unseen if silent else opened).add((status.st_dev, status.st_ino))
    return Held(unseen=sorted(unseen), open=sorted(opened - unseen))


def held_in_layer(pids: Iterable[int], upper: Path) -> Held:
    """As `upper` numbers them. The tasks stand still. A file whose name is gone is looked for among all names; where that is not certain,
    more inodes than one are returned for it, never none. Raises OSError, StorageError.
    """
    unseen: set[tuple[int, int]] = set()
    opened: set[tuple[int, int]] = set()
    unnamed_files: set[tuple[int, int]] = set()
    for pid in pids:
        for link, status, silent in _held_by(pid):
            unnamed = False
            try:
                name = os.readlink(link)  # noqa: PTH115  it need not be a path
                unnamed = name.endswith(" (deleted)")
                there = (upper / name.lstrip("/")).lstat()
                (unseen if silent else opened).add((there.st_dev, there.st_ino))
            except OSError as exc:
                # Else it is not in the writable layer: a device, or shared memory.
                unnamed = unnamed or exc.errno == errno.ENAMETOOLONG
            if unnamed and status.st_nlink:
                unnamed_files.add((status.st_size, status.st_nlink))
    unseen |= _like(unnamed_files, upper)
    return Held(unseen=sorted(unseen), open=sorted(opened - unseen))


def _held_by(pid: int) -> Iterator[tuple[Path, os.stat_result, bool]]:
    """Regular files: a link of /proc, the file, and whether it is of Held.unseen. `maps` writes a newline as \\012, and a backslash as
    itself: only the link has the name.
    """
    asynchronous = False
    for line in _read(Path(f"/proc/{pid}/maps")).splitlines():
        fields = line.split(None, 5)
        if len(fields) < 6 or not fields[5].startswith("/"):
            continue
        asynchronous = asynchronous or fields[5].startswith("/[aio]")
        if fields[1][3] != "s":
            continue
        first, _, last = fields[0].partition("-")
        yield from _writable(Path(f"/proc/{pid}/map_files/{int(first, 16):x}-{int(last, 16):x}"), silent=True)
    for name, target in _descriptors(pid):
        if target.startswith("/"):
            yield from _writable(Path(f"/proc/{pid}/fd/{name}"), silent=asynchronous)


def _writable(link: Path, *, silent: bool) -> Iterator[tuple[Path, os.stat_result, bool]]:
    """The link's own mode is how the file was opened."""
    try:
        if link.lstat().st_mode & stat.S_IWUSR and stat.S_ISREG((status := link.stat()).st_mode):
            yield link, status, silent
    except FileNotFoundError:
        return  # the task is gone


def _like(wanted: set[tuple[int, int]], upper: Path) -> set[tuple[int, int]]:
    """Files in `upper` with one of these sizes and numbers of names. What the overlay says of a file's inode number is
    not always the upper file's, but these are.
    """
    if not wanted:
        return set()
    directories = tree_scan.Directories(upper)
    try:
        found = tree_scan.scan(directories, {}, itertools.count(2).__next__, frozen=False).found.values()
    finally:
        directories.close()
    statuses = (one.status for one in found if stat.S_ISREG(one.status.st_mode))
    return {(each.st_dev, each.st_ino) for each in statuses if (each.st_size, each.st_nlink) in wanted}


def _descriptors(pid: int) -> Iterable[tuple[str, str]]:
    try:
        for path in Path(f"/proc/{pid}/fd").iterdir():
            yield path.name, str(os.readlink(path))  # noqa: PTH115  Path.readlink would parse "anon_inode:[...]"
    except OSError:
        return  # the task is gone


def _read(path: Path) -> str:
    try:
        return path.read_text(errors="replace")
    except OSError:
        return ""
