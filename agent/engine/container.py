"""The agent's main path: what it does to containers, verb by verb.

    create ─► created ─ start ─► running ─ (exit, stop, kill) ─► exited ─ start ─► running ...; remove
    start:  cgroup ─► monitor ─► "create": root, namespaces, init waits ─► network ─► "start": execve

Threaded: a lock a container (store.py), held for the short decisions and for start; never while waiting for an end.
While a move is under way only the handover acts on the container; the predicates of state.py refuse the rest.
"""

from __future__ import annotations

import contextlib
import dataclasses
import errno
import functools
import logging
import math
import shutil
import signal as signals
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from types import MappingProxyType
from typing import Any

from agent.config import AgentConfig
from agent.engine import (
    disk,
    health,
    isolation,
    local,
    logs,
    lost,
    mounted,
    network,
    plan,
    predecessor,
    restarts,
    state,
    usage,
    waiting,
)
from agent.engine.attach import Attachment
from agent.engine.cgroup import Cgroup, remove_trials, try_limits
from agent.engine.creating import Creating
from agent.engine.events import EventLog
from agent.engine.launch import MonitorError
from agent.engine.outside import ImageStore, WritableLayer
from agent.engine.ports import Ports
from agent.engine.roles import Roles
from agent.engine.seccomp import Filters
from agent.engine.signals import signal_number
from agent.engine.spec import ContainerSpec
from agent.engine.starting import Starting
from agent.engine.state import ContainerStatus, Seen, State
from agent.engine.store import Store
from agent.engine.supervise import KILL_LIMIT_S, Live, Supervisor
from agent.engine.visits import SETTLE_S, Visits
from agent.engine.volumes import Volumes
from agent.errors import AgentError, NotFound, WrongState

LEFT_OVER_S = 5.0  # how long a start waits for a `cp` into what ran before

log = logging.getLogger(__name__)


