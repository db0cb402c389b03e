"""The options of `run` and `create` about the network, and `migrate port`. docs/networks.md"""

from __future__ import annotations

import argparse
import re
import sys
from argparse import ArgumentTypeError
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from migrate.cli.parsers import command

if TYPE_CHECKING:
    from migrate.cli.parsers import Subparsers
    from migrate.records import Container, Port

NETWORKS = ("bridge", "none", "host", "default")
EVERY_ADDRESS = "0.0.0.0"  # noqa: S104  shown, as Docker does
_PUBLISH = (  # compiled when a port is looked at
    r"(?:(?:(?P<address>\[[0-9a-fA-F:.]*\]|[^:/]*):)?(?P<host>\d*(?:-\d+)?):)?(?P<port>\d+(?:-\d+)?)(?:/(?P<protocol>\w+))?"
)


def add_options(parser: argparse.ArgumentParser) -> None:
    group = parser.add_argument_group("network", "docs/networks.md")
    add = group.add_argument
    add(
        "-p",
        "--publish",
        action="append",
        default=[],
        type=publish,
        metavar="[ADDRESS:][HOSTPORT:]PORT[/PROTOCOL]",
        help="lead a port of the host to the container, such as 8080:80, 127.0.0.1:53:53/udp, 8000-8010:8000-8010; repeatable",
    )
    add("-P", "--publish-all", action="store_true", help="publish every exposed port on a free port of the host")
    add("--expose", action="append", default=[], type=expose, metavar="PORT[/PROTOCOL]", help="a port that it serves")
    add("--network", "--net", default="", choices=NETWORKS, help="eth0 on the bridge, lo alone, or the host's own")
    add(
        "--add-host",
        action="append",
        default=[],
        metavar="NAME:ADDRESS",
        help="a line of /etc/hosts; host-gateway: the host",
    )
    add("--dns", action="append", default=[], metavar="ADDRESS", help="name server (default: the host's); repeatable")
    add("--dns-search", action="append", default=[], metavar="DOMAIN", help='search domain; "." = none; repeatable')
    add(
        "--dns-option",
        "--dns-opt",
        action="append",
        default=[],
        metavar="OPTION",
        help="option of resolv.conf; repeatable",
    )


def fields(args: argparse.Namespace) -> dict[str, Any]:
    """Fields of records.Run. Says on stderr what will have no effect, as Docker does."""
    ports = tuple(port for ports in args.publish for port in ports)
    if args.network == "host" and (ports or args.publish_all):
        print("warning: in the host's network ports are not published: the container's are the host's", file=sys.stderr)
    return {
        "network_mode": "" if args.network in ("bridge", "default") else args.network,
        "ports": ports,
        "publish_all": args.publish_all,
        "exposed": tuple(text for texts in args.expose for text in texts),
        "extra_hosts": tuple(args.add_host),
        "dns": tuple(args.dns),
        "dns_search": tuple(args.dns_search),
        "dns_options": tuple(args.dns_option),
    }


def publish(text: str) -> tuple[Port, ...]:
    """Docker's [ADDRESS:][HOSTPORT[-END]:]PORT[-END][/PROTOCOL]; one Port each of a range."""
    from migrate.records import Port

    found = re.fullmatch(_PUBLISH, text)
    if not found:
        raise ArgumentTypeError(f"{text!r} is not [ADDRESS:][HOSTPORT:]PORT[/PROTOCOL] such as 8080:80")
    address = (found["address"] or "").strip("[]")
    protocol = protocol_of(found["protocol"])
    inside, outside = span(found["port"]), span(found["host"]) if found["host"] else range(0)
    if not outside:
        return tuple(Port(container_port=port, host_address=address, protocol=protocol) for port in inside)
    if len(inside) == 1 and len(outside) > 1:  # one of them that is free
        return (
            Port(
                container_port=inside[0],
                host_port=outside[0],
                host_port_end=outside[-1],
                host_address=address,
                protocol=protocol,
            ),
        )
    if len(inside) != len(outside):
        raise ArgumentTypeError(f"{text!r}: {len(outside)} ports of the host for {len(inside)} of the container")
    return tuple(
        Port(container_port=port, host_port=host, host_address=address, protocol=protocol)
        for host, port in zip(outside, inside, strict=True)
    )


