"""`migrate commit`: a container becomes an image, as Docker's; of the id of a move under way, that move switches over."""

from __future__ import annotations

import argparse
import json
import re
from typing import TYPE_CHECKING

from migrate.cli.parsers import command

if TYPE_CHECKING:
    from migrate.cli.parsers import Subparsers
    from migrate.client import Client

EXAMPLES = """
migrate commit web1 web:patched
migrate commit -a "Ann <ann@example.org>" -m "with the fix" web1 web:fixed
migrate commit -c 'CMD ["nginx", "-g", "daemon off;"]' -c 'EXPOSE 80' web1 web:2
migrate commit --pause=false web1                 # without a name: prints its digest
migrate commit 4f2a                               # a move that holds (move --hold) switches over
"""


def add_parser(subparsers: Subparsers) -> None:
    parser = command(
        subparsers,
        "commit",
        help="make an image of a container and its changes; or let a move that holds switch over",
        examples=EXAMPLES,
    )
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
    add(
        "container",
        metavar="CONTAINER|MIGRATION",
        help="name, id or the beginning of an id; or id of a move that holds",
    )
    add("image", metavar="REPOSITORY[:TAG]", nargs="?", default="", help="name of the image (default: none)")


def run(args: argparse.Namespace) -> int:
    from migrate.client import Client

    with Client(args.coordinator) as client:
        if not args.image and _is_move(client, args.container):
            print(client.commit_move(args.container))
            return 0
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


def _is_move(client: Client, word: str) -> bool:
    """The beginning of the id of a move under way, and no container's name: that goes first."""
    if not re.fullmatch(r"[0-9a-f]{2,16}", word):
        return False
    if not any(record.id.startswith(word) for record in client.migrations(active=True)):
        return False
    return word not in {container.name for container in client.containers(all=True)}
