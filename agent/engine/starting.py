"""A container's start, from a monitor of the pool to its program.

    agent                                          monitor
      a monitor with an init, from the pool
      create ------------------------------------>   maps ids, mounts the root, init makes its mounts
      meanwhile: cgroups, state.json, init into
      its cgroups, its network
      <------------------------------------ pid
      start -------------------------------------->  init becomes the program

What has to be on disk is there before the program runs. Called under the container's lock.
"""

from __future__ import annotations

import dataclasses
import time
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any, cast

from agent.engine import init, network
from agent.engine.attach import Attachment
from agent.engine.launch import ENDED, ContainerStartError
from agent.engine.spec import ContainerSpec
from agent.engine.store import Record
from agent.engine.supervise import Live, Supervisor
from agent.errors import AgentError
from agent.linux import process

if TYPE_CHECKING:
    from agent.engine.container import Engine


class Starting:
    """One start. `told`: the plan; `bridge`: "" for a container in the host's network; `unfinished`: Store.begin_sync() of one that
    has just been made, whose creation ends with this start.
    """

    def __init__(
        self,
        engine: Engine,
        supervisor: Supervisor,
        spec: ContainerSpec,
        *,
        told: dict[str, Any],
        bridge: str,
        unfinished: Callable[[], None] | None = None,
    ) -> None:
        self._engine = engine
        self._supervisor = supervisor
        self._spec = spec
        self._told = told
        self._bridge = bridge
        self._unfinished = unfinished
        self._before = engine.store.record(spec.id)

    def run(self, attachments: Sequence[Attachment], *, restarts: int) -> None:
        """Raises as Engine.start(); then nothing of it stays, and who was to be attached is told."""
        spec, store = self._spec, self._engine.store
        runtime_dir = self._supervisor.runtime_dir(spec.id)
        if self._unfinished is None:
            store.forget_exit(spec.id)
        try:
            if self._unfinished is None:
                self._engine.make_cgroup(spec)
            live = self._supervisor.take(spec.id, init.stage_flags(cast(init.Plan, self._told)))
            try:
                assert live.client is not None
                created = live.client.begin("create", plan=self._told, runtime_dir=str(runtime_dir))
                refused: AgentError | OSError | None = None
                try:
                    self._admit(live, restarts)  # while the root is mounted
                except (AgentError, OSError) as exc:
                    refused = exc
                live.outputs = created().fds  # a refusal of the monitor's says more
                if refused is not None and process.has_ended(live.pid):
                    raise ContainerStartError(f"init: {refused}", step="init", errno=0, hint=ENDED) from refused
                if refused is not None:
                    raise refused
            finally:
                live.forget_inside()
            for attachment in attachments:
                attachment.connect(runtime_dir)
            live.ask("start")
        except (AgentError, OSError) as exc:
            by_program = isinstance(exc, ContainerStartError) and exc.step == "exec"
            # After a failed execve the monitor writes the exit status and ends by itself.
            self._supervisor.drop(spec.id, discard=not by_program)
            if not by_program:
                # A monitor that was killed has left them; nobody knows that they were let go.
                self._engine.lost.end_tasks(spec)
                store.forget_exit(
                    spec.id
                )  # a monitor that saw its init die has written one, of a life that never began
                store.write_record(spec.id, dataclasses.replace(self._before, pid=0))
            self._supervisor.settle(spec.id)
            for attachment in attachments:
                attachment.end()
            raise

    def _admit(self, live: Live, restarts: int) -> None:
        """Make its init the container's: in state.json, in the cgroups, with a network. Raises AgentError, OSError."""
        spec = self._spec
        record: Record = dataclasses.replace(
            self._before,
            pid=live.pid,
            start_ticks=process.start_ticks(live.pid),
            started_unix_ns=time.time_ns(),
            paused=False,
            stopped=False,
            restarts=restarts,
        )
        store = self._engine.store
        if self._unfinished is None:
            wait_for_disk = store.begin_record(spec.id, record)
        else:
            wait_for_disk = store.begin_finish(spec.id, record, self._unfinished)
        try:
            self._enter(live)
        finally:
            wait_for_disk()  # before anybody writes another

    def _enter(self, live: Live) -> None:
        spec, cgroup = self._spec, self._engine.cgroup(self._spec.id)
        if live.inside is not None:
            self._supervisor.free_address(spec.network.address)
            network.attach(spec, live.pid, self._bridge, live.inside)
        self._engine.ports.publish(spec)
        cgroup.add(live.pid)  # last: the kernel has got ready for it
