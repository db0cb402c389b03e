"""Memory of containers that have left this host, for the day they come back: where it lies, how much, how long.

What is in it: agent/transfer/kept.py.

    STATE_DIR/kept/CONTAINER/          of its last move away from here
    STATE_DIR/kept/MIGRATION.new/      of a move under way
"""

from __future__ import annotations

import contextlib
import logging
import os
import shutil
import threading
import time
from pathlib import Path

from agent.config import AgentConfig

_NEW = ".new"
_SWEEP_S = 3600.0
_LEFT_FREE_BYTES = 1 << 30  # of the disk, whatever the quota says; and half of what is free beyond

_log = logging.getLogger(__name__)


class KeptMemory:
    """Thread-safe: all is on the disk. Losing any of it costs time, nothing else."""

    def __init__(self, config: AgentConfig) -> None:
        self._top, self._quota = config.kept_dir, config.kept_memory_mb << 20
        self._age_s = config.kept_memory_hours * 3600.0
        self._stop = threading.Event()

    def begin(self) -> None:
        """At the agent's start: what unfinished moves left goes; then sweep now and every hour."""
        for left in self._top.glob(f"*{_NEW}"):
            shutil.rmtree(left, ignore_errors=True)
        threading.Thread(target=self._sweep_for_ever, name="kept", daemon=True).start()

    def close(self) -> None:
        self._stop.set()

    def place(self, migration_id: str) -> tuple[Path, int]:
        """Where a move that leaves may keep, and how many bytes; 0 = none."""
        disk = os.statvfs(self._top.parent)
        room = (disk.f_bavail * disk.f_frsize - _LEFT_FREE_BYTES) // 2
        return self._new(migration_id), max(0, min(self._quota, room))

    def settle(self, migration_id: str, container_id: str) -> None:
        """What that move has kept is the container's now; the oldest of others goes where both are too much. Raises OSError."""
        shutil.rmtree(self._top / container_id, ignore_errors=True)
        self._new(migration_id).rename(self._top / container_id)
        os.utime(self._top / container_id)
        self.sweep()

    def drop(self, migration_id: str) -> None:
        """Of a move that came to nothing. Idempotent."""
        shutil.rmtree(self._new(migration_id), ignore_errors=True)

    def find(self, container_id: str) -> str:
        """The directory of what is here of it; "" = nothing."""
        directory = self._top / container_id
        return str(directory) if directory.is_dir() else ""

    def forget(self, container_id: str) -> None:
        """It is here again. Idempotent."""
        shutil.rmtree(self._top / container_id, ignore_errors=True)

    def sweep(self) -> None:
        """What is too old goes, then the oldest until the rest fits."""
        with contextlib.suppress(FileNotFoundError):  # nothing was ever kept
            found = [(path.stat().st_mtime, path) for path in self._top.iterdir() if path.suffix != _NEW]
            used = 0
            for changed, path in sorted(found, reverse=True):
                used += sum(file.stat().st_blocks * 512 for file in path.iterdir())
                if used > self._quota or changed < time.time() - self._age_s:
                    shutil.rmtree(path, ignore_errors=True)

    def _sweep_for_ever(self) -> None:
        while True:
            try:
                self.sweep()
            except OSError as exc:  # a container came back meanwhile, and its files are gone
                _log.info("kept memory: %s", exc)
            if self._stop.wait(_SWEEP_S):
                return

    def _new(self, migration_id: str) -> Path:
        return self._top / f"{migration_id}{_NEW}"
