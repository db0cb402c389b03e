"""`migrate pause` and `migrate unpause`."""

from __future__ import annotations

import argparse
from typing import TYPE_CHECKING

from migrate.cli import failures
from migrate.cli.parsers import command

if TYPE_CHECKING:
    from migrate.cli.parsers import Subparsers


def add_parser(subparsers: Subparsers) -> None:
    pause = command(
        subparsers, "pause", help="stop all processes of containers where they are", examples="migrate pause web1"
    )
    unpause = command(subparsers, "unpause", help="let paused containers go on", examples="migrate unpause web1")
    for parser in (pause, unpause):
        parser.add_argument("containers", metavar="CONTAINER", nargs="+", help="name, id or the beginning of an id")


def run(args: argparse.Namespace) -> int:
    from migrate.client import Client
    from migrate.errors import MigrateError

    status = 0
    with Client(args.coordinator) as client:
        action = client.pause if args.command == "pause" else client.unpause
        for name in args.containers:
            try:
                action(name)
                print(name, flush=True)
            except MigrateError as exc:
                status = failures.report(exc, command=args.command)
    return status
