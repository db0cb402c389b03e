"""`/metrics`: what a scrape says of moves that were made, of hosts and of what goes on."""

from __future__ import annotations

import urllib.request
from pathlib import Path

import pytest

from agent import errors as agent_errors
from migrate.coordinator.metrics import MetricsServer, loopback
from migrate.errors import InvalidArgument, MigrateError
from tests.fakes.fleet import FakeFleet

pytestmark = pytest.mark.contract


def scrape(server: MetricsServer) -> dict[str, float]:
    with urllib.request.urlopen(f"http://127.0.0.1:{server.port}/metrics", timeout=30) as reply:
        lines = reply.read().decode().splitlines()
    return {line.rpartition(" ")[0]: float(line.rpartition(" ")[2]) for line in lines if not line.startswith("#")}


def test_a_scrape_counts_each_move_once(tmp_path: Path) -> None:
    """A success and a failure, in two scrapes and by another life; hosts as they are."""
    fleet = FakeFleet(tmp_path)
    for host in fleet.hosts.values():
        host.add_image("base", cmd=["serve"])
    fleet.run("web1")
    server = MetricsServer(fleet.store, "127.0.0.1:0")
    assert scrape(server)['migrate_host_containers{host="host1"}'] == 1
    fleet.client.move("web1", to="host2").result()

    def refuse(request: object, context: object = None) -> object:
        raise agent_errors.CriuError("cannot restore", hint="look at the log")

    fleet.world.agents["host1"].Restore = refuse  # type: ignore[assignment,method-assign]
    with pytest.raises(MigrateError):
        fleet.client.move("web1", to="host1").result()
    fleet.client.cordon("host1")
    scrape(server)
    found = scrape(server)
    server.stop()
    again = MetricsServer(fleet.store, "127.0.0.1:0")
    assert scrape(again) == found
    again.stop()
    assert found['migrate_moves_total{state="succeeded"}'] == found['migrate_moves_total{state="failed"}'] == 1
    assert sum(value for name, value in found.items() if name.startswith("migrate_move_failures_total")) == 1
    assert found["migrate_move_downtime_seconds_count"] == 1
    assert found['migrate_move_downtime_seconds_bucket{le="+Inf"}'] == 1
    assert found["migrate_move_downtime_seconds_sum"] > 0
    assert found['migrate_moves_active{state="running"}'] == 0
    assert found['migrate_host_cordoned{host="host1"}'] == 1 and found['migrate_host_cordoned{host="host2"}'] == 0
    assert found['migrate_host_containers{host="host2"}'] == 1
    fleet.close()


@pytest.mark.parametrize("address", ["0.0.0.0:9464", "10.0.0.1:9464", "9464", "127.0.0.1:x", "127.0.0.1:99999"])
def test_only_loopback_is_served(address: str) -> None:
    """What others could reach is refused."""
    with pytest.raises(InvalidArgument, match="loopback"):
        loopback(address)
    assert loopback("[::1]:9464") == ("::1", 9464)
