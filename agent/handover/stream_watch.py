"""Post-copy: CRIU's restore needs some of the memory that is still on the source. If that does not come any more, it is not waited for.

Before the pivot the source still has everything and can run on within a moment, so the target gives up at once, and does not try for a new
stream: that would take a second or more, of which the container stands still for all, and a stream that broke once in the shortest part of
a move is a poor promise for the rest of it. After the pivot there is no such choice, and it is gone on from what is missing.
"""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Callable
from contextlib import suppress
from types import TracebackType
from typing import Self

from agent.errors import TransferError
from agent.handover.record import Move
from agent.linux import process
from agent.transfer import later

LOOK_EVERY_S = 0.1
STILL_S = 8.0  # TCP tries again 6.2 s after it has lost a packet, at the latest; ssh would take 15 to say that the other side is gone

_log = logging.getLogger(__name__)


class StreamWatch:
    """While a restore lasts. `receives`: whether the receiver lives; `received`: bytes that it has read; `missing`: whether anything
    has not come; `give_up`: end the restore, called once, when `why` says what has happened.
    """

    def __init__(
        self,
        *,
        receives: Callable[[], bool],
        received: Callable[[], int],
        missing: Callable[[], bool],
        give_up: Callable[[], object],
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._receives, self._received, self._missing, self._give_up = receives, received, missing, give_up
        self._clock = clock
        self._count, self._at = -1, clock()
        self._over = threading.Event()
        self._thread = threading.Thread(target=self._run, name="stream watch", daemon=True)
        self.why = ""

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, exc: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._over.set()
        self._thread.join()

    def look(self) -> str:
        """What is wrong, "" = nothing. Called again and again. Nothing is wrong with a stream that has nothing more to bring."""
        if not self._receives():
            return "the stream has ended" if self._missing() else ""
        with suppress(OSError):  # it ends just now, or this kernel does not count: then its end is what we see
            if (count := self._received()) != self._count:
                self._count, self._at = count, self._clock()
            still_s = self._clock() - self._at
            if still_s >= STILL_S:
                self._at = self._clock()  # if nothing is missing: not asked again at once
                return f"the stream has stood still for {still_s:.0f} s" if self._missing() else ""
        return ""

    def _run(self) -> None:
        while not self._over.wait(LOOK_EVERY_S):
            if why := self.look():
                self.why = why
                self._give_up()
                return


def of(move: Move, receives: Callable[[], bool], give_up: Callable[[], object]) -> StreamWatch | None:
    """For the restore of `move`; None where nothing is to come after the freeze."""
    if not any(move.memory.glob("*.later")):
        return None
    pid = move.read().receiver_pid

    def missing() -> bool:
        try:
            return bool(later.still_missing(move.images))
        except TransferError as exc:  # the filler has its own end; asked again
            _log.warning("migration %s: %s", move.migration_id, exc.message)
            return False

    return StreamWatch(receives=receives, received=lambda: process.read_bytes(pid), missing=missing, give_up=give_up)
