"""What is done to a container while it runs on: its limits changed, all of it paused and let go, looked at.

Under the container's lock; a move that is under way refuses all but looking.
"""

from __future__ import annotations

import contextlib
import dataclasses
import logging
import os
from collections.abc import Callable, Iterator

from agent.engine import limits, rlimits, state, usage
from agent.engine.container import Engine
from agent.engine.spec import Limits
from agent.engine.state import ContainerStatus, State
from agent.errors import AgentError, InvalidArgument, WrongState

PAUSE_LIMIT_S = 10.0
# What a process gets at its start and the kernel keeps with it, or what is a file system: not changed while it runs.
FIXED = ("ulimits", "shm_bytes", "oom_score_adj", "storage_bytes", "memory_swappiness", "oom_kill_disable")

log = logging.getLogger(__name__)


def update(engine: Engine, container_id: str, wanted: Limits) -> ContainerStatus:
    """Give the container these limits, running or not, now and for later starts and moves.

    The files are written, then the spec, durably; what fails leaves both as they were. Raises WrongState during a move,
    InvalidArgument, Unsupported.
    """
    with engine.store.lock(container_id):
        status = _refuse(engine, "update", container_id, state.why_not_update)
        spec, before = status.spec, status.spec.limits
        for name in FIXED:
            if getattr(wanted, name) != getattr(before, name):
                raise InvalidArgument(
                    f"{name} of container {spec.name} cannot be changed: processes have it from their start",
                    hint="make a new container with it",
                )
        limits.check(wanted)
        rlimits.check(wanted)
        changed = dataclasses.replace(spec, limits=wanted)
        cgroup = engine.cgroup(container_id)
        if status.state in (State.CREATED, State.EXITED, State.RESTARTING):
            engine.try_limits(changed)
            engine.store.write_spec(changed)
            engine.note("update", changed)
            return engine.inspect(container_id)
        try:
            engine.store.intend(changed)
            cgroup.set_limits(wanted, before)
            engine.store.write_spec(changed)
            engine.store.intend_nothing(container_id)
        except (AgentError, OSError) as exc:
            with _logged(f"container {spec.name}: its limits were not put back"):
                cgroup.set_limits(before, wanted)
                engine.store.intend_nothing(container_id)
            if isinstance(exc, AgentError):
                exc.touched = "undone"
                raise
            raise AgentError(f"cannot change the limits of container {spec.name}: {exc}", touched="undone") from exc
        engine.note("update", changed)
        return engine.inspect(container_id)


def recover(engine: Engine) -> None:
    """After the agent's start: where it died in the middle of an update, the kernel is told again what the spec says."""
    for container_id in engine.store.ids():
        with _logged(f"container {container_id}: an update that was cut short"), engine.store.lock(container_id):
            intended = engine.store.intended(container_id)
            if intended is None:
                continue
            if (cgroup := engine.cgroup(container_id)).populated():
                cgroup.set_limits(engine.store.spec(container_id).limits, intended.limits)
            engine.store.intend_nothing(container_id)


def pause(engine: Engine, container_id: str) -> ContainerStatus:
    """Stop every task where it is. Paused already: no error. Raises WrongState, AgentError where a task will not stop."""
    with engine.store.lock(container_id):
        _refuse(engine, "pause", container_id, state.why_not_pause)
        cgroup = engine.cgroup(container_id)
        _note(engine, container_id, paused=True)  # first: tasks that are frozen and nobody knows why would be a move's
        try:
            engine.checks.hold(container_id)
            cgroup.freeze(True, timeout_s=PAUSE_LIMIT_S)
        except (AgentError, OSError):
            cgroup.freeze(False)
            _note(engine, container_id, paused=False)
            raise
        engine.note("pause", engine.store.spec(container_id))
        return engine.inspect(container_id)


def unpause(engine: Engine, container_id: str) -> ContainerStatus:
    """Let every task go on. Raises WrongState for a container that is not paused."""
    with engine.store.lock(container_id):
        status = _refuse(engine, "unpause", container_id, state.why_not_pause)
        if status.state != State.PAUSED:
            raise WrongState(f"container {status.spec.name} is not paused: it is {status.state}")
        engine.cgroup(container_id).freeze(False, timeout_s=PAUSE_LIMIT_S)
        _note(engine, container_id, paused=False)
        engine.note("unpause", status.spec)
        return engine.inspect(container_id)


def rename(engine: Engine, container_id: str, name: str) -> ContainerStatus:
    """The coordinator has made sure that the name is the fleet's only one. Raises WrongState in a move: its spec is on its way."""
    with engine.store.lock(container_id):
        spec = _refuse(engine, "rename", container_id, state.why_not_update).spec
        changed = dataclasses.replace(spec, name=name)
        engine.store.write_spec(changed)
        engine.ports.renamed(changed)
        if name != spec.name:
            engine.note("rename", changed, oldName=spec.name)
        return engine.inspect(container_id)


def look(engine: Engine, container_id: str) -> tuple[int, usage.Usage]:
    """(its limit of memory or else the host's memory in bytes, what it uses); zeros where it does not run. Raises NotFound."""
    status = engine.inspect(container_id)
    limit = status.spec.limits.memory_bytes or os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")
    return limit, usage.read(engine.cgroup(container_id), status.pid)


def top(engine: Engine, container_id: str) -> list[usage.Process]:
    """Its processes. Raises WrongState where it has none."""
    status = engine.inspect(container_id)
    if not status.pid:
        raise WrongState(f"container {status.spec.name} has no processes: it is {status.state}")
    return usage.processes(engine.cgroup(container_id).procs(), status.spec.ids.base)


def _note(engine: Engine, container_id: str, *, paused: bool) -> None:
    record = engine.store.record(container_id)
    engine.store.write_record(container_id, dataclasses.replace(record, paused=paused))


def _refuse(engine: Engine, verb: str, container_id: str, why_not: Callable[[ContainerStatus], str]) -> ContainerStatus:
    status = engine.inspect(container_id)
    if reason := why_not(status):
        hint = f"wait for the move, or cancel it: migrate cancel {status.migration_id}" if status.migration_id else ""
        raise WrongState(f"cannot {verb} container {status.spec.name}: {reason}", hint=hint)
    return status


@contextlib.contextmanager
def _logged(what: str) -> Iterator[None]:
    try:
        yield
    except (AgentError, OSError) as exc:
        log.error("%s: %s", what, exc)
