"""SIGTERM and SIGINT as something that a program's main thread waits for."""

from __future__ import annotations

import os
import select
import signal


class AskedToEnd:
    """From its making on neither signal ends the process; wait() returns when one has come, before or after. For the main thread.

    A handler alone does not wake a main thread that waits for a lock when the kernel gives the signal to another thread, as gRPC has
    many: an agent was seen that had not ended minutes after SIGTERM. The wakeup descriptor is written in whatever thread it is.
    """

    def __init__(self) -> None:
        self._woken, wake = os.pipe2(os.O_NONBLOCK | os.O_CLOEXEC)
        signal.set_wakeup_fd(wake, warn_on_full_buffer=False)
        for number in (signal.SIGTERM, signal.SIGINT):
            signal.signal(number, lambda _number, _frame: None)

    def wait(self) -> None:
        select.select([self._woken], [], [])
