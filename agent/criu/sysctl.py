"""vm.unprivileged_userfaultfd, opened for the instant in which CRIU needs it.

CRIU opens a userfaultfd inside the container's user namespace, and there even its root counts as unprivileged. The switch exists to make
kernel exploits harder, so it is on only between two notifications of a restore (about 0.1 s). Restores on one kernel
take turns: the last one out must leave what the first one found. Standard library only.
"""

from __future__ import annotations

import fcntl
import os
import time
from pathlib import Path

from agent.errors import WrongState

SWITCH = Path("/proc/sys/vm/unprivileged_userfaultfd")
TURN_LIMIT_S = 20.0


class UserfaultWindow:
    """open() ... close(); both idempotent. A monitor that dies in between leaves it to `shut_left_open`."""

    def __init__(self, switch: Path = SWITCH) -> None:
        self._switch = switch
        self._lock = -1

    def open(self) -> None:
        """Raises OSError when the switch cannot be set, WrongState when another restore holds it too long."""
        if self._lock >= 0 or not self._switch.exists():
            return  # kernels before 5.2 have no such switch and no such rule
        lock = os.open(
            self._switch, os.O_RDONLY | os.O_CLOEXEC
        )  # a lock on the switch itself is one lock a kernel, whatever is mounted where
        deadline = time.monotonic() + TURN_LIMIT_S
        while True:
            try:
                fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
                break
            except BlockingIOError as exc:
                if time.monotonic() > deadline:
                    os.close(lock)
                    raise WrongState(
                        f"another restore on this kernel has held {self._switch} for {TURN_LIMIT_S:g} s; "
                        f"if no move is under way, end what holds it: fuser -v {self._switch}"
                    ) from exc
                time.sleep(0.005)
        if self._switch.read_text().strip() == "1":
            os.close(lock)  # the operator's own choice: nothing to open or to close
            return
        self._lock = lock
        self._switch.write_text("1")

    def close(self) -> None:
        if self._lock >= 0:
            self._switch.write_text("0")
            os.close(self._lock)
            self._lock = -1
