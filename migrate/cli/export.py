"""`migrate export`: all files of a container as a tar."""

from __future__ import annotations

import argparse
import sys
from typing import TYPE_CHECKING

from migrate.cli.counter import Counter
from migrate.cli.parsers import command

if TYPE_CHECKING:
    from migrate.cli.parsers import Subparsers


def add_parser(subparsers: Subparsers) -> None:
    parser = command(
        subparsers,
        "export",
        help="write all files of a container as a tar, without volumes",
        examples="migrate export -o web1.tar web1\nmigrate export web1 | migrate import - web1-flat",
    )
    parser.add_argument("-o", "--output", default="-", metavar="FILE", help="where to (default: stdout)")
    parser.add_argument("-q", "--quiet", action="store_true", help="no progress")
    parser.add_argument("container", metavar="CONTAINER", help="name, id or the beginning of an id")


def run(args: argparse.Namespace) -> int:
    from migrate.cli.image_transfer import output
    from migrate.client import Client

    if args.output == "-" and sys.stdout.isatty():
        print("error: a tar is nothing for a terminal\nhint: migrate export -o FILE CONTAINER", file=sys.stderr)
        return 2
    with (
        Client(args.coordinator) as client,
        output(args.output) as file,
        Counter(args.container, quiet=args.quiet) as counter,
    ):
        for data in client.export(args.container):
            file.write(data)
            counter.add(len(data))
        file.flush()
    return 0
