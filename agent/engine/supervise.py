"""The agent's hold on its monitors: who lives, what to do when one ends, and what to clean up after it.

    spawn / reconnect ──► Live ── the connection closes ──► reap it ──► settle: unmount, veth, cgroup, exit status ──►
    gone

A connection that closes is the only signal needed: a monitor ends when its container is over, or was killed. settle()
then looks at the cgroup: with tasks in it the container is lost, and nothing is touched.
"""

from __future__ import annotations

import logging
import os
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from agent.config import AgentConfig
from agent.engine import binds, init, network
from agent.engine.adoption import UNKNOWN_EXIT_CODE
from agent.engine.cgroup import Cgroup
from agent.engine.launch import MonitorClient, MonitorError
from agent.engine.pool import Idle, MonitorProcess, Pool
from agent.engine.ports import Ports
from agent.engine.state import ContainerStatus
from agent.engine.store import ExitStatus, Store, write_exit
from agent.errors import AgentError, NotFound, WrongState
from agent.linux import mounts
from agent.linux.rtnetlink import RouteSocket

CLOSE_LIMIT_S = 30.0
KILL_LIMIT_S = 15.0  # how long tasks may take to go after SIGKILL
DYING_S = 0.5  # how long tasks that were killed take to go

log = logging.getLogger(__name__)


@dataclass(kw_only=True)
class Live:
    """A monitor that this agent talks to. `process`: None when an earlier agent had it made."""

    client: MonitorClient | None = None
    process: MonitorProcess | None = None
    last: ContainerStatus | None = None  # how it ended, of a container that is removed at its exit
    inside: RouteSocket | None = None  # of its network, until it is configured; None: it has none of its own
    outputs: list[int] = field(default_factory=list)
    exited: threading.Event = field(default_factory=threading.Event)  # its exit status is written
    closed: threading.Event = field(default_factory=threading.Event)  # its process has ended
    gone: threading.Event = field(default_factory=threading.Event)  # and what it left is cleaned up

    def ask(self, cmd: str, **fields: Any) -> dict[str, Any]:
        """A request whose reply has no descriptors."""
        assert self.client is not None
        return self.client.request(cmd, **fields).fields

    def hold_outputs(self) -> None:
        """Keep the read ends of the container's output open here too: if the monitor is killed, writing tasks
        do not get SIGPIPE.
        """
        assert self.client is not None
        before, self.outputs = self.outputs, self.client.request("stdio").fds
        for fd in before:  # of a restore that is asked for again
            os.close(fd)

    def forget_inside(self) -> None:
        """Whoever keeps it keeps the network namespace."""
        if self.inside is not None:
            self.inside.close()
            self.inside = None


