"""Whether what a move still has to bring has room: asked when all that is left is the freeze, so that nothing is frozen for a move that
a full disk would end. What is asked for is foreseen from the last rounds: who has written more since can still meet a full disk.
"""

from __future__ import annotations

import os
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

from agent.errors import StorageError
from agent.linux import meminfo, mounts

MARGIN_BYTES = 256 << 20  # images of thousands of tasks, non-lazy memory, page tables of the tmpfs itself
IMAGES_BYTES = 16 << 20  # CRIU's images of a task tree, without memory
IMAGES_TASK_BYTES = 256 << 10  # and of each task
_MAKE_ROOM = "make room on that disk"
_FREE_MEMORY = "free memory there, or choose another target"


@dataclass(frozen=True, kw_only=True)
class Expected:
    """At the end of a move. `memory_bytes`: of all tasks, zero pages and shared memory too; `images_bytes`: of CRIU's images beside it;
    `tree_bytes`: what is still to come of each tree of files, in the order of the plan's roots.
    """

    memory_bytes: int
    images_bytes: int
    tree_bytes: list[int]


@dataclass(frozen=True, kw_only=True)
class Need:
    """`bytes` more of `what` in `where`."""

    where: Path
    bytes: int
    what: str


def stage_bytes(memory_bytes: int) -> int:
    """The size of a stage for so much memory; the quarter is for huge pages that are not full (huge_pages.py)."""
    return memory_bytes + memory_bytes // 4 + MARGIN_BYTES


def at_target(host: str, stage: Path, expected: Expected, roots: Iterable[Path]) -> None:
    """`stage`: the mounted tmpfs of the move, which is made larger if need be. Raises StorageError."""
    size, free = _size_and_free(stage)
    here = size - free
    to_come = max(0, expected.memory_bytes - here) + expected.images_bytes
    # Beside the stage, which goes only when all of it is in place.
    restored = expected.memory_bytes
    _memory(
        host,
        to_come + restored,
        f"the container: {to_come} of them to come, {restored} to restore it beside what has come",
    )
    wanted = stage_bytes(expected.memory_bytes) + expected.images_bytes
    if wanted > size:
        _enlarge(stage, wanted)
    names = ["the writable layer", *("a volume" for _ in expected.tree_bytes[1:])]
    on_disks(
        host,
        (
            Need(where=root, bytes=size, what=name)
            for root, size, name in zip(roots, expected.tree_bytes, names, strict=False)
        ),
    )


def at_source(host: str, stage: Path, needed_bytes: int) -> None:
    """`needed_bytes`: of CRIU's images on the mounted tmpfs `stage`, which is made larger if need be. Raises StorageError."""
    size, free = _size_and_free(stage)
    _memory(host, needed_bytes, "CRIU's images")
    if needed_bytes > free:
        _enlarge(stage, size + needed_bytes - free)


def on_disks(host: str, needs: Iterable[Need]) -> None:
    """Those on one file system together. Raises StorageError."""
    by_disk: dict[int, list[Need]] = {}
    for need in needs:
        by_disk.setdefault(need.where.stat().st_dev, []).append(need)
    for together in by_disk.values():
        needed, (_, free) = sum(need.bytes for need in together), _size_and_free(together[0].where)
        if needed > free:
            what = " and ".join(dict.fromkeys(need.what for need in together if need.bytes))
            raise StorageError(
                f"no room on {host} in {together[0].where} for what is still to come of {what}: "
                f"{needed} bytes are needed, {free} are free",
                hint=_MAKE_ROOM,
            )


def _memory(host: str, needed: int, what: str) -> None:
    available = meminfo.available_bytes()
    if needed > available:
        raise StorageError(
            f"not enough memory on {host}: {needed} bytes are needed for {what}; {available} are available",
            hint=_FREE_MEMORY,
        )


def _size_and_free(where: Path) -> tuple[int, int]:
    """Bytes of its file system; root may have all of them."""
    of = os.statvfs(where)
    return of.f_blocks * of.f_frsize, of.f_bfree * of.f_frsize


def _enlarge(stage: Path, size: int) -> None:
    flags = mounts.MS_REMOUNT | mounts.MS_NOSUID | mounts.MS_NODEV
    mounts.mount("migrate-stage", stage, "tmpfs", flags, f"size={size}")
