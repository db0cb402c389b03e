"""The coordinator as one object: everything that belongs together is made, started and stopped here."""

from __future__ import annotations

import fcntl
import grp
import logging
import os
import shutil
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import grpc

from migrate.coordinator import hosts
from migrate.coordinator.agents import AgentPool, Tunnel
from migrate.coordinator.builds import BuildsService
from migrate.coordinator.config import CoordinatorConfig
from migrate.coordinator.containers import FleetContainers
from migrate.coordinator.evacuation.plan import CensusPlanner
from migrate.coordinator.evacuation.records import Evacuations
from migrate.coordinator.evacuation.runner import EvacuationRunner
from migrate.coordinator.evacuation.service import EvacuationsService
from migrate.coordinator.files import FilesService
from migrate.coordinator.health import Heartbeats, Limits
from migrate.coordinator.hosts_service import HostsService
from migrate.coordinator.lifecycle import LifecycleService
from migrate.coordinator.membership import Membership
from migrate.coordinator.metrics import MetricsServer
from migrate.coordinator.moves import MoveRunner
from migrate.coordinator.policies_service import PoliciesService
from migrate.coordinator.rebalance import RebalanceService
from migrate.coordinator.rotation import Rotation
from migrate.coordinator.schedules.clock import SchedulesRunner
from migrate.coordinator.schedules.service import SchedulesService
from migrate.coordinator.service import FleetService
from migrate.coordinator.store import Host, Store
from migrate.coordinator.volumes import VolumesService
from migrate.errors import MigrateError, WrongState
from migrate.rpc import channels
from migrate.rpc.errors import ErrorInterceptor
from migrate.rpc.standard import StandardServices
from migrate.rpc.version import VersionInterceptor
from migrate.tunnel.control import ControlTunnel
from migrate.tunnel.pki import CertificateAuthority, ControlCredentials, Signer
from protos import (
    coordinator_pb2,
    coordinator_pb2_grpc,
    fleet_pb2,
    fleet_pb2_grpc,
    policy_pb2,
    policy_pb2_grpc,
    rebalance_pb2,
    rebalance_pb2_grpc,
    schedule_pb2,
    schedule_pb2_grpc,
)

# A thread serves one call; logs that are followed, waits and terminals hold theirs. Threads are made when needed.
MAX_CALLS = 256
GRACE_S = 3.0  # for calls under way when the coordinator goes down

log = logging.getLogger(__name__)


