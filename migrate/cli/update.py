"""`migrate update`: other limits for containers, while they run."""

from __future__ import annotations

import argparse
import sys
from typing import TYPE_CHECKING

from migrate.cli import failures, limits, upkeep
from migrate.cli.parsers import command

if TYPE_CHECKING:
    from migrate.cli.parsers import Subparsers


def add_parser(subparsers: Subparsers) -> None:
    parser = command(
        subparsers,
        "update",
        help="change limits and restart policy of containers while they run",
        examples="""
migrate update --memory 1g --cpus 2 web1
migrate update --pids-limit -1 web1 web2
migrate update --restart unless-stopped web1
migrate update --device-write-bps /var/lib/migrate:10mb db1
""",
    )
    limits.add_options(parser, fixed=False)
    upkeep.add_restart(parser)
    parser.add_argument("containers", metavar="CONTAINER", nargs="+", help="name, id or the beginning of an id")


def run(args: argparse.Namespace) -> int:
    from migrate.client import Client
    from migrate.errors import MigrateError

    changes = limits.fields(args)
    if not changes and not args.restart:
        print("error: nothing is to be changed\nhint: migrate update --help lists what can be", file=sys.stderr)
        return 2
    status = 0
    with Client(args.coordinator) as client:
        for name in args.containers:
            try:
                if changes:
                    client.update(name, **changes)
                if args.restart:
                    client.set_restart(name, upkeep.restart_policy(args.restart))
                print(name, flush=True)
            except MigrateError as exc:
                status = failures.report(exc, command="update")
    return status
