"""Removes directory trees that strangers made: however deep they are, and never behind a link or a mount."""

from __future__ import annotations

import errno
import itertools
import os
from collections.abc import Iterator
from pathlib import Path

_DIRECTORY = os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC


def tree(path: Path | bytes, *, dir_fd: int | None = None) -> None:
    """Remove the directory `path` with all that is in it. Raises OSError; EBUSY for a mount in it.

    shutil.rmtree recurses, so a container could make a layer that it cannot remove. Here a directory that is not empty
    moves up to the top before its own turn comes: two descriptors and no stack.
    """
    top = os.open(path, _DIRECTORY, dir_fd=dir_fd)
    try:
        device = os.fstat(top).st_dev
        pending: list[str] = []
        spare_names = (f".removed-{os.urandom(8).hex()}-{number}" for number in itertools.count())
        _empty(top, top, pending, spare_names)
        while pending:
            name = pending.pop()
            fd = os.open(name, _DIRECTORY, dir_fd=top)
            try:
                if os.fstat(fd).st_dev != device:
                    raise OSError(errno.EBUSY, "a file system is mounted there", name)
                _empty(fd, top, pending, spare_names)
            finally:
                os.close(fd)
            os.rmdir(name, dir_fd=top)
    finally:
        os.close(top)
    os.rmdir(path, dir_fd=dir_fd)


def _empty(directory: int, top: int, pending: list[str], spare_names: Iterator[str]) -> None:
    with os.scandir(directory) as listing:
        entries = [(entry.name, entry.is_dir(follow_symlinks=False)) for entry in listing]
    for name, is_directory in entries:
        if not is_directory:
            os.unlink(name, dir_fd=directory)
        elif directory == top:
            pending.append(name)
        else:
            try:
                os.rmdir(name, dir_fd=directory)
            except OSError as exc:
                if exc.errno not in (errno.ENOTEMPTY, errno.EEXIST):
                    raise
                pending.append(next(spare_names))
                os.rename(name, pending[-1], src_dir_fd=directory, dst_dir_fd=top)
