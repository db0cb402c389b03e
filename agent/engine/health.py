"""Health checks: a program in the container, now and then, says by its exit code whether the container is well.

    watch ─► due ─► probe (an exec session) ─► result: healthy, or one more failure in a row ─► due again, an interval later

One thread keeps the times of all containers, a few more hold the probes that run. States are Docker's: "starting" until the
first good check, "unhealthy" after `retries` failures in a row; failures within the start period do not count. What is known of
a container is in its health.json, travels with it, and is not forgotten by an agent that ends.

No probe runs in a container that is paused or in a move: CRIU would meet a process that is no child of init. Who begins a move
ends the one that is under way (hold), and its result is dropped.
"""

from __future__ import annotations

import contextlib
import dataclasses
import json
import logging
import threading
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from agent.engine.session import Session, SessionError, request
from agent.engine.spec import ContainerSpec, Healthcheck, from_plain
from agent.engine.state import Health, HealthResult, State
from agent.errors import AgentError, InvalidArgument, NotFound, WrongState

if TYPE_CHECKING:
    from agent.engine.container import Engine

DEFAULT_INTERVAL_S = 30.0
DEFAULT_TIMEOUT_S = 30.0
DEFAULT_RETRIES = 3
KEPT_RESULTS = 5
OUTPUT_BYTES = 4096
PROBES = 8  # at the same time, of all containers of the host
HOLD_LIMIT_S = 15.0
NOT_RUN = -1  # the exit code of a check that could not be run, or took too long
STARTING, HEALTHY, UNHEALTHY = "starting", "healthy", "unhealthy"

log = logging.getLogger(__name__)


def check(spec: ContainerSpec) -> None:
    """Raises InvalidArgument for a health check that cannot be."""
    test = spec.health.test
    if test and (test[0] not in ("CMD", "CMD-SHELL", "NONE") or (test[0] != "NONE" and len(test) < 2)):
        raise InvalidArgument(f"{list(test)} is no health check", hint='["CMD", PROGRAM, ...] or ["CMD-SHELL", LINE]')
    for name in ("interval_ns", "timeout_ns", "start_period_ns", "start_interval_ns", "retries"):
        if getattr(spec.health, name) < 0:
            raise InvalidArgument(f"{name} of the health check cannot be {getattr(spec.health, name)}")


def command(health: Healthcheck) -> list[str]:
    """What a check runs; nothing where there is none."""
    if not health.test or health.test[0] == "NONE":
        return []
    return ["/bin/sh", "-c", *health.test[1:]] if health.test[0] == "CMD-SHELL" else list(health.test[1:])


def judge(before: Health, result: HealthResult, health: Healthcheck, started_unix_ns: int) -> Health:
    """What is known after one more check."""
    status, streak = before.status, before.failing_streak
    in_start_period = result.started_unix_ns - started_unix_ns < health.start_period_ns
    if result.exit_code == 0:
        status, streak = HEALTHY, 0
    elif status != STARTING or not in_start_period:
        streak += 1
        if streak >= (health.retries or DEFAULT_RETRIES):
            status = UNHEALTHY
    return Health(status=status, failing_streak=streak, log=(*before.log, result)[-KEPT_RESULTS:])


@dataclass(kw_only=True)
class _Watched:
    spec: ContainerSpec
    due: float
    health: Health
    since_ns: int  # Unix time: it has run since
    quiet: int = 0  # how many want no probe to run
    probing: bool = False
    cancelled: bool = False
    session: Session | None = None
    deadline: float = 0.0  # of the probe
    late: bool = False
    idle: threading.Event = field(default_factory=threading.Event)


