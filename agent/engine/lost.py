"""Containers whose monitor was killed: they get another one, or can only be killed.

    a monitor's connection closes ─► tasks are left: lost ─► adopt(): another monitor ─► running
                                                          └─ not possible ─► kill(), and nothing else

The monitor's side of it is adoption.py.
"""

from __future__ import annotations

import logging
import os
from collections.abc import Sequence
from typing import TYPE_CHECKING

from agent.engine import adoption
from agent.engine.spec import ContainerSpec
from agent.engine.state import State
from agent.engine.supervise import KILL_LIMIT_S, Supervisor
from agent.errors import AgentError, NotFound, WrongState
from agent.linux import process

if TYPE_CHECKING:
    from agent.engine.container import Engine

log = logging.getLogger(__name__)


def only_to_be_killed(spec: ContainerSpec, verb: str) -> WrongState:
    """The refusal of any other verb."""
    return WrongState(
        f"cannot {verb} container {spec.name}: its monitor is dead, it can only be killed",
        hint=f"migrate kill --signal KILL {spec.name}",
    )


class Lost:
    """`engine.lost`. Callers hold the container's lock."""

    def __init__(self, engine: Engine, supervisor: Supervisor) -> None:
        self._engine = engine
        self._supervisor = supervisor

    def adopt(self, container_id: str, outputs: Sequence[int] = ()) -> None:
        """A container whose monitor was killed gets another. Not during a move: whoever ends that asks again. Where it
        cannot be, it stays lost: its tasks run on, and it can only be killed. `outputs`: stay the caller's.
        """
        try:
            status = self._engine.inspect(container_id)
        except NotFound:
            return  # it has just removed itself
        if status.state != State.LOST or status.migration_id:
            return
        spec, record = status.spec, self._engine.store.record(container_id)
        opened: Sequence[int] = ()
        try:
            if process.start_ticks(record.pid) != record.start_ticks:
                raise WrongState(f"its init, pid {record.pid}, has ended")
            if not outputs:
                outputs = opened = adoption.reopen_outputs(record.pid)
            if spec.tty and not outputs:
                raise WrongState("its terminal went with its monitor")
            live = self._supervisor.spawn(container_id)
            assert live.client is not None
            live.client.request("adopt", fds=outputs, plan=self._engine.plan(spec), pid=record.pid)
            live.hold_outputs()
            log.warning("container %s has a new monitor; it ran on meanwhile", container_id)
        except (AgentError, OSError) as exc:
            log.error("container %s gets no new monitor: %s", container_id, exc)
            self._supervisor.give_up(container_id)
        finally:
            for fd in opened:
                os.close(fd)

    def discard(self, container_id: str) -> None:
        """What runs of one whose creation has not come to its end: its monitor, where it was to be started at once, and its init."""
        if self._supervisor.reconnect(container_id) is not None:
            self._supervisor.drop(container_id, discard=True)
        cgroup = self._engine.cgroup(container_id)
        cgroup.kill()
        cgroup.wait_empty(KILL_LIMIT_S)

    def kill(self, spec: ContainerSpec) -> None:
        """With SIGKILL, and put the host in order. Raises AgentError when tasks survive it."""
        if not self.end_tasks(spec):
            tasks = self._engine.cgroup(spec.id).procs()
            raise AgentError(f"container {spec.name} survives SIGKILL for {KILL_LIMIT_S:g} s: {tasks}")
        self._supervisor.settle(spec.id)

    def end_tasks(self, spec: ContainerSpec) -> bool:
        """Kill them; whether none is left."""
        cgroup = self._engine.cgroup(spec.id)
        cgroup.kill()
        return cgroup.wait_empty(KILL_LIMIT_S)
