"""Begins what is due, and runs it: one thread looks at the clock, one more for each run.

A clock that jumps does no harm: what is due is what is written as due, and a job that is found late is a missed one.
"""

from __future__ import annotations

import dataclasses
import logging
import secrets
import sqlite3
import threading
import time
from collections.abc import Callable
from pathlib import Path

from migrate.coordinator.agents import AgentPool
from migrate.coordinator.evacuation import records as evacuation_records
from migrate.coordinator.evacuation.records import Evacuations, Options
from migrate.coordinator.evacuation.runner import EvacuationRunner
from migrate.coordinator.schedules.records import (
    EVACUATE,
    EVERY_HOST,
    ROLLING,
    Job,
    Leg,
    LegState,
    Run,
    RunState,
    Schedule,
    Schedules,
    skipped,
)
from migrate.coordinator.schedules.rolling import Rolling
from migrate.coordinator.schedules.times import Timetable
from migrate.coordinator.store import Store
from migrate.errors import InvalidArgument, NotFound, Unreachable, WrongState
from migrate.saga.saga import Interrupted

LATE_S = 60.0  # a job that is begun within that is on time
LOOK_S = 0.2  # at what goes on
LONGEST_SLEEP_S = 30.0  # the wall clock may be set meanwhile
LONGEST_WINDOW_S = 7 * 86400.0
MISSED = ("run", "skip")

log = logging.getLogger(__name__)


