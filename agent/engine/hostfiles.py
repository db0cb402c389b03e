"""The files that a container gets from its host: /etc/hosts, /etc/hostname, /etc/resolv.conf.

They are written into the writable layer before the first start, so they are the container's own from then on and move
with it, as they are.
"""

from __future__ import annotations

import contextlib
import ipaddress
import socket
from collections.abc import Callable, Iterable
from pathlib import Path

from agent.engine.spec import ContainerSpec, Network
from agent.errors import InvalidArgument
from agent.linux import interfaces

# systemd-resolved keeps the real servers here; its /etc/resolv.conf names a stub on the host's loopback.
_RESOLV_CONF = (Path("/run/systemd/resolve/resolv.conf"), Path("/etc/resolv.conf"))
_HOSTS = Path("/etc/hosts")
_LOCALTIME, _ZONES, _ZONE_MAGIC = Path("/etc/localtime"), Path("/usr/share/zoneinfo"), b"TZif"  # tzfile(5)
# What Docker writes where the host names no server that a container can reach.
PUBLIC_SERVERS = ("8.8.8.8", "8.8.4.4")
HOST_GATEWAY = "host-gateway"  # of --add-host: the host that the container is created on


def make(spec: ContainerSpec, bridge: str = "", *, host_network: bool = False) -> dict[str, bytes]:
    """Path inside the container -> contents. In the host's network its files are right as they are, but for what was asked.

    Raises InvalidArgument for a host-gateway where the bridge has no address.
    """
    host_network = host_network or spec.network.mode == "host"
    hosts = _hosts(spec)
    if host_network:
        with contextlib.suppress(OSError):  # the host has none
            hosts = _HOSTS.read_text(errors="replace").splitlines()
    hosts += _extra_hosts(spec.network, lambda: "127.0.0.1" if host_network else interfaces.address_of(bridge))
    return _localtime(spec.timezone) | {
        "/etc/hostname": f"{name_of(spec)}\n".encode(),
        "/etc/hosts": _text(hosts).encode(),
        "/etc/resolv.conf": resolv_conf(_RESOLV_CONF, spec.network, host_network=host_network).encode(),
    }


def _localtime(zone: str) -> dict[str, bytes]:
    """What C libraries take local time from. Raises InvalidArgument for a zone that this host does not know."""
    if not zone:
        return {}
    path = _LOCALTIME if zone == "local" else _ZONES / zone
    hint = "a name such as Europe/Berlin, of the host's package tzdata; local = as the host"
    if zone.startswith("/") or ".." in zone.split("/"):
        raise InvalidArgument(f"{zone!r} is no time zone", hint=hint)
    try:
        data = path.read_bytes()
    except OSError as exc:
        if zone == "local":
            return {}  # a host without one has UTC, as every program without one has
        raise InvalidArgument(f"this host knows no time zone {zone!r}: {exc.strerror}", hint=hint) from exc
    if not data.startswith(_ZONE_MAGIC):
        raise InvalidArgument(f"{path} is no time zone", hint=hint)
    return {"/etc/localtime": data}


def name_of(spec: ContainerSpec) -> str:
    """The container's host name: this host's with --uts host."""
    return socket.gethostname() if spec.isolation.uts == "host" else spec.hostname


def resolv_conf(candidates: tuple[Path, ...], wanted: Network, *, host_network: bool = False) -> str:
    """The first readable candidate without name servers on loopback, which are the container itself in there, and with what
    `wanted` says in place of what it says of the same. Public servers where none is left, as Docker's.
    """
    if host_network:
        candidates = candidates[::-1]  # a stub on loopback is reached from there
    lines = _first_readable(candidates)
    servers = [line for line in lines if line.split()[:1] == ["nameserver"]]
    if not host_network:
        servers = [line for line in servers if not _is_local_server(line)] or _servers(PUBLIC_SERVERS)
    if wanted.dns:
        servers = _servers(wanted.dns)
    replaced = {"nameserver"}
    own = []
    if wanted.dns_search:
        replaced |= {"search", "domain"}
        own = [f"search {' '.join(wanted.dns_search)}"] if wanted.dns_search != (".",) else []
    if wanted.dns_options:
        replaced |= {"options"}
        own += [f"options {' '.join(wanted.dns_options)}"]
    kept = [line for line in lines if not set(line.split()[:1]) & replaced]
    return _text([*kept, *servers, *own])


def _first_readable(candidates: tuple[Path, ...]) -> list[str]:
    for path in candidates:
        try:
            return path.read_text(errors="replace").splitlines()
        except OSError:
            continue
    return []


def _hosts(spec: ContainerSpec) -> list[str]:
    address = spec.network.address.partition("/")[0] or "127.0.1.1"
    names = f"{name_of(spec)}.{spec.domainname} {name_of(spec)}" if spec.domainname else name_of(spec)
    return ["127.0.0.1\tlocalhost", "::1\tlocalhost ip6-localhost ip6-loopback", f"{address}\t{names}"]


def _extra_hosts(network: Network, gateway: Callable[[], str]) -> list[str]:
    lines = []
    for entry in network.extra_hosts:
        name, _, address = entry.partition(":")
        if address == HOST_GATEWAY and not (
            address := gateway()
        ):  # asked for then only: it waits for all who change links
            raise InvalidArgument(f"{entry}: the host's bridge has no IPv4 address", hint=f"--add-host {name}:ADDRESS")
        lines.append(f"{address}\t{name}")
    return lines


def _servers(addresses: Iterable[str]) -> list[str]:
    return [f"nameserver {address}" for address in addresses]


def _text(lines: Iterable[str]) -> str:
    return "".join(f"{line}\n" for line in lines)


def _is_local_server(line: str) -> bool:
    words = line.split()
    if len(words) < 2:
        return False
    try:
        return ipaddress.ip_address(words[1].partition("%")[0]).is_loopback
    except ValueError:
        return False
