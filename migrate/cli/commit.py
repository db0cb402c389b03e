"""`migrate commit`: a container becomes an image."""

from __future__ import annotations

import argparse
import json
from typing import TYPE_CHECKING

from migrate.cli.parsers import command

if TYPE_CHECKING:
    from migrate.cli.parsers import Subparsers

EXAMPLES = """
migrate commit web1 web:patched
migrate commit -a "Ann <ann@example.org>" -m "with the fix" web1 web:fixed
migrate commit -c 'CMD ["nginx", "-g", "daemon off;"]' -c 'EXPOSE 80' web1 web:2
migrate commit --pause=false web1                 # without a name: prints its digest
"""


def add_parser(subparsers: Subparsers) -> None:
    parser = command(subparsers, "commit", help="make an image of a container and its changes", examples=EXAMPLES)
    add = parser.add_argument
    add("-a", "--author", default="", help='who made it: "Ann <ann@example.org>"')
    add("-m", "--message", default="", help="what was done, for the image's history")
    add(
        "-c",
        "--change",
        action="append",
        default=[],
        metavar="INSTRUCTION",
        help="instruction of a Dockerfile for the image: CMD, ENTRYPOINT, ENV, EXPOSE, LABEL, USER, ...; repeatable",
    )
    # argparse takes these words as they are; a value of its own would swallow the container's name after a mere -p.
    add(
        "-p",
        "--pause",
        "--pause=true",
        "-p=true",
        action="store_true",
        default=True,
        help="pause it meanwhile (default)",
    )
    add("--pause=false", "-p=false", "--no-pause", action="store_false", dest="pause", help="let it run on meanwhile")
    add("--format", choices=("plain", "json"), default="plain", help="json: the image")
    add("container", metavar="CONTAINER", help="name, id or the beginning of an id")
    add("image", metavar="REPOSITORY[:TAG]", nargs="?", default="", help="name of the image (default: none)")


def run(args: argparse.Namespace) -> int:
    from migrate.client import Client

    with Client(args.coordinator) as client:
        image = client.commit(
            args.container,
            args.image,
            author=args.author,
            message=args.message,
            changes=args.change,
            pause=args.pause,
        )
    print(json.dumps(image.to_dict(), indent=2) if args.format == "json" else image.digest)
    return 0
