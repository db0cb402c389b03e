"""One run: its hosts one after the other, each from state to state, every state written before what it means is done.

    PLANNED ─ LEAVING ─┬─ DONE                                (a job that evacuates one host: it stays cordoned)
                       └─ HOOK ─ AWAITED ─ RETURNING ─ DONE   (rolling)

Evacuations and restores are asked for with a request id made of run and host: asked for again after a crash, they are the same ones.
"""

from __future__ import annotations

import dataclasses
import logging
import shutil
import time
from collections.abc import Callable
from pathlib import Path

from migrate.coordinator.agents import AgentPool
from migrate.coordinator.evacuation import records as evacuation_records
from migrate.coordinator.evacuation.records import Evacuation, Evacuations, Options
from migrate.coordinator.evacuation.runner import EvacuationRunner
from migrate.coordinator.schedules.hook import Hook
from migrate.coordinator.schedules.records import (
    OPEN,
    ROLLING,
    Leg,
    LegState,
    Run,
    RunState,
    Schedules,
)
from migrate.coordinator.store import Store
from migrate.errors import ErrorRecord, MigrateError
from protos import agent_pb2

GOOD = (LegState.DONE, LegState.SKIPPED)

log = logging.getLogger(__name__)


class Rolling:
    """`wait` returns after a moment, or raises Interrupted: the process goes down, and another life goes on with what is written."""

    def __init__(
        self,
        store: Store,
        pool: AgentPool,
        records: Schedules,
        evacuations: Evacuations,
        runner: EvacuationRunner,
        hooks: Path,
        socket: Path,
        wait: Callable[[], None],
        now_ns: Callable[[], int] = time.time_ns,
    ) -> None:
        self._store, self._pool, self._records = store, pool, records
        self._evacuations, self._runner = evacuations, runner
        self._hooks, self._socket, self._wait, self._now_ns = hooks, socket, wait, now_ns

    def carry_out(self, run: Run) -> None:
        """To the end of the run. What is wrong with a host ends a rolling run: the next one would be taken away beside it."""
        broken = ""
        for leg in run.legs:
            if broken and leg.state is LegState.PLANNED:
                leg = dataclasses.replace(leg, state=LegState.SKIPPED, why=f"not begun: {broken} failed")
                self._records.write_leg(run.id, leg)
            leg = self._through(run, leg)
            if leg.state is LegState.FAILED:
                broken = broken or leg.host
        now = self._records.run(run.id)
        if not broken and all(leg.state in GOOD for leg in now.legs):
            self._records.finish(run.id, RunState.SUCCEEDED, self._now_ns())
        else:
            state = RunState.CANCELLED if now.cancelled and not broken else RunState.INCOMPLETE
            self._records.finish(run.id, state, self._now_ns())
        for leg in run.legs:
            shutil.rmtree(self._hooks / f"{run.id}-{leg.host}", ignore_errors=True)  # its end is in the record
        log.info("run %s of %s: %s", run.id, run.job.name, self._records.run(run.id).state)

    def _through(self, run: Run, leg: Leg) -> Leg:
        steps = {
            LegState.PLANNED: self._enter,
            LegState.LEAVING: self._leave,
            LegState.HOOK: self._hook,
            LegState.AWAITED: self._await,
            LegState.RETURNING: self._return,
        }
        while leg.state in OPEN:
            try:
                leg = steps[leg.state](run, leg)
            except MigrateError as exc:
                self._wait()  # raises where the process goes down: that is no failure of this host's
                leg = dataclasses.replace(leg, state=LegState.FAILED, error=ErrorRecord.of(exc))
            if leg.state not in OPEN:
                leg = dataclasses.replace(leg, finished_unix_ns=self._now_ns())
            self._records.write_leg(run.id, leg)
        return leg

    # ------------------------------------------------------------ the states

    def _enter(self, run: Run, leg: Leg) -> Leg:
        told = ""
        while True:
            if self._records.run(run.id).cancelled:
                return dataclasses.replace(leg, state=LegState.CANCELLED, why="cancelled before its turn")
            if self._now_ns() >= run.window_end_unix_ns:
                why = "the window was over before its turn" + (f": {told}" if told else "")
                return dataclasses.replace(leg, state=LegState.LATE, why=why)
            going = dataclasses.replace(leg, state=LegState.LEAVING, started_unix_ns=self._now_ns())
            if not (blocker := self._records.take_turn(run, going)):
                return going
            if blocker != told:
                told = blocker
                self._records.write_leg(run.id, dataclasses.replace(leg, why=f"waits: {blocker}"))
            self._wait()

    def _leave(self, run: Run, leg: Leg) -> Leg:
        job = run.job
        ends = [run.window_end_unix_ns]
        ends += [leg.started_unix_ns + int(job.deadline_s * 1e9)] if job.deadline_s else []
        options = Options(
            to=job.to,
            action=job.action,
            max_parallel=job.max_parallel,
            bandwidth=job.bandwidth,
            deadline_unix_ns=min(ends),
            selector=job.selector,
        )
        reason = job.reason or f"schedule {job.name}"
        request = f"{run.id}.{leg.host}.out"
        evacuation_id = self._runner.start(evacuation_records.EVACUATE, leg.host, options, reason, request)
        leg = dataclasses.replace(leg, evacuation_id=evacuation_id, why="")
        self._records.write_leg(run.id, leg)
        ended = self._followed(run, evacuation_id)
        good = ended.state is evacuation_records.State.SUCCEEDED
        if job.kind != ROLLING:
            why = (
                "" if good else f"evacuation {evacuation_id} is {ended.state}: migrate evacuations show {evacuation_id}"
            )
            cancelled = ended.state is evacuation_records.State.CANCELLED
            bad = LegState.CANCELLED if cancelled else LegState.FAILED
            return dataclasses.replace(leg, state=LegState.DONE if good else bad, why=why)
        if not good:
            why = f"it could not be emptied (migrate evacuations show {evacuation_id}); what had left was brought home"
            return dataclasses.replace(leg, state=LegState.RETURNING, failing=True, why=why)
        if not job.hook:
            return dataclasses.replace(leg, state=LegState.AWAITED, awaited_unix_ns=self._now_ns())
        return dataclasses.replace(leg, state=LegState.HOOK, boot_id=self._facts(leg.host).boot_id)

    def _hook(self, run: Run, leg: Leg) -> Leg:
        host = self._store.host(leg.host)
        environment = {
            "MIGRATE_HOST": host.name,
            "MIGRATE_ADDRESS": host.address,
            "MIGRATE_PORT": str(host.port),
            "MIGRATE_SCHEDULE": run.job.name,
            "MIGRATE_RUN": run.id,
            "MIGRATE_COORDINATOR": str(self._socket),
        }
        directory = self._hooks / f"{run.id}-{leg.host}"
        ended = Hook(directory, run.job.hook, environment, run.job.hook_timeout_s).run(self._wait)
        leg = dataclasses.replace(
            leg, hook_status=ended.status, hook_output=ended.output, hook_took_s=ended.took_s, why=""
        )
        if ended.status:
            why = (
                f"the hook ended with status {ended.status}; {leg.host} stays cordoned and empty. "
                f"When it is well: migrate restore {leg.host}"
            )
            return dataclasses.replace(leg, state=LegState.FAILED, why=why)
        return dataclasses.replace(leg, state=LegState.AWAITED, awaited_unix_ns=self._now_ns())

    def _await(self, run: Run, leg: Leg) -> Leg:
        """Its agent answers, has all that it needs, and, where the hook restarts the host, the kernel is another one's life."""
        give_up = leg.awaited_unix_ns + int(run.job.host_timeout_s * 1e9)
        why = ""
        while True:
            try:
                facts = self._facts(leg.host)
                missing = [one.name for one in facts.capabilities if one.required and not one.ok]
                if run.job.reboots and facts.boot_id == leg.boot_id:
                    why = "it has not restarted"
                elif missing:
                    why = f"it lacks {', '.join(missing)}"
                else:
                    return dataclasses.replace(leg, state=LegState.RETURNING)
            except MigrateError as exc:
                why = exc.message
            if self._now_ns() > give_up:
                break
            self._wait()
        text = f"not back after {run.job.host_timeout_s:g} s: {why}; it stays cordoned. When it is well: migrate restore {leg.host}"
        return dataclasses.replace(leg, state=LegState.FAILED, why=text)

    def _return(self, run: Run, leg: Leg) -> Leg:
        options = Options(max_parallel=run.job.max_parallel, bandwidth=run.job.bandwidth)
        reason = run.job.reason or f"schedule {run.job.name}"
        request = f"{run.id}.{leg.host}.home"
        restore_id = self._runner.start(evacuation_records.RESTORE, leg.host, options, reason, request)
        leg = dataclasses.replace(leg, restore_id=restore_id)
        self._records.write_leg(run.id, leg)
        ended = self._followed(run, restore_id, heed_cancel=False)
        if ended.state is not evacuation_records.State.SUCCEEDED:
            why = f"not everything came home (migrate evacuations show {restore_id}); again: migrate restore {leg.host}"
            return dataclasses.replace(leg, state=LegState.FAILED, why="; ".join(one for one in (leg.why, why) if one))
        return dataclasses.replace(leg, state=LegState.FAILED if leg.failing else LegState.DONE)

    # ------------------------------------------------------------ parts

    def _followed(self, run: Run, evacuation_id: str, *, heed_cancel: bool = True) -> Evacuation:
        cancelled = False
        while True:
            found = self._evacuations.get(evacuation_id)
            if found.state is not evacuation_records.State.RUNNING:
                return found
            if heed_cancel and not cancelled and self._records.run(run.id).cancelled:
                self._runner.cancel(evacuation_id)
                cancelled = True
            self._wait()

    def _facts(self, host: str) -> agent_pb2.HostFacts:
        found: agent_pb2.HostFacts = self._pool.agent(host).call("Host", "Facts", agent_pb2.FactsRequest(), retries=1)
        return found
