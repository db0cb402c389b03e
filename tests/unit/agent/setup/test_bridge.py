"""What is done to a network card that becomes a port, and how it is undone."""

from __future__ import annotations

from typing import Any

import pytest

from agent.errors import Unsupported
from agent.setup import bridge

pytestmark = pytest.mark.unit

CARD: dict[str, Any] = {
    "ifname": "eth0",
    "address": "52:54:00:78:00:01",
    "addr_info": [
        {"family": "inet", "local": "10.78.0.1", "prefixlen": 24, "broadcast": "10.78.0.255", "scope": "global"},
        {"family": "inet6", "local": "fe80::1", "prefixlen": 64, "scope": "link"},
        {"family": "inet6", "local": "2001:db8::9", "prefixlen": 64, "scope": "global", "dynamic": True},
    ],
}
ROUTES = [
    "default via 10.78.0.254 proto static metric 100 linkdown ",
    "10.78.0.0/24 proto kernel scope link src 10.78.0.1 ",
    "default via fe80::2 proto ra metric 1024 expires 1794sec",
]


def test_addresses_and_routes_go_to_the_bridge() -> None:
    """In this order: the bridge first, the card's address away before the bridge has it, routes last; what the kernel
    makes by itself is left to it.
    """
    do, _ = bridge.plan(CARD, ROUTES, "br1")
    assert do == [
        "link add br1 address 52:54:00:78:00:01 type bridge forward_delay 0 stp_state 0",
        "link set br1 up",
        "address del 10.78.0.1/24 broadcast 10.78.0.255 dev eth0",
        "link set eth0 master br1",
        "link set eth0 up",
        "address add 10.78.0.1/24 broadcast 10.78.0.255 dev br1",
        "route replace default via 10.78.0.254 proto static metric 100 dev br1",
    ]


def test_a_bridge_that_was_there_is_not_removed_by_an_undo() -> None:
    """Only what was made goes."""
    assert "link del br1" in bridge.plan(CARD, ROUTES, "br1")[1]
    do, undo = bridge.plan(CARD, ROUTES, "br1", exists=True)
    assert do[0] == "link set br1 type bridge forward_delay 0 stp_state 0"
    assert "link del br1" not in undo


def test_an_address_from_dhcp_is_refused() -> None:
    """Its client would put the address back on the card minutes later."""
    card = {**CARD, "addr_info": [{**CARD["addr_info"][0], "dynamic": True}]}
    with pytest.raises(Unsupported, match="DHCP"):
        bridge.plan(card, ROUTES, "br1")
