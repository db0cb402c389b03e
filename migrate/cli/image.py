"""`migrate image ACTION`, and the short forms that Docker's users type: images, load, save, ..."""

from __future__ import annotations

import argparse
import os
import sys
from collections.abc import Callable
from contextlib import nullcontext
from typing import TYPE_CHECKING

from migrate.cli import image_filters, image_transfer, tables, templates
from migrate.cli.parsers import command

if TYPE_CHECKING:
    from migrate.cli.parsers import Subparsers
    from migrate.client import Client
    from migrate.records import RemovedImages

IMPORT = """
migrate import rootfs.tar base
docker export web | migrate import - web -c 'CMD ["/bin/server"]' -c 'ENV MODE=prod'
migrate import app.tar.zst app --host host1 -c 'WORKDIR /srv' -c 'USER www-data'
"""
BOOTSTRAP = """
migrate image bootstrap debian:12
migrate image bootstrap debian:13 --host host1
migrate image bootstrap debian:12 --name base --include ca-certificates,curl
"""
LS = """
migrate images
migrate images redis --digests --no-trunc
migrate images --filter dangling=true -q
migrate images --filter label=tier=web --format json
migrate images --format '{{.Repository}}:{{.Tag}} {{.Size}}'
"""
INSPECT = """
migrate image inspect redis
migrate image inspect -f '{{join .Config.Cmd " "}}' redis
migrate image inspect redis --host host1 | jq '.[0].config.Env'
"""
HISTORY = """
migrate history web
migrate history --no-trunc --format json web
migrate history --format '{{.CreatedBy}}' web
"""
TAG = """
migrate tag web:latest web:stable
migrate tag web registry.example.com/team/web:1.4
"""
RM = """
migrate rmi base
migrate rmi 3f1c0a9d2b7e                   by digest: an image with one name, or -f
migrate rmi -f --host host1 base           although containers use it
migrate rmi $(migrate images -q --filter dangling=true)
"""
PRUNE = """
migrate image prune                        images without a tag that no container uses
migrate image prune -a --filter until=30d
migrate image prune -a -f --host host1
"""


def add_parser(subparsers: Subparsers) -> None:
    family = command(subparsers, "image", help="import, list, inspect, tag and remove images", examples=IMPORT)
    actions = family.add_subparsers(dest="action", required=True, metavar="ACTION")
    for place, name, _, add in _commands():
        for parent in [actions] if place == "image" else [subparsers, actions] if place == "both" else [subparsers]:
            add(parent, name)


def _commands() -> list[tuple[str, str, str, Callable[[Subparsers, str], None]]]:
    """Where it stands ("image": below `migrate image`, "top", "both"), its name, what it does, and its parser."""
    return [
        ("both", "import", "import", _add_import),
        ("image", "bootstrap", "bootstrap", _add_bootstrap),
        ("both", "load", "load", image_transfer.add_load),
        ("both", "save", "save", image_transfer.add_save),
        ("both", "pull", "pull", image_transfer.add_pull),
        ("both", "push", "push", image_transfer.add_push),
        ("image", "ls", "ls", _add_ls),
        ("top", "images", "ls", _add_ls),
        ("image", "inspect", "inspect", _add_inspect),
        ("both", "history", "history", _add_history),
        ("both", "tag", "tag", _add_tag),
        ("image", "rm", "rm", _add_rm),
        ("top", "rmi", "rm", _add_rm),
        ("image", "prune", "prune", _add_prune),
        ("image", "exists", "exists", _add_exists),
    ]


def _add_import(parent: Subparsers, name: str) -> None:
    parser = command(parent, name, help="import a root file system from a tar", examples=IMPORT)
    parser.add_argument("file", metavar="FILE", help="tar, plain or gzip or zstd; - reads stdin")
    parser.add_argument("name", metavar="NAME", help="what the image will be called")
    parser.add_argument("--host", default="", help="only this host (default: every host)")
    parser.add_argument(
        "-c", "--change", action="append", default=[], metavar="LINE", help="a line of a Dockerfile: CMD, EXPOSE, ..."
    )


