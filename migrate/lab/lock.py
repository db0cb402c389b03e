"""One `up` or `down` of a lab at a time."""

from __future__ import annotations

import fcntl
import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from migrate.lab.layout import LabError

_DIRECTORY = Path("/run/lock")


@contextmanager
def lock(prefix: str, *, wait: bool = True) -> Iterator[None]:
    """Hold the lab's lock, waiting for it; without `wait`, LabError where another process has it.

    The file goes at the end: nothing is left of a lab that is gone.
    """
    _DIRECTORY.mkdir(mode=0o755, parents=True, exist_ok=True)
    path = _DIRECTORY / f"migrate-lab-{prefix}.lock"
    while True:
        fd = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
        try:
            fcntl.flock(fd, fcntl.LOCK_EX | (0 if wait else fcntl.LOCK_NB))
        except BlockingIOError as exc:
            os.close(fd)
            raise LabError(f"{path} is held by another process", hint="wait for it to end") from exc
        try:
            same = path.stat().st_ino == os.fstat(fd).st_ino
        except FileNotFoundError:
            same = False
        if same:
            break
        os.close(fd)  # its last holder removed the file while we waited: the lock is a new file now
    try:
        yield
    finally:
        path.unlink()
        os.close(fd)
