"""A container whose monitor was killed gets another one: which of its things a new monitor needs, and how it takes them up.

    agent: adopt ── pid, plan, the read ends of stdout and stderr ──►  idle monitor ─► running

The tasks notice nothing. Three things are different from then on: init is not the monitor's child, so that its end shows by a
pidfd and its exit code is not known; stdin, whose other end died with the first monitor, stays closed; and who was attached has
to attach again. Standard library and agent.linux only.
"""

from __future__ import annotations

import os
from collections.abc import Sequence
from pathlib import Path

from agent.engine.monitor import Monitor
from agent.engine.monitor_clients import Client, Message

UNKNOWN_EXIT_CODE = 255
WHY_UNKNOWN = "its first monitor was killed: the exit code is not known"


class Adoption:
    """Registers the command adopt."""

    def __init__(self, monitor: Monitor) -> None:
        self._monitor = monitor
        monitor.commands["adopt"] = self._adopt

    def _adopt(self, client: Client, request: Message, fds: list[int]) -> None:
        monitor = self._monitor
        if monitor.state != "idle":
            for fd in fds:
                os.close(fd)
            client.fail(request, "adopt", 0, f"this monitor is {monitor.state}")
            return
        pid = int(request["pid"])
        monitor.take_plan(request["plan"])
        monitor.adopt_stdio(fds)
        monitor.on_init_exit = lambda _code: monitor.finish(UNKNOWN_EXIT_CODE, WHY_UNKNOWN)
        monitor.adopt_init(pid)
        monitor.state = "running"
        client.answer(request, pid=pid)


def reopen_outputs(pid: int) -> Sequence[int]:
    """New read ends of the pipes that are stdout and stderr of `pid`, for where nobody has kept one. Descriptors of the
    caller's; none for what is no pipe: a terminal that has lost its master is over. Raises OSError without the process.
    """
    opened: list[int] = []
    for number in (1, 2):
        path = Path(f"/proc/{pid}/fd/{number}")
        try:
            if os.readlink(path).startswith("pipe:"):  # noqa: PTH115  no path
                opened.append(os.open(path, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC))
        except FileNotFoundError:
            continue  # the program has closed it
    return opened
