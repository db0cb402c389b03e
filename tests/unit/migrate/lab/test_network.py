"""The commands that build the lab's network."""

from __future__ import annotations

import pytest

from migrate.lab import network
from migrate.lab.layout import Lab

pytestmark = pytest.mark.unit

LAB = Lab(prefix="mlab", hosts=2)


def test_bridges_forward_from_the_first_instant() -> None:
    """No bridge has a forwarding delay or a spanning tree: a moved container's port would be mute for seconds."""
    for name in ("switch", "host1"):
        made = [line for line in network._commands(LAB.node(name)) if "type bridge" in line]
        assert len(made) == 1
        assert "forward_delay 0" in made[0]
        assert "stp_state 0" in made[0]


def test_bridge_address_is_pinned_and_unique() -> None:
    """Each host's bridge has a MAC of its own that does not follow its ports."""
    macs = {network._bridge_mac(LAB.node(name)) for name in ("host1", "host2")}
    assert macs == {"02:42:0a:58:00:0b", "02:42:0a:58:00:0c"}
    assert f"address {network._bridge_mac(LAB.node('host1'))}" in " ".join(network._commands(LAB.node("host1")))


def test_loopback_is_up_everywhere() -> None:
    """CRIU's probing of the kernel needs lo."""
    for node in LAB.nodes:
        assert network._commands(node)[0] == "link set lo up"


def test_host_holds_its_address_on_the_bridge() -> None:
    """The uplink is a port of the bridge and the bridge has the address, as on a real host."""
    commands = network._commands(LAB.node("host2"))
    assert "link set eth0 master migrate0 up" in commands
    assert "addr add 10.88.0.12/16 dev migrate0" in commands
