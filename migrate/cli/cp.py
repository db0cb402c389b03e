"""`migrate cp`: files between a container and this machine."""

from __future__ import annotations

import argparse
import os
import sys
from collections.abc import Iterator
from typing import TYPE_CHECKING

from migrate.cli.counter import Counter
from migrate.cli.parsers import command

if TYPE_CHECKING:
    from migrate.cli.parsers import Subparsers
    from migrate.client import Client
    from migrate.records_files import Copied

EXAMPLES = """
migrate cp web1:/etc/nginx/nginx.conf .          # the file, into this directory
migrate cp ./site/. web1:/srv/www                # what is in the directory
migrate cp -a web1:/var/lib/data backup          # with users and groups as in the container
migrate cp web1:/var/log - | tar tv              # a tar on stdout
tar c site | migrate cp - web1:/srv              # a tar from stdin, into a directory
"""
_READ_BYTES = 1 << 18


def add_parser(subparsers: Subparsers) -> None:
    parser = command(
        subparsers,
        "cp",
        help="copy files between a container and this machine",
        usage="migrate cp [OPTIONS] CONTAINER:SRC DEST|-\n       migrate cp [OPTIONS] SRC|- CONTAINER:DEST",
        examples=EXAMPLES,
    )
    add = parser.add_argument
    add(
        "-a",
        "--archive",
        action="store_true",
        help="keep the numbers of users and groups (default: yours, or in there root)",
    )
    add("-L", "--follow-link", action="store_true", help="if the source is a link, copy what it leads to")
    add("-q", "--quiet", action="store_true", help="do not say what was copied")
    add("source", metavar="SRC", help="CONTAINER:PATH, a path here, or - for a tar from stdin; DIR/. is what is in DIR")
    add("destination", metavar="DEST", help="a path here, CONTAINER:PATH, or - for a tar to stdout")


def run(args: argparse.Namespace) -> int:
    from migrate.client import Client

    source, destination = split(args.source), split(args.destination)
    if source[0] and destination[0]:
        return _wrong("copying between containers is not supported", "migrate cp web1:/file - | migrate cp - web2:/")
    if not source[0] and not destination[0]:
        return _wrong("one of the two must be in a container", "CONTAINER:PATH, such as web1:/etc")
    if not source[1] or not destination[1]:
        return _wrong("a path is missing after the colon", "web1:/etc")
    with Client(args.coordinator) as client:
        if source[0]:
            return _from(client, source, destination[1], args)
        return _to(client, source[1], destination, args)


def split(text: str) -> tuple[str, str]:
    """Container ("" for a path of this machine) and path, as Docker tells them apart: what begins with / or . is a path."""
    container, colon, path = text.partition(":")
    if not colon or text.startswith(("/", ".")):
        return "", text
    return container, path


def _from(client: Client, source: tuple[str, str], destination: str, args: argparse.Namespace) -> int:
    if destination == "-":
        if sys.stdout.isatty():
            return _wrong("a tar is nothing for a terminal", f"migrate cp {args.source} - | tar x")
        for data in client.read_tar(*source, follow=args.follow_link):
            sys.stdout.buffer.write(data)
        sys.stdout.buffer.flush()
        return 0
    with Counter(args.source, quiet=args.quiet) as counter:
        copied = client.copy_from(
            *source, destination, follow=args.follow_link, archive=args.archive, progress=counter.add
        )
    _say(copied, args.destination, quiet=args.quiet)
    return 0


def _to(client: Client, source: str, destination: tuple[str, str], args: argparse.Namespace) -> int:
    if source == "-":
        if os.isatty(0):
            return _wrong("stdin is a terminal, not a tar", f"tar c FILES | migrate cp - {args.destination}")
        copied = client.write_tar(*destination, _stdin())
        _say(copied, args.destination, quiet=True)
        return 0
    with Counter(source, quiet=args.quiet) as counter:
        copied = client.copy_to(
            destination[0],
            source,
            destination[1],
            follow=args.follow_link,
            archive=args.archive,
            progress=counter.add,
        )
    _say(copied, args.destination, quiet=args.quiet)
    return 0


def _stdin() -> Iterator[bytes]:
    while data := os.read(0, _READ_BYTES):
        yield data


def _say(copied: Copied, where: str, *, quiet: bool) -> None:
    if copied.skipped_count:
        names = ", ".join(copied.skipped) + (", ..." if copied.skipped_count > len(copied.skipped) else "")
        print(f"warning: {copied.skipped_count} device files were left out: {names}", file=sys.stderr)
    if not quiet:
        from migrate.cli import tables

        print(f"Successfully copied {tables.size(copied.bytes)} to {where}", file=sys.stderr)


def _wrong(what: str, hint: str) -> int:
    print(f"error: {what}\nhint: {hint}", file=sys.stderr)
    return 2