def expose(text: str) -> tuple[str, ...]:
    """80, 53/udp, 8000-8010: one "PORT/PROTOCOL" each."""
    ports, _, protocol = text.partition("/")
    if not re.fullmatch(r"\d+(-\d+)?", ports):
        raise ArgumentTypeError(f"{text!r} is not PORT[/PROTOCOL] such as 80 or 53/udp")
    return tuple(f"{port}/{protocol_of(protocol)}" for port in span(ports))


def span(text: str) -> range:
    """The ports of "80" or "8000-8010"; 0, of which one means "any", alone."""
    first, _, last = text.partition("-")
    if not first.isdigit() or not (last or first).isdigit():
        raise ArgumentTypeError(f"{text!r} is not a port, nor a range such as 8000-8010")
    low, high = int(first), int(last or first)
    if low == 0 and not last:
        return range(0)
    if not 1 <= low <= high <= 65535:
        raise ArgumentTypeError(f"{text!r}: ports are 1 to 65535, the lower first")
    return range(low, high + 1)


def protocol_of(text: str | None) -> str:
    protocol = (text or "tcp").lower()
    if protocol not in ("tcp", "udp"):
        raise ArgumentTypeError(f"a port is of tcp or udp, not of {text!r}")
    return protocol


# ---------------------------------------------------------------- what is published


def where(port: Port) -> str:
    return f"{port.host_address or EVERY_ADDRESS}:{port.host_port}"


def published(container: Container) -> list[Port]:
    """What leads to it now: nothing while it does not run."""
    if container.state not in ("running", "paused", "frozen", "arriving", "lost"):
        return []
    return sorted(container.ports, key=lambda port: (port.container_port, port.protocol, port.host_port))


def summary(container: Container) -> str:
    """ "0.0.0.0:8080->80/tcp, 443/tcp" for `ps`: published, and only exposed."""
    ports = published(container)
    leading = [f"{where(port)}->{port.container_port}/{port.protocol}" for port in ports]
    if container.state in ("running", "paused") and container.network_mode != "host":
        known = {f"{port.container_port}/{port.protocol}" for port in ports}
        leading += [text for text in container.exposed if text not in known]
    return ", ".join(leading)


def add_parser(subparsers: Subparsers) -> None:
    parser = command(
        subparsers,
        "port",
        help="list the published ports of a container",
        usage="migrate port [OPTIONS] CONTAINER [PORT[/PROTOCOL]]",
        examples="migrate port web1\nmigrate port --all\nmigrate port web1 80\nmigrate port web1 53/udp\nmigrate port web1 --format json",
    )
    parser.add_argument("-a", "--all", action="store_true", help="of all containers that run")
    parser.add_argument("container", metavar="CONTAINER", nargs="?", help="name, id or the beginning of an id")
    parser.add_argument(
        "port", metavar="PORT", nargs="?", type=expose, help="of the container; only where it leads from"
    )
    parser.add_argument("--format", choices=("text", "json"), default="text")


def run(args: argparse.Namespace) -> int:
    import json

    from migrate.client import Client

    if bool(args.container) == args.all:
        print("error: port takes the name of a container, or --all\nhint: migrate port --help", file=sys.stderr)
        return 2
    with Client(args.coordinator) as client:
        if args.all:
            return _all_ports(client.containers(), format=args.format)
        container = client.inspect(args.container)
    ports = published(container)
    if args.port:
        (wanted,) = args.port[:1]
        ports = [port for port in ports if f"{port.container_port}/{port.protocol}" == wanted]
        if not ports:
            print(f"error: no public port {wanted} published for {container.name}", file=sys.stderr)
            print(f"hint: what is: migrate port {container.name}", file=sys.stderr)
            return 1
    if args.format == "json":
        print(json.dumps([port.to_dict() for port in ports], indent=2))
        return 0
    for port in ports:
        print(where(port) if args.port else f"{port.container_port}/{port.protocol} -> {where(port)}")
    return 0


def _all_ports(containers: Sequence[Container], *, format: str) -> int:
    import json

    found = [(one, port) for one in containers for port in published(one)]
    if format == "json":
        print(json.dumps([{"container": one.name, **port.to_dict()} for one, port in found], indent=2))
        return 0
    for one, port in found:
        print(f"{one.name}  {port.container_port}/{port.protocol} -> {where(port)}")
    return 0
