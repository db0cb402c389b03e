"""`migrate export`: all files of a container as a tar."""

from __future__ import annotations

import argparse
import sys
import time
from typing import TYPE_CHECKING

from migrate.cli.parsers import command

if TYPE_CHECKING:
    from migrate.cli.parsers import Subparsers

_INTERVAL_S = 0.2  # between looks of the counter on a terminal
_PLAIN_S = 5.0  # and elsewhere


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
    with Client(args.coordinator) as client, output(args.output) as file:
        counter = _Counter(args.container, quiet=args.quiet)
        for data in client.export(args.container):
            file.write(data)
            counter.add(len(data))
        file.flush()
        counter.end()
    return 0


class _Counter:
    """Says on stderr how far it is, where that takes long."""

    def __init__(self, name: str, *, quiet: bool) -> None:
        self._name, self._size, self._shown = name, 0, False
        self._terminal = sys.stderr.isatty()
        self._interval_s = _INTERVAL_S if self._terminal else _PLAIN_S
        self._next = float("inf") if quiet else time.monotonic() + self._interval_s

    def add(self, count: int) -> None:
        self._size += count
        if time.monotonic() >= self._next:
            self._next = time.monotonic() + self._interval_s
            self._shown = True
            self._show()

    def end(self) -> None:
        if self._shown:
            self._show()
            if self._terminal:
                print(file=sys.stderr)

    def _show(self) -> None:
        from migrate.cli import tables

        text = f"{self._name}: {tables.size(self._size)} written"
        print(
            f"\r{text}\x1b[K" if self._terminal else text,
            end="" if self._terminal else "\n",
            file=sys.stderr,
            flush=True,
        )
