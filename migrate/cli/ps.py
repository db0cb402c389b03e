"""`migrate ps`."""

from __future__ import annotations

import argparse
import json
import sys
from typing import TYPE_CHECKING

from migrate.cli import network, tables
from migrate.cli.parsers import command

if TYPE_CHECKING:
    from migrate.cli.parsers import Subparsers
    from migrate.records import Container

FILTERS = ("name", "status", "host", "image", "label")


def add_parser(subparsers: Subparsers) -> None:
    parser = command(
        subparsers,
        "ps",
        help="list containers on all hosts",
        examples="""
migrate ps
migrate ps -a --filter host=host1 --filter status=exited
migrate ps -q --filter name=web
migrate ps --format json
""",
    )
    parser.add_argument("-a", "--all", action="store_true", help="also containers that do not run")
    parser.add_argument("-q", "--quiet", action="store_true", help="print only ids")
    parser.add_argument(
        "--filter",
        "-f",
        action="append",
        default=[],
        type=condition,
        metavar="KEY=VALUE",
        help=f"only those with {', '.join(FILTERS)}",
    )
    parser.add_argument("--format", choices=("table", "json"), default="table")


def condition(text: str) -> tuple[str, str]:
    """("name", "web") of "name=web"."""
    key, equals, value = text.partition("=")
    if not equals or key not in FILTERS:
        raise argparse.ArgumentTypeError(f"{text!r}: filters are {', '.join(f'{name}=' for name in FILTERS)}")
    return key, value


def matches(container: Container, conditions: list[tuple[str, str]]) -> bool:
    """Of each key at least one value holds. A name need only contain the value, as Docker's; a label is KEY or KEY=VALUE."""

    def holds(key: str, value: str) -> bool:
        if key == "name":
            return value in container.name
        if key == "status":
            return container.state == value
        if key == "host":
            return container.host == value
        if key == "image":
            return container.image == value
        name, equals, wanted = value.partition("=")
        return name in container.labels and (not equals or container.labels[name] == wanted)

    return all(any(holds(k, v) for k, v in conditions if k == key) for key in {key for key, _ in conditions})


def status(container: Container) -> str:
    """ "running 3 minutes", "exited (1) 2 hours ago", "moving", "unknown: host2 unreachable"."""
    if container.state == "unknown":
        return f"unknown: {container.error or 'host unreachable'}"
    if container.state == "running":
        text = f"running {tables.ago(container.started_unix_ns)}"
    elif container.state == "exited":
        why = ", out of memory" if container.oom_killed else ""
        text = f"exited ({container.exit_code}{why}) {tables.ago(container.finished_unix_ns)} ago"
    elif container.state == "paused":
        text = f"running {tables.ago(container.started_unix_ns)} (paused)"
    else:
        text = container.state
    return f"{text}, moving" if container.migration_id else text


def run(args: argparse.Namespace) -> int:
    from migrate.client import Client

    with Client(args.coordinator) as client:
        # A filter by status says itself which ones: without -a it would never find an exited one.
        everything = args.all or any(key == "status" for key, _ in args.filter)
        found = [one for one in client.containers(all=everything) if matches(one, args.filter)]
    found.sort(key=lambda one: one.created_unix_ns, reverse=True)
    if args.quiet:
        for one in found:
            print(tables.short(one.id))
    elif args.format == "json":
        json.dump([one.to_dict() for one in found], sys.stdout, indent=2)
        print()
    else:
        rows = [
            (
                tables.short(one.id),
                one.name,
                one.host,
                status(one),
                one.image,
                one.address.partition("/")[0],
                network.summary(one),
                tables.ago(one.created_unix_ns) + " ago",
            )
            for one in found
        ]
        print(tables.table(("CONTAINER ID", "NAME", "HOST", "STATUS", "IMAGE", "ADDRESS", "PORTS", "CREATED"), rows))
    return 0
