"""`migrate diff`: what a container has changed in its files."""

from __future__ import annotations

import argparse
import json
import sys
from typing import TYPE_CHECKING

from migrate.cli.parsers import command

if TYPE_CHECKING:
    from migrate.cli.parsers import Subparsers


def add_parser(subparsers: Subparsers) -> None:
    parser = command(
        subparsers,
        "diff",
        help="list the files that a container has added (A), changed (C) and deleted (D)",
        examples="migrate diff web1\nmigrate diff web1 --format json | jq -r '.[] | select(.kind == \"A\").path'",
    )
    parser.add_argument("container", metavar="CONTAINER", help="name, id or the beginning of an id")
    parser.add_argument("--format", choices=("table", "json"), default="table", help="json: an array of kind and path")


def run(args: argparse.Namespace) -> int:
    from migrate.client import Client

    with Client(args.coordinator) as client:
        changes = client.diff(args.container)
    if args.format == "json":
        json.dump([one.to_dict() for one in changes], sys.stdout, indent=2)
        print()
        return 0
    for one in changes:
        # Names as they are, byte for byte; a newline in one is the container's own fault.
        sys.stdout.buffer.write(f"{one.kind} {one.path}\n".encode(errors="surrogateescape"))
    return 0
