"""CRIU's images of shared memory, completed at the target: pagemap-shmem-ID.img, in which CRIU lists nothing of memory that it was not
shown, and pages-N.img, which is the file that the pages came into, renamed.

The source says where in the memory its pages lie, in the order in which they are in that file: shared-ID-TASK.bin in the images' directory,
little-endian u64 pairs offset in bytes, pages.
"""

from __future__ import annotations

import os
import re
from pathlib import Path
from typing import Any

import numpy as np

from agent.criu import images
from agent.errors import TransferError

_LISTING = re.compile(r"shared-(\d+)-(\d+)\.bin")


def listing(images_dir: Path, shmid: int, task: int) -> Path:
    """`shmid`: CRIU's name of the memory; `task`: its number on the wire."""
    return images_dir / f"shared-{shmid}-{task}.bin"


def complete(pycriu: Any, images_dir: Path, memory_dir: Path) -> int:
    """Everything has come. Returns bytes. Raises TransferError where CRIU's images have no place for it, OSError.

    Memory that CRIU has seen all the same is in its images: those hold.
    """
    total = 0
    for path in sorted(images_dir.iterdir()):
        if found := _LISTING.fullmatch(path.name):
            runs = np.fromfile(path, np.uint64).reshape(-1, 2)
            total += _complete(pycriu, images_dir, int(found[1]), memory_dir / f"{found[2]}.mem", runs.tolist())
    return total


def _complete(pycriu: Any, images_dir: Path, shmid: int, memory: Path, runs: list[list[int]]) -> int:
    try:
        pages_id, seen = images.shared_pages(pycriu, images_dir, shmid)
    except FileNotFoundError as exc:
        raise TransferError(f"CRIU has written no page map for shared memory that it was not shown: {shmid}") from exc
    if seen:
        return 0
    size = sum(pages for _, pages in runs) * images.PAGE
    fd = os.open(memory, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)  # nothing has come of what is all zeros
    try:
        os.ftruncate(fd, size)
        os.fchmod(fd, 0o644)  # as CRIU's images: a task of a user namespace opens it
    finally:
        os.close(fd)
    memory.rename(images_dir / f"pages-{pages_id}.img")
    images.list_shared_pages(pycriu, images_dir, shmid, runs)
    return size
