"""What is said to iproute2, and how its refusals come back."""

from __future__ import annotations

from dataclasses import replace

import pytest

from agent.engine import network
from agent.engine.spec import Network
from tests.unit.agent.engine.test_store import SPEC as BARE_SPEC

pytestmark = pytest.mark.unit

SPEC = replace(
    BARE_SPEC, network=Network(address="10.88.0.2/16", mac="02:42:0a:58:00:02", gateway="10.88.0.1", mtu=1400)
)


def test_interface_names_fit() -> None:
    """Both names of a pair differ and fit the 15 characters of an interface name."""
    names = {network.host_end("f" * 32), network.peer_end("f" * 32)}
    assert len(names) == 2
    assert all(len(name) <= 15 for name in names)


def test_index_of_the_hosts_end_is_no_small_one() -> None:
    """A namespace's first indexes are left to what is in the container; the highest fits what Linux takes (31 bits)."""
    assert 1 << 20 < network.host_index("0" * 32) < network.host_index("f" * 32) < 1 << 31


def test_link_plan_names_what_the_monitor_handles() -> None:
    """Both ends, bridge, address; a container without an address has nothing to cut or join."""
    plan = network.link_plan(SPEC, "br0")
    assert (plan.host, plan.peer, plan.bridge) == (network.host_end(SPEC.id), network.peer_end(SPEC.id), "br0")
    assert (plan.mac, plan.address, plan.gateway) == ("02:42:0a:58:00:02", "10.88.0.2/16", "10.88.0.1")
    bare = network.link_plan(replace(SPEC, network=Network(address="", mac="")), "br0")
    assert (bare.host, bare.peer) == ("", "")


def test_only_a_container_with_net_admin_can_change_its_network() -> None:
    """What a move has to carry follows from the capabilities."""
    assert not network.may_change(SPEC)
    assert network.may_change(replace(SPEC, capabilities=(*SPEC.capabilities, "CAP_NET_ADMIN")))


def test_configured_uplink_wins() -> None:
    """Nothing is looked for where the operator has said it."""
    assert network.uplinks("br0", "bond0") == ["bond0"]