def _add_bootstrap(parent: Subparsers, name: str) -> None:
    parser = command(parent, name, help="make a base image of Debian's packages, on this machine", examples=BOOTSTRAP)
    parser.add_argument("debian", metavar="DEBIAN", help="debian:12, debian:bookworm: a number or a suite")
    parser.add_argument("--name", default="", help="what the image will be called (default: as DEBIAN)")
    parser.add_argument("--include", default="", metavar="PACKAGE,...", help="also these packages")
    parser.add_argument("--host", default="", help="only on this host (default: on every host)")
    parser.add_argument("-q", "--quiet", action="store_true", help="no progress")


def _add_ls(parent: Subparsers, name: str) -> None:
    parser = command(parent, name, help="list images", examples=LS)
    parser.add_argument("repository", metavar="NAME", nargs="?", help="only these: web, web:1, 'team/*'")
    parser.add_argument("-q", "--quiet", action="store_true", help="print only digests")
    parser.add_argument(
        "-f", "--filter", action="append", default=[], type=image_filters.pair, help=image_filters.LISTED
    )
    parser.add_argument("--digests", action="store_true", help="also the digest that a registry knows the image by")
    parser.add_argument("--no-trunc", action="store_true", help="whole digests")
    parser.add_argument("-a", "--all", action="store_true", help="accepted: there are no hidden images")
    parser.add_argument("--host", default="", help="only of this host")
    templates.add_option(parser)


def _add_inspect(parent: Subparsers, name: str) -> None:
    parser = command(parent, name, help="print all that is known of images, as JSON", examples=INSPECT)
    parser.add_argument("images", metavar="IMAGE", nargs="+", help="name or digest")
    parser.add_argument("--host", default="", help="as this host has it")
    templates.add_option(
        parser,
        "-f",
        "--format",
        default="json",
        text="json, or a template with our fields or Docker's: '{{.Config.Env}}'",
    )


def _add_history(parent: Subparsers, name: str) -> None:
    parser = command(parent, name, help="show how an image was made, newest step first", examples=HISTORY)
    parser.add_argument("image", metavar="IMAGE", help="name or digest")
    parser.add_argument("-q", "--quiet", action="store_true", help="print only the layers")
    parser.add_argument("--no-trunc", action="store_true", help="whole digests and whole lines")
    parser.add_argument("--host", default="", help="as this host has it")
    templates.add_option(parser)


def _add_tag(parent: Subparsers, name: str) -> None:
    parser = command(parent, name, help="give an image another name", examples=TAG)
    parser.add_argument("image", metavar="IMAGE", help="name or digest")
    parser.add_argument("tag", metavar="NAME[:TAG]", help="the new name; it moves if another image has it")
    parser.add_argument("--host", default="", help="only on this host (default: on every host that has it)")


def _add_rm(parent: Subparsers, name: str) -> None:
    parser = command(parent, name, help="remove images", examples=RM)
    parser.add_argument("images", metavar="IMAGE", nargs="+", help="name or digest")
    parser.add_argument("--host", default="", help="only from this host (default: from every host)")
    parser.add_argument(
        "-f", "--force", action="store_true", help="also where containers use it, and by digest with all its names"
    )


def _add_prune(parent: Subparsers, name: str) -> None:
    parser = command(
        parent, name, help="remove images that nobody needs, and layers that nothing names", examples=PRUNE
    )
    parser.add_argument("-a", "--all", action="store_true", help="also images with a tag, where no container uses them")
    parser.add_argument("-f", "--force", action="store_true", help="do not ask")
    parser.add_argument("--filter", action="append", default=[], type=image_filters.pair, help=image_filters.PRUNED)
    parser.add_argument("--host", default="", help="only on this host (default: on every host)")


def _add_exists(parent: Subparsers, name: str) -> None:
    parser = command(
        parent,
        name,
        help="say by the exit status whether a host has such an image: 0 or 1",
        examples="migrate image exists app:1 || migrate pull app:1",
    )
    parser.add_argument("image", metavar="IMAGE", help="name or digest")
    parser.add_argument("--host", default="", help="whether this host has it")


def run(args: argparse.Namespace) -> int:
    from migrate.cli import image_show
    from migrate.client import Client

    name = args.action if args.command == "image" else args.command
    action = next(does for _, called, does, _ in _commands() if called == name)
    handler: Callable[[Client, argparse.Namespace], int] = {
        "import": _import,
        "bootstrap": _bootstrap,
        "load": image_transfer.load,
        "save": image_transfer.save,
        "pull": image_transfer.pull,
        "push": image_transfer.push,
        "ls": image_show.images,
        "inspect": image_show.inspect,
        "history": image_show.history,
        "tag": _tag,
        "rm": _remove,
        "prune": _prune,
        "exists": _exists,
    }[action]
    try:
        with Client(args.coordinator) as client:
            return handler(client, args)
    except argparse.ArgumentTypeError as exc:  # of a filter or a change
        print(f"error: {exc}\nhint: migrate {args.command} --help", file=sys.stderr)
        return 2


