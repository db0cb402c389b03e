"""What a request says of the network is checked, and what it leaves open is chosen."""

from __future__ import annotations

import pytest
from google.protobuf import json_format

from migrate.coordinator import networks
from migrate.errors import InvalidArgument, WrongState
from protos import coordinator_pb2, types_pb2

pytestmark = pytest.mark.unit


def made(
    *ports: types_pb2.Port, publish_all: bool = False, exposed: tuple[str, ...] = (), **fields: object
) -> types_pb2.Network:
    request = coordinator_pb2.RunRequest(
        publish_all=publish_all,
        network=types_pb2.Network(ports=ports, **fields),  # type: ignore[arg-type]
    )
    return networks.network(request, types_pb2.ImageConfig(exposed_ports=exposed))


def port(container: int, host: int = 0, **fields: object) -> types_pb2.Port:
    return types_pb2.Port(container_port=container, host_port=host, **fields)  # type: ignore[arg-type]


def test_publish_all_takes_what_is_exposed_and_not_published() -> None:
    """Of the image and of --expose, each once."""
    network = made(port(80, 8080), publish_all=True, exposed=("80/tcp", "53/UDP"))
    assert [(one.container_port, one.host_port, one.protocol) for one in network.ports] == [
        (80, 8080, "tcp"),
        (53, 0, "udp"),
    ]
    assert list(network.exposed) == ["53/udp", "80/tcp"]


def test_open_ports_are_chosen_free_in_the_fleet() -> None:
    """Not one that a container on any host has, nor one of the same request; of a range the first that is free."""
    other = types_pb2.ContainerSpec(network=types_pb2.Network(ports=[port(1, 8000, protocol="tcp")]))
    specs = [json_format.MessageToJson(other, preserving_proto_field_name=True), "{}"]
    network = made(port(80, 8000, host_port_end=8002), port(81, 8001), port(82), port(83))
    networks.choose_ports(network, specs)
    chosen = [one.host_port for one in network.ports]
    assert chosen[:2] == [8002, 8001]
    assert set(chosen[2:]) < set(networks.FREE_PORTS)
    assert len(set(chosen)) == 4
    assert not any(one.host_port_end for one in network.ports)
    full = made(port(80, 8000, host_port_end=8000))
    with pytest.raises(WrongState, match="8000"):
        networks.choose_ports(full, specs)


@pytest.mark.parametrize("mode", ["none", "host"])
def test_no_ports_without_a_bridge(mode: str) -> None:
    """The host's network needs no way in and "none" has none; "bridge" and "default" are the default."""
    assert not made(port(80, 80), mode=mode).ports
    assert made(mode="bridge").mode == made(mode="default").mode == ""


@pytest.mark.parametrize(
    ("fields", "words"),
    [
        ({"mode": "macvlan"}, "no network"),
        ({"extra_hosts": ["db"]}, "NAME:ADDRESS"),
        ({"extra_hosts": ["db:nowhere"]}, "no address"),
        ({"extra_hosts": ["a b:10.0.0.1"]}, "NAME:ADDRESS"),
        ({"dns": ["example.com"]}, "name server"),
        ({"dns_search": ["two words"]}, "search domain"),
        ({"dns_options": ["a\nb"]}, "option"),
        ({"exposed": ["0/tcp"]}, "no port"),
    ],
)
def test_what_makes_no_sense_is_refused(fields: dict[str, object], words: str) -> None:
    """Before anything is allocated."""
    with pytest.raises(InvalidArgument, match=words):
        made(**fields)  # type: ignore[arg-type]


@pytest.mark.parametrize(
    "ports",
    [
        (port(0, 80),),
        (port(80, 70000),),
        (port(80, 80, protocol="sctp"),),
        (port(80, 80, host_address="::1"),),
        (port(80, 80, host_address="localhost"),),
        (port(80, 80), port(81, 80)),
        (port(80, 80, host_address="127.0.0.1"), port(81, 80)),
        (port(80, 90, host_port_end=80),),
    ],
)
def test_ports_that_make_no_sense_are_refused(ports: tuple[types_pb2.Port, ...]) -> None:
    """Also the same port of the host twice; the same number for tcp and udp is no conflict."""
    with pytest.raises(InvalidArgument):
        made(*ports)
    assert len(made(port(53, 53), port(53, 53, protocol="udp")).ports) == 2


def test_extra_hosts_as_docker_takes_them() -> None:
    """With ":" or "=", IPv6 in brackets or without, host-gateway as it is."""
    entries = ["db:10.88.1.2", "v6:fd00::1", "v6b=[fd00::2]", "me:host-gateway"]
    assert list(made(extra_hosts=entries).extra_hosts) == [
        "db:10.88.1.2",
        "v6:fd00::1",
        "v6b:fd00::2",
        "me:host-gateway",
    ]
