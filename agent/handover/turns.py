"""The calls of one move come one at a time, and Finish does not wait behind them: it interrupts, waits until they have returned, then acts.

call     ── turn ── second look: is the move over? ── work ──►
Finish   ── one Finish at a time ── decides ── interrupts ── turn ── undoes ──►
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field

from agent.errors import WrongState

FINISH_LIMIT_S = 600.0  # behind another Finish, which may be bringing a writable layer to its disk
QUIET_LIMIT_S = 25.0  # below the coordinator's deadline for Finish
PAUSE_S = 0.05


@dataclass
class _Turn:
    finish: threading.Lock = field(default_factory=threading.Lock)
    work: threading.Lock = field(default_factory=threading.Lock)
    doing: str = ""
    users: int = 0


class Turns:
    """The locks of all moves of one role."""

    def __init__(self) -> None:
        self._guard = threading.Lock()
        self._turns: dict[str, _Turn] = {}

    @contextmanager
    def call(self, migration_id: str, name: str) -> Iterator[None]:
        """Hold the move for the call `name`. What was true before must be looked at again inside."""
        with self._turn(migration_id) as turn, turn.work:
            turn.doing = name
            try:
                yield
            finally:
                turn.doing = ""

    @contextmanager
    def finish(self, migration_id: str) -> Iterator[None]:
        """Around a whole Finish: a repeated one waits and then finds what the first has done. Raises WrongState at the limit."""
        with self._turn(migration_id) as turn:
            if not turn.finish.acquire(timeout=FINISH_LIMIT_S):
                raise WrongState(f"an earlier Finish of migration {migration_id} is still being worked on")
            try:
                yield
            finally:
                turn.finish.release()

    @contextmanager
    def quiet(
        self, migration_id: str, interrupt: Callable[[str], None] = lambda _name: None, limit_s: float = QUIET_LIMIT_S
    ) -> Iterator[None]:
        """Hold the move once nothing of it is being worked on any more. `interrupt(call)` is called, again and again, while something is.

        Raises WrongState at the limit, counted from the first interruption's end.
        """
        with self._turn(migration_id) as turn:
            deadline = 0.0
            while not turn.work.acquire(timeout=PAUSE_S if deadline else 0.0):
                interrupt(turn.doing)
                deadline = deadline or time.monotonic() + limit_s
                if time.monotonic() > deadline:
                    raise WrongState(
                        f"{turn.doing or 'a call'} of migration {migration_id} does not end",
                        hint="it is tried again; if this stays, look at this host's agent.log",
                    )
            try:
                yield
            finally:
                turn.work.release()

    @contextmanager
    def _turn(self, migration_id: str) -> Iterator[_Turn]:
        with self._guard:
            turn = self._turns.setdefault(migration_id, _Turn())
            turn.users += 1
        try:
            yield turn
        finally:
            with self._guard:
                turn.users -= 1
                if not turn.users:
                    del self._turns[migration_id]
