"""`migrate network ls` and `network inspect`: the networks that there are. They are not made or removed: docs/networks.md."""

from __future__ import annotations

import argparse
import json
import sys
from typing import TYPE_CHECKING, Any

from migrate.cli import templates
from migrate.cli.free import Free
from migrate.cli.parsers import command

if TYPE_CHECKING:
    from migrate.cli.parsers import Subparsers
    from migrate.records import Container, Host

NAMES = ("bridge", "host", "none")
LS = """
migrate network ls
migrate network ls -q
migrate network ls --format '{{.Name}} {{.Driver}}'
"""
INSPECT = """
migrate network inspect bridge
migrate network inspect -f '{{range .Containers}}{{.Name}} {{.IPv4Address}} {{end}}' bridge
"""


def add_parser(subparsers: Subparsers) -> None:
    family = command(
        subparsers,
        "network",
        help="list and inspect the networks that there are; none can be made: the fleet is one segment",
        examples=LS,
    )
    verbs = family.add_subparsers(dest="verb", required=True, metavar="VERB")
    ls = command(verbs, "ls", help="list networks", examples=LS)
    ls.add_argument("-q", "--quiet", action="store_true", help="print only names")
    templates.add_option(ls, text="table, json, or a template: .Name .Driver .Scope .Subnet .Containers")
    inspect = command(verbs, "inspect", help="print who is in a network, as JSON", examples=INSPECT)
    templates.add_option(inspect, "-f", "--format", default="json", text="json, or '{{.Name}}'")
    exists = command(
        verbs,
        "exists",
        help="say by the exit status whether there is such a network: 0 or 1",
        examples="migrate network exists bridge",
    )
    inspect.add_argument("networks", metavar="NETWORK", nargs="+", choices=NAMES, help=", ".join(NAMES))
    exists.add_argument("network", metavar="NETWORK", help="its name")


def run(args: argparse.Namespace) -> int:
    if args.verb == "exists":
        return 0 if args.network in NAMES else 1
    if args.verb == "ls" and args.quiet:
        print("\n".join(NAMES))
        return 0
    from migrate.client import Client

    with Client(args.coordinator) as client:
        hosts, containers = client.hosts(), client.containers(all=True)
    try:
        wanted = NAMES if args.verb == "ls" else args.networks
        found = [fields(name, hosts, containers) for name in wanted]
        if args.verb == "ls":
            rows = [one | {"Containers": len(one["Containers"])} for one in found]
            cells = [(one["Name"], one["Driver"], one["Subnet"] or "-", one["Containers"]) for one in rows]
            print(templates.listing(args.format, rows, ("NAME", "DRIVER", "SUBNET", "CONTAINERS"), cells))
        elif args.format == "json":
            print(json.dumps(found, indent=2))
        else:
            print(templates.show(args.format, found))
    except argparse.ArgumentTypeError as exc:
        print(f"error: {exc}", file=sys.stderr)
        return 2
    return 0


def fields(name: str, hosts: list[Host], containers: list[Container]) -> dict[str, Any]:
    """Docker's. The subnet is that of the containers' addresses: "" where there is none to see it by."""
    inside = [one for one in containers if (one.network_mode or "bridge") == name]
    subnet, gateway = "", ""
    if name == "bridge" and (addressed := [one for one in inside if one.address]):
        import ipaddress

        subnet = str(ipaddress.ip_interface(addressed[0].address).network)
        gateway = addressed[0].gateway
    return {
        "Name": name,
        "Driver": "null" if name == "none" else name,
        "Scope": "global" if name == "bridge" else "local",
        "Subnet": subnet,
        "IPAM": {"Config": [{"Subnet": subnet, "Gateway": gateway}] if subnet else []},
        "Bridges": Free({host.name: host.facts.bridge for host in hosts if host.facts} if name == "bridge" else {}),
        "Containers": Free(
            {
                one.id: {"Name": one.name, "Host": one.host, "IPv4Address": one.address, "MacAddress": one.mac}
                for one in inside
            }
        ),
    }
