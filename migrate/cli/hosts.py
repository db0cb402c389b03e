"""`migrate hosts`."""

from __future__ import annotations

import argparse
import json
import sys
from typing import TYPE_CHECKING

from migrate.cli import tables
from migrate.cli.parsers import command

if TYPE_CHECKING:
    from migrate.cli.parsers import Subparsers
    from migrate.records import Host


def add_parser(subparsers: Subparsers) -> None:
    parser = command(
        subparsers,
        "hosts",
        help="list hosts and what they can do",
        examples="migrate hosts\nmigrate hosts -v\nmigrate hosts --format json",
    )
    parser.add_argument(
        "-v", "--verbose", action="store_true", help="also each capability, with the remedy where one is missing"
    )
    parser.add_argument("--format", choices=("table", "json"), default="table")


def run(args: argparse.Namespace) -> int:
    from migrate.client import Client

    with Client(args.coordinator) as client:
        hosts = client.hosts(facts=True)
    if args.format == "json":
        json.dump([host.to_dict() for host in hosts], sys.stdout, indent=2)
        print()
        return 0
    print(
        tables.table(
            ("HOST", "STATUS", "CONTAINERS", "KERNEL", "CRIU", "MEMORY FREE", "DISK FREE", "ADDRESS"),
            [row(host) for host in hosts],
        )
    )
    for host in hosts:
        for line in problems(host, verbose=args.verbose):
            print(line)
    return 0


def row(host: Host) -> tuple[object, ...]:
    """One line of the table."""
    facts = host.facts
    where = f"{host.address}:{host.port}"
    if facts is None:
        return host.name, "unreachable", host.containers, "-", "-", "-", "-", where
    ready = all(one.ok for one in facts.capabilities if one.required)
    return (
        host.name,
        "ready" if ready else "lacking",
        host.containers,
        facts.kernel,
        facts.criu_version or "-",
        tables.size(facts.memory_available_bytes),
        tables.size(facts.disk_available_bytes),
        where,
    )


def problems(host: Host, *, verbose: bool) -> list[str]:
    """What is wrong with a host and what to do about it; with `verbose` also what is right."""
    if not host.reachable:
        return ["", f"{host.name}: unreachable: {host.error}"]
    lines: list[str] = []
    for one in host.facts.capabilities if host.facts else ():
        if verbose or (one.required and not one.ok):
            mark = "ok" if one.ok else "MISSING" if one.required else "absent"
            lines.append(
                f"  {mark:<8}{one.name}: {one.value}" + (f"  ({one.remedy})" if one.remedy and not one.ok else "")
            )
    return ["", f"{host.name}:", *lines] if lines else []
