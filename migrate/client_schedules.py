"""The client library's calls about schedules; part of migrate.client.Client.

client.add_schedule(ScheduleJob(name="saturdays", kind="evacuate", host="host1", cron="0 2 * * SAT", tz="Europe/Berlin"))
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import grpc

from migrate.rpc import messages

if TYPE_CHECKING:
    from migrate.records_schedules import Schedule, ScheduleJob, ScheduleRun

_LIMIT_S = 60.0


class ScheduleCalls:
    """By the schedule's name. Messages and records are imported by the first call: other commands need none of them."""

    _channel: grpc.Channel

    def _call(self, method: Any, request: Any, timeout_s: float | None) -> Any:
        raise NotImplementedError  # the client's

    def add_schedule(self, job: ScheduleJob) -> Schedule:
        """Keep it, and run it when it is due. AlreadyExists for a name that is taken."""
        return self._schedule(self._asked("Add", "ScheduleJob", **job.to_dict()))

    def schedules(self) -> list[Schedule]:
        """By name, each with its newest run."""
        return [self._schedule(one) for one in self._asked("List", "SchedulesRequest").schedules]

    def schedule(self, name: str, *, runs: int = 10) -> Schedule:
        """With its newest runs."""
        return self._schedule(self._asked("Inspect", "ScheduleRequest", name=name, runs=runs))

    def pause_schedule(self, name: str) -> Schedule:
        """It is due no more; a run that goes on goes on. Idempotent."""
        return self._schedule(self._asked("Pause", "ScheduleRequest", name=name))

    def resume_schedule(self, name: str) -> Schedule:
        """Due again, from now on. Idempotent."""
        return self._schedule(self._asked("Resume", "ScheduleRequest", name=name))

    def run_schedule(self, name: str) -> ScheduleRun:
        """Begin it at once, and return. WrongState while a run of it goes on."""
        return self._run(self._asked("RunNow", "ScheduleRequest", name=name))

    def cancel_schedule(self, name: str) -> ScheduleRun:
        """Of the run that goes on: no more hosts, no more moves; a host that is away comes home."""
        return self._run(self._asked("Cancel", "ScheduleRequest", name=name))

    def remove_schedule(self, name: str) -> None:
        """With its history. WrongState while a run of it goes on."""
        self._asked("Remove", "ScheduleRequest", name=name)

    def schedule_run(self, run_id: str) -> ScheduleRun:
        """With what its hooks have printed; by id or an unambiguous beginning of it."""
        return self._run(self._asked("InspectRun", "ScheduleRunRequest", id=run_id))

    def _asked(self, method: str, request: str, **fields: Any) -> Any:
        from protos import schedule_pb2, schedule_pb2_grpc

        stub = schedule_pb2_grpc.FleetSchedulesStub(self._channel)  # type: ignore[no-untyped-call]  # generated
        return self._call(getattr(stub, method), getattr(schedule_pb2, request)(**fields), _LIMIT_S)

    @staticmethod
    def _schedule(message: Any) -> Schedule:
        from migrate import records_schedules

        return messages.record(records_schedules.Schedule, message)

    @staticmethod
    def _run(message: Any) -> ScheduleRun:
        from migrate import records_schedules

        return messages.record(records_schedules.ScheduleRun, message)
