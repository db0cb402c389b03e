"""What becomes of the target's frozen tasks at a move's end: they run, or nothing of them stays. Also where their monitor has died."""

from __future__ import annotations

import logging
import os
import time
from contextlib import ExitStack
from typing import Any

from agent.config import AgentConfig
from agent.criu import marks
from agent.engine import adoption, link, network
from agent.engine.container import Engine
from agent.engine.launch import MonitorError
from agent.engine.spec import ContainerSpec
from agent.engine.state import State
from agent.errors import NotFound, WrongState
from agent.handover.receivers import ROLE
from agent.handover.record import Move, MoveRecord

_log = logging.getLogger(__name__)


class TargetTasks:
    """Of all containers that come to this host."""

    def __init__(self, config: AgentConfig, engine: Engine) -> None:
        self._config, self._engine = config, engine

    def run(
        self, move: Move, spec: ContainerSpec, record: MoveRecord, until_adopted: ExitStack
    ) -> list[dict[str, Any]]:
        """Link up, thaw; idempotent. `until_adopted`: closed when the container has a monitor again, if it had lost it. Raises
        MonitorError, WrongState: then it is to be asked again.
        """
        try:
            monitor = self._engine.roles.monitor(spec.id)
        except WrongState as exc:
            _log.warning("container %s: %s; it is thawed without its monitor", spec.id, exc.message)
            return self._run_by_hand(move, spec, record, until_adopted)
        return list(monitor.request("resume")["marks"])

    def _run_by_hand(
        self, move: Move, spec: ContainerSpec, record: MoveRecord, until_adopted: ExitStack
    ) -> list[dict[str, Any]]:
        """The monitor was killed after CRIU had ended. Its filler lives on, but nobody would hear of its death any more: so the tasks run
        when it has done all, unless they run already.
        """
        cgroup, status = self._engine.cgroup(spec.id), self._engine.inspect(spec.id)
        if not cgroup.populated():
            raise WrongState(
                f"container {spec.id} has no task left on this host",
                hint=f"migrate repair {move.migration_id} --dry-run",
            )
        thawed, filled = move.images / marks.THAWED, move.images / marks.FILLED
        if record.lazy and not thawed.exists() and not filled.exists():
            raise WrongState(
                "the container's monitor was killed, and not all of its memory is in place yet",
                hint=f"it is tried again; if it stays so, keep the copy on the source: "
                f"migrate repair {move.migration_id} --keep source",
            )
        for fd in adoption.reopen_outputs(status.pid):  # or a task that writes before it has a monitor is killed by it
            until_adopted.callback(os.close, fd)
        plan = network.link_plan(spec, self._config.bridge)
        link.join(plan)
        try:
            link.tell_bridge(plan)
        except OSError as exc:  # its port does not forward yet: the first frame that the container sends tells it
            _log.info("container %s: the bridge was not told where it is: %s", spec.id, exc)
        made = [{"name": "linked", "unix_ns": time.time_ns()}]
        thawed.touch()
        cgroup.freeze(False)
        return [*made, {"name": "running", "unix_ns": time.time_ns()}]

    def refuse_if_it_has_run(self, move: Move, container_id: str) -> None:
        """A frozen copy that was never thawed may go, also past the pivot, when an operator takes that back. Nothing else may."""
        record = move.read() if move.exists else None
        if record and record.rehearsal:
            return
        try:
            status = self._engine.inspect(container_id)
        except NotFound:
            return
        if (status.migration_id, status.role) != (move.migration_id, ROLE):
            return  # not this move's: it is not touched
        ran = status.state in (State.RUNNING, State.LOST) or bool(record and record.resumed)
        if not ran and record and record.committed and status.state == State.FROZEN:
            try:
                ran = self._engine.roles.monitor(container_id).request("status")["state"] != "restored"
            except (MonitorError, WrongState):
                ran = (move.images / marks.THAWED).exists()  # it died: what it did last is written there
        if ran:
            raise WrongState(
                f"container {container_id} runs, or has run, on this host: it is not discarded",
                hint=f"see which copy is the right one: migrate repair {move.migration_id} --dry-run",
            )
