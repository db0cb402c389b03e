"""The monitor's loop: readable descriptors, writable ones, children that exit, timers. One thread, standard library
only.

Children are reaped here and nowhere else, whoever they were born to: the monitor is a subreaper. A blocking
`subprocess.run` inside a callback is fine, for the loop reaps only between callbacks.
"""

from __future__ import annotations

import heapq
import itertools
import os
import selectors
import signal
import socket
import time
from collections.abc import Callable

_UNCLAIMED_LIMIT = 64


class Loop:
    """Callbacks run one at a time. One that raises ends the loop: the monitor must not go on half done."""

    def __init__(self) -> None:
        self._selector = selectors.DefaultSelector()
        self._readers: dict[int, Callable[[], object]] = {}
        self._writers: dict[int, Callable[[], object]] = {}
        self._exits: dict[int, Callable[[int], None]] = {}
        self._unclaimed: dict[int, int] = {}
        self._timers: list[tuple[float, int, Callable[[], None]]] = []
        self._cancelled: set[int] = set()
        self._numbers = itertools.count(1)
        self._running = False
        self._wake_r, self._wake_w = socket.socketpair()
        self._wake_r.setblocking(False)
        self._wake_w.setblocking(False)
        signal.signal(signal.SIGCHLD, lambda _number, _frame: None)  # without a handler there is no wakeup
        signal.set_wakeup_fd(self._wake_w.fileno(), warn_on_full_buffer=False)
        self.add_reader(self._wake_r.fileno(), self._drain_wakeups)

    def add_reader(self, fd: int, callback: Callable[[], object]) -> None:
        """Call `callback()` whenever `fd` is readable or hung up; replaces the one before."""
        self._readers[fd] = callback
        self._update(fd)

    def remove_reader(self, fd: int) -> None:
        """Before the descriptor is closed. No error when there is none."""
        if self._readers.pop(fd, None):
            self._update(fd)

    def add_writer(self, fd: int, callback: Callable[[], object]) -> None:
        """Call `callback()` whenever `fd` takes data, until remove_writer."""
        self._writers[fd] = callback
        self._update(fd)

    def remove_writer(self, fd: int) -> None:
        if self._writers.pop(fd, None):
            self._update(fd)

    def on_exit(self, pid: int, callback: Callable[[int], None]) -> None:
        """Call `callback(code)` once the child has been reaped: its exit status, or minus the signal. Also
        for one that is gone already.
        """
        if pid in self._unclaimed:
            code = self._unclaimed.pop(pid)
            self.call_later(0, lambda: callback(code))
        else:
            self._exits[pid] = callback

    def waits_for(self, pid: int) -> bool:
        """Whether the child's callback is still to come."""
        return pid in self._exits

    def call_later(self, delay_s: float, callback: Callable[[], None]) -> int:
        """Call `callback()` once after `delay_s`; the number returned cancels it."""
        number = next(self._numbers)
        heapq.heappush(self._timers, (time.monotonic() + delay_s, number, callback))
        return number

    def cancel(self, number: int) -> None:
        self._cancelled.add(number)

    def run(self) -> None:
        """Until stop()."""
        self._running = True
        while True:
            self.reap()
            if not self._is_running():  # perhaps by a child's exit: nothing may wait for one more event
                return
            for key, events in self._selector.select(self._until_next_timer()):
                fd = key.fd
                if events & selectors.EVENT_READ and fd in self._readers:
                    self._readers[fd]()
                if events & selectors.EVENT_WRITE and fd in self._writers:
                    self._writers[fd]()
            self._run_timers()

    def stop(self) -> None:
        self._running = False

    def _is_running(self) -> bool:  # a function, for callbacks change it behind the type checker's back
        return self._running

    def after_fork(self) -> None:
        """In a forked child: let go of everything, so that neither signals nor descriptors reach the parent's loop."""
        signal.set_wakeup_fd(-1)
        signal.signal(signal.SIGCHLD, signal.SIG_DFL)
        self._selector.close()
        self._wake_r.close()
        self._wake_w.close()

    def _update(self, fd: int) -> None:
        wanted = (selectors.EVENT_READ if fd in self._readers else 0) | (
            selectors.EVENT_WRITE if fd in self._writers else 0
        )
        if fd in self._selector.get_map():
            if wanted:
                self._selector.modify(fd, wanted)
            else:
                self._selector.unregister(fd)
        elif wanted:
            self._selector.register(fd, wanted)

    def _drain_wakeups(self) -> None:
        try:
            while self._wake_r.recv(512):
                pass
        except BlockingIOError:
            pass  # empty

    def reap(self) -> None:
        """Reap what has ended and call its callbacks. run() does it; who waits without run() must."""
        while True:
            try:
                pid, status = os.waitpid(-1, os.WNOHANG)
            except ChildProcessError:
                return
            if pid == 0:
                return
            code = os.waitstatus_to_exitcode(status)
            if callback := self._exits.pop(pid, None):
                callback(code)
            else:  # an orphan that came to us, or a child whose pid its owner learns of later
                self._unclaimed[pid] = code
                if len(self._unclaimed) > _UNCLAIMED_LIMIT:
                    del self._unclaimed[next(iter(self._unclaimed))]

    def _until_next_timer(self) -> float | None:
        return max(0.0, self._timers[0][0] - time.monotonic()) if self._timers else None

    def _run_timers(self) -> None:
        now = time.monotonic()
        while self._timers and self._timers[0][0] <= now:
            _, number, callback = heapq.heappop(self._timers)
            if number in self._cancelled:
                self._cancelled.discard(number)
            else:
                callback()