class Coordinator:
    """`start` after `__init__`, then `stop`. Raises MigrateError where another one has the same state directory."""

    def __init__(self, config: CoordinatorConfig) -> None:
        self.config = config
        config.state_dir.mkdir(mode=0o700, parents=True, exist_ok=True)
        self._lock = take_lock(config.lock)
        shutil.rmtree(config.tunnels, ignore_errors=True)
        config.tunnels.mkdir(mode=0o700, parents=True)
        authority = CertificateAuthority.load_or_create(config.state_dir)
        self._credentials = ControlCredentials(authority, config.state_dir)
        self.store = Store(config.database)
        self.store.set_fleet(config.fleet)
        for reason in hosts.put_configured(self.store, config.hosts):
            log.warning("a host that is no longer in the configuration stays: %s", reason)
        self.pool = AgentPool(self.store.host, self._connect, patience=config.patience)
        self.heartbeats = Heartbeats(self.store, self.pool, Limits().times(config.patience))
        self.runner = MoveRunner(self.store, self.pool, Signer(authority))
        self._server = grpc.server(
            ThreadPoolExecutor(max_workers=MAX_CALLS, thread_name_prefix="call"),
            interceptors=[ErrorInterceptor(), VersionInterceptor("the coordinator", "this command")],
            options=channels.SERVER_OPTIONS,
        )
        containers = FleetContainers(self.store, self.pool)
        evacuations = Evacuations(self.store)
        planner = CensusPlanner(self.store, self.pool, evacuations)
        self.evacuations = EvacuationRunner(self.store, evacuations, planner, self.runner, containers)
        self.schedules = SchedulesRunner(
            self.store,
            self.pool,
            evacuations,
            self.evacuations,
            state_dir=config.state_dir,
            socket=config.socket,
            hooks=config.hooks,
        )
        self._metrics: MetricsServer | None = None
        service = FleetService(containers, self.runner)
        coordinator_pb2_grpc.add_FleetServicer_to_server(service, self._server)  # type: ignore[no-untyped-call]  # generated
        builds = BuildsService(self.store, self.pool)
        coordinator_pb2_grpc.add_FleetBuildsServicer_to_server(builds, self._server)  # type: ignore[no-untyped-call]  # generated
        lifecycle = LifecycleService(containers)
        coordinator_pb2_grpc.add_FleetLifecycleServicer_to_server(lifecycle, self._server)  # type: ignore[no-untyped-call]  # generated
        volumes = VolumesService(self.store, self.pool)
        coordinator_pb2_grpc.add_FleetVolumesServicer_to_server(volumes, self._server)  # type: ignore[no-untyped-call]  # generated
        members = Membership(self.store, self.pool, Signer(authority), self._connect, patience=config.patience)
        rotation = Rotation(self.store, self.pool, authority, self._credentials, config.state_dir, self._connect)
        fleet_hosts = HostsService(self.store, self.pool, members, rotation)
        fleet_pb2_grpc.add_FleetHostsServicer_to_server(fleet_hosts, self._server)  # type: ignore[no-untyped-call]  # generated
        emptied = EvacuationsService(self.evacuations, evacuations)
        fleet_pb2_grpc.add_FleetEvacuationsServicer_to_server(emptied, self._server)  # type: ignore[no-untyped-call]  # generated
        schedules = SchedulesService(self.schedules)
        schedule_pb2_grpc.add_FleetSchedulesServicer_to_server(schedules, self._server)  # type: ignore[no-untyped-call]  # generated
        policies = PoliciesService(self.store)
        policy_pb2_grpc.add_FleetPoliciesServicer_to_server(policies, self._server)  # type: ignore[no-untyped-call]  # generated
        rebalance = RebalanceService(self.store, self.pool)
        rebalance_pb2_grpc.add_FleetRebalanceServicer_to_server(rebalance, self._server)  # type: ignore[no-untyped-call]  # generated
        files = FilesService(containers)
        coordinator_pb2_grpc.add_FleetFilesServicer_to_server(files, self._server)  # type: ignore[no-untyped-call]  # generated
        self._standard = StandardServices(
            self._server, (coordinator_pb2, fleet_pb2, policy_pb2, rebalance_pb2, schedule_pb2)
        )

    def start(self) -> None:
        """Take up the moves that the last coordinator left, then serve: whoever asks finds them under way."""
        for host in self.store.hosts():
            self.pool.agent(host.name)  # warm: the first command need not wait for ssh
        self.heartbeats.start()
        self.runner.recover()
        self.evacuations.recover()
        self.schedules.start()
        if self.config.metrics:
            self._metrics = MetricsServer(self.store, self.config.metrics)
        listen(self._server, self.config.socket, self.config.group)
        self._standard.serving()
        log.info("fleet %s: %d hosts, %s", self.config.fleet.name, len(self.store.hosts()), self.config.socket)

    def stop(self) -> None:
        """Finish nothing, lose nothing: moves under way go on with the next start."""
        self._standard.ending()
        stopped = self._server.stop(GRACE_S)  # no new calls from here on
        if self._metrics is not None:
            self._metrics.stop()
        self.schedules.shutdown()
        self.evacuations.shutdown()
        self.runner.shutdown()
        stopped.wait()
        self.heartbeats.stop()
        self.pool.close()
        self.config.socket.unlink(missing_ok=True)
        self.store.database.close()
        os.close(self._lock)

    def _connect(self, host: Host) -> Tunnel:
        return ControlTunnel(
            host.name,
            host.address,
            host.port,
            host.user,
            host.host_keys,
            self._credentials.current,
            runtime_dir=self.config.tunnels,
            patience=self.config.patience,
        ).start()


def take_lock(path: Path) -> int:
    """A descriptor that holds the lock until it is closed. WrongState while another process holds it."""
    fd = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
    try:
        fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError as exc:
        holder = os.pread(fd, 64, 0).decode(errors="replace").strip() or "unknown"
        os.close(fd)
        raise WrongState(
            f"another coordinator uses {path.parent}: process {holder}",
            hint=f"stop it first: kill {holder}" if holder != "unknown" else "stop it first",
        ) from exc
    os.ftruncate(fd, 0)
    os.pwrite(fd, f"{os.getpid()}\n".encode(), 0)
    return fd


def listen(server: grpc.Server, path: Path, group: str) -> None:
    """Serve on `path`, for root and `group` alone; at no time for anybody else."""
    path.parent.mkdir(mode=0o755, parents=True, exist_ok=True)
    try:
        target = channels.unix_target(path)
    except ValueError as exc:
        raise MigrateError(
            str(exc), code="invalid_argument", hint="name a shorter socket in the configuration"
        ) from exc
    path.unlink(missing_ok=True)  # of one that was killed: whoever lives holds the lock, which is ours
    before = os.umask(0o177)
    try:
        server.add_insecure_port(target)
        server.start()
    except RuntimeError as exc:
        raise MigrateError(f"cannot listen on {path}: {exc}", code="unreachable") from exc
    finally:
        os.umask(before)
    if group:
        try:
            os.chown(path, -1, grp.getgrnam(group).gr_gid)
        except KeyError:
            log.warning("there is no group %r: only root can use %s", group, path)
            return
        path.chmod(0o660)
