"""`migrate rehearse`: a move without its end. The container stays; its copy is tried where nobody hears of it, and thrown away."""

from __future__ import annotations

import argparse
from typing import TYPE_CHECKING

from migrate.cli import check, values
from migrate.cli.parsers import command

if TYPE_CHECKING:
    from migrate.cli.parsers import Subparsers


def add_parser(subparsers: Subparsers) -> None:
    parser = command(
        subparsers,
        "rehearse",
        help="try a move without making it: dump, send and restore a copy, see whether it is well, and throw it away",
        examples="""
migrate rehearse web1 --to host2
migrate rehearse web1                            # to the host that suits it best
migrate rehearse db1 --to host2 --max-downtime 500
migrate rehearse web1 --to host2 --format json | tail -n 1 | jq .facts

The container stands still for a moment, as in a move, and goes on where it is. The copy runs in a sealed network, until
its health check has passed, or for a second where it has none; it writes to nothing that the target has.

exit status: 0 it would move, 5 refused by a check, nothing was touched, 6 it would not: why, and everything was put back,
7 something is left: migrate repair ID, 4 a host does not answer, 3 no such container or host, 130 cancelled
""",
    )
    parser.add_argument("container", metavar="CONTAINER", help="name, id or the beginning of an id")
    parser.add_argument("--to", default="", metavar="HOST", help="where to (default: the host that suits it best)")
    parser.add_argument(
        "--constraint",
        action="append",
        default=[],
        metavar="EXPR",
        help="without --to: of the host's labels, such as disk==ssd, zone!=b or gpu; repeatable",
    )
    parser.add_argument("--reason", default="", metavar="TEXT", help="kept with its record")
    parser.add_argument(
        "--mode", choices=("auto", "precopy", "stop-and-copy"), default="auto", help="as of `migrate move`"
    )
    parser.add_argument(
        "--max-downtime", type=values.milliseconds, default=0.0, metavar="MS", help="as of `migrate move`"
    )
    parser.add_argument("--bandwidth", type=values.rate, default=0, metavar="RATE", help="as of `migrate move`")
    parser.add_argument(
        "--compress", choices=("auto", "none", "lz4", "zstd"), default="auto", help="as of `migrate move`"
    )
    check.add_skip(parser)
    parser.add_argument("-q", "--quiet", action="store_true", help="print only errors")
    parser.add_argument(
        "--format", choices=("text", "json"), default="text", help="json: one object a line, last the record"
    )


def run(args: argparse.Namespace) -> int:
    from migrate.cli import progress
    from migrate.cli.follow import Following
    from migrate.client import Client

    with Client(args.coordinator) as client:
        moving = client.rehearse(
            args.container,
            to=args.to,
            constraints=args.constraint,
            reason=args.reason,
            mode=args.mode,
            max_downtime_s=args.max_downtime,
            compress=args.compress,
            bandwidth=args.bandwidth,
            skip=args.skip,
        )
        return Following(client, moving, progress.view(format=args.format, quiet=args.quiet)).to_the_end()
