"""`migrate stats`: what containers use, once or again and again."""

from __future__ import annotations

import argparse
import json
import sys
import time
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

from migrate.cli import tables
from migrate.cli.parsers import command

if TYPE_CHECKING:
    from migrate.cli.parsers import Subparsers
    from migrate.records import Usage

PERIOD_S = 1.0
HEADER = ("CONTAINER ID", "NAME", "HOST", "CPU %", "MEM USAGE / LIMIT", "MEM %", "NET I/O", "BLOCK I/O", "PIDS")
CLEAR = "\033[H\033[J"


def add_parser(subparsers: Subparsers) -> None:
    parser = command(
        subparsers,
        "stats",
        help="show what containers use: processors, memory, network, disks, processes",
        examples="""
migrate stats
migrate stats --no-stream web1 web2
migrate stats --no-stream --format json
""",
    )
    parser.add_argument("--no-stream", action="store_true", help="one table and no more")
    parser.add_argument("--format", choices=("table", "json"), default="table", help="json: one array a sample")
    parser.add_argument("containers", metavar="CONTAINER", nargs="*", help="default: every container that runs")


def run(args: argparse.Namespace) -> int:
    from migrate.client import Client

    with Client(args.coordinator) as client:
        before = {one.id: one for one in client.stats(*args.containers)}
        while True:
            time.sleep(PERIOD_S)  # the share of processors is one of a span of time
            now = client.stats(*args.containers)
            show(before, now, args.format, clear=not args.no_stream and sys.stdout.isatty())
            if args.no_stream:
                return 0
            before = {one.id: one for one in now}


def show(before: Mapping[str, Usage], now: Sequence[Usage], form: str, *, clear: bool) -> None:
    if form == "json":
        print(json.dumps([as_json(before.get(one.id), one) for one in now]), flush=True)
        return
    rows = [row(before.get(one.id), one) for one in now]
    print((CLEAR if clear else "") + tables.table(HEADER, rows), flush=True)


def cpu_percent(before: Usage | None, now: Usage) -> float | None:
    """100 = one processor, all the time. None without an earlier sample of the same host: a move starts the counters anew."""
    if before is None or before.host != now.host or now.unix_ns <= before.unix_ns or now.cpu_ns < before.cpu_ns:
        return None
    return 100.0 * (now.cpu_ns - before.cpu_ns) / (now.unix_ns - before.unix_ns)


def as_json(before: Usage | None, now: Usage) -> dict[str, Any]:
    percent = cpu_percent(before, now)
    return now.to_dict() | {"cpu_percent": None if percent is None else round(percent, 2)}


def row(before: Usage | None, now: Usage) -> tuple[object, ...]:
    percent = cpu_percent(before, now)
    return (
        tables.short(now.id),
        now.name,
        now.host,
        "-" if percent is None else f"{percent:.2f}%",
        f"{tables.size(now.memory_bytes)} / {tables.size(now.memory_limit_bytes)}",
        f"{100.0 * now.memory_bytes / now.memory_limit_bytes:.2f}%" if now.memory_limit_bytes else "-",
        f"{tables.size(now.network_received_bytes)} / {tables.size(now.network_sent_bytes)}",
        f"{tables.size(now.block_read_bytes)} / {tables.size(now.block_written_bytes)}",
        now.tasks,
    )
