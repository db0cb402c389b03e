"""Containers through the engine, on the wire: what a moved container's neighbours hear. Root; nothing in the machine's own network."""

from __future__ import annotations

import os
import socket
import subprocess
from dataclasses import replace
from pathlib import Path

import pytest

from agent.engine import link, network
from agent.engine.container import Engine
from agent.engine.network import NetworkError
from agent.engine.spec import Network
from agent.linux.rtnetlink import RouteSocket
from tests.system.engine_host import EngineHost, until

pytestmark = pytest.mark.system

ROOT = Path(__file__).resolve().parents[2]
TICKER = "i=0; while :; do i=$((i+1)); echo tick $i; sleep 0.01; done"


ETHERNET_ARP = 0x0806


def test_restored_end_is_silent_until_it_is_announced(host: EngineHost, engine: Engine) -> None:
    """The pair for a restore is off the bridge; the commands join it and move its entry there; both gratuitous ARPs leave by the uplink."""
    spec, bridge = host.spec("true"), host.config.bridge
    subprocess.run(["ip", "link", "add", "up0", "type", "veth", "peer", "name", "wire0"], check=True)
    try:
        for words in (f"up0 master {bridge}", "up0 up", "wire0 up"):
            subprocess.run(["ip", "link", "set", "dev", *words.split()], check=True)
        peer = network.prepare_peer(spec, bridge)
        assert "master" not in shown(network.host_end(spec.id))
        assert shown(network.host_end(spec.id)).startswith(f"{network.host_index(spec.id)}:")
        assert spec.network.mac in shown(peer)
        subprocess.run(["ip", "link", "set", "dev", peer, "up"], check=True)  # as CRIU leaves the container's eth0
        until(lambda: "state UP" in shown(network.host_end(spec.id)))
        subprocess.run(["bridge", "fdb", "replace", spec.network.mac, "dev", "up0", "master", "dynamic"], check=True)
        plan = network.link_plan(spec, bridge)
        link.join(plan)
        link.tell_bridge(plan)
        assert f"master {bridge}" in shown(network.host_end(spec.id))
        table = subprocess.run(
            ["bridge", "fdb", "show", "dev", network.host_end(spec.id)], capture_output=True, text=True
        )
        (entry,) = [line for line in table.stdout.splitlines() if line.startswith(spec.network.mac)]
        assert "permanent" not in entry
        assert network.uplinks(bridge) == ["up0"]
        with socket.socket(socket.AF_PACKET, socket.SOCK_RAW, socket.htons(ETHERNET_ARP)) as wire:
            wire.bind(("wire0", ETHERNET_ARP))
            wire.settimeout(5)
            network.announce(["up0"], spec.network.mac, spec.network.address)
            frames = [wire.recv(100) for _ in range(2)]
        mac = bytes.fromhex(spec.network.mac.replace(":", ""))
        address = socket.inet_aton(spec.network.address.partition("/")[0])
        assert [int.from_bytes(frame[20:22], "big") for frame in frames] == [1, 2]
        for frame in frames:
            assert (frame[:6], frame[6:12], frame[22:28], frame[28:32], frame[38:42]) == (
                b"\xff" * 6,
                mac,
                mac,
                address,
                address,
            )
        with pytest.raises(NetworkError, match="nowhere0"):
            network.announce(["nowhere0"], spec.network.mac, spec.network.address)
    finally:
        network.remove(spec.id)
        subprocess.run(["ip", "link", "del", "dev", "up0"], check=True)


def test_container_is_connected_as_its_spec_says(host: EngineHost, engine: Engine) -> None:
    """MAC, address, default route and loopback inside; the MTU is the bridge's where the spec has none. A pair that an earlier attempt
    left is no obstacle."""
    spec, bridge = host.spec("ip address; ip route; sleep 1000"), host.config.bridge
    subprocess.run(["ip", "link", "set", bridge, "mtu", "1450"], check=True)
    try:
        engine.create(spec, 1)
        network.prepare_peer(spec, bridge)
        engine.start(spec.id)
        until(lambda: b"default" in b"".join(entry.data for entry in engine.logs(spec.id)))
        said = b"".join(entry.data for entry in engine.logs(spec.id)).decode()
        lo, eth0 = said.split("2: eth0")
        assert "LOOPBACK,UP" in lo
        assert "mtu 1450" in eth0
        assert f"inet {spec.network.address}" in eth0
        assert spec.network.mac in eth0
        assert f"default via {spec.network.gateway} dev eth0" in eth0
    finally:
        subprocess.run(["ip", "link", "set", bridge, "mtu", "1500"], check=True)


def test_container_without_an_address_has_loopback_only(host: EngineHost, engine: Engine) -> None:
    """No address, no pair; no bridge is asked for."""
    spec = replace(host.spec("ip link; sleep 1000"), network=Network(address="", mac=""))
    engine.create(spec, 1)
    engine.start(spec.id)
    until(lambda: b"LOOPBACK,UP" in b"".join(entry.data for entry in engine.logs(spec.id)))
    assert b"eth0" not in b"".join(entry.data for entry in engine.logs(spec.id))
    assert network.host_end(spec.id) not in host.links()


def test_refusals_of_the_network_say_why(host: EngineHost) -> None:
    """A bridge that is not there comes with what to type; an end that is not there is removed already."""
    spec = replace(host.spec("true"), network=replace(host.spec("true").network, mtu=0))
    with RouteSocket() as route, pytest.raises(NetworkError, match=r"bridge br9: .*No such device") as caught:
        network.attach(spec, os.getpid(), "br9", route)
    assert caught.value.hint.startswith("ip link add br9 type bridge")
    network.remove(spec.id)


def test_detached_container_is_cut_off_with_its_link_up(host: EngineHost, engine: Engine) -> None:
    """Off the bridge nothing is answered; back on it everything is, with addresses and routes as they were."""
    spec = host.spec("sleep", "1000")
    engine.create(spec, 1)
    engine.start(spec.id)
    address = spec.network.address.partition("/")[0]

    def answers() -> bool:
        return subprocess.run(["busybox", "ping", "-c", "1", "-W", "1", address], capture_output=True).returncode == 0

    until(answers)
    plan = network.link_plan(spec, host.config.bridge)
    link.cut(plan)
    assert not answers()
    assert "LOWER_UP" in shown(network.host_end(spec.id))
    link.join(plan)
    until(answers)


def shown(name: str) -> str:
    return subprocess.run(["ip", "link", "show", "dev", name], capture_output=True, text=True, check=True).stdout
