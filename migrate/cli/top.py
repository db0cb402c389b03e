"""`migrate top`: the processes of a container."""

from __future__ import annotations

import argparse
import json
import sys
import time
from typing import TYPE_CHECKING

from migrate.cli import tables
from migrate.cli.parsers import command

if TYPE_CHECKING:
    from migrate.cli.parsers import Subparsers


def add_parser(subparsers: Subparsers) -> None:
    parser = command(
        subparsers,
        "top",
        help="list the processes of a container, by its own pids and users",
        examples="migrate top web1\nmigrate top --format json web1",
    )
    parser.add_argument("--format", choices=("table", "json"), default="table")
    parser.add_argument("container", metavar="CONTAINER", help="name, id or the beginning of an id")


def run(args: argparse.Namespace) -> int:
    from migrate.client import Client

    with Client(args.coordinator) as client:
        found = client.top(args.container)
    if args.format == "json":
        json.dump([one.to_dict() for one in found], sys.stdout, indent=2)
        print()
        return 0
    rows = [
        (
            one.user,
            one.pid,
            one.parent,
            one.host_pid,
            one.state,
            one.threads,
            tables.size(one.resident_bytes),
            time.strftime("%H:%M:%S", time.localtime(one.started_unix_ns / 1e9)),
            f"{int(one.cpu_s) // 60}:{one.cpu_s % 60:05.2f}",
            one.command,
        )
        for one in found
    ]
    print(tables.table(("UID", "PID", "PPID", "HOST PID", "S", "THREADS", "RSS", "STIME", "TIME", "COMMAND"), rows))
    return 0
