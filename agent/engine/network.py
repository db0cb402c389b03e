"""A container's eth0: a veth pair with one end on the host's bridge, made by rtnetlink.

    host: vm<id> on the bridge ═══ container: eth0 (made under the name vp<id> where CRIU is to take it in)

The agent stays in its own namespaces: the container's end is born in the container's, and configured by a socket that the monitor
opened in there.
"""

from __future__ import annotations

import errno
import ipaddress
import socket
import struct
from collections.abc import Sequence

from agent.engine import link
from agent.engine.link import LinkPlan
from agent.engine.spec import ContainerSpec
from agent.errors import AgentError
from agent.linux.rtnetlink import Link, RouteSocket

_ETH_P_ARP = 0x0806
_BROADCAST = b"\xff" * 6


class NetworkError(AgentError):
    """The kernel refused; the message has its words."""

    code = "network"


def host_end(container_id: str) -> str:
    """The host's end of the pair: 13 characters, of the 15 that an interface name may have."""
    return f"vm{container_id[:11]}"


def peer_end(container_id: str) -> str:
    """What the container's end is called on the host before CRIU takes it in."""
    return f"vp{container_id[:11]}"


def host_index(container_id: str) -> int:
    """The index of the host's end, far from those that a new namespace hands out.

    If both ends of a pair have the same index in their two namespaces, Linux takes the host's end for no virtual link and
    tells the bridge up to a second late that it is up (net/core/link_watch.c, linkwatch_urgent_event): a port that does not forward.
    """
    return 1 << 28 | int(container_id[:7], 16)


def attach(spec: ContainerSpec, pid: int, bridge: str, inside: RouteSocket) -> None:
    """Make the container's pair, unless spec.network.address is "": one end on the bridge, up; the other eth0 in the network
    namespace of `pid`, with its address and route. `inside`: opened in there.

    A pair that an earlier attempt left goes first. Raises NetworkError; what was made then goes with the namespace.
    """
    if not spec.network.address:
        return
    _make_pair(spec, bridge, "eth0", pid=pid)
    try:
        link.configure(link_plan(spec, bridge), inside)
    except OSError as exc:
        raise NetworkError(f"cannot connect container {spec.name}: {exc.strerror}") from exc


def prepare_peer(spec: ContainerSpec, bridge: str) -> str:
    """For a restore: the pair, its host end up but off the bridge; returns the peer's name, for CRIU's
    `netdev[eth0]:NAME`.

    Off the bridge until the move is decided: a host that has the address but not the sockets answers the container's
    clients with RST. Up already, because a port forwards at once only if its link was up when it joined the bridge;
    the news of a link that comes up later reaches the bridge through a work queue. Without a link-local address: the
    host says nothing to the container.
    """
    peer = peer_end(spec.id)
    _make_pair(spec, bridge, peer)
    return peer


def remove(container_id: str) -> None:
    """Delete the pair. No error where there is none: it goes with the container's namespace by itself, only later."""
    host = host_end(container_id)
    try:
        with RouteSocket() as route:
            _remove(route, host)
    except OSError as exc:
        raise NetworkError(f"cannot delete {host}: {exc.strerror}") from exc


def may_change(spec: ContainerSpec) -> bool:
    """Whether the container can change its own network namespace: then a move has to carry it, else it is made anew."""
    return "CAP_NET_ADMIN" in spec.capabilities


def link_plan(spec: ContainerSpec, bridge: str) -> LinkPlan:
    """What the monitor needs to handle the container's link during a move."""
    network = spec.network
    if not network.address:
        return LinkPlan(bridge=bridge)
    return LinkPlan(
        bridge=bridge,
        host=host_end(spec.id),
        peer=peer_end(spec.id),
        mac=network.mac,
        address=network.address,
        gateway=network.gateway,
    )


def uplinks(bridge: str, uplink: str = "") -> list[str]:
    """Where a moved address is announced: `uplink`, or every port of the bridge that is no container's. Raises NetworkError."""
    if uplink:
        return [uplink]
    try:
        with RouteSocket() as route:
            links = route.links()
    except OSError as exc:
        raise NetworkError(f"cannot list the ports of bridge {bridge}: {exc.strerror}") from exc
    index = next((one.index for one in links if one.name == bridge), 0)
    return [one.name for one in links if index and one.master == index and not one.name.startswith(("vm", "vp"))]


def announce(interfaces: Sequence[str], mac: str, address: str) -> None:
    """Send a gratuitous ARP (request and reply) for `address` ("10.88.1.2" or with "/16") out of each interface:
    switches and neighbours learn.

    IPv4 only. Raises NetworkError naming the interface.
    """
    hardware = bytes.fromhex(mac.replace(":", ""))
    protocol = ipaddress.IPv4Interface(address).ip.packed
    ethernet = _BROADCAST + hardware + struct.pack("!H", _ETH_P_ARP)
    frames = [
        ethernet + struct.pack("!HHBBH", 1, 0x0800, 6, 4, operation) + hardware + protocol + target + protocol
        for operation, target in ((1, bytes(6)), (2, _BROADCAST))
    ]
    for interface in interfaces:
        try:
            with socket.socket(socket.AF_PACKET, socket.SOCK_RAW) as wire:
                wire.bind((interface, 0))
                for frame in frames:
                    wire.send(frame)
        except OSError as exc:
            raise NetworkError(f"cannot announce {address} on {interface}: {exc.strerror}") from exc


def bridge_mtu(bridge: str) -> int:
    """Bytes. Raises NetworkError where the bridge does not exist."""
    with RouteSocket() as route:
        return _bridge(route, bridge).mtu


def _bridge(route: RouteSocket, bridge: str) -> Link:
    try:
        return route.link(bridge)
    except OSError as exc:
        raise NetworkError(
            f"bridge {bridge}: {exc.strerror}", hint=f"ip link add {bridge} type bridge && ip link set {bridge} up"
        ) from exc


def _make_pair(spec: ContainerSpec, bridge: str, peer: str, *, pid: int = 0) -> None:
    """The peer in the network namespace of `pid`, and the host's end on the bridge; with `pid` 0 it is here, and off the bridge."""
    host, mac = host_end(spec.id), bytes.fromhex(spec.network.mac.replace(":", ""))
    with RouteSocket() as route:
        its_bridge = _bridge(route, bridge)

        def add() -> None:
            route.add_pair(
                host,
                index=host_index(spec.id),
                mtu=spec.network.mtu or its_bridge.mtu,
                peer=peer,
                peer_mac=mac,
                peer_pid=pid,
                master=its_bridge.index if pid else 0,
            )

        try:
            try:
                add()
            except OSError as exc:
                if exc.errno not in (errno.EEXIST, errno.EBUSY):
                    raise
                _remove(route, host)  # an earlier attempt's
                add()
        except OSError as exc:
            raise NetworkError(f"cannot connect container {spec.name} to bridge {bridge}: {exc.strerror}") from exc


def _remove(route: RouteSocket, name: str) -> None:
    try:
        route.delete(route.index(name))
    except OSError as exc:
        if exc.errno != errno.ENODEV:
            raise
