"""`migrate image import|ls|rm`, `migrate images`, `migrate rmi`."""

from __future__ import annotations

import argparse
import json
import os
import sys
from contextlib import nullcontext
from typing import TYPE_CHECKING

from migrate.cli import failures, tables
from migrate.cli.parsers import command

if TYPE_CHECKING:
    from migrate.cli.parsers import Subparsers
    from migrate.client import Client
    from migrate.records import Image

IMPORT = """
migrate image import rootfs.tar base
docker export web | migrate image import - web -c 'CMD ["/bin/server"]' -c 'ENV MODE=prod'
migrate image import app.tar.zst app --host host1 -c 'WORKDIR /srv' -c 'USER www-data'
"""


def add_parser(subparsers: Subparsers) -> None:
    family = command(subparsers, "image", help="import, list and remove images", examples=IMPORT)
    actions = family.add_subparsers(dest="action", required=True, metavar="ACTION")
    add = command(actions, "import", help="import a root file system from a tar", examples=IMPORT)
    add.add_argument("file", metavar="FILE", help="tar, plain or gzip or zstd; - reads stdin")
    add.add_argument("name", metavar="NAME", help="what the image will be called")
    add.add_argument("--host", default="", help="only this host (default: every host)")
    add.add_argument(
        "-c", "--change", action="append", default=[], metavar="LINE", help="a line of a Dockerfile: CMD, ..."
    )
    listing = command(actions, "ls", help="list images", examples="migrate image ls\nmigrate image ls --format json")
    removal = command(
        actions, "rm", help="remove images", examples="migrate image rm base\nmigrate image rm --host host1 base"
    )
    _listing(listing)
    _removal(removal)
    _listing(command(subparsers, "images", help="list images", examples="migrate images\nmigrate images -q"))
    _removal(
        command(subparsers, "rmi", help="remove images", examples="migrate rmi base\nmigrate rmi -f --host host1 base")
    )


def _listing(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("-q", "--quiet", action="store_true", help="print only names")
    parser.add_argument("--format", choices=("table", "json"), default="table")


def _removal(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("images", metavar="IMAGE", nargs="+", help="name or digest")
    parser.add_argument("--host", default="", help="only from this host (default: from every host)")
    parser.add_argument("-f", "--force", action="store_true", help="also where containers were made from it")


def run(args: argparse.Namespace) -> int:
    from migrate.client import Client

    action = {"images": "ls", "rmi": "rm"}.get(args.command) or args.action
    with Client(args.coordinator) as client:
        if action == "import":
            return _import(client, args)
        if action == "rm":
            return _remove(client, args)
        return _list(client.images(), args)


def _import(client: Client, args: argparse.Namespace) -> int:
    from migrate.cli import changes

    try:
        defaults = changes.apply(args.change)
    except argparse.ArgumentTypeError as exc:
        print(f"error: {exc}", file=sys.stderr)
        return 2
    if args.file == "-" and os.isatty(0):
        print(
            "error: stdin is a terminal, not a tar\nhint: docker export web | migrate image import - NAME",
            file=sys.stderr,
        )
        return 2
    with nullcontext(sys.stdin.buffer) if args.file == "-" else open(args.file, "rb") as file:
        for image in client.import_image(file, args.name, host=args.host, defaults=defaults):
            print(f"{image.host}: {image.name} {tables.short(image.digest)} {tables.size(image.size_bytes)}")
    return 0


def _list(images: list[Image], args: argparse.Namespace) -> int:
    images.sort(key=lambda image: (image.name, image.host))
    if args.format == "json":
        json.dump([image.to_dict() for image in images], sys.stdout, indent=2)
        print()
        return 0
    if args.quiet:
        for name in dict.fromkeys(image.name for image in images):
            print(name)
        return 0
    # One line for the same image on several hosts.
    same: dict[tuple[str, str], list[Image]] = {}
    for image in images:
        same.setdefault((image.name, image.digest), []).append(image)
    rows = [
        (
            name,
            tables.short(digest),
            ",".join(one.host for one in found),
            tables.size(found[0].size_bytes),
            f"{tables.ago(found[0].created_unix_ns)} ago",
        )
        for (name, digest), found in same.items()
    ]
    print(tables.table(("IMAGE", "DIGEST", "HOSTS", "SIZE", "CREATED"), rows))
    return 0


def _remove(client: Client, args: argparse.Namespace) -> int:
    from migrate.errors import MigrateError

    status = 0
    for name in args.images:
        try:
            layers = client.remove_image(name, host=args.host, force=args.force)
        except MigrateError as exc:
            status = failures.report(exc, command="rmi")
            continue
        print(f"removed {name}, and {len(layers)} layer{'' if len(layers) == 1 else 's'} that nothing else uses")
    return status