class Engine:
    """One a host. `writable_layer` makes the object for a container's `layer` directory."""

    def __init__(
        self, config: AgentConfig, images: ImageStore, writable_layer: Callable[[Path], WritableLayer]
    ) -> None:
        self.store = Store(config.containers_dir)
        self._config = config
        self._images = images
        self.visits = Visits()
        self._cgroups = functools.lru_cache(1024)(functools.partial(Cgroup, config.cgroup_parent))
        self.ports = Ports(config, self._is_ending)
        self._supervisor = Supervisor(config, self.store, self.ports, self.after_end, self._monitor_gone)
        self.lost = lost.Lost(self, self._supervisor)
        self.filters = Filters(config.seccomp_dir)
        self.volumes = Volumes(config.volumes_dir, self.store.specs)
        self._creating = Creating(self, self._supervisor, images, writable_layer, config.bridge)
        self.roles = Roles(self, self._supervisor)
        self.restarts = restarts.Restarts(self)
        self.checks = health.Checks(self)
        self._local: dict[str, local.Local] = {}  # of containers that have one
        self._waiting: dict[str, list[Attachment]] = {}  # for their container's start; under its lock
        for directory in (config.containers_dir, config.runtime_dir):
            directory.mkdir(mode=0o700, parents=True, exist_ok=True)
        self.events = EventLog(config.state_dir / "events.jsonl")

    # ------------------------------------------------------------ verbs

    def create(
        self,
        spec: ContainerSpec,
        epoch: int,
        *,
        migration_id: str = "",
        role: str = "",
        own: local.Local = local.NOTHING,
        start: bool = False,
        secrets: Mapping[str, bytes] = MappingProxyType({}),
    ) -> ContainerStatus:
        """Make the container, with no process yet; with role "target", the place where one will arrive. `own`: what it
        has on this host alone, as long as this agent lives. `start`: and run it, which takes less time than start() after it; where that
        fails there is no container.

        Raises AlreadyExists, InvalidArgument, NotFound for a layer that this host lacks (a target may still get them); with `start` as
        start() too.
        """
        return self._creating.create(
            spec, epoch, migration_id=migration_id, role=role, own=own, start=start, secrets=secrets
        )

    def make_cgroup(self, spec: ContainerSpec) -> None:
        """For its start: init is born in it. Raises AgentError."""
        cgroup = self.cgroup(spec.id)
        cgroup.create(spec.limits)
        isolation.restrict(cgroup, spec)

    def settled(self, container_id: str) -> None:
        """Return when what is left of an exit is cleaned up; at once where it has not exited."""
        live = self._supervisor.get(container_id)
        if live is not None and live.exited.is_set():
            live.gone.wait(KILL_LIMIT_S)

    def wait_for_exit(self, container_id: str, wanted: Callable[[], bool] = lambda: True) -> ContainerStatus:
        """As wait(), but not for the cleaning up after it, for which everybody who could notice waits: settled()."""
        live, spec = self._supervisor.get(container_id), self.store.spec(container_id)
        if live is not None and not spec.restart.acts:  # else an exit may be no end
            while wanted() and not live.exited.wait(waiting.LOOK_S):
                pass
            with contextlib.suppress(NotFound):  # it has removed itself: wait() has kept how it ended
                status = self.inspect(container_id)
                if status.state == State.EXITED and not status.migration_id:
                    return status
            live.gone.wait(waiting.LOOK_S if wanted() else 0)
            if live.last is not None:
                return live.last
        return self.wait(container_id, wanted=wanted)

    def start(self, container_id: str) -> ContainerStatus:
        """Run it. Raises WrongState, ContainerStartError with the step that failed (exit code 127 or 126 is then
        stored when the program could not be run), NetworkError; the container is not running then.
        """
        self.settled(container_id)
        self.visits.settle(container_id)
        with self.store.lock(container_id):
            self.refuse_start(container_id)
            self.restarts.cancel(container_id)
            self.begin_life(self.store.spec(container_id))
            return self.inspect(container_id)

    def refuse_start(self, container_id: str) -> None:
        """Raises WrongState where it may not start now."""
        self._refuse("start", container_id, state.why_not_start)

    def note(self, action: str, spec: ContainerSpec, **attributes: str) -> None:
        """An event of the container's, for `migrate events`."""
        self.events.publish("container", action, spec.id, spec.name, {"image": spec.image, **spec.labels, **attributes})

    def stop(
        self, container_id: str, timeout_s: float | None = None, signal: str = "", *, for_good: bool = True
    ) -> ContainerStatus:
        """Stop signal, wait, SIGKILL, wait. Defaults from the spec. Returns the status of the ended
        container; no error on one that has. `for_good`: its restart policy is not asked.
        """
        spec = self.store.spec(container_id)
        number = signal_number(signal or spec.stop_signal)
        with self.store.lock(container_id):
            live = watched = self._live_for("stop", container_id, state.why_not_stop)
            if for_good:
                self._end_policy(container_id)
        if live is not None:
            self.note("kill", spec, signal=str(int(number)))
            self._signal(live, number)
            self._thaw_to_end(container_id)
            if not live.gone.wait(spec.stop_timeout_s if timeout_s is None else timeout_s):
                live = self._live_for("stop", container_id, state.why_not_stop)  # a move may have begun
                if live is not None:
                    self._signal(live, signals.SIGKILL)
                    if not live.gone.wait(KILL_LIMIT_S):
                        raise AgentError(f"container {spec.name} survives SIGKILL for {KILL_LIMIT_S:g} s")
            self.note("stop", spec)
        return (watched and watched.last) or self.inspect(container_id)

    def kill(self, container_id: str, signal: str = "SIGKILL") -> None:
        """Send a signal to init. SIGKILL ends a lost container too."""
        number = signal_number(signal)
        with self.store.lock(container_id):
            status = self._refuse("kill", container_id, state.why_not_kill)
            live = self._supervisor.get(container_id)
            if number in (signals.SIGKILL, signal_number(status.spec.stop_signal)):
                self._end_policy(container_id)
            self.note("kill", status.spec, signal=str(int(number)))
            if status.state == State.RESTARTING:
                return
            if live is not None:
                self._signal(live, number)
                if number in (signals.SIGKILL, signal_number(status.spec.stop_signal)):
                    self._thaw_to_end(container_id)
            elif number == signals.SIGKILL:
                self.lost.kill(status.spec)
                self.after_end(container_id)
            else:
                raise lost.only_to_be_killed(status.spec, "signal")

    def remove(self, container_id: str, force: bool = False, *, volumes: bool = False) -> None:
        """Delete the container with its writable layer and log; with `force`, kill it first; with `volumes`, its anonymous
        ones too. Raises WrongState.
        """
        self.visits.settle(container_id, 0.0 if force else SETTLE_S)
        while True:
            with self.store.lock(container_id):
                status = self._refuse("remove", container_id, lambda s: state.why_not_remove(s, force=force))
                live = self._supervisor.get(container_id)
                if live is None:
                    if status.state in (
                        State.LOST,
                        State.FROZEN,
                    ):  # frozen: its memory could not be put in place after a move
                        self.lost.kill(status.spec)
                    else:
                        self._supervisor.settle_unseen(container_id)
                    self.delete(container_id, volumes=volumes)
                    self.note("destroy", status.spec)
                    return
                self._end_policy(container_id)
                self._signal(live, signals.SIGKILL)
            if not live.gone.wait(KILL_LIMIT_S):
                raise AgentError(f"container {status.spec.name} survives SIGKILL for {KILL_LIMIT_S:g} s")
            if live.last:
                return  # it removed itself

    def inspect(self, container_id: str) -> ContainerStatus:
        """What is true now. Raises NotFound."""
        spec = self.store.spec(container_id)
        cgroup = self.cgroup(container_id)
        seen = Seen(
            monitor=self._supervisor.get(container_id) is not None, tasks=cgroup.populated(), frozen=cgroup.frozen()
        )
        record, exit_status = self.store.record(container_id), self.store.exit_status(container_id)
        now = state.derive(record, exit_status, seen)
        ended = exit_status if now == State.EXITED else None
        if now in (State.EXITED, State.CREATED) and self.restarts.pending(container_id):
            now = State.RESTARTING
        return ContainerStatus(
            spec=spec,
            state=now,
            pid=record.pid if now in (State.RUNNING, State.FROZEN, State.LOST, State.PAUSED) else 0,
            started_unix_ns=record.started_unix_ns,
            finished_unix_ns=ended.finished_unix_ns if ended else 0,
            exit_code=ended.exit_code if ended else None,
            error=ended.error if ended else "",
            host=self._config.host,
            epoch=record.epoch,
            migration_id=record.migration_id,
            role=record.role,
            oom_kills=ended.oom_kills if ended else usage.oom_kills(usage.oom_events(cgroup.directories)),
            restarts=record.restarts,
            health=self.checks.read(spec),
        )

    def list(self) -> list[ContainerStatus]:
        """Every container of this host."""
        found = []
        for container_id in self.store.ids():
            try:
                found.append(self.inspect(container_id))
            except NotFound:
                continue  # removed while we looked
        return found

    def wait(
        self, container_id: str, timeout_s: float = math.inf, wanted: Callable[[], bool] = lambda: True
    ) -> ContainerStatus:
        """Return when the container has ended, at the time limit, or when `wanted` says no, with its status. Raises
        WrongState when it never ran or is lost.
        """
        return waiting.until_ended(self, self._supervisor, container_id, timeout_s, wanted)

    def comes_back(self, container_id: str) -> bool:
        """After its exit: whether its restart policy starts it again."""
        return waiting.comes_back(self, self._supervisor, container_id)

    def logs(
        self,
        container_id: str,
        *,
        follow: bool = False,
        tail: int | None = None,
        since_unix_ns: int = 0,
        wanted: Callable[[], bool] = lambda: True,
    ) -> Iterator[logs.LogEntry]:
        """Entries oldest first; `tail` None: all of them. With `follow`, up to the container's end, or until `wanted` says no."""
        self.store.spec(container_id)
        path = self.store.directory(container_id) / "container.log"

        def alive() -> bool:
            alive = self._supervisor.get(container_id) is not None or self.restarts.pending(container_id)
            return alive and wanted()

        return logs.read_log(path, tail=tail, since_unix_ns=since_unix_ns, follow=alive if follow else None)

    def attach(self, container_id: str) -> Attachment:
        """Connected now if it runs, else by its next start, before its program runs. Raises WrongState in a move."""
        with self.store.lock(container_id):
            status = self._refuse("attach to", container_id, state.why_not_attach)
            attachment = Attachment()
            if status.state == State.RUNNING:
                attachment.connect(self._supervisor.runtime_dir(container_id))
            else:
                self._waiting.setdefault(container_id, []).append(attachment)
            return attachment

    def running_pid(self, container_id: str) -> int:
        """Init's pid on the host, for `exec`. Raises WrongState while it does not run or a move is under way."""
        return self._refuse("exec in", container_id, state.why_not_exec).pid

    def plan(self, spec: ContainerSpec) -> dict[str, Any]:
        """Everything the monitor and init need: see plan.py."""
        layers = [self._images.layer_path(layer) for layer in spec.layers]
        directory, cgroup = self.store.directory(spec.id), self.cgroup(spec.id)
        record = self.store.record(spec.id)
        fresh = record.started_unix_ns == 0 and not record.role
        places = mounted.plan(spec, self.volumes.places, self._config.staging_dir / spec.id, fresh=fresh)
        own, seccomp = self._local_of(spec), self.filters.path(spec)
        return plan.make(spec, directory, layers, cgroup, seccomp=seccomp, mounts=places, own=own)

    def try_limits(self, spec: ContainerSpec) -> None:
        """What this host cannot keep is refused at once, not at the start. Raises Unsupported, InvalidArgument."""
        try_limits(self._config.cgroup_parent, spec.id, spec.limits)

    def _local_of(self, spec: ContainerSpec) -> local.Local:
        own = self._local.get(spec.id, local.NOTHING)
        return dataclasses.replace(own, host_network=own.host_network or spec.network.mode == "host")

    def cgroup(self, container_id: str) -> Cgroup:
        return self._cgroups(container_id)

    # ------------------------------------------------------------ the agent's own start and end

    def recover(self) -> None:
        """After the agent's start: take up living monitors again, put the host in order after dead ones.
        Once, before anything else.
        """
        remove_trials(self._config.cgroup_parent)
        predecessor.await_monitors(Cgroup(self._config.cgroup_parent, "monitors"))
        self._supervisor.pool.start()
        self.filters.prepare()
        for entry in self._config.containers_dir.iterdir():
            try:
                if self.store.unfinished(entry.name):
                    log.warning("container %s is half made or half removed: removing it", entry.name)
                    self.lost.discard(entry.name)
                    self.delete(entry.name, volumes=self.store.has_spec(entry.name))
                else:
                    with self.store.lock(entry.name):
                        self._recover(entry.name)
            except (AgentError, OSError) as exc:  # one bad container must not keep the agent from the others
                log.error("container %s: recovery: %s", entry.name, exc)
        self._publish_again()

    def close(self) -> None:
        """Let go of everything; the containers run on."""
        self.restarts.close()
        self.checks.close()
        self._supervisor.close()
        self.ports.close()

    def _recover(self, container_id: str) -> None:
        disk.attach(self.store.directory(container_id))  # after a boot nothing is mounted
        live = self._supervisor.reconnect(container_id)
        if live is None:
            self._supervisor.settle(container_id)
            self.after_end(container_id)
            self.lost.adopt(container_id)
            return
        monitor_state = live.ask("status")["state"]
        if monitor_state in ("idle", "creating", "created"):  # the agent died between create and start
            self._supervisor.drop(container_id, discard=True)
            record = self.store.record(container_id)
            self.store.write_record(container_id, dataclasses.replace(record, pid=0))
            self._supervisor.settle(container_id)
        elif monitor_state != "exited":
            live.hold_outputs()

    def _is_ending(self, container_id: str) -> bool:
        live = self._supervisor.get(container_id)
        return live is None or live.exited.is_set()

    def _publish_again(self) -> None:
        """The ports of those that run, and of those that are to arrive."""
        here = [one for one in self.list() if one.pid or one.role == "target"]
        try:
            self.ports.recover([one.spec for one in here])
        except AgentError as exc:
            log.error("published ports: %s", exc.message)

    # ------------------------------------------------------------ parts

    def _end_policy(self, container_id: str) -> None:
        """Somebody ends it: its restart policy is not asked, and who waits for its next life waits in vain."""
        if self.restarts.pending(container_id):
            self.restarts.cancel(container_id)
            for attachment in self._waiting.pop(container_id, []):
                attachment.end()
        record = self.store.record(container_id)
        if not record.stopped:
            self.store.write_record(container_id, dataclasses.replace(record, stopped=True))

    def keep_own(self, container_id: str, own: local.Local) -> None:
        """What create() was given for it, as long as this agent lives."""
        if own != local.NOTHING:
            self._local[container_id] = own

    def starting(
        self, spec: ContainerSpec, *, host_network: bool, unfinished: Callable[[], None] | None = None
    ) -> Starting:
        """A start of it. `unfinished`: of one whose creation has not come to its end."""
        bridge = None if host_network or spec.network.mode == "host" else self._config.bridge
        return Starting(self, self._supervisor, spec, bridge=bridge, unfinished=unfinished)

    def begin_life(self, spec: ContainerSpec, *, restarts: int = 0, starting: Starting | None = None) -> None:
        """Start it, where it may. Under its lock. `starting`: of one that is being created. Raises as start()."""
        if starting is None:  # it may have run before
            self.visits.settle(spec.id, LEFT_OVER_S)
            self._supervisor.settle_unseen(spec.id)
            starting = self.starting(spec, host_network=self._local_of(spec).host_network)
        attachments = self._waiting.pop(spec.id, [])
        self.checks.watch(spec, fresh=True)  # before: nobody sees it run with the health of its last life
        try:
            starting.run(self.plan(spec), attachments, restarts=restarts)
        except (AgentError, OSError):
            self.checks.unwatch(spec.id)
            raise
        self.note("start", spec)

    def _thaw_to_end(self, container_id: str) -> None:
        """A paused container that was told to end does so at once, as Docker's does; any other signal waits for `unpause`."""
        try:
            with self.store.lock(container_id):
                if self.inspect(container_id).state == State.PAUSED:
                    self.cgroup(container_id).freeze(False)
                    record = dataclasses.replace(self.store.record(container_id), paused=False)
                    self.store.write_record(container_id, record)
        except NotFound:
            return  # it has ended and removed itself

    def after_end(self, container_id: str, live: Live | None = None) -> None:
        """The host is in order after its monitor, which `live` was: one that is to be removed at its exit goes now. Not
        during a move: whoever ends that asks again.
        """
        if self._supervisor.get(container_id) is not None:
            return  # it is about to end
        status = self.inspect(container_id)
        if status.state != State.EXITED:
            return
        self.checks.unwatch(container_id)
        if status.migration_id and status.role == "target":
            return  # it is not this host's yet, and a rehearsal's copy never is
        if live is not None or self.events.lacks(container_id, "die", status.started_unix_ns):
            if status.oom_kills:
                self.note("oom", status.spec)
            self.note("die", status.spec, exitCode=str(status.exit_code))
        if status.migration_id:
            return
        if self.restarts.ended(status):
            return
        if status.spec.remove_on_exit:
            if live is not None:
                live.last = status
            self.delete(container_id, volumes=True, at_exit=live is not None)
            self.note("destroy", status.spec)

    def _monitor_gone(self, container_id: str, live: Live) -> None:
        self.lost.adopt(container_id, live.outputs)
        if self._supervisor.settle_if_dying(container_id):
            self.after_end(container_id, live)

    def delete(self, container_id: str, *, volumes: bool = False, at_exit: bool = False) -> None:
        """`volumes`: the anonymous ones too; `at_exit`: its link goes by itself, see Supervisor.settle()."""
        spec = self.store.spec(container_id) if volumes else None
        for attachment in self._waiting.pop(container_id, []):
            attachment.end()
        self._local.pop(container_id, None)
        self.restarts.cancel(container_id)
        self.checks.unwatch(container_id)
        self.visits.cut(container_id)
        if not at_exit:
            network.remove(container_id)
        self.ports.withdraw(container_id)
        self.cgroup(container_id).remove()
        shutil.rmtree(self._supervisor.runtime_dir(container_id), ignore_errors=True)
        self.store.delete(container_id)
        if spec is not None:
            self.volumes.remove_anonymous(spec)

    def _live_for(self, verb: str, container_id: str, why_not: Callable[[ContainerStatus], str]) -> Live | None:
        """The monitor to ask, or None when the container has ended. Raises WrongState as `why_not` says, and
        for a lost one.
        """
        with self.store.lock(container_id):
            status = self._refuse(verb, container_id, why_not)
            live = self._supervisor.get(container_id)
            if live is None and status.state == State.LOST:
                raise lost.only_to_be_killed(status.spec, verb)
            return live

    def _refuse(self, verb: str, container_id: str, why_not: Callable[[ContainerStatus], str]) -> ContainerStatus:
        status = self.inspect(container_id)
        if reason := why_not(status):
            if status.migration_id:
                hint = f"wait for the move, or cancel it: migrate cancel {status.migration_id}"
            else:
                hint = f"stop it first: migrate stop {status.spec.name}" if verb == "remove" else ""
                if status.state == State.PAUSED and verb != "remove":
                    hint = f"let it go on: migrate unpause {status.spec.name}"
            raise WrongState(f"cannot {verb} container {status.spec.name}: {reason}", hint=hint)
        return status

    @staticmethod
    def _signal(live: Live, number: int) -> None:
        try:
            live.ask("kill", signal=int(number))
        except MonitorError as exc:
            ended = exc.errno in (errno.ESRCH, errno.EPIPE, errno.ECONNRESET, errno.EBADF) or exc.step == "connect"
            if not ended and not (live.client and live.client.closed):
                raise  # else it has ended by itself, before our request or with it
