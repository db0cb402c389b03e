"""A container's start, from a monitor of the pool to its program.

    agent                                          monitor
      a monitor with an init, from the pool
      create ------------------------------------>   maps ids, mounts the root, init makes its mounts
      meanwhile: state.json, cgroups of init, veth
      <------------------------------------ pid
      start, the link ---------------------------->  furnishes the link, init becomes the program

What has to be on disk is there before the program runs. Called under the container's lock.
"""

from __future__ import annotations

import dataclasses
import time
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from agent.engine import isolation, network
from agent.engine.attach import Attachment
from agent.engine.launch import ContainerStartError
from agent.engine.spec import ContainerSpec
from agent.engine.store import Record
from agent.engine.supervise import Supervisor
from agent.errors import AgentError
from agent.linux import process

if TYPE_CHECKING:
    from agent.engine.container import Engine


class Starting:
    """One start. `told`: the plan; `bridge`: "" for a container in the host's network."""

    def __init__(
        self, engine: Engine, supervisor: Supervisor, spec: ContainerSpec, *, told: dict[str, Any], bridge: str
    ) -> None:
        self._engine = engine
        self._supervisor = supervisor
        self._spec = spec
        self._told = told
        self._bridge = bridge
        self._before = engine.store.record(spec.id)

    def run(self, attachments: Sequence[Attachment], *, restarts: int) -> None:
        """Raises as Engine.start(); then nothing of it stays, and who was to be attached is told."""
        spec, store = self._spec, self._engine.store
        cgroup = self._engine.cgroup(spec.id)
        cgroup.create(spec.limits)
        isolation.restrict(cgroup, spec)
        store.forget_exit(spec.id)
        try:
            live = self._supervisor.spawn(spec.id)
            assert live.client is not None
            ahead, created = live.pid, live.client.begin("create", plan=self._told)
            refused: AgentError | OSError | None = None
            try:
                self._admit(ahead, restarts)  # while the root is mounted
            except (AgentError, OSError) as exc:
                refused = exc
            try:
                self._engine.ports.publish(spec)  # likewise
            finally:
                pid = int(created()["pid"])
            if pid != ahead:  # what was made ahead of need did not suit it, and may have been gone when it was admitted
                self._admit(pid, restarts)
            elif refused is not None:
                raise refused
            live.hold_outputs()
            for attachment in attachments:
                attachment.connect(self._supervisor.runtime_dir(spec.id))
            link = {"link": dataclasses.asdict(network.inside_plan(spec, self._bridge))} if self._bridge else {}
            live.ask("start", **link)
        except (AgentError, OSError) as exc:
            by_program = isinstance(exc, ContainerStartError) and exc.step == "exec"
            # After a failed execve the monitor writes the exit status and ends by itself.
            self._supervisor.drop(spec.id, discard=not by_program)
            if not by_program:
                self._engine.end_tasks(
                    spec
                )  # a monitor that was killed has left them; nobody knows that they were let go
                store.write_record(spec.id, dataclasses.replace(self._before, pid=0))
            self._supervisor.settle(spec.id)
            for attachment in attachments:
                attachment.end()
            if isinstance(exc, ContainerStartError) and exc.step == "network":
                raise network.NetworkError(
                    f"cannot connect container {spec.name}: {exc.message}", hint=exc.hint
                ) from exc
            raise

    def _admit(self, pid: int, restarts: int) -> None:
        """Make `pid` the container's init: on disk, in its cgroups, with a network. Raises AgentError, OSError."""
        spec = self._spec
        record: Record = dataclasses.replace(
            self._before,
            pid=pid,
            start_ticks=process.start_ticks(pid),
            started_unix_ns=time.time_ns(),
            paused=False,
            stopped=False,
            restarts=restarts,
        )
        self._engine.store.write_record(spec.id, record)
        self._engine.cgroup(spec.id).add(pid)
        if self._bridge:
            self._supervisor.free_address(spec.network.address)
            network.attach(spec, pid, self._bridge)
