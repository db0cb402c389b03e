"""The firewall table that leads ports of this host to containers. docs/networks.md, docs/adr/0009-published-ports.md

    from outside, from another container ─► prerouting ─┐
    from this host itself ─► output ────────────────────┴► publish: at, any ─► dnat ─► postrouting: masquerade ─► bridge

The container answers to this host, whose bridge address the masquerade gave the packet: so a connection goes on through here
wherever in the fleet's one segment the container is, before and after a move, and also when the port is not published here any
more. That is why the table, once made, stays until the host's next boot: without a NAT chain the kernel would stop translating
what it has begun. Standard library only.
"""

from __future__ import annotations

import re
from collections.abc import Iterable

from agent.engine.spec import Network, Port

TABLE = "migrate-ports"

_CHAINS = (
    ("guard", "type filter hook prerouting priority raw"),
    ("prerouting", "type nat hook prerouting priority dstnat"),
    ("output", "type nat hook output priority -100"),
    ("postrouting", "type nat hook postrouting priority srcnat"),
    ("input", "type filter hook input priority filter"),
    ("forward", "type filter hook forward priority filter"),
    ("leaving", "type filter hook output priority filter"),
)


_TABLE = f"ip {TABLE}"
# A card or bridge that forwards for published ports alone, as nft lists its rule.
_GUARD = re.compile(r'iifname "([^"]+)" oifname != "\1" ct direction original drop')


def script(bridge: str, published: Iterable[Network], *, guarded: Iterable[str] = (), way_out: str = "") -> str:
    """For agent.linux.nft: the whole table, as it is to be. `guarded`: interfaces that forward for published ports alone; `way_out`:
    the network whose packets to elsewhere leave with this host's address ("10.88.0.0/16"), "" for none.

    Rules and elements are replaced in one transaction; the chains are never without their hooks.
    """
    table = _TABLE
    on_bridge = f'iifname "{bridge}"'
    lines = [
        f"add table {table}",
        f"add map {table} any {{ type inet_proto . inet_service : ipv4_addr . inet_service; }}",
        f"add map {table} at {{ type ipv4_addr . inet_proto . inet_service : ipv4_addr . inet_service; }}",
        f"add set {table} behind {{ type ipv4_addr . inet_proto . inet_service; }}",
        *(f"add chain {table} {name} {{ {hook}; }}" for name, hook in _CHAINS),
        f"add chain {table} publish",
        f"flush table {table}",
        # The bridge may route 127.0.0.0/8 (route_localnet), for 127.0.0.1:PORT; a frame from outside must not use that.
        f"add rule {table} guard {on_bridge} ip daddr 127.0.0.0/8 drop",
        f"add rule {table} guard {on_bridge} ip saddr 127.0.0.0/8 drop",
        f"add rule {table} publish dnat ip to ip daddr . meta l4proto . th dport map @at",
        f"add rule {table} publish dnat ip to meta l4proto . th dport map @any",
        f"add rule {table} prerouting meta l4proto {{ tcp, udp }} fib daddr type local jump publish",
        f"add rule {table} output meta l4proto {{ tcp, udp }} fib daddr type local jump publish",
        f'add rule {table} postrouting oifname "{bridge}" ct status dnat ip daddr . meta l4proto . th dport @behind masquerade',
        # What cannot be translated back must not reach this host's own TCP: its RST would end the container's connection.
        f"add rule {table} input {on_bridge} meta l4proto tcp ct state invalid drop",
        # In and out on one segment: the client is not to be told of a shorter way.
        f'add rule {table} leaving oifname "{bridge}" icmp type redirect ct status dnat drop',
    ]
    lines.append(f"add rule {table} forward ct status dnat accept")  # what comes to a published port
    if way_out:
        lines += [
            f'add rule {table} postrouting ip saddr {way_out} oifname != "{bridge}" ip daddr != {way_out} masquerade',
            f'add rule {table} forward iifname != "{bridge}" oifname "{bridge}" ct state new drop',
        ]
    else:
        lines += [
            f'add rule {table} forward iifname "{name}" oifname != "{name}" ct direction original drop'
            for name in sorted(guarded)
        ]
    return "".join(f"{line}\n" for line in lines) + elements(published)


def elements(published: Iterable[Network]) -> str:
    """For agent.linux.nft: only what leads where. Quicker than the whole; an error where the table is not there."""
    lines = [f"flush map {_TABLE} any", f"flush map {_TABLE} at", f"flush set {_TABLE} behind"]
    for name, found in zip(("any", "at", "behind"), _elements(published), strict=True):
        if found:
            lines.append(f"add element {_TABLE} {name} {{ {', '.join(found)} }}")
    return "".join(f"{line}\n" for line in lines)


def guarded_in(text: str) -> set[str]:
    """The interfaces that the table, as nft lists it, guards."""
    return set(_GUARD.findall(text))


def container_address(network: Network) -> str:
    return network.address.partition("/")[0]


def key(port: Port) -> str:
    return f"{port.protocol} . {port.host_port}"


def _elements(published: Iterable[Network]) -> tuple[list[str], list[str], list[str]]:
    any_host, at_host, behind = [], [], set()
    for network in published:
        address = container_address(network)
        for port in network.ports:
            to = f"{address} . {port.container_port}"
            if port.host_address:
                at_host.append(f"{port.host_address} . {key(port)} : {to}")
            else:
                any_host.append(f"{key(port)} : {to}")
            behind.add(f"{address} . {port.protocol} . {port.container_port}")
    return any_host, at_host, sorted(behind)
