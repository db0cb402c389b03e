"""The program `migrate-coordinator` as a process: its socket, its lock, its end."""

from __future__ import annotations

import os
import signal
import stat
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import grpc
import pytest
from google.protobuf.descriptor_pool import DescriptorPool
from grpc_health.v1 import health_pb2, health_pb2_grpc
from grpc_reflection.v1alpha.proto_reflection_descriptor_database import ProtoReflectionDescriptorDatabase

from migrate.client import Client
from migrate.coordinator import config, server
from migrate.coordinator.allocate import create
from migrate.coordinator.moves import MoveRunner
from migrate.coordinator.store import Host, MigrationId, MoveState, Store
from migrate.errors import Unreachable, WrongState
from tests.fakes.coordinator import a_move
from tests.fakes.fleet import eventually

pytestmark = pytest.mark.contract

ROOT = Path(__file__).resolve().parents[2]
LIMIT_S = 120  # of waiting for an event that comes at once on an idle machine
KEY = "ssh-ed25519 AAAAC3NzaC1lZDI1NTE5AAAAIGmPVwJr0aFzJkqzz5e2Jb0TPj6xZ2S5tqKXo8bbAQpp"


class Process:
    """A coordinator whose only host refuses connections."""

    def __init__(self, directory: Path) -> None:
        self.directory = directory
        self.socket = directory / "run/coordinator.sock"
        (directory / "coordinator.toml").write_text(
            f'state_dir = "{directory}/state"\nsocket = "{self.socket}"\ngroup = ""\n[fleet]\nname = "proc"\n'
            f'[[hosts]]\nname = "host1"\naddress = "127.0.0.1"\nport = 1\nhost_keys = ["{KEY}"]\n'
            f'[[hosts]]\nname = "host2"\naddress = "127.0.0.1"\nport = 1\nhost_keys = ["{KEY}"]\n'
        )
        self.process: subprocess.Popen[str] | None = None

    def start(self) -> subprocess.Popen[str]:
        self.process = subprocess.Popen(
            [sys.executable, "-m", "migrate.coordinator", "--config", str(self.directory / "coordinator.toml")],
            stderr=subprocess.PIPE,
            cwd=ROOT,
            text=True,
            env={**os.environ, "TMPDIR": str(self.directory)},  # one that is killed cannot tidy up its tunnels' sockets
        )
        return self.process

    def wait_ready(self) -> Client:
        client = Client(self.socket)

        def answers() -> bool:
            assert self.process is not None
            assert self.process.poll() is None, f"it ended with {self.process.returncode}"
            try:
                return client.version().fleet == "proc"
            except Unreachable:
                return False

        eventually(answers, LIMIT_S)
        return client

    def end(self, number: int = signal.SIGTERM) -> tuple[int, str]:
        assert self.process is not None
        self.process.send_signal(number)
        _, log = self.process.communicate(timeout=LIMIT_S)
        return self.process.returncode, log


@pytest.fixture
def coordinator(tmp_path: Path) -> Iterator[Process]:
    process = Process(tmp_path)
    yield process
    if process.process is not None and process.process.poll() is None:
        process.process.kill()
        process.process.communicate()


def test_it_serves_its_user_alone_and_ends_cleanly(coordinator: Process) -> None:
    """Without a group the socket is for its owner only; SIGTERM ends with status 0 and takes the socket along."""
    coordinator.start()
    with coordinator.wait_ready() as client:
        assert stat.S_IMODE(coordinator.socket.stat().st_mode) == 0o600
        assert stat.S_IMODE((coordinator.directory / "state").stat().st_mode) == 0o700
        (host, _) = client.hosts()
        assert not host.reachable
        assert "Connection refused" in host.error
        status, log = coordinator.end()
        assert status == 0, log
    assert "Traceback" not in log
    assert not coordinator.socket.exists()


def test_a_second_one_is_refused_and_a_killed_one_leaves_no_obstacle(coordinator: Process, tmp_path: Path) -> None:
    """The lock goes with the process, and a socket that was left is replaced."""
    first = coordinator.start()
    coordinator.wait_ready().close()
    second = coordinator.start()
    _, text = second.communicate(timeout=LIMIT_S)
    assert second.returncode == 1
    assert f"another coordinator uses {tmp_path}/state: process {first.pid}" in text
    first.kill()
    first.communicate()
    assert coordinator.socket.exists()
    coordinator.start()
    coordinator.wait_ready().close()
    assert coordinator.end()[0] == 0


