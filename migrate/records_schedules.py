"""Schedules and their runs, as the client library takes and gives them. Standard library only."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import field

from migrate.records import Failure
from migrate.records_json import Json


class ScheduleJob(Json):
    """What is done, when, and to which hosts; as ScheduleJob in protos/schedule.proto. `kind`: "evacuate" (one `host`) or "rolling" (the
    hosts of `group`, one after the other). `cron` "": only by `run_schedule`. Of numbers 0 is what is usual.
    """

    name: str
    kind: str
    host: str = ""
    group: str = ""
    cron: str = ""
    tz: str = "UTC"
    blackouts: tuple[str, ...] = ()
    window_s: float = 0.0
    missed: str = "run"
    to: tuple[str, ...] = ()
    action: str = ""
    max_parallel: int = 0
    bandwidth: int = 0
    deadline_s: float = 0.0
    selector: Mapping[str, str] = field(default_factory=dict)
    reason: str = ""
    hook: str = ""
    hook_timeout_s: float = 0.0
    reboots: bool = False
    host_timeout_s: float = 0.0


class ScheduleLeg(Json):
    """One host of a run. `state`: "planned", "leaving", "hook", "awaited", "returning", "done", "failed", "skipped", "late", "cancelled".
    `hook_status`: of a signal 128 and its number; 124: it took too long. `hook_output`: only of `schedule_run`.
    """

    host: str
    state: str
    evacuation_id: str
    restore_id: str
    hook_ended: bool
    hook_status: int
    hook_output: str
    hook_took_s: float
    why: str
    error: Failure | None
    started_unix_ns: int
    finished_unix_ns: int


class ScheduleRun(Json):
    """`cause`: "due", "missed" (begun late), "by hand". `state`: "running", "succeeded", "incomplete", "cancelled", "skipped"."""

    id: str
    schedule: str
    cause: str
    state: str
    why: str
    due_unix_ns: int
    window_end_unix_ns: int
    started_unix_ns: int
    finished_unix_ns: int
    legs: tuple[ScheduleLeg, ...]
    cancelled: bool


class Schedule(Json):
    """`next_unix_ns` 0: never, or it is paused; `next_local` is the same in the job's time zone. `runs`: newest first; in lists one."""

    job: ScheduleJob
    paused: bool
    next_unix_ns: int
    next_local: str
    created_unix_ns: int
    runs: tuple[ScheduleRun, ...]
