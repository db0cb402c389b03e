"""A host's part in a move of one of its containers, as the engine keeps it: what agent.handover asks of the engine.

Every method is idempotent; the lock of the container is taken here.
"""

from __future__ import annotations

import contextlib
import dataclasses
import time
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from agent.engine import isolation, limits, secret_files
from agent.engine.launch import MonitorClient
from agent.engine.state import State
from agent.engine.supervise import KILL_LIMIT_S, Supervisor
from agent.errors import NotFound, StaleEpoch, WrongState
from agent.linux import process

if TYPE_CHECKING:
    from agent.engine.container import Engine

COPY_LIMIT_S = 5.0  # how long a move waits for a `cp` into its container


class Roles:
    """`engine.roles`."""

    def __init__(self, engine: Engine, supervisor: Supervisor) -> None:
        self._engine = engine
        self._supervisor = supervisor

    def begin(self, container_id: str, migration_id: str, role: str, epoch: int) -> None:
        """Begin this host's part in a move; repeated, nothing. One move at a time.

        Raises StaleEpoch for an epoch below the known one, WrongState while it takes part in another move, or while
        files are being copied to it for long.
        """
        self._engine.visits.wait(container_id, COPY_LIMIT_S)
        with self._engine.store.lock(container_id):
            record = self._engine.store.record(container_id)
            if epoch < record.epoch:
                raise StaleEpoch(f"container {container_id} has epoch {record.epoch} here, the call has {epoch}")
            if record.migration_id and (record.migration_id, record.role) != (migration_id, role):
                raise WrongState(
                    f"container {container_id} takes part in move {record.migration_id} here, as its {record.role}",
                    hint=f"wait for that move, or cancel it: migrate cancel {record.migration_id}",
                )
            if self._engine.inspect(container_id).state == State.PAUSED:
                raise WrongState(f"container {container_id} is paused", hint="let it go on first: migrate unpause")
            if self._engine.visits.writing(container_id):  # it would be lost, or be half here and half there
                raise WrongState(
                    f"files are being copied to container {container_id}", hint="wait for that `migrate cp`, or end it"
                )
            record = dataclasses.replace(record, migration_id=migration_id, role=role, epoch=epoch)
            self._engine.store.write_record(container_id, record)
        self._engine.checks.hold(container_id)  # from here on none begins: CRIU must not meet one

    def end(self, container_id: str, migration_id: str, epoch: int) -> None:
        """End this host's part in that move, with the epoch that the container has from now on. A container in
        another move, or in none, is left alone. Raises StaleEpoch as begin.
        """
        with self._engine.store.lock(container_id):
            record = self._engine.store.record(container_id)
            if record.migration_id != migration_id:
                return
            if epoch < record.epoch:
                raise StaleEpoch(f"container {container_id} has epoch {record.epoch} here, the call has {epoch}")
            record = dataclasses.replace(record, migration_id="", role="", epoch=epoch)
            self._engine.store.write_record(container_id, record)
            self._engine.after_end(container_id)  # or it would have removed itself during the move
            self._engine.lost.adopt(container_id)  # or its monitor would have been replaced
            with contextlib.suppress(NotFound):  # it has just removed itself
                status = self._engine.inspect(container_id)
                if status.state == State.RUNNING:
                    self._engine.checks.watch(status.spec)

    def epoch(self, container_id: str) -> int:
        """The highest that this host knows of the container; 0 when it does not have it."""
        try:
            return self._engine.store.record(container_id).epoch
        except NotFound:
            return 0

    def monitor(self, container_id: str) -> MonitorClient:
        """The connection to its monitor. Raises WrongState without one."""
        client = self._supervisor.require(container_id).client
        assert client is not None
        return client

    def spawn_monitor(self, container_id: str) -> MonitorClient:
        """For a restore: the cgroup with its limits, and an idle monitor outside it. Ends with discard(), or
        with the container. What would only slow the restore down comes with impose_limits().
        """
        with self._engine.store.lock(container_id):
            spec, cgroup = self._engine.store.spec(container_id), self._engine.cgroup(container_id)
            cgroup.create(limits.unhurried(spec.limits))
            isolation.restrict(cgroup, spec)
            self._supervisor.spawn(container_id)
        return self.monitor(container_id)

    def impose_limits(self, container_id: str) -> None:
        """After a restore, before its tasks run: the whole of its limits. Idempotent."""
        wanted = self._engine.store.spec(container_id).limits
        self._engine.cgroup(container_id).set_limits(wanted, limits.unhurried(wanted))

    def life(self, container_id: str) -> dict[str, Any]:
        """What the next host is to know of it beyond its spec: JSON, for set_process there."""
        record, spec = self._engine.store.record(container_id), self._engine.store.spec(container_id)
        return {
            "started_unix_ns": record.started_unix_ns,
            "restarts": record.restarts,
            "health": self._engine.checks.export(spec),
            "secrets": secret_files.export(self._engine.store.directory(container_id), spec),
        }

    def set_process(self, container_id: str, pid: int, life: Mapping[str, Any] | None = None) -> None:
        """A restore has made `pid` this container's init; `life`: what life() said on its last host."""
        life = life or {}
        with self._engine.store.lock(container_id):
            record = self._engine.store.record(container_id)
            record = dataclasses.replace(
                record,
                pid=pid,
                start_ticks=process.start_ticks(pid),
                started_unix_ns=record.started_unix_ns or int(life.get("started_unix_ns", 0)) or time.time_ns(),
                restarts=record.restarts or int(life.get("restarts", 0)),
            )
            self._engine.store.write_record(container_id, record)
            if "health" in life:
                self._engine.checks.take(container_id, life["health"])
            spec = self._engine.store.spec(container_id)
            secret_files.take(self._engine.store.directory(container_id), spec, life.get("secrets", {}))
            self._supervisor.require(container_id).hold_outputs()

    def forget(self, container_id: str, *, discard: bool = False) -> None:
        """The container is not, or no longer, this host's: delete it, whatever its role. With `discard`, kill its
        tasks first.

        Idempotent. Raises WrongState when tasks are left.
        """
        try:
            with self._engine.store.lock(container_id):
                self._supervisor.drop(container_id, discard=discard)
                cgroup = self._engine.cgroup(container_id)
                if discard and cgroup.populated():
                    cgroup.kill()
                    cgroup.wait_empty(KILL_LIMIT_S)
                if not self._supervisor.settle(container_id):
                    raise WrongState(f"container {container_id} still has tasks here: {cgroup.procs()}")
                self._engine.delete(container_id)
        except NotFound:
            return
