"""Networks of containers through the service Fleet and the command line; hosts in memory."""

from __future__ import annotations

import json

import pytest

from migrate.cli.main import main
from migrate.errors import InvalidArgument
from migrate.records import Port, Run
from tests.fakes.fleet import FakeFleet

pytestmark = pytest.mark.contract


def test_what_is_asked_of_the_network_is_the_containers(fleet: FakeFleet) -> None:
    """Every field comes back, and reaches the host in the spec."""
    wanted = Run(
        image="base",
        host="host1",
        name="web1",
        ports=(Port(container_port=80, host_port=8080), Port(container_port=53, host_port=53, protocol="udp")),
        extra_hosts=("db:10.88.1.9",),
        dns=("10.88.0.1",),
        dns_search=("a.example",),
        dns_options=("ndots:2",),
        exposed=("443/tcp",),
    )
    container = fleet.client.run(wanted)
    for field in ("ports", "extra_hosts", "dns", "dns_search", "dns_options", "exposed"):
        assert getattr(container, field) == getattr(wanted, field), field
    spec = fleet.hosts["host1"].containers[container.id].spec
    assert [(port.host_port, port.container_port, port.protocol) for port in spec.network.ports] == [
        (8080, 80, "tcp"),
        (53, 53, "udp"),
    ]


def test_ports_left_open_are_unique_in_the_fleet(fleet: FakeFleet) -> None:
    """-p 80 and -P: a number for life, which no other container has on any host, so that it can move."""
    fleet.hosts["host2"].add_image("web", cmd=["serve"], exposed_ports=["80/tcp", "53/udp"])
    first = fleet.client.run(Run(image="web", host="host2", publish_all=True))
    second = fleet.client.run(Run(image="base", host="host1", ports=(Port(container_port=80),)))
    assert [(port.container_port, port.protocol) for port in first.ports] == [(53, "udp"), (80, "tcp")]
    numbers = [(port.protocol, port.host_port) for port in (*first.ports, *second.ports)]
    assert all(number for _, number in numbers)
    assert len(set(numbers)) == 3


@pytest.mark.parametrize("mode", ["none", "host"])
def test_networks_without_a_bridge(fleet: FakeFleet, mode: str) -> None:
    """No address, no MAC, no gateway, no ports."""
    container = fleet.client.run(
        Run(image="base", host="host1", network_mode=mode, ports=(Port(container_port=80, host_port=80),))
    )
    assert (container.network_mode, container.address, container.mac, container.gateway) == (mode, "", "", "")
    assert container.ports == ()
    assert container.hostname == ("host1" if mode == "host" else container.id[:12])
    assert fleet.client.run(Run(image="base", host="host1")).address


def test_an_unknown_network_allocates_nothing(fleet: FakeFleet) -> None:
    """The error says which there are."""
    with pytest.raises(InvalidArgument, match="macvlan"):
        fleet.client.run(Run(image="base", host="host1", network_mode="macvlan"))
    assert fleet.store.containers() == []


def test_port_and_ps(fleet: FakeFleet, capsys: pytest.CaptureFixture[str]) -> None:
    """`port` prints as Docker's does, `ps` has a column; a port that is not published is an error."""
    assert main(["run", "-d", "--name", "web1", "--host", "host1", "-p", "8080:80", "-p", "53:53/udp", "base"]) == 0
    capsys.readouterr()
    assert main(["port", "web1"]) == 0
    assert capsys.readouterr().out == "53/udp -> 0.0.0.0:53\n80/tcp -> 0.0.0.0:8080\n"
    assert main(["port", "web1", "80"]) == 0
    assert capsys.readouterr().out == "0.0.0.0:8080\n"
    assert main(["port", "web1", "--format", "json"]) == 0
    assert json.loads(capsys.readouterr().out)[0]["host_port"] == 53
    assert main(["port", "web1", "81"]) == 1
    assert "no public port 81/tcp published for web1" in capsys.readouterr().err
    assert main(["ps"]) == 0
    assert "0.0.0.0:53->53/udp, 0.0.0.0:8080->80/tcp" in capsys.readouterr().out
    assert main(["stop", "web1"]) == 0
    capsys.readouterr()
    assert main(["port", "web1"]) == 0
    assert capsys.readouterr().out == ""
