"""Ctrl-C as something to wait for, instead of an exception that may come anywhere.

KeyboardInterrupt comes between two instructions of the main thread: an event that had just been taken from a queue would be
lost with it. And it does not come at all while the main thread waits in a read: where SIGINT fell right before that read began,
or another thread was the one that took it, the read goes on until a line is typed. Python's wakeup descriptor is written by
the signal itself, in whatever thread, so a select on it misses none.
"""

from __future__ import annotations

import os
import select
import signal
import sys
from collections.abc import Callable
from typing import Any, Self


class Interrupts:
    """Inside `with`, SIGINT calls `told` in the main thread and raises nothing. For the main thread only.

    Where SIGINT is ignored, as in a shell's background job, it stays so. `told` runs between two instructions of anything, so it
    may do no more than what is reentrant, such as SimpleQueue.put.
    """

    def __init__(self, told: Callable[[], None]) -> None:
        self.count = 0
        self._told = told
        self._before: Any = None

    def __enter__(self) -> Self:
        if signal.getsignal(signal.SIGINT) is not signal.SIG_IGN:
            self._before = signal.signal(signal.SIGINT, self._note)
        return self

    def __exit__(self, *_: object) -> None:
        if self._before is not None:
            signal.signal(signal.SIGINT, self._before)

    def ask(self, question: str) -> str | None:
        """Write `question` to stderr; the line typed on stdin, "" at its end, or None: Ctrl-C came from here on."""
        before = self.count
        woken, wake = os.pipe2(os.O_NONBLOCK | os.O_CLOEXEC)
        previous = signal.set_wakeup_fd(wake, warn_on_full_buffer=False)
        try:
            print(question, end="", file=sys.stderr, flush=True)
            while self.count == before:
                ready, _, _ = select.select([sys.stdin, woken], [], [])
                if woken in ready:
                    os.read(woken, 4096)  # SIGINT or another signal: by now its handler has run
                elif sys.stdin in ready:
                    return sys.stdin.readline()
            return None
        finally:
            signal.set_wakeup_fd(previous)
            os.close(woken)
            os.close(wake)

    def _note(self, *_: object) -> None:
        self.count += 1
        self._told()
