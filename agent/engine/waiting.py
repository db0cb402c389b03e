"""Who waits for a container's end: through new monitors, and through what its restart policy does."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import TYPE_CHECKING

from agent.engine.state import ContainerStatus, State
from agent.engine.supervise import Live, Supervisor
from agent.errors import NotFound, WrongState

if TYPE_CHECKING:
    from agent.engine.container import Engine

LOOK_S = 1.0  # how long who waits does not ask whether anybody still wants to know
RESTART_LOOK_S = 0.05


def until_ended(
    engine: Engine, supervisor: Supervisor, container_id: str, timeout_s: float, wanted: Callable[[], bool]
) -> ContainerStatus:
    """See Engine.wait."""
    before: Live | None = None
    deadline = time.monotonic() + timeout_s
    while True:
        live = supervisor.get(container_id)
        if live is not None and live is not before:  # a killed monitor has a successor
            while not live.gone.wait(min(LOOK_S, max(0.0, deadline - time.monotonic()))):
                if time.monotonic() >= deadline or not wanted():
                    return engine.inspect(container_id)
            if live.last is not None:
                return live.last
            before = live
        elif not _comes_back(engine, supervisor, container_id):
            break
        elif time.monotonic() >= deadline or not wanted():
            return engine.inspect(container_id)
        else:
            time.sleep(RESTART_LOOK_S)
    status = engine.inspect(container_id)
    if status.state in (State.CREATED, State.LOST):
        raise WrongState(
            f"container {status.spec.name} cannot be waited for: it is {status.state}",
            hint="start it first" if status.state == State.CREATED else "remove it: migrate rm --force",
        )
    return status


def _comes_back(engine: Engine, supervisor: Supervisor, container_id: str) -> bool:
    """It runs, or its policy will start it. Under its lock: who cleans up after its end, and then asks the policy, has that."""
    with engine.store.lock(container_id):
        return engine.restarts.pending(container_id) or supervisor.get(container_id) is not None


def comes_back(engine: Engine, supervisor: Supervisor, container_id: str) -> bool:
    """After the news of an exit: whether the container's restart policy starts it again, or has done so. Waits until all is
    cleaned up, for only then the policy is asked.
    """
    try:
        if not engine.store.spec(container_id).restart.acts:
            return False
        while True:
            if engine.inspect(container_id).state != State.EXITED:
                return True
            if supervisor.get(container_id) is None:
                return _comes_back(engine, supervisor, container_id)
            time.sleep(RESTART_LOOK_S)
    except NotFound:
        return False
