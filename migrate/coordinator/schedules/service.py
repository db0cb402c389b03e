"""The service FleetSchedules: unpack, call, pack. What the calls mean is in protos/schedule.proto."""

from __future__ import annotations

import dataclasses
from typing import Any

from migrate.coordinator import pack
from migrate.coordinator.evacuation.service import DEFAULT_PARALLEL, MOST_PARALLEL
from migrate.coordinator.schedules.clock import SchedulesRunner
from migrate.coordinator.schedules.records import HOOK_TIMEOUT_S, HOST_TIMEOUT_S, WINDOW_S, Job, Leg, Run, Schedule
from migrate.coordinator.schedules.times import Timetable
from migrate.errors import InvalidArgument
from protos import schedule_pb2, schedule_pb2_grpc

DEFAULT_RUNS = 10


class SchedulesService(schedule_pb2_grpc.FleetSchedulesServicer):
    """Thread-safe, as its parts are."""

    def __init__(self, runner: SchedulesRunner) -> None:
        self._runner, self._records = runner, runner.records

    def Add(self, request: schedule_pb2.ScheduleJob, context: Any) -> schedule_pb2.Schedule:  # noqa: N802, ARG002
        return _schedule(self._runner.add(_job(request)))

    def List(self, request: schedule_pb2.SchedulesRequest, context: Any) -> schedule_pb2.ScheduleList:  # noqa: N802, ARG002
        return schedule_pb2.ScheduleList(schedules=[self._with_runs(one, 1) for one in self._records.all()])

    def Inspect(self, request: schedule_pb2.ScheduleRequest, context: Any) -> schedule_pb2.Schedule:  # noqa: N802, ARG002
        return self._with_runs(self._records.get(request.name), request.runs or DEFAULT_RUNS)

    def Pause(self, request: schedule_pb2.ScheduleRequest, context: Any) -> schedule_pb2.Schedule:  # noqa: N802, ARG002
        return _schedule(self._runner.pause(request.name))

    def Resume(self, request: schedule_pb2.ScheduleRequest, context: Any) -> schedule_pb2.Schedule:  # noqa: N802, ARG002
        return _schedule(self._runner.resume(request.name))

    def RunNow(self, request: schedule_pb2.ScheduleRequest, context: Any) -> schedule_pb2.ScheduleRun:  # noqa: N802, ARG002
        return _run(self._runner.run_now(request.name))

    def Cancel(self, request: schedule_pb2.ScheduleRequest, context: Any) -> schedule_pb2.ScheduleRun:  # noqa: N802, ARG002
        return _run(self._runner.cancel(request.name))

    def Remove(self, request: schedule_pb2.ScheduleRequest, context: Any) -> schedule_pb2.RemovedSchedule:  # noqa: N802, ARG002
        self._records.remove(request.name)
        return schedule_pb2.RemovedSchedule()

    def InspectRun(self, request: schedule_pb2.ScheduleRunRequest, context: Any) -> schedule_pb2.ScheduleRun:  # noqa: N802, ARG002
        return _run(self._records.run(request.id), output=True)

    def _with_runs(self, known: Schedule, most: int) -> schedule_pb2.Schedule:
        message = _schedule(known)
        message.runs.extend(_run(one) for one in self._records.runs(known.job.name, limit=most))
        return message


def _job(request: schedule_pb2.ScheduleJob) -> Job:
    """Raises InvalidArgument."""
    if request.max_parallel > MOST_PARALLEL:
        raise InvalidArgument(f"{request.max_parallel} moves at once", hint=f"at most {MOST_PARALLEL}")
    return Job(
        name=request.name,
        kind=request.kind,
        host=request.host,
        group=request.group,
        cron=request.cron,
        tz=request.tz or "UTC",
        blackouts=tuple(request.blackouts),
        window_s=request.window_s or WINDOW_S,
        missed=request.missed or "run",
        to=tuple(request.to),
        action=request.action,
        max_parallel=request.max_parallel or DEFAULT_PARALLEL,
        bandwidth=request.bandwidth,
        deadline_s=request.deadline_s,
        selector=dict(request.selector),
        reason=request.reason,
        hook=request.hook,
        hook_timeout_s=request.hook_timeout_s or HOOK_TIMEOUT_S,
        reboots=request.reboots,
        host_timeout_s=request.host_timeout_s or HOST_TIMEOUT_S,
    )


def _schedule(one: Schedule) -> schedule_pb2.Schedule:
    job = schedule_pb2.ScheduleJob(**dataclasses.asdict(one.job))
    table = Timetable(one.job.cron, one.job.tz)
    return schedule_pb2.Schedule(
        job=job,
        paused=one.paused,
        next_unix_ns=one.next_unix_ns,
        created_unix_ns=one.created_unix_ns,
        next_local=table.local(one.next_unix_ns).isoformat() if one.next_unix_ns else "",
    )


def _run(one: Run, *, output: bool = False) -> schedule_pb2.ScheduleRun:
    return schedule_pb2.ScheduleRun(
        id=one.id,
        schedule=one.job.name,
        cause=one.cause,
        state=one.state,
        why=one.why,
        due_unix_ns=one.due_unix_ns,
        window_end_unix_ns=one.window_end_unix_ns,
        started_unix_ns=one.started_unix_ns,
        finished_unix_ns=one.finished_unix_ns,
        legs=[_leg(leg, output=output) for leg in one.legs],
        cancelled=one.cancelled,
    )


def _leg(leg: Leg, *, output: bool) -> schedule_pb2.ScheduleLeg:
    message = schedule_pb2.ScheduleLeg(
        host=leg.host,
        state=leg.state,
        evacuation_id=leg.evacuation_id,
        restore_id=leg.restore_id,
        hook_ended=leg.hook_status is not None,
        hook_status=leg.hook_status or 0,
        hook_output=leg.hook_output if output else "",
        hook_took_s=leg.hook_took_s,
        why=leg.why,
        started_unix_ns=leg.started_unix_ns,
        finished_unix_ns=leg.finished_unix_ns,
    )
    if leg.error is not None:
        message.error.CopyFrom(pack.error(leg.error))
    return message
