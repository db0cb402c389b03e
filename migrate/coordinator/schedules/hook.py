"""A command of the operator's, run by a shell on the coordinator's host as the coordinator's user.

`run` may be called again after a crash: it finds the command running, and waits for it; or takes its status; or, where it is gone without
one (the machine lost its power), runs it again. It is never run twice at once.
"""

from __future__ import annotations

import fcntl
import logging
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path

from migrate.coordinator.schedules import hook_child

KEPT_OUTPUT = 16 << 10  # the last bytes
KILL_S = 5.0  # from SIGTERM to SIGKILL
TIMED_OUT = 124  # as timeout(1)
KILLED = 137  # as a shell says of one that SIGKILL ended

log = logging.getLogger(__name__)
_children: dict[Path, subprocess.Popen[bytes]] = {}  # of this process, until they are reaped


@dataclass(frozen=True, kw_only=True)
class Ended:
    """`status`: what the command ended with, of a signal 128 and its number; TIMED_OUT. `output`: the last of both its streams."""

    status: int
    output: str
    took_s: float


class Hook:
    """`directory` is this run's own; `environment` is added to the coordinator's."""

    def __init__(self, directory: Path, command: str, environment: Mapping[str, str], timeout_s: float) -> None:
        self._directory, self._command = directory, command
        self._environment, self._timeout_s = environment, timeout_s

    def run(self, wait: Callable[[], None]) -> Ended:
        """Until it has ended. `wait` is called again and again, and may raise: the command goes on then, for another `run`."""
        self._directory.mkdir(mode=0o700, parents=True, exist_ok=True)
        started = False
        while True:
            if (status := self._status()) is not None:
                return self._ended(status)
            lock = self._lock()
            if lock is not None:
                try:
                    if self._status() is not None:
                        continue  # written just before the lock was free
                    if started:
                        return self._ended(KILLED)
                    self._start(lock)
                    started = True
                finally:
                    os.close(lock)
            elif time.time() - self._began() > self._timeout_s:
                self._kill(wait)
                hook_child.write(self._directory / "status", str(TIMED_OUT))
            wait()

    def _start(self, lock: int) -> None:
        self._reap()
        if (self._directory / "pid").exists():
            log.warning("%s: the hook ended without a status; it is run again", self._directory.name)
        with (self._directory / "output").open("ab") as output:
            _children[self._directory] = subprocess.Popen(
                [sys.executable, "-I", "-S", hook_child.__file__, str(self._directory), self._command],
                pass_fds=(lock,),
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=subprocess.STDOUT,
                start_new_session=True,
                cwd="/",
                env={**os.environ, **self._environment},
            )

    def _lock(self) -> int | None:
        """Ours: nobody has it. None: the command's process lives."""
        fd = os.open(self._directory / "lock", os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
        try:
            fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            os.close(fd)
            return None
        return fd

    def _status(self) -> int | None:
        try:
            status = int((self._directory / "status").read_text())
        except FileNotFoundError:
            return None
        return status if status >= 0 else 128 - status

    def _began(self) -> float:
        try:
            return (self._directory / "pid").stat().st_mtime
        except FileNotFoundError:
            return time.time()  # it is just beginning

    def _kill(self, wait: Callable[[], None]) -> None:
        """The whole session: its leader is alive, for its lock is held, so the pid in the file is no other process's."""
        give_up = time.monotonic() + KILL_S
        self._signal(signal.SIGTERM)  # the leader does not hear this one
        while time.monotonic() < give_up:
            if (lock := self._lock()) is not None:
                os.close(lock)
                return
            wait()
        self._signal(signal.SIGKILL)

    def _signal(self, number: signal.Signals) -> None:
        try:
            os.killpg(int((self._directory / "pid").read_text()), number)
        except (FileNotFoundError, ProcessLookupError):
            pass  # it has just ended

    def _reap(self) -> None:
        if (child := _children.pop(self._directory, None)) is not None:
            child.wait()

    def _ended(self, status: int) -> Ended:
        self._reap()
        try:
            raw = (self._directory / "output").read_bytes()
            last = (self._directory / "status").stat().st_mtime
        except FileNotFoundError:
            raw, last = b"", time.time()
        cut = "[...]\n" if len(raw) > KEPT_OUTPUT else ""
        return Ended(
            status=status,
            output=cut + raw[-KEPT_OUTPUT:].decode(errors="replace"),
            took_s=max(0.0, last - self._began()),
        )
