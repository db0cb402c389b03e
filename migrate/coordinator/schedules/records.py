"""Jobs and their runs in the coordinator's store. What is written here before an effect is what a restart goes on from.

A run copies its job. Its legs are hosts, in order. That a run of a job begins only
while no other one goes on is an index of the database; that a host's turn comes only while no other host of its group is away is one
transaction, `take_turn`.
"""

from __future__ import annotations

import dataclasses
import enum
import json
import sqlite3
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any

from migrate.coordinator.evacuation.records import State as EvacuationState
from migrate.coordinator.store import Host, Store
from migrate.errors import AlreadyExists, ErrorRecord, InvalidArgument, NotFound, WrongState
from migrate.placement import labels

EVACUATE, ROLLING = "evacuate", "rolling"
EVERY_HOST = "all"
WINDOW_S, HOOK_TIMEOUT_S, HOST_TIMEOUT_S = 4 * 3600.0, 3600.0, 900.0  # where the job does not say
KEPT_RUNS = 50  # of a job; older ones are forgotten


class RunState(enum.StrEnum):
    RUNNING = "running"
    SUCCEEDED = "succeeded"
    INCOMPLETE = "incomplete"  # it has ended, and something is not as it should be: its legs say what
    CANCELLED = "cancelled"
    SKIPPED = "skipped"  # it never began; `why`


class LegState(enum.StrEnum):
    """Of one host in a run."""

    PLANNED = "planned"
    LEAVING = "leaving"  # its containers are
    HOOK = "hook"
    AWAITED = "awaited"  # until its agent answers again
    RETURNING = "returning"  # its containers are
    DONE = "done"
    FAILED = "failed"
    SKIPPED = "skipped"
    LATE = "late"  # the window was over before its turn
    CANCELLED = "cancelled"


AWAY = (LegState.LEAVING, LegState.HOOK, LegState.AWAITED, LegState.RETURNING)
OPEN = (LegState.PLANNED, *AWAY)


@dataclass(frozen=True, kw_only=True)
class Job:
    """As ScheduleJob in protos/schedule.proto."""

    name: str
    kind: str
    host: str = ""
    group: str = ""
    cron: str = ""
    tz: str = "UTC"
    blackouts: tuple[str, ...] = ()
    window_s: float = WINDOW_S
    missed: str = "run"
    to: tuple[str, ...] = ()
    action: str = ""
    max_parallel: int = 2
    bandwidth: int = 0
    deadline_s: float = 0.0
    selector: Mapping[str, str] = field(default_factory=dict)
    reason: str = ""
    hook: str = ""
    hook_timeout_s: float = HOOK_TIMEOUT_S
    reboots: bool = False
    host_timeout_s: float = HOST_TIMEOUT_S

    def members(self, hosts: Iterable[Host]) -> list[Host]:
        """Those of the group. Raises InvalidArgument for what is no group."""
        wanted = () if self.group == EVERY_HOST else labels.constraints(self.group)
        return [host for host in hosts if all(one.met(host.labels) for one in wanted)]


@dataclass(frozen=True, kw_only=True)
class Schedule:
    """`next_unix_ns`: when it is due; 0 = never, or it is paused."""

    job: Job
    paused: bool = False
    next_unix_ns: int = 0
    created_unix_ns: int = 0


@dataclass(frozen=True, kw_only=True)
class Leg:
    """One host. `boot_id`: of its kernel before the hook. `failing`: what went wrong already; its containers are brought home, then it has
    failed. `hook_output`: the last of it.
    """

    host: str
    state: LegState = LegState.PLANNED
    evacuation_id: str = ""
    restore_id: str = ""
    boot_id: str = ""
    hook_status: int | None = None
    hook_output: str = ""
    hook_took_s: float = 0.0
    awaited_unix_ns: int = 0
    failing: bool = False
    why: str = ""
    error: ErrorRecord | None = None
    started_unix_ns: int = 0
    finished_unix_ns: int = 0

    def to_json(self) -> str:
        raw = dataclasses.asdict(self)
        raw["error"] = None if self.error is None else self.error.to_json()
        return json.dumps(raw)

    @staticmethod
    def from_json(text: str) -> Leg:
        raw: dict[str, Any] = json.loads(text)
        raw["state"] = LegState(raw["state"])
        raw["error"] = None if raw["error"] is None else ErrorRecord.from_json(raw["error"])
        return Leg(**raw)


