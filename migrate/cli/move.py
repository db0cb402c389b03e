"""`migrate move`."""

from __future__ import annotations

import argparse
import sys
from typing import TYPE_CHECKING

from migrate.cli import values
from migrate.cli.parsers import command

if TYPE_CHECKING:
    from migrate.cli.parsers import Subparsers


def add_parser(subparsers: Subparsers) -> None:
    parser = command(
        subparsers,
        "move",
        help="move a running container to another host: memory, files and connections go along",
        examples="""
migrate move web1 --to host2
migrate move web1 --to host2 --dry-run
migrate move db1 --to host2 --max-downtime 100 --reason "new disk in host1"
migrate move db1 --to host2 --bandwidth 100M --compress zstd
migrate move web1 --to host2 --format json | tail -n 1 | jq .facts
""",
    )
    parser.add_argument("container", metavar="CONTAINER", help="name, id or the beginning of an id")
    parser.add_argument("--to", required=True, metavar="HOST", help="where to")
    parser.add_argument("--reason", default="", metavar="TEXT", help="kept with the move's record")
    parser.add_argument(
        "--mode",
        choices=("auto", "precopy", "stop-and-copy", "postcopy"),
        default="auto",
        help="precopy sends memory while the container runs on; stop-and-copy sends all of it while it stands still; "
        "postcopy lets it run on the target before all of its memory is there: the shortest stop for a container that writes "
        "faster than the link, but if the source is lost in that time so is the container; auto (default) chooses by what both "
        "hosts can do",
    )
    parser.add_argument(
        "--max-downtime",
        type=values.milliseconds,
        default=0.0,
        metavar="MS",
        help="stop sending rounds when the rest fits into this time (default: 300)",
    )
    parser.add_argument(
        "--compress",
        choices=("auto", "none", "lz4", "zstd"),
        default="auto",
        help="pack what is sent; auto (default) chooses by what the link takes and what the processors have left",
    )
    parser.add_argument(
        "--bandwidth",
        type=values.rate,
        default=0,
        metavar="RATE",
        help="send no more than this in a second, such as 100M or 1G (bytes, units of 1024); default: no limit. "
        "To change it while the move runs: migrate migrations set",
    )
    parser.add_argument("--dry-run", action="store_true", help="check both hosts, list every blocker, change nothing")
    parser.add_argument("--detach", action="store_true", help="print the id of the move and return; it goes on")
    parser.add_argument("-q", "--quiet", action="store_true", help="print only errors")
    parser.add_argument(
        "--format", choices=("text", "json"), default="text", help="json: one object a line, last the record"
    )


def run(args: argparse.Namespace) -> int:
    from migrate.cli import progress
    from migrate.cli.follow import Following
    from migrate.client import Client

    if args.detach and args.dry_run:
        print("error: --dry-run has nothing to detach from\nhint: leave one of them out", file=sys.stderr)
        return 2
    with Client(args.coordinator) as client:
        moving = client.move(
            args.container,
            to=args.to,
            reason=args.reason,
            mode=args.mode,
            max_downtime_s=args.max_downtime,
            dry_run=args.dry_run,
            compress=args.compress,
            bandwidth=args.bandwidth,
        )
        if args.detach:
            for _ in moving:
                break  # the first event: it has begun
            print(moving.migration_id)
            return 0
        return Following(client, moving, progress.view(format=args.format, quiet=args.quiet)).to_the_end()
