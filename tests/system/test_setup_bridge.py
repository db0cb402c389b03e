"""The containers' bridge on a host: a card in a network namespace becomes its port."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Iterator

import pytest

pytestmark = pytest.mark.system


@pytest.fixture
def namespace() -> Iterator[str]:
    """eth0 with an address and a default route, its peer in the same namespace."""
    name = f"hvbr{os.getpid()}"
    subprocess.run(["ip", "netns", "add", name], check=True)
    try:
        lines = "link set lo up\nlink add eth0 type veth peer name far\nlink set eth0 up\nlink set far up\n"
        lines += "addr add 10.99.0.1/24 dev eth0\nroute add default via 10.99.0.254\n"
        subprocess.run(["ip", "-n", name, "-batch", "-"], input=lines, text=True, check=True)
        yield name
    finally:
        subprocess.run(["ip", "netns", "del", name], check=True)


def _ip(namespace: str, *words: str) -> str:
    return subprocess.run(["ip", "-n", namespace, *words], capture_output=True, text=True, check=True).stdout


def _ensure(namespace: str, uplink: str) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "agent.setup.bridge", "--bridge", "br1", "--uplink", uplink]
    return subprocess.run(["ip", "netns", "exec", namespace, *command], capture_output=True, text=True)


def test_a_card_becomes_a_port_and_its_address_and_route_move(namespace: str) -> None:
    """The bridge has the card's MAC, address and default route; doing it again does nothing."""
    assert _ensure(namespace, "eth0").returncode == 0
    assert "master br1" in _ip(namespace, "link", "show", "eth0")
    assert "10.99.0.1/24" in _ip(namespace, "addr", "show", "br1")
    assert "10.99.0.1/24" not in _ip(namespace, "addr", "show", "eth0")
    assert "default via 10.99.0.254 dev br1" in _ip(namespace, "route")
    macs = {_ip(namespace, "-br", "link", "show", name).split()[2] for name in ("eth0", "br1")}
    assert len(macs) == 1
    again = _ensure(namespace, "eth0")
    assert (again.returncode, again.stdout) == (0, "eth0 is a port of br1\n")


def test_a_card_that_cannot_be_a_port_keeps_its_address_and_route(namespace: str) -> None:
    """A macvlan holds the card: the kernel says so only after the address was taken off, so that comes back."""
    _ip(namespace, "link", "add", "mv0", "link", "eth0", "type", "macvlan")
    done = _ensure(namespace, "eth0")
    assert done.returncode == 1
    assert "everything was put back" in done.stderr
    assert "10.99.0.1/24" in _ip(namespace, "addr", "show", "eth0")
    assert "default via 10.99.0.254 dev eth0" in _ip(namespace, "route")
    assert "br1" not in _ip(namespace, "link")


def test_the_bridge_itself_is_no_card_for_it(namespace: str) -> None:
    """Asked for by mistake where the default route goes through the bridge already: nothing is touched."""
    assert _ensure(namespace, "eth0").returncode == 0
    before = _ip(namespace, "addr")
    done = _ensure(namespace, "br1")
    assert (done.returncode, done.stderr) == (
        1,
        "error: br1 is a bridge itself\nhint: name the card: one of far eth0\n",
    )
    assert _ip(namespace, "addr") == before