class Checks:
    """`engine.checks`. Thread-safe; never takes a container's lock while it holds its own."""

    def __init__(self, engine: Engine) -> None:
        self._engine = engine
        self._changed = threading.Condition()
        self._watched: dict[str, _Watched] = {}
        self._pool = ThreadPoolExecutor(PROBES, thread_name_prefix="health")
        self._open = False

    def boot(self) -> None:
        """From now on checks run. What ran before the agent's start is watched on."""
        with self._changed:
            self._open = True
        threading.Thread(target=self._run, name="health", daemon=True).start()
        for status in self._engine.list():
            if status.state in (State.RUNNING, State.PAUSED) and not status.migration_id:
                self.watch(status.spec)

    def close(self) -> None:
        with self._changed:
            self._open = False
            watched = list(self._watched.values())
            self._watched.clear()
            self._changed.notify_all()
        for one in watched:
            self._cancel(one)
        self._pool.shutdown(wait=False, cancel_futures=True)

    def watch(self, spec: ContainerSpec, *, fresh: bool = False) -> None:
        """It runs, for the first time (`fresh`) or on. The first check comes after an interval."""
        if not command(spec.health):
            return
        health = Health(status=STARTING) if fresh else self.read(spec)
        since_ns = time.time_ns()  # of a fresh one the record still tells of the life before
        if not fresh:
            with contextlib.suppress(NotFound):
                since_ns = self._engine.store.record(spec.id).started_unix_ns
        with self._changed:
            due = time.monotonic() + pause_s(spec.health, health.status, time.time_ns() - since_ns)
            self._watched[spec.id] = _Watched(spec=spec, due=due, health=health, since_ns=since_ns)
            self._watched[spec.id].idle.set()
            self._changed.notify_all()
        if fresh:
            self._write(spec.id, health)

    def unwatch(self, container_id: str) -> None:
        """It runs no more, or not here. What is known stays in its file."""
        with self._changed:
            watched = self._watched.pop(container_id, None)
        if watched is not None:
            self._cancel(watched)

    def read(self, spec: ContainerSpec) -> Health:
        """What is known; nothing of a container without a check, "starting" of one that nobody has looked at."""
        if not command(spec.health):
            return Health()
        with self._changed:
            if (watched := self._watched.get(spec.id)) is not None:
                return watched.health
        try:
            return from_plain(Health, json.loads(self._path(spec.id).read_text()))
        except (OSError, TypeError, ValueError, KeyError):
            return Health(status=STARTING)

    def export(self, spec: ContainerSpec) -> dict[str, Any]:
        """For the container's next host."""
        return dataclasses.asdict(self.read(spec))

    def take(self, container_id: str, exported: dict[str, Any]) -> None:
        """What its last host knew."""
        self._write(container_id, from_plain(Health, json.loads(json.dumps(exported))))

    def hold(self, container_id: str) -> None:
        """Return when no probe runs in the container; the one that does is ended. The caller has made sure that none begins:
        by a move or a pause in the container's record, or quiet(). Raises WrongState where it cannot be ended.
        """
        with self._changed:
            watched = self._watched.get(container_id)
        if watched is None:
            return
        self._cancel(watched)
        if not watched.idle.wait(HOLD_LIMIT_S):
            raise WrongState(f"a health check of container {watched.spec.name} does not end", hint="try again")

    @contextlib.contextmanager
    def quiet(self, container_id: str) -> Iterator[None]:
        """No probe runs meanwhile."""
        with self._changed:
            watched = self._watched.get(container_id)
            if watched is not None:
                watched.quiet += 1
        try:
            self.hold(container_id)
            yield
        finally:
            if watched is not None:
                with self._changed:
                    watched.quiet -= 1

    def once(self, spec: ContainerSpec) -> HealthResult:
        """One check now, of a container that is not watched. Raises OSError; NotFound without the container."""
        watched = _Watched(spec=spec, due=0.0, health=Health(), since_ns=0)

        def late() -> None:
            watched.late = True
            self._kill(watched)

        timer = threading.Timer(spec.health.timeout_ns / 1e9 or DEFAULT_TIMEOUT_S, late)
        timer.start()
        try:
            return self._ask(watched)
        finally:
            timer.cancel()

    # ------------------------------------------------------------ the thread of times

    def _run(self) -> None:
        while True:
            overdue: list[_Watched] = []
            with self._changed:
                if not self._open:
                    return
                now = time.monotonic()
                for watched in self._watched.values():
                    if watched.probing:
                        if watched.deadline and watched.deadline <= now and not watched.late:
                            watched.late = True
                            overdue.append(watched)
                    elif watched.due <= now and not watched.quiet:
                        watched.probing, watched.cancelled, watched.late, watched.deadline = True, False, False, 0.0
                        watched.idle.clear()
                        self._pool.submit(self._probe, watched)
                if not overdue:
                    self._changed.wait(self._until_next(now))
            for watched in overdue:
                self._kill(watched)

    def _until_next(self, now: float) -> float | None:
        instants = [
            watched.deadline if watched.probing else watched.due
            for watched in self._watched.values()
            if (watched.deadline and not watched.late if watched.probing else not watched.quiet)
        ]
        return max(0.0, min(instants) - now) if instants else None

    # ------------------------------------------------------------ a probe

    def _probe(self, watched: _Watched) -> None:
        result: HealthResult | None = None
        try:
            if self._may_run(watched):
                result = self._ask(watched)
        except (AgentError, OSError) as exc:
            log.warning("container %s: its health check: %s", watched.spec.name, exc)
        finally:
            changed = self._finish(watched, result)
        if changed:
            with contextlib.suppress(NotFound):
                status = self._engine.store.spec(watched.spec.id)
                self._engine.note(f"health_status: {watched.health.status}", status)

    def _may_run(self, watched: _Watched) -> bool:
        """Without the container's lock, whose holder may be waiting for us in hold(): that one has written its record before it
        looks whether we probe, and we have said that we do before we look at the record.
        """
        try:
            record = self._engine.store.record(watched.spec.id)
            return not record.migration_id and not record.paused and self._runs(watched)
        except NotFound:
            return False

    def _runs(self, watched: _Watched) -> bool:
        return self._engine.inspect(watched.spec.id).state == State.RUNNING and not watched.cancelled

    def _ask(self, watched: _Watched) -> HealthResult:
        spec, engine = watched.spec, self._engine
        began_ns = time.time_ns()
        output = bytearray()
        timeout_s = spec.health.timeout_ns / 1e9 or DEFAULT_TIMEOUT_S
        with self._changed:
            watched.deadline = time.monotonic() + timeout_s
            self._changed.notify_all()
        record = engine.store.record(spec.id)
        what = request(
            spec,
            pid=record.pid,
            start_ticks=record.start_ticks,
            cgroups=engine.cgroup(spec.id).dirs,
            argv=command(spec.health),
            seccomp=engine.filters.path(spec),
        )
        try:
            with Session(what, stdin=False) as session:
                with self._changed:
                    watched.session = session
                    unwanted = watched.cancelled or watched.late
                if unwanted:
                    session.kill()
                for piece in session:
                    output += piece.data[: OUTPUT_BYTES - len(output)]
                code = session.exit_code
        except SessionError as exc:
            code, output = NOT_RUN, bytearray(exc.message.encode())
        finally:
            with self._changed:
                watched.session = None
        if watched.late:
            code, output = NOT_RUN, bytearray(f"Health check exceeded timeout ({timeout_s:g}s)".encode())
        return HealthResult(
            started_unix_ns=began_ns,
            ended_unix_ns=time.time_ns(),
            exit_code=NOT_RUN if code is None else code,
            output=output.decode(errors="replace"),
        )

    def _finish(self, watched: _Watched, result: HealthResult | None) -> bool:
        """Whether its state has changed."""
        before = watched.health
        if result is not None and not watched.cancelled:
            with contextlib.suppress(NotFound):
                started_ns = self._engine.store.record(watched.spec.id).started_unix_ns
                watched.health = judge(before, result, watched.spec.health, started_ns)
                self._write(watched.spec.id, watched.health)
        with self._changed:
            watched.probing, watched.deadline = False, 0.0
            age_ns = time.time_ns() - watched.since_ns
            watched.due = time.monotonic() + pause_s(watched.spec.health, watched.health.status, age_ns)
            watched.idle.set()
            self._changed.notify_all()
        return watched.health.status != before.status

    def _cancel(self, watched: _Watched) -> None:
        with self._changed:
            watched.cancelled = True
        self._kill(watched)

    def _kill(self, watched: _Watched) -> None:
        with self._changed:
            session = watched.session
        if session is not None:
            session.kill()

    # ------------------------------------------------------------ the file

    def _path(self, container_id: str) -> Path:
        return self._engine.store.directory(container_id) / "health.json"

    def _write(self, container_id: str, health: Health) -> None:
        """Not synced: after a power cut the container runs no more."""
        path = self._path(container_id)
        new = path.with_suffix(".new")
        try:
            new.write_text(json.dumps(dataclasses.asdict(health)))
            new.rename(path)
        except OSError as exc:
            log.warning("%s was not written: %s", path, exc)


def pause_s(health: Healthcheck, status: str, age_ns: int) -> float:
    """Seconds between two checks: shorter ones in the start period until the first good one, where that was asked for."""
    if health.start_interval_ns and status == STARTING and age_ns < health.start_period_ns:
        return health.start_interval_ns / 1e9
    return health.interval_ns / 1e9 or DEFAULT_INTERVAL_S
