"""What a container is doing, derived from what is on disk and what the kernel shows, and what that allows. No I/O."""

from __future__ import annotations

from dataclasses import dataclass, field
from enum import StrEnum

from agent.engine.spec import ContainerSpec
from agent.engine.store import ExitStatus, Record


class State(StrEnum):
    """The names of ContainerState in protos/types.proto, in lower case."""

    CREATED = "created"
    RUNNING = "running"
    FROZEN = "frozen"  # tasks exist, none runs
    EXITED = "exited"
    ARRIVING = "arriving"  # target of a move, no task yet
    LOST = "lost"  # tasks exist, their monitor does not
    PAUSED = "paused"  # tasks exist, none runs, because somebody said `pause`
    RESTARTING = "restarting"  # exited, and its restart policy starts it again


@dataclass(frozen=True, kw_only=True)
class HealthResult:
    """One check. `exit_code` -1: it could not be run, or took too long; `output`: of both streams, cut."""

    started_unix_ns: int
    ended_unix_ns: int
    exit_code: int
    output: str


@dataclass(frozen=True, kw_only=True)
class Health:
    """`status`: "" where nothing is checked, "starting", "healthy", "unhealthy"; `log`: the last five checks."""

    status: str = ""
    failing_streak: int = 0
    log: tuple[HealthResult, ...] = ()


@dataclass(frozen=True, kw_only=True)
class ContainerStatus:
    """ContainerStatus of protos/types.proto: the same fields; exit_code None while there is none."""

    spec: ContainerSpec
    state: State
    pid: int
    started_unix_ns: int
    finished_unix_ns: int
    exit_code: int | None
    error: str
    host: str
    epoch: int
    migration_id: str
    role: str
    oom_kills: int = 0
    restarts: int = 0
    health: Health = field(default_factory=Health)


@dataclass(frozen=True, kw_only=True)
class Seen:
    """What is true of a container's processes right now."""

    monitor: bool  # its monitor answers
    tasks: bool  # its cgroup has a task
    frozen: bool  # its cgroup is frozen, by its own switch or an ancestor's


def derive(record: Record, exit_status: ExitStatus | None, seen: Seen) -> State:
    """The one place that decides. A container whose monitor is gone and that left no exit status, but has no task
    either, has exited.
    """
    if seen.tasks:
        if seen.frozen:
            if record.paused and not record.migration_id:
                return State.PAUSED if seen.monitor else State.LOST
            return State.FROZEN
        if not seen.monitor:
            return State.LOST
        # Between the last task's exit and the monitor's word for it; or before init has been let go.
        return State.EXITED if exit_status else (State.RUNNING if record.pid else State.CREATED)
    if record.role == "target" and not record.pid:
        return State.ARRIVING
    if exit_status:
        return State.EXITED
    if not record.pid:
        return State.CREATED
    return State.RUNNING if seen.monitor else State.EXITED


def why_not_start(status: ContainerStatus) -> str:
    """ "" = may start; else the reason, for a WrongState."""
    startable = status.state in (State.CREATED, State.EXITED, State.RESTARTING)
    return _moving(status) or ("" if startable else f"it is {status.state}")


def why_not_stop(status: ContainerStatus) -> str:
    if status.state == State.FROZEN:
        return _moving(status) or "it is frozen"
    return _moving(status) or ("" if status.state != State.ARRIVING else f"it is {status.state}")


def why_not_kill(status: ContainerStatus) -> str:
    """A signal is refused only where no task could take it, or where it would be lost with the source of a move."""
    if status.state == State.FROZEN:
        return _moving(status) or "it is frozen"
    killable = (State.RUNNING, State.LOST, State.PAUSED, State.RESTARTING)
    return "" if status.state in killable else f"it is {status.state}"


def why_not_pause(status: ContainerStatus) -> str:
    return _moving(status) or ("" if status.state in (State.RUNNING, State.PAUSED) else f"it is {status.state}")


def why_not_update(status: ContainerStatus) -> str:
    """Limits travel with the spec that the source described: during a move they would get lost."""
    return _moving(status) or ("" if status.state != State.ARRIVING else f"it is {status.state}")


def why_not_exec(status: ContainerStatus) -> str:
    return _moving(status) or ("" if status.state == State.RUNNING else f"it is {status.state}")


def why_not_reach(status: ContainerStatus) -> str:
    """Its files, from outside: `cp`, `diff`, `export`, `commit`."""
    if moving := _moving(status):
        return moving
    return f"it is {status.state}" if status.state in (State.ARRIVING, State.FROZEN) else ""


def why_not_attach(status: ContainerStatus) -> str:
    if moving := _moving(status):
        return moving
    attachable = (State.CREATED, State.RUNNING, State.EXITED, State.RESTARTING)
    return "" if status.state in attachable else f"it is {status.state}"


def why_not_remove(status: ContainerStatus, *, force: bool) -> str:
    if moving := _moving(status):
        return moving
    return "" if force or status.state in (State.CREATED, State.EXITED) else f"it is {status.state}"


def _moving(status: ContainerStatus) -> str:
    if not status.migration_id:
        return ""
    return f"move {status.migration_id} of it is under way (this host is its {status.role})"
