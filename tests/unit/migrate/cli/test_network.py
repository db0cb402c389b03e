"""The options of run and create about the network, and what `ps` and `port` say."""

from __future__ import annotations

import argparse
import dataclasses

import pytest

from migrate.cli import network
from migrate.records import Container, Port, Run

pytestmark = pytest.mark.unit

WEB = Container(id="1" * 32, name="web1", host="host1", state="running", image="app")


def parsed(line: str) -> Run:
    parser = argparse.ArgumentParser(exit_on_error=False)
    network.add_options(parser)
    return Run(image="app", **network.fields(parser.parse_args(line.split())))


@pytest.mark.parametrize(
    ("text", "ports"),
    [
        ("80", [Port(container_port=80)]),
        ("8080:80", [Port(container_port=80, host_port=8080)]),
        ("0:80", [Port(container_port=80)]),
        ("5353:53/udp", [Port(container_port=53, host_port=5353, protocol="udp")]),
        ("5353:53/UDP", [Port(container_port=53, host_port=5353, protocol="udp")]),
        ("127.0.0.1:8080:80", [Port(container_port=80, host_port=8080, host_address="127.0.0.1")]),
        ("127.0.0.1::80", [Port(container_port=80, host_address="127.0.0.1")]),
        (":80", [Port(container_port=80)]),
        ("[::1]:8080:80", [Port(container_port=80, host_port=8080, host_address="::1")]),
        (
            "8000-8001:9000-9001",
            [Port(container_port=9000, host_port=8000), Port(container_port=9001, host_port=8001)],
        ),
        ("8000-8010:80", [Port(container_port=80, host_port=8000, host_port_end=8010)]),
        ("9000-9001", [Port(container_port=9000), Port(container_port=9001)]),
    ],
)
def test_every_way_to_say_a_port(text: str, ports: list[Port]) -> None:
    """Docker's grammar; a range is one port each, or one free port of the range."""
    assert list(parsed(f"-p {text}").ports) == ports


@pytest.mark.parametrize(
    "text", ["", "x", "80:x", "70000", "80:70000", "8000-8002:80-81", "9-8:9-8", "80/sctp", "1:2:3:4", "80:0"]
)
def test_what_is_no_port(text: str) -> None:
    """It is refused with what would be one."""
    with pytest.raises(argparse.ArgumentTypeError):
        network.publish(text)


def test_every_other_option_has_its_field() -> None:
    """Docker's names."""
    assert parsed(
        "-P --expose 80 --expose 5000-5001/udp --net none --add-host db:10.88.1.2 --dns 10.88.0.1 --dns-search a.example"
        " --dns-option ndots:2"
    ) == Run(
        image="app",
        publish_all=True,
        exposed=("80/tcp", "5000/udp", "5001/udp"),
        network_mode="none",
        extra_hosts=("db:10.88.1.2",),
        dns=("10.88.0.1",),
        dns_search=("a.example",),
        dns_options=("ndots:2",),
    )
    assert parsed("--network bridge") == Run(image="app")


def test_ports_of_the_host_network_are_warned_of(capsys: pytest.CaptureFixture[str]) -> None:
    """As Docker does: they have no effect there."""
    assert parsed("--network host -p 80:80").network_mode == "host"
    assert "not published" in capsys.readouterr().err


def test_summary_of_ports() -> None:
    """What is published and what is only exposed; of one that does not run, nothing."""
    ports = (
        Port(container_port=80, host_port=8080),
        Port(container_port=53, host_port=53, host_address="127.0.0.1", protocol="udp"),
    )
    web = dataclasses.replace(WEB, ports=ports, exposed=("80/tcp", "443/tcp"))
    assert network.summary(web) == "127.0.0.1:53->53/udp, 0.0.0.0:8080->80/tcp, 443/tcp"
    assert network.summary(dataclasses.replace(web, state="exited")) == ""