def _import(client: Client, args: argparse.Namespace) -> int:
    from migrate.cli import changes

    defaults = changes.apply(args.change)
    if args.file == "-" and os.isatty(0):
        print(
            "error: stdin is a terminal, not a tar\nhint: docker export web | migrate import - NAME",
            file=sys.stderr,
        )
        return 2
    with nullcontext(sys.stdin.buffer) if args.file == "-" else open(args.file, "rb") as file:
        for image in client.import_image(file, args.name, host=args.host, defaults=defaults):
            print(f"{image.host}: {image.name} {tables.short(image.digest)} {tables.size(image.size_bytes)}")
    return 0


def _bootstrap(client: Client, args: argparse.Namespace) -> int:
    import time

    from migrate import debian
    from migrate.cli.image_progress import Layers
    from migrate.records import ImageDefaults, ImageProgress

    name = args.name or args.debian
    view = Layers(quiet=args.quiet)

    def report(text: str) -> None:
        view.show(ImageProgress(host="", layer=name, text=text, done_bytes=0, total_bytes=0, unix_ns=time.time_ns()))

    include = [word for word in args.include.split(",") if word]
    path = debian.base(args.debian, include=include, report=report)
    report("sending to the hosts")
    created_by = f"migrate image bootstrap {args.debian}" + (f" --include {args.include}" if include else "")
    defaults = ImageDefaults(cmd=("bash",), env=(debian.PATH,))
    with path.open("rb") as file:
        images = client.import_image(file, name, host=args.host, defaults=defaults, created_by=created_by)
    view.finish()
    for image in images:
        print(f"{image.host}: {image.name} {tables.short(image.digest)} {tables.size(image.size_bytes)}")
    return 0


def _tag(client: Client, args: argparse.Namespace) -> int:
    for image in client.tag_image(args.image, args.tag, host=args.host):
        print(f"{image.host}: {image.name} {tables.short(image.digest)}")
    return 0


def _remove(client: Client, args: argparse.Namespace) -> int:
    from migrate.cli import failures
    from migrate.errors import MigrateError, NotFound

    status = 0
    for name in args.images:
        try:
            gone = client.remove_image(name, host=args.host, force=args.force)
        except NotFound as exc:
            failure = failures.report(exc, command="rmi")
            status = status if args.force else failure  # as Docker: with -f what is not there is said, and no failure
            continue
        except MigrateError as exc:
            status = failures.report(exc, command="rmi")
            continue
        _say(gone)
        print(f"removed {name}, and {_layers(gone)} that nothing else uses")
    return status


def _prune(client: Client, args: argparse.Namespace) -> int:
    before_unix_ns, labels = image_filters.prune(args.filter)
    if not args.force:
        what = "every image that no container uses" if args.all else "every image without a tag that no container uses"
        where = f"on {args.host}" if args.host else "on every host"
        if not sys.stdin.isatty():
            print(f"error: this removes {what} {where}\nhint: migrate image prune -f", file=sys.stderr)
            return 2
        if input(f"This removes {what} {where}. Go on? [y/N] ").strip().lower() not in ("y", "yes"):
            return 1
    for gone in client.prune_images(all=args.all, before_unix_ns=before_unix_ns, labels=labels, host=args.host):
        _say(gone)
        print(f"{gone.host}: {tables.size(gone.freed_bytes)} free again, {_layers(gone)} removed")
    return 0


def _exists(client: Client, args: argparse.Namespace) -> int:
    from migrate.errors import NotFound

    try:
        client.inspect_image(args.image, host=args.host)
    except NotFound:
        return 1
    return 0


def _say(gone: RemovedImages) -> None:
    for name in gone.untagged:
        print(f"Untagged: {name}")
    for digest in gone.deleted:
        print(f"Deleted: {digest}")


def _layers(gone: RemovedImages) -> str:
    return f"{len(gone.layers)} layer{'' if len(gone.layers) == 1 else 's'}"
