"""What a request says of a container's network, checked and completed: its mode, names, name servers and published ports.

A published port is part of the container for life, on whichever host it runs: what a request leaves open is chosen here, so that
no other container of the fleet has it and a move finds it free.
"""

from __future__ import annotations

import ipaddress
import re
import secrets
from collections.abc import Iterable, Sequence

from google.protobuf import json_format

from migrate.errors import InvalidArgument, WrongState
from protos import coordinator_pb2, types_pb2

MODES = {"": "", "bridge": "", "default": "", "none": "none", "host": "host"}
PROTOCOLS = ("tcp", "udp")
# Above the ports that Linux gives to outgoing connections, of which one could just be in use.
FREE_PORTS = range(61000, 65536)
HOST_GATEWAY = "host-gateway"
_NAME = re.compile(r"[A-Za-z0-9_]([A-Za-z0-9_.-]{0,252}[A-Za-z0-9_])?")

Key = tuple[str, int]  # protocol, port of the host


def network(request: coordinator_pb2.RunRequest, image: types_pb2.ImageConfig) -> types_pb2.Network:
    """Everything but the address and host ports that are still to be chosen (0). Raises InvalidArgument."""
    wanted = request.network
    if wanted.mode not in MODES:
        raise InvalidArgument(f"there is no network {wanted.mode!r}", hint="--network bridge, none or host")
    mode = MODES[wanted.mode]
    exposed = sorted({*map(_exposed, image.exposed_ports), *map(_exposed, wanted.exposed)}, key=_order)
    ports = [_port(port) for port in wanted.ports]
    if request.publish_all:
        published = {(port.container_port, port.protocol) for port in ports}
        for text in exposed:
            number, _, protocol = text.partition("/")
            if (int(number), protocol) not in published:
                ports.append(types_pb2.Port(container_port=int(number), protocol=protocol))
    _refuse_twice(ports)
    return types_pb2.Network(
        mode=mode,
        ports=ports if mode == "" else (),  # the host's network needs no way in, "none" has none: as Docker
        exposed=exposed,
        extra_hosts=[_extra_host(entry) for entry in wanted.extra_hosts],
        dns=[_ip(text, "a name server") for text in wanted.dns],
        dns_search=[_word(text, "a search domain") for text in wanted.dns_search],
        dns_options=[_word(text, "an option of resolv.conf") for text in wanted.dns_options],
    )


def choose_ports(network: types_pb2.Network, specs: Iterable[str]) -> None:
    """Give every port without a number on the host one that no container has, those of `specs` (JSON) nor this one.

    Raises WrongState where none is left.
    """
    if all(port.host_port and not port.host_port_end for port in network.ports):
        return
    taken = {_key(port) for spec in specs for port in _ports_of(spec)}
    taken |= {_key(port) for port in network.ports if not port.host_port_end}
    for port in network.ports:
        if port.host_port and not port.host_port_end:
            continue
        asked = range(port.host_port, port.host_port_end + 1) if port.host_port_end else ()
        free = [number for number in asked or FREE_PORTS if (port.protocol, number) not in taken]
        if not free:
            between = f"{asked[0]}-{asked[-1]}" if asked else f"{FREE_PORTS[0]}-{FREE_PORTS[-1]}"
            raise WrongState(f"containers have every {port.protocol} port of {between}", hint="-p HOSTPORT:PORT")
        port.host_port = free[0] if asked else secrets.choice(free)
        port.ClearField("host_port_end")
        taken.add(_key(port))


def _port(wanted: types_pb2.Port) -> types_pb2.Port:
    port = types_pb2.Port()
    port.CopyFrom(wanted)
    port.protocol = wanted.protocol.lower() or "tcp"
    if port.protocol not in PROTOCOLS:
        raise InvalidArgument(f"a port is of tcp or udp, not of {wanted.protocol!r}", hint="-p 5353:53/udp")
    if not 1 <= port.container_port <= 65535 or port.host_port > 65535 or port.host_port_end > 65535:
        raise InvalidArgument(
            f"{port.host_port}:{port.container_port} is no pair of ports", hint="ports are 1 to 65535: -p 8080:80"
        )
    if port.host_port_end and port.host_port_end < max(port.host_port, 1):
        raise InvalidArgument(f"{port.host_port}-{port.host_port_end} is no range of ports", hint="-p 8000-8010:80")
    if port.host_address:
        if ":" in port.host_address:
            raise InvalidArgument(
                f"{port.host_address}: ports are published on IPv4 addresses only", hint="-p 127.0.0.1:8080:80"
            )
        port.host_address = _ip(port.host_address, "an address of a host")
        if port.host_address == str(ipaddress.IPv4Address(0)):
            port.host_address = ""
    return port


def _refuse_twice(ports: Sequence[types_pb2.Port]) -> None:
    fixed = [port for port in ports if port.host_port and not port.host_port_end]
    for number, port in enumerate(fixed):
        for other in fixed[:number]:
            everywhere = "" in (port.host_address, other.host_address)
            if _key(port) == _key(other) and (everywhere or port.host_address == other.host_address):
                raise InvalidArgument(
                    f"port {port.host_port}/{port.protocol} of the host is published twice",
                    hint="one port of the host leads to one of the container",
                )


def _exposed(text: str) -> str:
    number, _, protocol = text.partition("/")
    protocol = protocol.lower() or "tcp"
    if not number.isdigit() or not 1 <= int(number) <= 65535 or protocol not in PROTOCOLS:
        raise InvalidArgument(f"{text!r} is no port that a container can serve", hint="--expose 80, --expose 53/udp")
    return f"{int(number)}/{protocol}"


def _order(text: str) -> tuple[int, str]:
    number, _, protocol = text.partition("/")
    return int(number), protocol


def _extra_host(entry: str) -> str:
    found = re.search("[:=]", entry)
    name, address = (entry[: found.start()], entry[found.end() :]) if found else ("", "")
    if not _NAME.fullmatch(name):
        raise InvalidArgument(f"{entry!r} is not NAME:ADDRESS", hint="--add-host db:10.88.1.2")
    if address == HOST_GATEWAY:
        return f"{name}:{address}"
    try:
        return f"{name}:{ipaddress.ip_address(address.strip('[]'))}"
    except ValueError as exc:
        raise InvalidArgument(
            f"{entry!r}: {address!r} is no address", hint="--add-host db:10.88.1.2, or NAME:host-gateway"
        ) from exc


def _ip(text: str, what: str) -> str:
    try:
        return str(ipaddress.ip_address(text))
    except ValueError as exc:
        raise InvalidArgument(f"{text!r} is not {what}: {exc}", hint="give an address such as 10.88.0.1") from exc


def _word(text: str, what: str) -> str:
    if not text or any(character.isspace() for character in text) or not text.isprintable():
        raise InvalidArgument(f"{text!r} is not {what}", hint="one word each")
    return text


def _ports_of(spec: str) -> Iterable[types_pb2.Port]:
    if '"ports"' not in spec:
        return ()
    return json_format.Parse(spec, types_pb2.ContainerSpec(), ignore_unknown_fields=True).network.ports


def _key(port: types_pb2.Port) -> Key:
    return port.protocol, port.host_port
