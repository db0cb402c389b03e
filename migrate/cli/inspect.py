"""`migrate inspect`."""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

from migrate.cli import container_fields, failures, templates
from migrate.cli.parsers import command

if TYPE_CHECKING:
    from migrate.cli.parsers import Subparsers
    from migrate.client import Client


def add_parser(subparsers: Subparsers) -> None:
    parser = command(
        subparsers,
        "inspect",
        help="print everything known about containers, images and volumes, as a JSON array",
        examples="""
migrate inspect web1
migrate inspect -f '{{.State.Health.Status}}' web1
migrate inspect -f '{{range .Mounts}}{{.Destination}} {{end}}' web1
migrate inspect --type image debian:12
migrate inspect web1 | jq -r .[0].host
""",
    )
    templates.add_option(
        parser,
        "-f",
        "--format",
        default="json",
        text="json, or a template with our fields or Docker's: '{{.State.Status}} {{.RestartCount}}'",
    )
    parser.add_argument(
        "--type",
        choices=("container", "image", "volume"),
        default="",
        help="what the names mean (default: a container, else an image, else a volume)",
    )
    parser.add_argument("-s", "--size", action="store_true", help="with the size of the writable layer")
    parser.add_argument("containers", metavar="CONTAINER", nargs="+", help="name, id or the beginning of an id")


def run(args: argparse.Namespace) -> int:
    from migrate.client import Client
    from migrate.errors import MigrateError

    found: list[dict[str, Any]] = []
    status = 0
    with Client(args.coordinator) as client:
        for name in args.containers:
            try:
                for fields in _look(client, name, args):
                    if args.format != "json":
                        print(templates.line(args.format, fields))
                    found.append(fields)
            except argparse.ArgumentTypeError as exc:
                print(f"error: {exc}", file=sys.stderr)
                return 2
            except MigrateError as exc:
                status = failures.report(exc, command="inspect")
    if args.format != "json":
        return status
    json.dump(found, sys.stdout, indent=2)
    print()
    return status


def _look(client: Client, name: str, args: argparse.Namespace) -> list[dict[str, Any]]:
    """What `name` means: of the first kind that has it. The error is that of the first kind."""
    from migrate.cli import image_show, volume
    from migrate.errors import NotFound

    def container() -> list[dict[str, Any]]:
        one = client.inspect(name)
        if args.size:
            one = next((same for same in client.containers(all=True, size=True) if same.id == one.id), one)
        return [container_fields.inspected(one) | ({"SizeRw": one.layer_bytes} if args.size else {})]

    ways: dict[str, Callable[[], list[dict[str, Any]]]] = {
        "container": container,
        "image": lambda: image_show.looked_at(client, name),
        "volume": lambda: [volume.fields(one) for one in client.inspect_volume(name)],
    }
    first: NotFound | None = None
    for kind in [args.type] if args.type else ways:
        try:
            return ways[kind]()
        except NotFound as exc:
            first = first or exc
    assert first is not None, "there is at least one kind"
    raise first
