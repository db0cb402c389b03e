"""A container that stands still while something is read from it, and goes on afterwards, also where the agent dies meanwhile.

It is paused as by `pause`, so everybody sees why. A file beside its state says that it is only for a while: an agent that finds it
at its start lets the container go on.
"""

from __future__ import annotations

import logging
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from agent import atomic
from agent.engine import adjust
from agent.engine.container import Engine
from agent.engine.state import State
from agent.errors import AgentError, NotFound

_MARK = "standing-still"

log = logging.getLogger(__name__)


@contextmanager
def still(engine: Engine, container_id: str) -> Iterator[None]:
    """In the body no task of the container runs. One that is paused, or has no tasks, stays as it is.

    Under the container's lock, or a pause of somebody else's would end with this one. Raises WrongState, AgentError.
    """
    if engine.inspect(container_id).state != State.RUNNING:
        yield
        return
    mark = _mark(engine, container_id)
    atomic.write(mark, "")
    try:
        adjust.pause(engine, container_id)
        try:
            yield
        finally:
            if engine.inspect(container_id).state == State.PAUSED:  # else something has killed it meanwhile
                adjust.unpause(engine, container_id)
    finally:
        mark.unlink(missing_ok=True)


def recover(engine: Engine) -> None:
    """After the engine's own recovery: what a dead agent made stand still goes on."""
    for container_id in engine.store.ids():
        try:
            mark = _mark(engine, container_id)
            if not mark.exists():
                continue
            if engine.inspect(container_id).state == State.PAUSED:
                adjust.unpause(engine, container_id)
                log.warning("container %s goes on: it stood still for an agent that died", container_id)
            mark.unlink(missing_ok=True)
        except NotFound:
            continue  # removed while we looked
        except AgentError as exc:  # one that will not go on must not keep the agent from the others
            log.error("container %s stands still: %s", container_id, exc)


def _mark(engine: Engine, container_id: str) -> Path:
    return engine.store.directory(container_id) / _MARK
