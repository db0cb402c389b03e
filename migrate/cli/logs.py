"""`migrate logs`."""

from __future__ import annotations

import argparse
import itertools
import sys
from collections import deque
from collections.abc import Iterable, Iterator
from typing import TYPE_CHECKING

from migrate.cli import tables, values
from migrate.cli.parsers import command

if TYPE_CHECKING:
    from migrate.cli.parsers import Subparsers
    from migrate.records import LogLine


def add_parser(subparsers: Subparsers) -> None:
    parser = command(
        subparsers,
        "logs",
        help="print what a container wrote; follows it through a move",
        examples="migrate logs web1\nmigrate logs -f --tail 20 web1\nmigrate logs -t --since 10m --until 5m web1",
    )
    parser.add_argument("-f", "--follow", action="store_true", help="go on with what comes until the container exits")
    parser.add_argument(
        "-n", "--tail", type=values.tail, default=-1, metavar="LINES", help="only the last lines (default: all)"
    )
    parser.add_argument(
        "--since",
        type=values.instant,
        default=0,
        metavar="TIME",
        help="only what is newer: 10m, or 2026-11-24T03:41:00Z",
    )
    parser.add_argument(
        "--until", type=values.instant, default=0, metavar="TIME", help="only what is older: 10m, or a date"
    )
    parser.add_argument("-t", "--timestamps", action="store_true", help="the time before each line")
    parser.add_argument("container", metavar="CONTAINER")


def run(args: argparse.Namespace) -> int:
    from migrate.client import Client

    at_line_start = {"stdout": True, "stderr": True}
    with Client(args.coordinator) as client:
        # The last lines before --until are not the last ones of all.
        tail = -1 if args.until else args.tail
        lines = client.logs(args.container, follow=args.follow, tail=tail, since_unix_ns=args.since)
        for line in _until(lines, args.until, args.tail) if args.until else lines:
            sink = sys.stderr.buffer if line.stream == "stderr" else sys.stdout.buffer
            if args.timestamps and at_line_start.get(line.stream, True):
                sink.write(f"{tables.stamp(line.unix_ns)} ".encode())
            at_line_start[line.stream] = line.data.endswith(b"\n")
            sink.write(line.data)
            sink.flush()
    return 0


def _until(lines: Iterator[LogLine], until_unix_ns: int, tail: int) -> Iterable[LogLine]:
    """Up to that instant; of those the last `tail`, -1 = all."""
    older = itertools.takewhile(lambda line: line.unix_ns <= until_unix_ns, lines)
    return older if tail < 0 else deque(older, maxlen=tail)
