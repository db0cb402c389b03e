"""`migrate stats`: what containers use, once or again and again."""

from __future__ import annotations

import argparse
import json
import sys
import time
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

from migrate.cli import tables, templates
from migrate.cli.parsers import command

if TYPE_CHECKING:
    from migrate.cli.parsers import Subparsers
    from migrate.records import Usage

PERIOD_S = 1.0
HEADER = ("CONTAINER ID", "NAME", "HOST", "CPU %", "MEM USAGE / LIMIT", "MEM %", "NET I/O", "BLOCK I/O", "PIDS")
# Docker's names of the columns, for templates.
FIELDS = ("ID", "Name", "Host", "CPUPerc", "MemUsage", "MemPerc", "NetIO", "BlockIO", "PIDs")
HEADINGS = {**dict(zip(FIELDS, HEADER, strict=True)), "Container": "CONTAINER"}
CLEAR = "\033[H\033[J"


def add_parser(subparsers: Subparsers) -> None:
    parser = command(
        subparsers,
        "stats",
        help="show what containers use: processors, memory, network, disks, processes",
        examples=r"""
migrate stats
migrate stats --no-stream web1 web2
migrate stats --no-stream --format json
migrate stats --no-stream --format 'table {{.Name}}\t{{.CPUPerc}}\t{{.MemUsage}}'
""",
    )
    parser.add_argument("--no-stream", action="store_true", help="one table and no more")
    parser.add_argument("-a", "--all", action="store_true", help="accepted: only what runs uses anything")
    parser.add_argument("--no-trunc", action="store_true", help="ids in full")
    templates.add_option(parser, text="table, json (one array a sample), or a template as Docker's")
    parser.add_argument("containers", metavar="CONTAINER", nargs="*", help="default: every container that runs")


def run(args: argparse.Namespace) -> int:
    from migrate.client import Client

    with Client(args.coordinator) as client:
        before = {one.id: one for one in client.stats(*args.containers)}
        while True:
            time.sleep(PERIOD_S)  # the share of processors is one of a span of time
            now = client.stats(*args.containers)
            try:
                show(before, now, args, clear=not args.no_stream and sys.stdout.isatty())
            except argparse.ArgumentTypeError as exc:
                print(f"error: {exc}", file=sys.stderr)
                return 2
            if args.no_stream:
                return 0
            before = {one.id: one for one in now}


def show(before: Mapping[str, Usage], now: Sequence[Usage], args: argparse.Namespace, *, clear: bool) -> None:
    """One sample. Raises ArgumentTypeError for a field that there is not."""
    if args.format == "json":
        print(json.dumps([as_json(before.get(one.id), one) for one in now]), flush=True)
        return
    rows = [row(before.get(one.id), one, truncate=not args.no_trunc) for one in now]
    if args.format == "table":
        text = tables.table(HEADER, rows)
    else:
        found = [
            as_json(before.get(one.id), one) | dict(zip(FIELDS, cells, strict=True))
            for one, cells in zip(now, rows, strict=True)
        ]
        text = templates.show(args.format, [one | {"Container": one["ID"]} for one in found], HEADINGS)
    print((CLEAR if clear else "") + text, flush=True)


def cpu_percent(before: Usage | None, now: Usage) -> float | None:
    """100 = one processor, all the time. None without an earlier sample of the same host: a move starts the counters anew."""
    if before is None or before.host != now.host or now.unix_ns <= before.unix_ns or now.cpu_ns < before.cpu_ns:
        return None
    return 100.0 * (now.cpu_ns - before.cpu_ns) / (now.unix_ns - before.unix_ns)


def as_json(before: Usage | None, now: Usage) -> dict[str, Any]:
    percent = cpu_percent(before, now)
    return now.to_dict() | {"cpu_percent": None if percent is None else round(percent, 2)}


def row(before: Usage | None, now: Usage, *, truncate: bool = True) -> tuple[object, ...]:
    percent = cpu_percent(before, now)
    return (
        tables.short(now.id) if truncate else now.id,
        now.name,
        now.host,
        "-" if percent is None else f"{percent:.2f}%",
        f"{tables.size(now.memory_bytes)} / {tables.size(now.memory_limit_bytes)}",
        f"{100.0 * now.memory_bytes / now.memory_limit_bytes:.2f}%" if now.memory_limit_bytes else "-",
        f"{tables.size(now.network_received_bytes)} / {tables.size(now.network_sent_bytes)}",
        f"{tables.size(now.block_read_bytes)} / {tables.size(now.block_written_bytes)}",
        now.tasks,
    )