class Supervisor:
    """Callers hold the container's lock (Store.lock) around every method but get(). `on_end`: called under that lock
    when a container's monitor has ended by itself and the host is in order again; `on_lost`: when its tasks are still there.
    """

    def __init__(
        self,
        config: AgentConfig,
        store: Store,
        ports: Ports,
        on_end: Callable[[str, Live], None],
        on_lost: Callable[[str, Live], None],
    ) -> None:
        self._config = config
        self._store = store
        self._ports = ports
        self._on_end = on_end
        self._on_lost = on_lost
        self._guard = threading.Lock()
        self._live: dict[str, Live] = {}
        self._leaving: dict[
            str, str
        ] = {}  # address: the container that had it, whose network namespace is on its way out
        self.pool = Pool(
            config.run_dir / "zygote.log", Cgroup(config.cgroup_parent, "monitors"), size=config.idle_monitors
        )

    def get(self, container_id: str) -> Live | None:
        with self._guard:
            return self._live.get(container_id)

    def require(self, container_id: str) -> Live:
        """Raises WrongState when the container has no monitor."""
        live = self.get(container_id)
        if live is None:
            if Cgroup(self._config.cgroup_parent, container_id).populated():
                raise WrongState(f"the monitor of container {container_id} was killed; its processes were not touched")
            raise WrongState(f"no process of container {container_id} is watched here", hint="start it first")
        return live

    def take(self, container_id: str, flags: int) -> Live:
        """A monitor for a start, with the namespaces `flags` for init, to be told whose it is by "create"; in the cgroup of
        monitors. Whoever takes it forgets `inside`. Raises ContainerStartError, MonitorError.
        """
        self.runtime_dir(container_id).mkdir(mode=0o711, parents=True, exist_ok=True)
        idle = self.pool.take()
        live = self._connect(container_id, idle)
        live.inside = idle.inside
        if flags != init.AHEAD:
            live.forget_inside()
            try:
                assert live.client is not None
                reply = live.client.request("make-stage", flags=flags)
            except AgentError:
                self.give_up(container_id)
                raise
            live.inside = RouteSocket(reply.fds[0]) if reply.fds else None
        return live

    def spawn(self, container_id: str) -> Live:
        """A new monitor for a container that has its init, or gets it from CRIU. Raises as take()."""
        live = self.take(container_id, init.AHEAD)
        live.forget_inside()
        try:
            live.ask("become", runtime_dir=str(self.runtime_dir(container_id)))
        except MonitorError:
            self.give_up(container_id)
            raise
        return live

    def give_up(self, container_id: str) -> None:
        """End a monitor that has not become the container's."""
        with self._guard:
            live = self._live.pop(container_id, None)
        if live is not None and live.process is not None:
            live.process.kill()
            live.closed.wait(CLOSE_LIMIT_S)

    def reconnect(self, container_id: str) -> Live | None:
        """The monitor that an earlier agent left; None when none answers."""
        try:
            return self._connect(container_id, None)
        except MonitorError:
            return None

    def drop(self, container_id: str, *, discard: bool) -> None:
        """End the monitor (with `discard`, its tasks too) and return when it has ended. What it left is the
        caller's to settle.
        """
        with self._guard:
            live = self._live.pop(container_id, None)
        if live is None or live.client is None:
            return
        if discard:
            try:
                live.client.request("discard")
            except MonitorError as exc:
                if not live.client.closed:
                    log.warning("container %s: %s", container_id, exc.message)
        if not live.closed.wait(CLOSE_LIMIT_S) and live.process is not None:
            live.process.kill()

    def free_address(self, address: str) -> None:
        """Before somebody gets it: whoever had it last has no link any more. Raises NetworkError."""
        with self._guard:
            before = self._leaving.pop(address, None)
        if before is not None:
            network.remove(before)

    def settle(self, container_id: str, *, at_exit: bool = False) -> bool:
        """Without a monitor: put the host in order after the container. False when tasks live on: lost, and left alone.

        `at_exit`: its link is left to go with its network namespace, which takes the kernel 20 ms after the last task.

        Writes an exit status where nobody could: the monitor, or the host, ended before init.
        """
        cgroup = Cgroup(self._config.cgroup_parent, container_id)
        record = self._store.record(container_id)
        if not record.pid and cgroup.populated():
            # A restore that has not come to its end: no commit can have come, and CRIU, an orphan now, might let them run.
            # Or a start: its init has no program, for its pid is on the disk before it gets one.
            what = "restore" if record.role == "target" else "start"
            log.warning("container %s: the monitor of its %s was killed: what it has made is ended", container_id, what)
            cgroup.kill()
            cgroup.wait_empty(CLOSE_LIMIT_S)
        if cgroup.populated():
            log.warning("container %s has lost its monitor; its tasks run on: %s", container_id, cgroup.procs())
            return False
        mounts.unmount_all(self._store.directory(container_id) / "rootfs")
        binds.unstage(self._config.staging_dir / container_id)
        if at_exit:
            with self._guard:
                self._leaving[self._store.spec(container_id).network.address] = container_id
        else:
            network.remove(container_id)
        self._ports.withdraw(container_id)
        cgroup.remove()
        if record.pid and not record.migration_id and self._store.exit_status(container_id) is None:
            error = "its monitor or its host ended first: the exit code is not known"
            status = ExitStatus(exit_code=UNKNOWN_EXIT_CODE, finished_unix_ns=time.time_ns(), error=error)
            write_exit(self._store.exit_path(container_id), status)
        return True

    def settle_unseen(self, container_id: str) -> None:
        """Of a container that had lost its monitor and then ended by itself, which nobody saw. Any other is left alone."""
        if self.get(container_id) is None and Cgroup(self._config.cgroup_parent, container_id).freezer.exists():
            self.settle(container_id)

    def settle_if_dying(self, container_id: str) -> bool:
        """Whether one that has just lost its monitor was about to end anyway, and the host is in order after it."""
        if self.get(container_id) is not None or self._store.record(container_id).migration_id:
            return False
        return Cgroup(self._config.cgroup_parent, container_id).wait_empty(DYING_S) and self.settle(container_id)

    def runtime_dir(self, container_id: str) -> Path:
        return self._config.runtime_dir / container_id

    def close(self) -> None:
        """Let go of every monitor; they and their containers go on. For the end of the agent."""
        self.pool.close()
        with self._guard:
            lives = list(self._live.values())
            self._live.clear()
        for live in lives:
            if live.process is not None:
                live.process.forget()
            if live.client is not None:
                live.client.close()

    def _connect(self, container_id: str, idle: Idle | None) -> Live:
        live = Live(process=idle.process if idle else None)
        with self._guard:
            self._live[container_id] = live

        def on_event(event: dict[str, Any]) -> None:
            if event["event"] == "exit":
                live.exited.set()

        def on_gone() -> None:
            live.exited.set()
            self._closed(container_id, live)

        try:
            if idle:
                name = container_id[:12]
                live.client = MonitorClient(idle.connection, on_event=on_event, on_close=on_gone, name=name)
            else:
                directory = self.runtime_dir(container_id)
                live.client = MonitorClient.connect(directory, on_event=on_event, on_close=on_gone)
        except MonitorError:
            with self._guard:
                self._live.pop(container_id, None)
            raise
        return live

    def _closed(self, container_id: str, live: Live) -> None:
        """Runs in the thread that read the connection, once."""
        if live.process is not None:
            live.process.wait()
        live.closed.set()
        try:
            if self.get(container_id) is live:
                with self._store.lock(container_id):
                    if self.get(container_id) is live:
                        with self._guard:
                            del self._live[container_id]
                        if self.settle(container_id, at_exit=True):
                            self._on_end(container_id, live)
                        else:
                            self._on_lost(container_id, live)
        except NotFound:
            pass  # removed meanwhile
        except (AgentError, OSError) as exc:
            log.error("container %s: cleaning up after its end: %s", container_id, exc)
        finally:
            # Not before: tasks that write while nobody holds the other end are killed by it.
            for fd in live.outputs:
                os.close(fd)
            live.outputs = []
            live.gone.set()
