"""Which layer a step gave the last time: one small file a key (agent/build/key.py).

    build-cache/KEY.json    {"layer": diff id or "" where nothing changed, "created_unix_ns"}; its mtime: last used
    build-cache/mounts/     directories of RUN --mount=type=cache

An entry counts only while its layer is here; the layers of all entries are kept from garbage collection. What was not
used for two weeks goes.
"""

from __future__ import annotations

import fcntl
import json
import os
import time
from collections.abc import Callable
from dataclasses import asdict, dataclass
from pathlib import Path

from agent import atomic
from agent.linux import remove

KEEP_S = 14 * 24 * 3600.0


@dataclass(frozen=True, kw_only=True)
class Kept:
    """`layer`: diff id, "" where the step changed no file."""

    layer: str
    created_unix_ns: int


class Cache:
    """The directory, which is made with the first entry. Safe for threads: a file is one entry, and whole or not there."""

    def __init__(self, directory: Path, *, clock: Callable[[], float] = time.time) -> None:
        self._directory, self._clock = directory, clock
        self.mounts = directory / "mounts"  # one directory for each --mount=type=cache; agent/build/mounting.py

    def get(self, key: str) -> Kept | None:
        """None without an entry, or for one that is damaged. Counts as a use."""
        path = self._path(key)
        try:
            kept = Kept(**json.loads(path.read_bytes()))
            os.utime(path, (self._clock(), self._clock()))
        except (OSError, ValueError, TypeError):
            return None
        return kept

    def put(self, key: str, kept: Kept) -> None:
        self._directory.mkdir(mode=0o700, parents=True, exist_ok=True)
        path = self._path(key)
        atomic.write(path, json.dumps(asdict(kept)))
        os.utime(path, (self._clock(), self._clock()))

    def layers(self) -> set[str]:
        """Diff ids that entries name."""
        found = set()
        for path in self._entries():
            kept = self._read(path)
            if kept is not None and kept.layer:
                found.add(kept.layer)
        return found

    def forget(self, *, older_than_s: float = KEEP_S) -> int:
        """Remove the entries, and directories of mounts, that were last used before that; returns how many."""
        gone = 0
        directories = sorted(self.mounts.iterdir()) if self.mounts.is_dir() else []
        for path in (*self._entries(), *directories):
            try:
                if self._clock() - path.stat().st_mtime >= older_than_s:
                    gone += self._remove(path)
            except FileNotFoundError:
                continue  # somebody was faster
        return gone

    @staticmethod
    def _remove(path: Path) -> int:
        """How many went: a directory that a command has mounted stays."""
        if not path.is_dir():
            path.unlink()
            return 1
        fd = os.open(path, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
        try:
            fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            return 0
        else:
            remove.tree(path)
            return 1
        finally:
            os.close(fd)

    def _entries(self) -> list[Path]:
        return sorted(self._directory.glob("*.json"))

    def _path(self, key: str) -> Path:
        return self._directory / f"{key}.json"

    @staticmethod
    def _read(path: Path) -> Kept | None:
        try:
            return Kept(**json.loads(path.read_bytes()))
        except (OSError, ValueError, TypeError):
            return None
