"""A whole fleet in one process: two hosts in memory, the coordinator's service, a client; all of it over real gRPC."""

from __future__ import annotations

import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import grpc

from migrate.client import Client
from migrate.coordinator.agents import AgentPool, Tunnel
from migrate.coordinator.builds import BuildsService
from migrate.coordinator.containers import FleetContainers
from migrate.coordinator.evacuation.plan import CensusPlanner
from migrate.coordinator.evacuation.records import Evacuations
from migrate.coordinator.evacuation.runner import EvacuationRunner
from migrate.coordinator.evacuation.service import EvacuationsService
from migrate.coordinator.files import FilesService
from migrate.coordinator.hosts_service import HostsService
from migrate.coordinator.lifecycle import LifecycleService
from migrate.coordinator.membership import Membership
from migrate.coordinator.moves import MoveRunner, Patience
from migrate.coordinator.policies_service import PoliciesService
from migrate.coordinator.rebalance import RebalanceService
from migrate.coordinator.rotation import Rotation
from migrate.coordinator.schedules.clock import SchedulesRunner
from migrate.coordinator.schedules.service import SchedulesService
from migrate.coordinator.service import FleetService
from migrate.coordinator.store import Fleet, Host, MigrationId, Store, change_owner
from migrate.coordinator.volumes import VolumesService
from migrate.records import Container, Run
from migrate.rpc import channels
from migrate.rpc.errors import ErrorInterceptor
from migrate.rpc.version import VersionInterceptor
from migrate.tunnel.pki import CertificateAuthority, ControlCredentials
from protos import coordinator_pb2_grpc, fleet_pb2_grpc, policy_pb2_grpc, rebalance_pb2_grpc, schedule_pb2_grpc
from tests.fakes.agent import World, address, certificate
from tests.fakes.coordinator import a_move
from tests.fakes.host import FakeHost


class FakeSigner:
    """Signs what the fake agents take for a certificate."""

    def sign_bulk(self, public_key: str, migration_id: str, source_address: str) -> str:
        assert migration_id in public_key
        return certificate(public_key)


class FakeFleet:
    """A fleet with its coordinator's service, and a client."""

    def __init__(self, directory: Path, *names: str) -> None:
        self.world = World(*(names or ("host1", "host2")))
        self.hosts = {name: FakeHost(name, directory).serve(agent) for name, agent in self.world.agents.items()}
        self.store = Store(directory / "coordinator.db")
        self.store.set_fleet(Fleet(name="test"))
        for name in self.hosts:
            self.store.put_host(Host(name=name, address=address(name), host_keys=("ssh-ed25519 AAAA",)))
        self.pool = AgentPool(self.store.host, lambda host: self.hosts[host.name].tunnel())
        self.directory = directory
        self.now_ns: Callable[[], int] = (
            time.time_ns
        )  # what the schedules take for the time; a test may replace it before come_back
        self.socket = directory / "fleet.sock"
        self.client = Client(self.socket)
        self.come_back()

    def come_back(self) -> None:
        """The coordinator starts, and goes on with the moves that it left."""
        self.runner = MoveRunner(self.store, self.pool, FakeSigner(), Patience(undo_limit_s=2.0, first_s=0.05))
        containers = FleetContainers(self.store, self.pool)
        records = Evacuations(self.store)
        planner = CensusPlanner(self.store, self.pool, records)
        self.evacuations = EvacuationRunner(self.store, records, planner, self.runner, containers)
        self.schedules = SchedulesRunner(
            self.store,
            self.pool,
            records,
            self.evacuations,
            state_dir=self.directory,
            socket=self.socket,
            now_ns=self.now_ns,
        )
        service = FleetService(containers, self.runner)
        self._server = grpc.server(
            ThreadPoolExecutor(max_workers=32),
            interceptors=[ErrorInterceptor(), VersionInterceptor("the coordinator", "this command")],
            options=channels.SERVER_OPTIONS,
        )
        coordinator_pb2_grpc.add_FleetServicer_to_server(service, self._server)
        coordinator_pb2_grpc.add_FleetBuildsServicer_to_server(BuildsService(self.store, self.pool), self._server)
        coordinator_pb2_grpc.add_FleetFilesServicer_to_server(FilesService(containers), self._server)
        coordinator_pb2_grpc.add_FleetLifecycleServicer_to_server(LifecycleService(containers), self._server)
        coordinator_pb2_grpc.add_FleetVolumesServicer_to_server(VolumesService(self.store, self.pool), self._server)
        fleet_pb2_grpc.add_FleetHostsServicer_to_server(self._hosts_service(), self._server)
        fleet_pb2_grpc.add_FleetEvacuationsServicer_to_server(
            EvacuationsService(self.evacuations, records), self._server
        )
        policy_pb2_grpc.add_FleetPoliciesServicer_to_server(PoliciesService(self.store), self._server)
        rebalance_pb2_grpc.add_FleetRebalanceServicer_to_server(RebalanceService(self.store, self.pool), self._server)
        schedule_pb2_grpc.add_FleetSchedulesServicer_to_server(SchedulesService(self.schedules), self._server)
        self._server.add_insecure_port(channels.unix_target(self.socket))
        self.runner.recover()  # first, like the real one: a move that is asked for meanwhile would be begun twice
        self.schedules.start()
        self._server.start()

    def _hosts_service(self) -> HostsService:
        directory = self.socket.parent
        authority = CertificateAuthority.load_or_create(directory)

        def connect(host: Host) -> Tunnel:
            return self.hosts[host.name].tunnel()

        members = Membership(self.store, self.pool, FakeSigner(), connect)
        credentials = ControlCredentials(authority, directory)
        return HostsService(
            self.store, self.pool, members, Rotation(self.store, self.pool, authority, credentials, directory, connect)
        )

    def go_away(self) -> None:
        """The coordinator ends, in the middle of whatever it does."""
        self._server.stop(0).wait()
        self.schedules.shutdown()
        self.evacuations.shutdown()
        self.runner.shutdown()

    def close(self) -> None:
        self.client.close()
        self.go_away()
        self.pool.close()
        for host in self.hosts.values():
            host.stop()

    def run(self, name: str, host: str = "host1") -> Container:
        """A running container that can move."""
        container = self.client.run(Run(image="base", host=host, name=name))
        self.world.run(host, container.id, name=name)
        return container

    def move(self, container_id: str, source: str, target: str) -> None:
        """What is true after a move, without one."""
        container = self.store.container(container_id)
        with self.store.database.transaction() as db:
            change_owner(db, container.id, source=source, target=target, epoch=container.epoch)
        self.hosts[source].hand_over(container_id, self.hosts[target])

    def begin_move(self, container_id: str) -> None:
        """A move that is under way, in the database only."""
        container = self.store.container(container_id)
        self.store.create_migration(a_move(container, id=MigrationId("abcdef"), started_unix_ns=time.time_ns()))


def eventually(condition: Callable[[], object], timeout_s: float = 60.0) -> None:
    """Fails unless `condition` becomes true."""
    end = time.monotonic() + timeout_s
    while not condition():
        assert time.monotonic() < end, "it did not come true in time"
        time.sleep(0.01)
