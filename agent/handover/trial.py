"""The end of a rehearsal on the target: what Restore made runs, sealed off, for as long as it takes to see whether it is well.

    restored ─ try (link down) ─► it runs ─► its health check, or a second of life ─► all of its memory is in place ─► Tried

Nothing is undone here: Target.finish() throws the copy away, whatever became of it.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

from agent.engine import health
from agent.engine.container import Engine
from agent.engine.launch import MonitorClient, MonitorError
from agent.engine.spec import ContainerSpec
from agent.engine.state import State

LIFE_S = 1.0  # of a container without a health check
PAUSE_S = 0.05
OUTPUT = 200  # the last characters of what a health check has printed
RETRY_PAUSE_S = 1.0
FILL_LIMIT_S = 60.0


@dataclass(frozen=True, kw_only=True)
class Tried:
    """`passed`, and `text`: what was seen, for people. `health`: "healthy", "unhealthy", "" without a check. `tasks`: at the end."""

    passed: bool
    text: str
    health: str
    tasks: int
    marks: list[dict[str, Any]] = field(default_factory=list)


class Trial:
    """Of one restored container. `still_wanted` raises when the move is over."""

    def __init__(self, engine: Engine, spec: ContainerSpec, still_wanted: Callable[[], None]) -> None:
        self._engine, self._spec, self._still_wanted = engine, spec, still_wanted

    def run(self) -> Tried:
        """Raises WrongState when the move is over, or nothing was restored; MonitorError."""
        monitor = self._engine.roles.monitor(self._spec.id)
        self._engine.roles.impose_limits(self._spec.id)
        marks = list(monitor.request("try")["marks"])
        state, seen = self._look()
        failure = "" if state != health.UNHEALTHY else seen
        failure = self._death() or failure or self._fill(monitor) or self._death()
        tasks = len(self._engine.cgroup(self._spec.id).procs())
        if failure:
            return Tried(passed=False, text=failure, health=state, tasks=tasks, marks=marks)
        return Tried(passed=True, text=f"{seen}; {tasks} processes", health=state, tasks=tasks, marks=marks)

    def _look(self) -> tuple[str, str]:
        """(health, what was seen)."""
        spec = self._spec
        if not health.command(spec.health):
            self._wait(LIFE_S)
            return "", f"its processes are alive after {LIFE_S:g} s (it has no health check)"
        tries = spec.health.retries or health.DEFAULT_RETRIES
        for number in range(tries):
            if number:
                self._wait(min(spec.health.interval_ns / 1e9 or RETRY_PAUSE_S, RETRY_PAUSE_S))
            result = self._engine.checks.once(spec)
            self._still_wanted()
            output = " ".join(result.output.split())[-OUTPUT:]
            if result.exit_code == 0:
                return health.HEALTHY, f"its health check passes{f': {output}' if output else ''}"
            if self._death():
                break
        what = "cannot be run" if result.exit_code == health.NOT_RUN else f"exits with {result.exit_code}"
        return (
            health.UNHEALTHY,
            f"its health check {what}, {number + 1} of {tries} times{f': {output}' if output else ''}",
        )

    def _death(self) -> str:
        """ "" while its init lives."""
        status = self._engine.inspect(self._spec.id)
        if status.state == State.RUNNING:
            return ""
        code = "" if status.exit_code is None else f" with status {status.exit_code}"
        return f"it does not live on: it is {status.state}{code}{f' ({status.error})' if status.error else ''}"

    def _fill(self, monitor: MonitorClient) -> str:
        """Until all of its memory is in place; why it is not, or ""."""
        deadline = time.monotonic() + FILL_LIMIT_S
        try:
            while (status := monitor.request("status").fields).get("filling"):
                if time.monotonic() > deadline:
                    return f"its memory was not in place after {FILL_LIMIT_S:g} s"
                self._wait(PAUSE_S)
        except MonitorError as exc:
            return f"its monitor is gone: {exc.message}"
        return str(status.get("error", ""))

    def _wait(self, seconds: float) -> None:
        deadline = time.monotonic() + seconds
        while (left_s := deadline - time.monotonic()) > 0:
            self._still_wanted()
            time.sleep(min(PAUSE_S, left_s))
        self._still_wanted()
