"""A container's start, from a monitor of the pool to its program.

    agent                                          monitor
      cgroups; a monitor with namespaces, from the pool
      fork -------------------------------------->   maps ids, has init forked into the container's cgroup
      meanwhile, of a new one: its layer
      create ------------------------------------>   mounts the root, init makes its mounts
      meanwhile: state.json, init's network
      start ------------------------------------->   init becomes the program, as soon as it is ready
      <------------------ read ends of the output

What has to be on disk is there before the program runs. Called under the container's lock.
"""

from __future__ import annotations

import dataclasses
import time
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any

from agent.engine import init, network, plan
from agent.engine.attach import Attachment
from agent.engine.launch import ENDED, ContainerStartError, MonitorError, Reply
from agent.engine.spec import ContainerSpec
from agent.engine.store import Record
from agent.engine.supervise import Live, Supervisor
from agent.errors import AgentError
from agent.linux import process

if TYPE_CHECKING:
    from agent.engine.container import Engine


class Starting:
    """One start. `bridge`: None for a container in the host's network; `unfinished`: Store.begin_sync() of one that has just been made,
    whose creation ends with this start. begin(), where there is something else to do after it, then run() or undo().
    """

    def __init__(
        self,
        engine: Engine,
        supervisor: Supervisor,
        spec: ContainerSpec,
        *,
        bridge: str | None,
        unfinished: Callable[[], None] | None = None,
    ) -> None:
        self._engine = engine
        self._supervisor = supervisor
        self._spec = spec
        self._bridge = bridge
        self._unfinished = unfinished
        self._before = engine.store.record(spec.id)
        self._live: Live | None = None
        self._forked: Callable[[], Reply] | None = None

    def begin(self) -> None:
        """Have init made; goes on meanwhile. Raises AgentError, OSError; then nothing of it stays."""
        try:
            self._begin()
        except (AgentError, OSError) as exc:
            self.undo(exc)
            raise

    def run(self, told: dict[str, Any], attachments: Sequence[Attachment], *, restarts: int) -> None:
        """`told`: the plan. Raises as Engine.start(); then nothing of it stays, and who was to be attached is told."""
        try:
            if self._unfinished is None:
                self._engine.store.forget_exit(self._spec.id)
            if self._live is None:
                self._begin()
            self._run(told, attachments, restarts)
        except (AgentError, OSError) as exc:
            self.undo(exc)
            for attachment in attachments:
                attachment.end()
            raise

    def undo(self, why: AgentError | OSError) -> None:
        """Nothing of it stays."""
        spec, store = self._spec, self._engine.store
        if self._live is not None:
            self._live.forget_inside()
        by_program = isinstance(why, ContainerStartError) and why.step == "exec"
        # After a failed execve the monitor writes the exit status and ends by itself.
        self._supervisor.drop(spec.id, discard=not by_program)
        if not by_program:
            # A monitor that was killed has left them; nobody knows that they were let go.
            self._engine.lost.end_tasks(spec)
            store.forget_exit(spec.id)  # a monitor that saw its init die has written one, of a life that never began
            store.write_record(spec.id, dataclasses.replace(self._before, pid=0))
        self._supervisor.settle(spec.id)

    def _begin(self) -> None:
        spec = self._spec
        self._engine.make_cgroup(spec)
        flags = init.stage_flags({"shared": plan.shared(spec), "host_network": self._bridge is None})
        self._live = live = self._supervisor.take(spec.id, flags)
        assert live.client is not None
        self._forked = live.client.begin(
            "fork",
            flags=flags,
            ids_base=spec.ids.base,
            ids_count=spec.ids.count,
            cgroup=str(self._engine.cgroup(spec.id).freezer),
            runtime_dir=str(self._supervisor.runtime_dir(spec.id)),
        )

    def _run(self, told: dict[str, Any], attachments: Sequence[Attachment], restarts: int) -> None:
        live = self._live
        assert live is not None and live.client is not None and self._forked is not None
        created = live.client.begin("create", plan=told)
        pid = int(self._forked()["pid"])
        try:
            self._admit(live, pid, restarts)  # while the root is mounted
        except (AgentError, OSError) as exc:
            created()  # a refusal of the monitor's says more
            raise _why(live, pid, exc) from exc
        live.forget_inside()
        for attachment in attachments:
            attachment.connect(self._supervisor.runtime_dir(self._spec.id))
        try:
            started = live.client.begin("start")
        except MonitorError:
            created()
            raise
        created()
        live.outputs = started().fds

    def _admit(self, live: Live, pid: int, restarts: int) -> None:
        """Make its init the container's: in state.json, with a network. Raises AgentError, OSError."""
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
        store = self._engine.store
        if self._unfinished is None:
            wait_for_disk = store.begin_record(spec.id, record)
        elif spec.remove_on_exit:
            store.finish_until_boot(spec.id, record)
            self._connect(live, pid)
            return
        else:
            wait_for_disk = store.begin_finish(spec.id, record, self._unfinished)
        try:
            self._connect(live, pid)
        finally:
            wait_for_disk()  # before anybody writes another

    def _connect(self, live: Live, pid: int) -> None:
        spec = self._spec
        if live.inside is not None and self._bridge is not None:
            self._supervisor.free_address(spec.network.address)
            network.attach(spec, pid, self._bridge, live.inside)
        self._engine.ports.publish(spec)


def _why(live: Live, pid: int, exc: AgentError | OSError) -> AgentError | OSError:
    """What the agent could not do with an init that has ended was not the agent's failure: the monitor knows more."""
    if not process.has_ended(pid):
        return exc
    try:
        failure = live.ask("status").get("failure")
    except AgentError:
        failure = None
    step, number, text = failure or ("init", 0, str(exc))
    return ContainerStartError(f"{step}: {text}", step=step, errno=number, hint="" if failure else ENDED)
