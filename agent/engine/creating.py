"""A container's creation: its files, its layer with what every container has in it, and, where it is to run at once, its start beside that.

checks ─► store: directory, spec, record, "unfinished" ─┬─► layer, hosts and resolv.conf, volumes ─► on disk, finished
                                      to be started: init is forked ─┘    (or told what it is: starting.py)
"""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from types import MappingProxyType
from typing import TYPE_CHECKING

from agent.engine import (
    disk,
    health,
    hostfiles,
    isolation,
    limits,
    local,
    logs,
    mounted,
    reaper,
    restarts,
    rlimits,
    secret_files,
)
from agent.engine.outside import ImageStore, WritableLayer
from agent.engine.spec import ContainerSpec
from agent.engine.starting import Starting
from agent.engine.state import ContainerStatus
from agent.engine.store import Record
from agent.engine.supervise import Supervisor
from agent.errors import AgentError, InvalidArgument, WrongState

if TYPE_CHECKING:
    from agent.engine.container import Engine


class Creating:
    """One an engine. `bridge`: whose gateway the containers' hosts file names."""

    def __init__(
        self,
        engine: Engine,
        supervisor: Supervisor,
        images: ImageStore,
        writable_layer: Callable[[Path], WritableLayer],
        bridge: str,
    ) -> None:
        self._engine = engine
        self._supervisor = supervisor
        self._images = images
        self._writable_layer = writable_layer
        self._bridge = bridge

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
        """As Engine.create()."""
        engine, arriving = self._engine, role == "target"
        self._check(spec, None if arriving else secrets)
        directory = engine.store.add(spec, Record(epoch=epoch, migration_id=migration_id, role=role))
        # Of one that is started at once another record takes the first one's place before anything is on the disk, or nothing gets there.
        wait_for_disk = engine.store.begin_sync(spec.id, _synced(spec, start))
        made: list[str] = []
        announced = False
        try:
            with self._begun(spec, own, wait_for_disk) if start else contextlib.nullcontext() as starting:
                made += self._fill(spec, directory, own, None if arriving else secrets)
                engine.keep_own(spec.id, own)
                if starting is None:
                    wait_for_disk()
                    engine.store.finish(spec.id)
                if not arriving:
                    engine.note("create", spec)
                    announced = True
                if starting is not None:
                    engine.begin_life(spec, starting=starting)
                return engine.inspect(spec.id)
        except (AgentError, OSError):
            engine.delete(spec.id)
            engine.volumes.remove_new(made)
            if announced:
                engine.note("destroy", spec)
            raise

    def _check(self, spec: ContainerSpec, secrets: Mapping[str, bytes] | None) -> None:
        """What could not be started is not created. `secrets`: None for one that arrives."""
        if not spec.argv:
            raise InvalidArgument(f"container {spec.name} has no command", hint="give one: migrate run IMAGE COMMAND")
        limits.check(spec.limits)
        rlimits.check(spec.limits)
        isolation.check(spec, self._engine.filters)
        restarts.check(spec)
        health.check(spec)
        mounted.check(spec)
        logs.limits(spec.log_options)
        secret_files.check(spec, secrets)
        if spec.init and secrets is not None:
            reaper.check()
        self._engine.try_limits(spec)

    @contextmanager
    def _begun(self, spec: ContainerSpec, own: local.Local, wait_for_disk: Callable[[], None]) -> Iterator[Starting]:
        """Its start, whose init is being made while the block fills its layer. Under its lock."""
        engine = self._engine
        with engine.store.lock(spec.id):
            if self._supervisor.get(spec.id) is not None:
                raise WrongState(f"container {spec.name} is being started already")
            starting = engine.starting(spec, host_network=own.host_network, unfinished=wait_for_disk)
            starting.begin()
            try:
                yield starting
            except (AgentError, OSError) as exc:
                starting.undo(exc)  # again, where it failed itself: there is nothing left then
                raise

    def _fill(
        self, spec: ContainerSpec, directory: Path, own: local.Local, secrets: Mapping[str, bytes] | None
    ) -> list[str]:
        """Its root's places and its layer; returns the volumes that were made. `secrets`: None for one that arrives."""
        engine, arriving = self._engine, secrets is None
        # After `add`: who removes images asks for the containers' layers, so these are here now and stay, or are not.
        lower = [] if arriving else [self._images.layer_path(diff_id) for diff_id in spec.layers]
        (directory / "rootfs").mkdir(mode=0o755)
        if spec.limits.storage_bytes:
            disk.make(directory, spec.limits.storage_bytes)
        layer = self._writable_layer(directory / "layer")
        layer.create()
        if secrets is None:  # it comes with the files in it
            return []
        secret_files.keep(directory, spec, secrets)
        layer.seed(hostfiles.make(spec, self._bridge, host_network=own.host_network), lower)
        if spec.init:
            reaper.put(directory / "layer" / "upper")
        mounted.make_sources(spec)
        engine.volumes.refuse_moving(spec, lambda user: engine.store.record(user.id).migration_id)
        return engine.volumes.ensure(spec)


def _synced(spec: ContainerSpec, start: bool) -> tuple[str, ...]:
    """What of a new container is brought to the disk as it was first written."""
    if not start:
        return ("state.json", "spec.json")
    return () if spec.remove_on_exit else ("spec.json",)
