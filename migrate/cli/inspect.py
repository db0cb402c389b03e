"""`migrate inspect`."""

from __future__ import annotations

import argparse
import json
import sys
from typing import TYPE_CHECKING, Any

from migrate.cli import failures
from migrate.cli.parsers import command

if TYPE_CHECKING:
    from migrate.cli.parsers import Subparsers


def add_parser(subparsers: Subparsers) -> None:
    parser = command(
        subparsers,
        "inspect",
        help="print everything known about containers, as a JSON array",
        examples="migrate inspect web1\nmigrate inspect web1 | jq -r .[0].host",
    )
    parser.add_argument("containers", metavar="CONTAINER", nargs="+", help="name, id or the beginning of an id")


def run(args: argparse.Namespace) -> int:
    from migrate.client import Client
    from migrate.errors import MigrateError

    found: list[dict[str, Any]] = []
    status = 0
    with Client(args.coordinator) as client:
        for name in args.containers:
            try:
                found.append(client.inspect(name).to_dict())
            except MigrateError as exc:
                status = failures.report(exc, command="inspect")
    json.dump(found, sys.stdout, indent=2)
    print()
    return status
