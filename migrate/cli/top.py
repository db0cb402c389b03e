"""`migrate top`: the processes of a container."""

from __future__ import annotations

import argparse
import sys
import time
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from migrate.cli import tables, templates
from migrate.cli.parsers import command

if TYPE_CHECKING:
    from migrate.cli.parsers import Subparsers
    from migrate.records import Process

# Heading, field of templates, and the names that ps and Podman have for it.
COLUMNS = (
    ("UID", "UID", ("user", "uid", "euser", "ruser")),
    ("PID", "PID", ("pid",)),
    ("PPID", "PPID", ("ppid",)),
    ("HOST PID", "HostPID", ("hpid",)),
    ("S", "State", ("s", "state", "stat")),
    ("THREADS", "Threads", ("nlwp", "thcount")),
    ("RSS", "RSS", ("rss", "vmrss")),
    ("STIME", "STIME", ("stime", "start", "lstart")),
    ("TIME", "Time", ("time", "cputime")),
    ("COMMAND", "Command", ("args", "cmd", "command", "comm", "ucmd")),
)
_SHORT = ("comm", "ucmd")  # only the program's name


def add_parser(subparsers: Subparsers) -> None:
    parser = command(
        subparsers,
        "top",
        help="list the processes of a container, by its own pids and users",
        usage="migrate top [--format FORMAT] CONTAINER [-o COLUMN,... | COLUMN...]",
        examples=r"""
migrate top web1
migrate top web1 -o pid,rss,args
migrate top web1 pid comm
migrate top --format json web1
migrate top --format 'table {{.PID}}\t{{.Command}}' web1
""",
    )
    templates.add_option(
        parser, text=f"table, json, or a template of {', '.join(f'.{name}' for _, name, _ in COLUMNS)}"
    )
    parser.add_argument("container", metavar="CONTAINER", help="name, id or the beginning of an id")
    parser.add_argument(
        "columns",
        metavar="COLUMN",
        nargs=argparse.REMAINDER,
        help=f"as ps names them: {', '.join(names[0] for _, _, names in COLUMNS)}; -ef and aux: all of them",
    )


def columns(words: Sequence[str]) -> list[str]:
    """Names of columns out of "-o pid,args", "pid args" or "aux"; [] = all. ArgumentTypeError for one that there is not."""
    found: list[str] = []
    given = list(words)
    while given:
        word = given.pop(0)
        if word.startswith("-") and "o" in word:
            word = word.partition("o")[2].lstrip("=") or (given.pop(0) if given else "")
        elif word.startswith("-") or word in ("aux", "ax", "a", "u", "x"):
            continue  # which processes: there are only the container's
        found += [name.partition("=")[0].lower().lstrip("%") for name in word.split(",") if name]
    known = [name for _, _, names in COLUMNS for name in names]
    if unknown := [name for name in found if name not in known]:
        raise argparse.ArgumentTypeError(f"there is no column {unknown[0]!r}; there are {', '.join(known)}")
    return found


def run(args: argparse.Namespace) -> int:
    from migrate.client import Client

    try:
        names = columns(args.columns)
        with Client(args.coordinator) as client:
            found = client.top(args.container)
        rows = [one.to_dict() | fields(one) for one in found]
        picked = [_picked(name) for name in names] or [(heading, name, False) for heading, name, _ in COLUMNS]
        cells = [[_cell(one[name], short=short) for _, name, short in picked] for one in rows]
        print(templates.listing(args.format, rows, [heading for heading, _, _ in picked], cells))
    except argparse.ArgumentTypeError as exc:
        print(f"error: {exc}", file=sys.stderr)
        return 2
    return 0


def fields(one: Process) -> dict[str, Any]:
    """By the names of COLUMNS, as they are shown."""
    shown = (
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
    return dict(zip((name for _, name, _ in COLUMNS), shown, strict=True))


def _picked(column: str) -> tuple[str, str, bool]:
    return next((heading, name, column in _SHORT) for heading, name, names in COLUMNS if column in names)


def _cell(value: Any, *, short: bool) -> Any:
    return str(value).split(" ", 1)[0].rpartition("/")[2] if short else value
