"""What becomes of the source's tasks at a move's end: they run on as if nothing had been, or what is frozen dies."""

from __future__ import annotations

import logging
from typing import Any

from agent.config import AgentConfig
from agent.criu import fixup
from agent.engine import link, network
from agent.engine.container import Engine
from agent.engine.launch import MonitorError
from agent.engine.spec import ContainerSpec
from agent.engine.state import ContainerStatus, State
from agent.errors import NotFound, WrongState
from agent.handover.freeze import ROLE
from agent.handover.record import Move

_log = logging.getLogger(__name__)


class SourceTasks:
    """Of all containers that leave this host."""

    def __init__(self, config: AgentConfig, engine: Engine) -> None:
        self._config, self._engine = config, engine

    def call_off(self, container_id: str) -> list[dict[str, Any]]:
        """A dump under way: CRIU is refused at its next word, and the tasks run on. What this cannot do, run_on does."""
        try:
            return list(self._engine.roles.monitor(container_id).request("rollback")["marks"])
        except (MonitorError, WrongState) as exc:
            _log.warning("container %s: its dump was not called off: %s", container_id, exc.message)
            return []

    def let_go(self, container_id: str) -> list[dict[str, Any]]:
        """Of a rehearsal: the tasks run on, dumped or not; this host's part in it goes on. Raises MonitorError. Idempotent."""
        status = self._engine.inspect(container_id)
        return self._roll_back(status) if status.state in (State.RUNNING, State.FROZEN, State.LOST) else []

    def refuse_to_kill(self, container_id: str, migration_id: str) -> None:
        """A commit ends what is frozen for this move and nothing else."""
        try:
            status = self._engine.inspect(container_id)
        except NotFound:
            return  # released before
        if status.migration_id != migration_id or status.role != ROLE:
            raise WrongState(
                f"container {container_id} takes no part in migration {migration_id} here: it is not killed"
            )
        move = Move(self._config.moves_dir, migration_id, ROLE)
        if move.exists and move.read().rehearsal:
            raise WrongState(f"migration {migration_id} is a rehearsal: container {container_id} stays on this host")
        frozen = move.answered("freeze") if move.exists else None
        populated = self._engine.cgroup(container_id).populated()
        if populated and frozen and frozen.get("later_bytes") and move.answered("rest") is None:
            raise WrongState(
                f"container {container_id} still needs memory that is only here: it is not killed",
                hint=f"migrate resume {migration_id}",
            )
        # Without tasks nothing runs: somebody has killed them while they stood still, and only their monitor and its CRIU are left.
        if status.state in (State.RUNNING, State.LOST) and populated:
            raise WrongState(
                f"container {container_id} runs here after the pivot: it is not killed",
                hint=f"migrate repair {migration_id}",
            )

    def release(self, container_id: str) -> list[dict[str, Any]]:
        marks: list[dict[str, Any]] = []
        try:
            marks = list(self._engine.roles.monitor(container_id).request("release")["marks"])
        except (MonitorError, WrongState) as exc:
            _log.warning("container %s: %s; its frozen tasks are killed without its monitor", container_id, exc.message)
        self._engine.roles.forget(container_id, discard=True)
        return marks

    def run_on(self, container_id: str, migration_id: str, epoch: int) -> list[dict[str, Any]]:
        try:
            status = self._engine.inspect(container_id)
        except NotFound:
            return []  # this host never had it, or it has moved on
        if status.migration_id != migration_id or status.role != ROLE:
            return []  # the move has not begun here, or another one has begun since
        marks: list[dict[str, Any]] = []
        if status.state in (State.RUNNING, State.FROZEN, State.LOST):
            marks = self._roll_back(status)
        self._engine.roles.end(container_id, migration_id, epoch)
        return marks

    def _roll_back(self, status: ContainerStatus) -> list[dict[str, Any]]:
        try:
            monitor = self._engine.roles.monitor(status.spec.id)
        except WrongState as exc:
            _log.warning("container %s: %s; it is thawed without its monitor", status.spec.id, exc.message)
            self._thaw_by_hand(status.spec, status.pid)
            return []
        try:
            return list(monitor.request("rollback")["marks"])
        except MonitorError as exc:
            if not monitor.closed:
                raise  # it lives, and with it perhaps a CRIU in the middle of the tasks: nobody else may touch them
            _log.warning("container %s: %s; it is thawed without its monitor", status.spec.id, exc.message)
            self._thaw_by_hand(status.spec, status.pid)
            return []

    def _thaw_by_hand(self, spec: ContainerSpec, pid: int) -> None:
        """The monitor is dead, and CRIU, if it held the tasks, saw that and let them go: into the freezer."""
        cgroup = self._engine.cgroup(spec.id)
        link.join(network.link_plan(spec, self._config.bridge))
        if pid:
            fixup.free_after_criu(pid, cgroup.procs())
        cgroup.freeze(False)