def test_a_wrong_configuration_is_an_error_not_a_traceback(coordinator: Process) -> None:
    """Exit status 2 and the field's name."""
    path = coordinator.directory / "coordinator.toml"
    path.write_text(path.read_text().replace("port = 1", "port = 0", 1))
    process = coordinator.start()
    _, text = process.communicate(timeout=LIMIT_S)
    assert (process.returncode, text.count("\n")) == (2, 1)
    assert "hosts[0]: port takes 1 to 65535, not 0" in text


def test_an_unfinished_move_is_taken_up_at_the_start(coordinator: Process) -> None:
    """What the database says is under way is worked on at once, and left as it is by the next end."""
    store = Store(coordinator.directory / "state/coordinator.db")
    for name in ("host1", "host2"):
        store.put_host(Host(name=name, address="127.0.0.1", port=1, host_keys=(KEY,)))
    container = create(store, owner="host1", make_spec=lambda _: "{}", name="web1")
    store.create_migration(a_move(container, id=MigrationId("abcdef"), started_unix_ns=time.time_ns()))
    (coordinator.directory / "state").chmod(0o700)
    coordinator.start()
    with coordinator.wait_ready() as client:
        with pytest.raises(WrongState, match="under way"):
            client.repair("abcdef").result()
        assert client.containers(all=True)[0].state == "unknown"
    status, log = coordinator.end()
    assert status == 0, log
    assert store.migration("abcdef").state is MoveState.RUNNING


def test_moves_are_taken_up_before_anybody_can_ask(coordinator: Process, monkeypatch: pytest.MonkeyPatch) -> None:
    """Else `repair` could come in between and take what this coordinator is about to go on with for a leftover."""
    order: list[str] = []
    monkeypatch.setattr(MoveRunner, "recover", lambda _self: order.append("recover"))
    monkeypatch.setattr(server, "listen", lambda *_args: order.append("listen"))
    made = server.Coordinator(config.load(coordinator.directory / "coordinator.toml"))
    made.start()
    made.stop()
    assert order == ["recover", "listen"]


def test_hosts_that_left_the_configuration_are_forgotten_unless_they_own_something(coordinator: Process) -> None:
    """A host that still owns a container stays, with a word in the log."""
    store = Store(coordinator.directory / "state/coordinator.db")
    for name in ("empty", "full"):
        store.put_host(Host(name=name, address="127.0.0.1", port=1, host_keys=(KEY,)))
    create(store, owner="full", make_spec=lambda _: "{}", name="web1")
    coordinator.start()
    with coordinator.wait_ready() as client:
        assert [host.name for host in client.hosts()] == ["full", "host1", "host2"]
    _, log = coordinator.end()
    assert "full still has web1" in log


def test_tools_that_have_no_protos_find_their_way(coordinator: Process) -> None:
    """Reflection names every service and gives the file of one; health says that it serves, of all and of each."""
    coordinator.start()
    coordinator.wait_ready().close()
    with grpc.insecure_channel(f"unix:{coordinator.socket}") as channel:
        known = ProtoReflectionDescriptorDatabase(channel)
        services = set(known.get_services())
        fleet = DescriptorPool(known).FindServiceByName("cmigrate.v1.Fleet")
        stub = health_pb2_grpc.HealthStub(channel)
        serving = health_pb2.HealthCheckResponse.SERVING
        for name in ("", "cmigrate.v1.Fleet"):
            assert stub.Check(health_pb2.HealthCheckRequest(service=name)).status == serving
        watched = stub.Watch(health_pb2.HealthCheckRequest(service=""))
        assert next(watched).status == serving
        coordinator.end()
        assert next(watched).status == health_pb2.HealthCheckResponse.NOT_SERVING
    assert {"grpc.health.v1.Health", "cmigrate.v1.Fleet", "cmigrate.v1.FleetHosts"} <= services
    assert "Move" in fleet.methods_by_name