@dataclass(frozen=True, kw_only=True)
class Run:
    """`cause`: "due", "missed" (begun late), "by hand". After `window_end_unix_ns` no host's turn comes and no move begins."""

    id: str
    job: Job
    cause: str
    state: RunState
    due_unix_ns: int
    window_end_unix_ns: int
    why: str = ""
    cancelled: bool = False
    started_unix_ns: int = 0
    finished_unix_ns: int = 0
    legs: tuple[Leg, ...] = ()


class Schedules:
    """Thread-safe. Everything written is durable."""

    def __init__(self, store: Store) -> None:
        self._store = store
        self._database = store.database

    # ------------------------------------------------------------ jobs

    def add(self, schedule: Schedule) -> None:
        with self._database.transaction() as db:
            if db.execute("select 1 from schedules where name=?", (schedule.job.name,)).fetchone():
                raise AlreadyExists(
                    f"there is a schedule {schedule.job.name!r}",
                    hint=f"another --name, or first: migrate schedule rm {schedule.job.name}",
                )
            row = (schedule.job.name, _job_text(schedule.job), schedule.next_unix_ns, schedule.created_unix_ns)
            db.execute("insert into schedules(name, job, next_unix_ns, created_unix_ns) values(?,?,?,?)", row)

    def get(self, name: str) -> Schedule:
        rows = self._all("select * from schedules where name=?", name)
        if not rows:
            raise NotFound(f"no schedule {name!r}", hint="migrate schedule ls", code="schedule.not_found")
        return _schedule(rows[0])

    def all(self) -> list[Schedule]:
        """By name."""
        return [_schedule(row) for row in self._all("select * from schedules order by name")]

    def set_next(self, name: str, next_unix_ns: int, *, paused: bool) -> None:
        with self._database.transaction() as db:
            db.execute("update schedules set next_unix_ns=?, paused=? where name=?", (next_unix_ns, paused, name))

    def remove(self, name: str) -> None:
        """With its history. WrongState while a run of it goes on."""
        self.get(name)
        with self._database.transaction() as db:
            query = "select id from schedule_runs where schedule=? and state=?"
            if row := db.execute(query, (name, RunState.RUNNING)).fetchone():
                raise WrongState(f"run {row['id']} of {name} goes on", hint=f"migrate schedule cancel {name}")
            db.execute(
                "delete from schedule_legs where run_id in (select id from schedule_runs where schedule=?)", (name,)
            )
            db.execute("delete from schedule_runs where schedule=?", (name,))
            db.execute("delete from schedules where name=?", (name,))

    # ------------------------------------------------------------ runs

    def begin(self, run: Run, due: tuple[int, int] | None) -> Run | None:
        """Write the run with its legs, in one transaction; SKIPPED where another run of the job goes on, or it says so itself.

        `due`: when the job was due, and when it will be next; None and nothing written where somebody else has begun that one.
        The job's oldest runs are forgotten.
        """
        name = run.job.name
        with self._database.transaction() as db:
            if due is not None:
                query = "update schedules set next_unix_ns=? where name=? and next_unix_ns=? and not paused"
                if db.execute(query, (due[1], name, due[0])).rowcount != 1:
                    return None
            query = "select id from schedule_runs where schedule=? and state=?"
            row = db.execute(query, (name, RunState.RUNNING)).fetchone()
            if row and run.state is RunState.RUNNING:
                run = skipped(run, f"run {row['id']} went on")
            db.execute(
                "insert into schedule_runs(id, schedule, job, cause, state, due_unix_ns, window_end_unix_ns, why, started_unix_ns,"
                " finished_unix_ns) values(?,?,?,?,?,?,?,?,?,?)",
                (
                    run.id,
                    name,
                    _job_text(run.job),
                    run.cause,
                    run.state,
                    run.due_unix_ns,
                    run.window_end_unix_ns,
                    run.why,
                    run.started_unix_ns,
                    run.finished_unix_ns,
                ),
            )
            for position, leg in enumerate(run.legs):
                db.execute("insert into schedule_legs values(?,?,?,?)", (run.id, leg.host, position, leg.to_json()))
            query = "select id from schedule_runs where schedule=? and state!=? order by started_unix_ns desc limit -1 offset ?"
            for old in db.execute(query, (name, RunState.RUNNING, KEPT_RUNS)).fetchall():
                db.execute("delete from schedule_legs where run_id=?", (old["id"],))
                db.execute("delete from schedule_runs where id=?", (old["id"],))
        return run

    def take_turn(self, run: Run, leg: Leg) -> str:
        """Write the leg as LEAVING where no other host of the group is away; else return who is, and write nothing."""
        with self._database.transaction() as db:
            if run.job.group and (blocker := self._blocker(db, run, leg)):
                return blocker
            self._put(db, run.id, leg)
        return ""

    def _blocker(self, db: sqlite3.Connection, run: Run, leg: Leg) -> str:
        members = {host.name: host for host in run.job.members(self._store.hosts())}
        members.pop(leg.host, None)
        left_alone = {one.host for one in run.legs if one.state is LegState.SKIPPED}
        query = "select host, kind from evacuations where state=?"
        for row in db.execute(query, (EvacuationState.RUNNING,)).fetchall():
            if row["host"] in members:
                return f"{row['kind']} of {row['host']} goes on"
        query = (
            "select l.leg, r.schedule from schedule_legs l join schedule_runs r on r.id=l.run_id"
            " where r.state=? and r.id!=?"
        )
        for row in db.execute(query, (RunState.RUNNING, run.id)).fetchall():
            other = Leg.from_json(row["leg"])
            if other.host in members and other.state in AWAY:
                return f"{other.host} is away by {row['schedule']}"
        for host in members.values():
            if host.cordon is not None and host.name not in left_alone:
                return f"{host.name} is cordoned" + (f" ({host.cordon.reason})" if host.cordon.reason else "")
        return ""

    def write_leg(self, run_id: str, leg: Leg) -> None:
        with self._database.transaction() as db:
            self._put(db, run_id, leg)

    @staticmethod
    def _put(db: sqlite3.Connection, run_id: str, leg: Leg) -> None:
        db.execute("update schedule_legs set leg=? where run_id=? and host=?", (leg.to_json(), run_id, leg.host))

    def finish(self, run_id: str, state: RunState, now_ns: int, why: str = "") -> None:
        with self._database.transaction() as db:
            query = "update schedule_runs set state=?, why=?, finished_unix_ns=? where id=? and state=?"
            db.execute(query, (state, why, now_ns, run_id, RunState.RUNNING))

    def cancel(self, run_id: str) -> None:
        """Idempotent. No host's turn comes from now on."""
        with self._database.transaction() as db:
            db.execute("update schedule_runs set cancelled=1 where id=?", (run_id,))

    def run(self, run_id: str) -> Run:
        """With its legs; by id or an unambiguous prefix."""
        rows = self._all("select * from schedule_runs where substr(id,1,?)=?", len(run_id), run_id) if run_id else []
        if len(rows) > 1:
            raise InvalidArgument(f"{run_id!r} is the beginning of {len(rows)} ids", hint="give more digits")
        if not rows:
            raise NotFound(f"no run {run_id!r}", hint="migrate schedule show NAME", code="run.not_found")
        return self._with_legs(rows[0])

    def runs(self, name: str = "", *, active: bool = False, limit: int = 0) -> list[Run]:
        """Newest first, with their legs; limit 0 = all."""
        query = (
            "select * from schedule_runs where (?='' or schedule=?) and (not ? or state='running')"
            " order by started_unix_ns desc, id limit ?"
        )
        return [self._with_legs(row) for row in self._all(query, name, name, active, limit or -1)]

    def _with_legs(self, row: sqlite3.Row) -> Run:
        legs = self._all("select leg from schedule_legs where run_id=? order by position", row["id"])
        return Run(
            id=row["id"],
            job=_job(row["job"]),
            cause=row["cause"],
            state=RunState(row["state"]),
            due_unix_ns=row["due_unix_ns"],
            window_end_unix_ns=row["window_end_unix_ns"],
            why=row["why"],
            cancelled=bool(row["cancelled"]),
            started_unix_ns=row["started_unix_ns"],
            finished_unix_ns=row["finished_unix_ns"],
            legs=tuple(Leg.from_json(one["leg"]) for one in legs),
        )

    def _all(self, query: str, *values: Any) -> list[sqlite3.Row]:
        return self._database.connection.execute(query, values).fetchall()


def skipped(run: Run, why: str) -> Run:
    """The same as one that does not begin."""
    return dataclasses.replace(run, state=RunState.SKIPPED, why=why, legs=(), finished_unix_ns=run.started_unix_ns)


def _job_text(job: Job) -> str:
    return json.dumps(dataclasses.asdict(job))


def _job(text: str) -> Job:
    raw = json.loads(text)
    raw["to"], raw["blackouts"] = tuple(raw["to"]), tuple(raw["blackouts"])
    return Job(**raw)


def _schedule(row: sqlite3.Row) -> Schedule:
    return Schedule(
        job=_job(row["job"]),
        paused=bool(row["paused"]),
        next_unix_ns=row["next_unix_ns"],
        created_unix_ns=row["created_unix_ns"],
    )
