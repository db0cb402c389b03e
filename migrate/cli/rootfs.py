"""`migrate rootfs`: where a container's files are on its host."""

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
        "rootfs",
        help="print the directory of a running container's files on its host",
        examples="migrate rootfs web1\nmigrate rootfs web1 --format json",
    )
    parser.add_argument("container", metavar="CONTAINER", help="name, id or the beginning of an id")
    parser.add_argument("--format", choices=("plain", "json"), default="plain", help="json: host and path")


def run(args: argparse.Namespace) -> int:
    from migrate.client import Client

    with Client(args.coordinator) as client:
        found = client.rootfs(args.container)
    if args.format == "json":
        print(json.dumps(found.to_dict(), indent=2))
        return 0
    print(found.path, flush=True)
    print(f"on host {found.host}", file=sys.stderr)
    return 0
