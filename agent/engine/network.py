"""A container's eth0: a veth pair with one end on the host's bridge. Everything goes through iproute2, as text that
can be typed again.

    host: vm<id> on the bridge ═══ container: eth0 (made under the name vp<id> where CRIU is to take it in)

The agent stays in its own namespaces: `nsenter` enters the container's for the lines that must run there.
"""

from __future__ import annotations

import ipaddress
import json
import socket
import struct
import subprocess
from collections.abc import Sequence

from agent.engine.link import LinkPlan
from agent.engine.spec import ContainerSpec, Network
from agent.errors import AgentError
from agent.linux.rtnetlink import RouteSocket

COMMAND_LIMIT_S = 20.0
_ETH_P_ARP = 0x0806
_BROADCAST = b"\xff" * 6


class NetworkError(AgentError):
    """iproute2 refused; the message carries its own words and the line."""

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


def attach(spec: ContainerSpec, pid: int, bridge: str) -> None:
    """Give the network namespace of `pid` lo and, unless spec.network.address is "", eth0 with its address; the
    host's end goes up.

    A pair that an earlier attempt left goes first. Raises NetworkError; what was made then goes with the namespace.
    """
    network = spec.network
    inside = ["link set dev lo up"]
    if network.address:
        host = host_end(spec.id)
        remove(spec.id)
        mtu = network.mtu or bridge_mtu(bridge)
        batch(
            [
                f"link add {host} index {host_index(spec.id)} mtu {mtu} type veth"
                f" peer name eth0 address {network.mac} mtu {mtu} netns {pid}",
                f"link set dev {host} master {bridge} up",
            ]
        )
        inside += _inside_lines(network)
    batch(inside, netns_of=pid)


def prepare_peer(spec: ContainerSpec, bridge: str) -> str:
    """For a restore: the pair, its host end up but off the bridge; returns the peer's name, for CRIU's
    `netdev[eth0]:NAME`.

    Off the bridge until the move is decided: a host that has the address but not the sockets answers the container's
    clients with RST. Up already, because a port forwards at once only if its link was up when it joined the bridge;
    the news of a link that comes up later reaches the bridge through a work queue. Without a link-local address: the
    host says nothing to the container.
    """
    host, peer = host_end(spec.id), peer_end(spec.id)
    remove(spec.id)
    mtu = spec.network.mtu or bridge_mtu(bridge)
    batch(
        [
            f"link add {host} index {host_index(spec.id)} mtu {mtu} type veth"
            f" peer name {peer} address {spec.network.mac} mtu {mtu}",
            f"link set dev {host} addrgenmode none up",
        ]
    )
    return peer


def remove(container_id: str) -> None:
    """Delete the pair. No error where there is none: it goes with the container's namespace by itself, only later."""
    result = _run(["ip", "link", "del", "dev", host_end(container_id)])
    if result.returncode and "Cannot find device" not in result.stderr:
        raise NetworkError(f"ip link del dev {host_end(container_id)}: {result.stderr.strip()}")


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
    index = next((link.index for link in links if link.name == bridge), 0)
    return [link.name for link in links if index and link.master == index and not link.name.startswith(("vm", "vp"))]


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
    result = _run(["ip", "-json", "link", "show", "dev", bridge])
    if result.returncode:
        raise NetworkError(
            f"bridge {bridge}: {result.stderr.strip()}",
            hint=f"ip link add {bridge} type bridge && ip link set {bridge} up",
        )
    return int(json.loads(result.stdout)[0]["mtu"])


def batch(lines: Sequence[str], *, netns_of: int = 0) -> None:
    """Run `ip -batch` on `lines`, in the network namespace of the process `netns_of` if given. Raises
    NetworkError with ip's words.
    """
    command = ["ip", "-batch", "-"]
    if netns_of:
        command = ["nsenter", f"--net=/proc/{netns_of}/ns/net", *command]
    result = _run(command, "\n".join(lines) + "\n")
    if result.returncode:
        said = [line for line in result.stderr.splitlines() if line and not line.startswith("Command failed")]
        failed = result.stderr.rpartition("Command failed -:")[2].strip()
        line = lines[int(failed) - 1] if failed.isdigit() and 0 < int(failed) <= len(lines) else "; ".join(lines)
        raise NetworkError(f"ip {line}: {' '.join(said) or f'exit status {result.returncode}'}")


def _inside_lines(network: Network) -> list[str]:
    lines = [f"address add {network.address} dev eth0", "link set dev eth0 up"]
    if network.gateway:
        lines.append(f"route add default via {network.gateway} dev eth0")
    return lines


def _run(command: Sequence[str], text: str = "") -> subprocess.CompletedProcess[str]:
    try:
        return subprocess.run(command, input=text, capture_output=True, text=True, timeout=COMMAND_LIMIT_S, check=False)
    except FileNotFoundError as exc:
        raise NetworkError(f"{command[0]} is not installed", hint="install iproute2 and util-linux") from exc
    except subprocess.TimeoutExpired as exc:
        raise NetworkError(f"{' '.join(command)} did not end in {COMMAND_LIMIT_S:g} s") from exc
