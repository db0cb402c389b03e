"""A file is the old one or the new one, whatever dies in between: temp, fsync, rename, fsync of the directory.

The one way in which the agent and its processes write what must survive them. Standard library only.
"""

from __future__ import annotations

import contextlib
import os
from pathlib import Path


def write(path: Path, data: str | bytes, *, mode: int = 0o600, durable: bool = True, sync_name: bool = True) -> None:
    """Replace `path`, whose directory exists. Two writers at once: the last rename wins, no mixture. On failure the old file is as
    it was. Not `durable`: a process may die, the host may not; for what a boot makes worthless. Not `sync_name`: sync_directory()
    follows. Raises OSError.
    """
    temp = path.with_name(f".{path.name}.{os.getpid()}.{os.urandom(4).hex()}")
    fd = os.open(temp, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, mode)
    try:
        try:
            left = memoryview(data.encode() if isinstance(data, str) else data)
            while left:
                left = left[os.write(fd, left) :]
            if durable:
                os.fsync(fd)
        finally:
            os.close(fd)
        temp.rename(path)
    except BaseException:
        with contextlib.suppress(FileNotFoundError):
            temp.unlink()
        raise
    if durable and sync_name:
        sync_directory(path.parent)


def sync_file(path: Path) -> None:
    """Make what write() wrote without `durable` durable, but for its name: sync_directory() follows."""
    fd = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
    try:
        os.fsync(fd)
    finally:
        os.close(fd)


def sync_directory(path: Path) -> None:
    """Make the names in `path` durable."""
    fd = os.open(path, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        os.fsync(fd)
    finally:
        os.close(fd)
