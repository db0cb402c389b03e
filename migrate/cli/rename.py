"""`migrate rename`."""

from __future__ import annotations

import argparse
from typing import TYPE_CHECKING

from migrate.cli.parsers import command

if TYPE_CHECKING:
    from migrate.cli.parsers import Subparsers


def add_parser(subparsers: Subparsers) -> None:
    parser = command(
        subparsers,
        "rename",
        help="give a container another name, also while it runs",
        examples="migrate rename web1 web-old",
    )
    parser.add_argument("container", metavar="CONTAINER", help="name, id or the beginning of an id")
    parser.add_argument("new_name", metavar="NEW_NAME", help="unique in the fleet")


def run(args: argparse.Namespace) -> int:
    from migrate.client import Client

    with Client(args.coordinator) as client:
        client.rename(args.container, args.new_name)
    return 0