class SchedulesRunner:
    """Thread-safe. One a coordinator, beside its EvacuationRunner. `hooks`: jobs may have one. `now_ns`: the wall clock."""

    def __init__(
        self,
        store: Store,
        pool: AgentPool,
        evacuations: Evacuations,
        runner: EvacuationRunner,
        *,
        state_dir: Path,
        socket: Path,
        hooks: bool = True,
        now_ns: Callable[[], int] = time.time_ns,
    ) -> None:
        self._hooks_allowed = hooks
        self.records = Schedules(store)
        self._store, self._runner, self._now_ns = store, runner, now_ns
        self._stop, self._poke = threading.Event(), threading.Event()
        self._lock = threading.Lock()
        self._threads: dict[str, threading.Thread] = {}
        self._rolling = Rolling(
            store, pool, self.records, evacuations, runner, state_dir / "hooks", socket, self._wait, now_ns
        )

    # ------------------------------------------------------------ what people ask for

    def add(self, job: Job) -> Schedule:
        """Keep a job. Raises AlreadyExists, NotFound, InvalidArgument. One without cron is due never: `run_now`."""
        table = self._checked(job)
        now = self._now_ns()
        next_ns = table.next_after(now)
        if job.cron and not next_ns:
            raise InvalidArgument(f"{job.cron!r} with these blackouts never comes", hint="name fewer days")
        schedule = Schedule(job=job, next_unix_ns=next_ns, created_unix_ns=now)
        self.records.add(schedule)
        self._poke.set()
        return schedule

    def pause(self, name: str) -> Schedule:
        """It is due no more; a run that goes on goes on. Idempotent."""
        self.records.get(name)
        self.records.set_next(name, 0, paused=True)
        return self.records.get(name)

    def resume(self, name: str) -> Schedule:
        """Due again, from now on: what was due meanwhile was not missed. Idempotent."""
        known = self.records.get(name)
        if known.paused:
            self.records.set_next(name, _timetable(known.job).next_after(self._now_ns()), paused=False)
            self._poke.set()
        return self.records.get(name)

    def run_now(self, name: str) -> Run:
        """Begin at once, whatever the blackouts; its window begins now. WrongState while a run of it goes on."""
        if self._stop.is_set():
            raise Unreachable("the coordinator is going down", hint="try again when it is back")
        known = self.records.get(name)
        now = self._now_ns()
        end = now + int(known.job.window_s * 1e9)
        run = self._begin(known, "by hand", now, end, now, None)
        assert run is not None
        if run.state is RunState.SKIPPED:
            raise WrongState(f"{name}: {run.why}", hint=f"migrate schedule show {name}")
        return run

    def cancel(self, name: str) -> Run:
        """Of the run that goes on: no host's turn comes any more, no move begins; a host that is away comes home. WrongState: none does."""
        self.records.get(name)
        active = self.records.runs(name, active=True)
        if not active:
            raise WrongState(f"no run of {name} goes on", hint=f"migrate schedule show {name}")
        self.records.cancel(active[0].id)
        return self.records.run(active[0].id)

    # ------------------------------------------------------------ the coordinator's own life

    def start(self) -> None:
        """After the evacuations': go on with runs that a crash or a shutdown left, then look at the clock."""
        for run in self.records.runs(active=True):
            self._launch(run)
        threading.Thread(target=self._look, name="schedules", daemon=True).start()

    def shutdown(self, timeout_s: float = 5.0) -> None:
        """Before the evacuations stop; what is under way is left for `start`. Hooks go on by themselves."""
        self._stop.set()
        self._poke.set()
        with self._lock:
            threads = list(self._threads.values())
        give_up = time.monotonic() + timeout_s
        for thread in threads:
            thread.join(max(0.0, give_up - time.monotonic()))

    def tick(self) -> None:
        """Begin what is due."""
        now = self._now_ns()
        for known in self.records.all():
            if not known.paused and 0 < known.next_unix_ns <= now:
                self._due(known, now)

    # ------------------------------------------------------------ inside

    def _due(self, known: Schedule, now: int) -> None:
        """Of several times that have passed only the last counts."""
        job, table = known.job, _timetable(known.job)
        due = table.last_until(now, known.next_unix_ns) or known.next_unix_ns
        following = table.next_after(now)
        end = table.end_of_window(due, job.window_s)
        late = now - due > int(LATE_S * 1e9)
        why = ""
        if late and job.missed == "skip":
            why = f"missed: it was found {(now - due) / 1e9:.0f} s late"
        elif now >= end:
            why = f"missed: its window was over {(now - end) / 1e9:.0f} s ago"
        self._begin(known, "missed" if late else "due", due, end, now, (known.next_unix_ns, following), why)

    def _begin(
        self, known: Schedule, cause: str, due: int, end: int, now: int, written: tuple[int, int] | None, why: str = ""
    ) -> Run | None:
        run = Run(
            id=secrets.token_hex(8),
            job=known.job,
            cause=cause,
            state=RunState.RUNNING,
            due_unix_ns=due,
            window_end_unix_ns=end,
            started_unix_ns=now,
            legs=tuple(self._legs(known.job)),
        )
        if not why and not run.legs:
            why = "the fleet has no such host" if known.job.kind == EVACUATE else "the group has no hosts"
        begun = self.records.begin(skipped(run, why) if why else run, written)
        if begun is not None and begun.state is RunState.RUNNING:
            self._launch(begun)
        elif begun is not None:
            log.warning("schedule %s did not run: %s", known.job.name, begun.why)
        return begun

    def _legs(self, job: Job) -> list[Leg]:
        hosts = self._store.hosts()
        if job.kind == EVACUATE:
            return [Leg(host=host.name) for host in hosts if host.name == job.host]
        legs = []
        for host in job.members(hosts):
            leg = Leg(host=host.name)
            if host.cordon is not None:  # bringing it home would take the operator's cordon away
                reason = f" ({host.cordon.reason})" if host.cordon.reason else ""
                leg = dataclasses.replace(leg, state=LegState.SKIPPED, why=f"it was cordoned before{reason}")
            legs.append(leg)
        return legs

    def _checked(self, job: Job) -> Timetable:
        if not job.name or len(job.name) > 120 or any(one.isspace() or one == "/" for one in job.name):
            raise InvalidArgument(
                f"{job.name!r} cannot name a schedule", hint="up to 120 characters, none of them a space or /"
            )
        if job.kind not in (EVACUATE, ROLLING):
            raise InvalidArgument(f"no kind of schedule {job.kind!r}", hint=f"{EVACUATE} or {ROLLING}")
        if job.missed not in MISSED:
            raise InvalidArgument(f"a missed run is {' or '.join(MISSED)}, not {job.missed!r}")
        for name, value, most in (
            ("window", job.window_s, LONGEST_WINDOW_S),
            ("hook's timeout", job.hook_timeout_s, LONGEST_WINDOW_S),
            ("host's timeout", job.host_timeout_s, LONGEST_WINDOW_S),
        ):
            if not 0 < value <= most:
                raise InvalidArgument(f"a {name} of {value:g} s", hint=f"more than nothing, at most {most:g} s")
        if job.deadline_s < 0:
            raise InvalidArgument(f"a deadline in {job.deadline_s} s")
        members = job.members(self._store.hosts()) if job.group else []
        if job.group and not members:
            raise NotFound(
                f"no host is in the group {job.group!r}",
                hint=f"label hosts: migrate host label host1 KEY=VALUE; or {EVERY_HOST!r} for every host",
                code="group.not_found",
            )
        if job.kind == ROLLING and not job.group:
            raise InvalidArgument("a rolling job needs a group of hosts", hint=f"such as rack==a, or {EVERY_HOST!r}")
        if job.hook and not self._hooks_allowed:
            raise WrongState(
                "this coordinator runs no hooks", hint="hooks = true in its configuration; without --hook: no hook"
            )
        if job.reboots and not job.hook:
            raise InvalidArgument("nothing restarts the hosts: there is no hook")
        options = Options(to=job.to, action=job.action, max_parallel=job.max_parallel, bandwidth=job.bandwidth)
        for host in [job.host] if job.kind == EVACUATE else [one.name for one in members]:
            self._runner.check(evacuation_records.EVACUATE, host, options)
        return _timetable(job)

    def _launch(self, run: Run) -> None:
        thread = threading.Thread(target=self._work, args=(run,), name=f"run-{run.id}", daemon=True)
        with self._lock:
            self._threads[run.id] = thread
        thread.start()

    def _work(self, run: Run) -> None:
        """The whole life of a run's thread."""
        try:
            self._rolling.carry_out(run)
        except Interrupted:
            log.info("run %s of %s is left for the next start", run.id, run.job.name)
        except Exception as exc:  # a mistake of ours must leave a state that somebody sees, not one that waits for ever
            log.exception("run %s of %s", run.id, run.job.name)
            self.records.finish(run.id, RunState.INCOMPLETE, self._now_ns(), f"{type(exc).__name__}: {exc}")
        finally:
            with self._lock:
                self._threads.pop(run.id, None)
            self._store.database.close()

    def _look(self) -> None:
        while not self._stop.is_set():
            self._poke.clear()
            try:
                self.tick()
                waits = [one.next_unix_ns for one in self.records.all() if one.next_unix_ns and not one.paused]
                sleep_s = (min(waits) - self._now_ns()) / 1e9 if waits else LONGEST_SLEEP_S
            except sqlite3.Error:
                log.exception("the schedules cannot be read; trying again")
                sleep_s = LOOK_S
            self._poke.wait(min(LONGEST_SLEEP_S, max(LOOK_S, sleep_s)))
        self._store.database.close()

    def _wait(self) -> None:
        if self._stop.wait(LOOK_S):
            raise Interrupted


def _timetable(job: Job) -> Timetable:
    return Timetable(job.cron, job.tz, job.blackouts)
