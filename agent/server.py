"""Builds the agent: engine, store, door, handover, and the gRPC server on a unix socket that only root can open.

gRPC does not show a peer's credentials to Python, so the kernel checks them at connect(): the socket is root's, mode 0600
from its first moment, in a directory that others cannot change. Everybody else comes through the door, which looks at
SO_PEERCRED itself and gives them this socket.
"""

from __future__ import annotations

import fcntl
import logging
import os
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import grpc

from agent.build.builds import Builder
from agent.config import AgentConfig
from agent.door import Door
from agent.engine import adjust, stillness
from agent.engine.container import Engine
from agent.errors import StorageError, WrongState
from agent.handover.ended import EndedMoves
from agent.handover.link_probe import LinkProbe
from agent.handover.source import Source
from agent.handover.target import Target
from agent.memory import ways
from agent.services.builds import BuildsService
from agent.services.containers import ContainersService
from agent.services.files import FilesService
from agent.services.host import HostService
from agent.services.images import ImagesService
from agent.services.lifecycle import LifecycleService
from agent.services.migration import MigrationService
from agent.services.volumes import VolumesService
from agent.setup import criu, probe
from agent.storage.images import ImageStore
from agent.storage.layers import WritableLayer
from migrate.rpc import channels
from migrate.rpc.errors import ErrorInterceptor
from migrate.rpc.version import VersionInterceptor
from protos import agent_pb2_grpc

WORKERS = 128  # each exec, attach, follow and wait holds one
STOP_GRACE_S = 2.0

log = logging.getLogger(__name__)


class Agent:
    """One host's agent. start() ... stop(); containers outlive it."""

    def __init__(self, config: AgentConfig) -> None:
        """Takes the host's lock; serves nobody before start(). Raises WrongState when another agent is there."""
        self.config = config
        _make_directories(config)
        self._lock = _lock(config.run_dir / "agent.lock")
        self._server = grpc.server(
            ThreadPoolExecutor(max_workers=WORKERS, thread_name_prefix="rpc"),
            interceptors=[ErrorInterceptor(), VersionInterceptor(f"the agent of {config.host}", "the coordinator")],
            options=channels.SERVER_OPTIONS,
        )
        _bind(self._server, config.socket)
        self._images = ImageStore(config.images_dir)
        self._engine = Engine(config, self._images, WritableLayer)
        self._door = Door(config.door, config.group, config.socket)
        known = [probe.one("userfaultfd")]
        lazy = known[0].ok
        tracker = _tracker(config.dirty_tracker, known)
        known.append(probe.one("file-events", config.state_dir))
        watch = known[-1].ok

        def find_criu() -> criu.CriuInstall:
            return criu.locate(config.criu)

        ended = EndedMoves(config.ended_moves_dir)
        self._source = Source(config, self._engine, find_criu, ended, lazy=lazy, tracker=tracker, watch=watch)
        self._target = Target(config, self._engine, self._images, self._door, find_criu, ended, lazy=lazy)
        migration = MigrationService(
            config,
            self._engine,
            self._images,
            self._source,
            self._target,
            LinkProbe(config.run_dir / "probes", self._door),
        )
        self._builder = Builder(config, self._images, self._engine)
        images = ImagesService(self._images, self._engine, config.host, cache=self._builder.cache)
        self._target.collect_layers = images.collect_layers
        for add, service in (
            (agent_pb2_grpc.add_HostServicer_to_server, HostService(config, self._engine, known)),
            (agent_pb2_grpc.add_ContainersServicer_to_server, ContainersService(self._engine)),
            (agent_pb2_grpc.add_LifecycleServicer_to_server, LifecycleService(self._engine)),
            (agent_pb2_grpc.add_ImagesServicer_to_server, images),
            (agent_pb2_grpc.add_VolumesServicer_to_server, VolumesService(self._engine.volumes)),
            (agent_pb2_grpc.add_BuildsServicer_to_server, BuildsService(self._builder, config.host)),
            (agent_pb2_grpc.add_FilesServicer_to_server, FilesService(self._engine, self._images, config.host)),
            (agent_pb2_grpc.add_MigrationServicer_to_server, migration),
        ):
            add(service, self._server)  # type: ignore[no-untyped-call]  # generated

    def start(self) -> None:
        """Take up what runs already, then answer."""
        self._engine.recover()
        stillness.recover(self._engine)
        adjust.recover(self._engine)
        self._builder.recover()
        self._source.recover()
        self._target.recover()
        self._source.kept.begin()
        self._server.start()
        self._engine.restarts.boot()
        self._engine.checks.boot()
        self._door.start()
        log.info("agent of %s serves %s", self.config.host, self.config.socket)

    def stop(self) -> None:
        """Stop answering. Containers, their monitors and what is being received go on."""
        self._door.stop()
        self._server.stop(STOP_GRACE_S).wait()
        self._source.kept.close()
        self._source.close()
        self._engine.close()
        self.config.socket.unlink(missing_ok=True)
        os.close(self._lock)


def _tracker(wanted: str, known: list[probe.Capability]) -> str:
    """A key of watching.WAYS: the best of the kernel, or the one wanted, or the shadow. `known` gets what the kernel was asked."""
    for way, capability in ways.CAPABILITIES.items():
        if wanted not in (ways.AUTO, way):
            continue
        known.append(probe.one(capability))
        if known[-1].ok:
            return way
        if wanted == way:
            log.warning("dirty_tracker = %s: this kernel lacks it (%s); %s is used", way, known[-1].value, ways.SHADOW)
    return ways.SHADOW


def _make_directories(config: AgentConfig) -> None:
    for directory, mode in ((config.run_dir, 0o755), (config.state_dir, 0o700), (config.moves_dir, 0o700)):
        try:
            directory.mkdir(parents=True, exist_ok=True)
            directory.chmod(mode)  # layers hold set-uid programs of root: nobody else may walk to them
        except OSError as exc:
            raise StorageError(f"cannot use {directory}: {exc.strerror}", hint="the agent runs as root") from exc


def _lock(path: Path) -> int:
    fd = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
    try:
        fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        os.close(fd)
        raise WrongState(f"another agent runs here: it holds {path}", hint="stop it first") from None
    return fd


def _bind(server: grpc.Server, path: Path) -> None:
    path.unlink(missing_ok=True)  # a dead agent's: we hold the lock
    before = os.umask(0o177)  # no other thread makes files yet
    try:
        server.add_insecure_port(channels.unix_target(path))
    except (RuntimeError, ValueError) as exc:
        raise StorageError(f"cannot listen on {path}: {exc}") from exc
    finally:
        os.umask(before)
