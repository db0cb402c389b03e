"""`migrate load`, `save`, `pull` and `push`: images come and go."""

from __future__ import annotations

import argparse
import os
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager, nullcontext
from pathlib import Path
from typing import TYPE_CHECKING, BinaryIO

from migrate.cli import registry, tables
from migrate.cli.image_progress import Layers
from migrate.cli.parsers import command
from migrate.records import Image, ImageProgress, Pushed

if TYPE_CHECKING:
    from collections.abc import Iterable

    from migrate.cli.parsers import Subparsers
    from migrate.client import Client
    from migrate.records import ImageEvent

LOAD = """
migrate load -i images.tar
docker save web | migrate load --host host1
skopeo copy docker://debian:12 oci-archive:d.tar && migrate load -i d.tar --name debian:12
"""
SAVE = """
migrate save -o web.tar web:1 web:2
migrate save web | docker load
migrate save web --host host1 | zstd > web.tar.zst
"""


PULL = """
migrate pull debian:12
migrate pull registry.example:5000/team/web:1 --host host1
migrate pull 127.0.0.1:5000/web --tls-verify=false
migrate pull registry.example/web --cert company-ca.pem
"""
PUSH = """
migrate tag web registry.example:5000/team/web:1 && migrate push registry.example:5000/team/web:1
migrate push web:1 registry.example/web:stable --host host1
"""


def add_pull(parent: Subparsers, name: str) -> None:
    parser = command(parent, name, help="get an image from a registry; only layers that are missing", examples=PULL)
    parser.add_argument(
        "image", metavar="IMAGE", help="registry.example:5000/team/web:1, debian:12, or with @sha256:..."
    )
    parser.add_argument("--host", default="", help="only on this host (default: on every host)")
    parser.add_argument("-q", "--quiet", action="store_true", help="no progress")
    registry.add_access(parser)


def add_push(parent: Subparsers, name: str) -> None:
    parser = command(parent, name, help="send an image to a registry; only what it does not have", examples=PUSH)
    parser.add_argument("image", metavar="IMAGE", help="name or digest")
    parser.add_argument("destination", metavar="DESTINATION", nargs="?", default="", help="default: as it is called")
    parser.add_argument("--host", default="", help="from this host (default: the first that has it)")
    parser.add_argument("-q", "--quiet", action="store_true", help="no progress")
    registry.add_access(parser)


def pull(client: Client, args: argparse.Namespace) -> int:
    access = registry.access(args, registry.registry_of(args.image))
    follow(client.pull_image(args.image, access=access, host=args.host), "pulled", quiet=args.quiet)
    return 0


def push(client: Client, args: argparse.Namespace) -> int:
    destination = args.destination or args.image
    access = registry.access(args, registry.registry_of(destination))
    events = client.push_image(args.image, destination=destination, access=access, host=args.host)
    follow(events, f"pushed {destination}", quiet=args.quiet)
    return 0


def add_load(parent: Subparsers, name: str) -> None:
    parser = command(parent, name, help="load images from an archive (docker save, OCI layout)", examples=LOAD)
    parser.add_argument(
        "-i", "--input", default="-", metavar="FILE", help="tar, plain or gzip or zstd (default: stdin)"
    )
    parser.add_argument("--name", default="", help="of an image that the archive does not name")
    parser.add_argument("--host", default="", help="only on this host (default: on every host)")
    parser.add_argument("-q", "--quiet", action="store_true", help="no progress")


def add_save(parent: Subparsers, name: str) -> None:
    parser = command(parent, name, help="save images to an archive that docker load reads too", examples=SAVE)
    parser.add_argument("images", metavar="IMAGE", nargs="+", help="name or digest")
    parser.add_argument("-o", "--output", default="-", metavar="FILE", help="where to (default: stdout)")
    parser.add_argument("--host", default="", help="from this host (default: the first that has all of them)")
    parser.add_argument("-q", "--quiet", action="store_true", help="no progress")


def load(client: Client, args: argparse.Namespace) -> int:
    if args.input == "-" and os.isatty(0):
        print("error: stdin is a terminal, not an archive\nhint: migrate load -i FILE", file=sys.stderr)
        return 2
    with nullcontext(sys.stdin.buffer) if args.input == "-" else open(args.input, "rb") as file:
        follow(client.load_images(file, name=args.name, host=args.host), "loaded", quiet=args.quiet)
    return 0


def save(client: Client, args: argparse.Namespace) -> int:
    if args.output == "-" and sys.stdout.isatty():
        print("error: an archive is nothing for a terminal\nhint: migrate save -o FILE IMAGE...", file=sys.stderr)
        return 2
    view = Layers(quiet=args.quiet or args.output == "-")
    total = done = 0
    with output(args.output) as file:
        for piece in client.save_images(args.images, host=args.host):
            if isinstance(piece, int):
                total = piece
                continue
            file.write(piece)
            done += len(piece)
            # Headers and documents come on top of what was announced.
            view.show(_progress(args.output, "writing", done, max(total, done)))
    view.show(_progress(args.output, "done", done, done))
    view.finish()
    return 0


def _progress(name: str, text: str, done: int, total: int) -> ImageProgress:
    return ImageProgress(host="", layer=name, text=text, done_bytes=done, total_bytes=total, unix_ns=time.time_ns())


@contextmanager
def output(name: str) -> Iterator[BinaryIO]:
    """Under its name only when it is whole."""
    if name == "-":
        yield sys.stdout.buffer
        return
    path = Path(name)
    part = path.with_name(f".{path.name}.part-{os.getpid()}")
    try:
        with part.open("xb") as file:
            yield file
        part.replace(path)
    finally:
        part.unlink(missing_ok=True)


def follow(events: Iterable[ImageEvent], verb: str, *, quiet: bool) -> None:
    """Show progress on stderr, and what came of it on stdout, a line a host."""
    view = Layers(quiet=quiet)
    try:
        for event in events:
            if isinstance(event, ImageProgress):
                view.show(event)
                continue
            view.finish()
            if isinstance(event, Image):
                name = event.name.partition("@")[0] or "an image without a name"
                print(f"{event.host}: {verb} {name} {tables.short(event.digest)} {tables.size(event.size_bytes)}")
            elif isinstance(event, Pushed):
                print(f"{event.host}: {verb} {event.digest}")
    finally:
        view.finish()
