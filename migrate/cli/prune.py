"""`migrate container prune`, `migrate prune` and `migrate system prune` (system.py): what is not used any more goes."""

from __future__ import annotations

import argparse
import sys
from typing import TYPE_CHECKING

from migrate.cli import failures, tables, values
from migrate.cli.parsers import command

if TYPE_CHECKING:
    from migrate.cli.parsers import Subparsers
    from migrate.client import Client
    from migrate.records import Container

STOPPED = ("created", "exited")


def add_parser(subparsers: Subparsers) -> None:
    everything = command(
        subparsers,
        "prune",
        help="remove containers that do not run, and images that nothing names",
        examples="migrate prune\nmigrate prune -f --all --filter until=24h",
    )
    add_everything(everything)
    parser = command(
        subparsers,
        "container",
        help="the verbs of containers as Docker groups them, and prune and exists",
        examples="migrate container prune -f\nmigrate container exists web1",
    )
    inner = parser.add_subparsers(dest="verb", required=True, metavar="VERB")
    prune = command(
        inner,
        "prune",
        help="remove all containers that do not run",
        examples="migrate container prune\nmigrate container prune -f --filter until=24h --filter label!=keep",
    )
    _options(prune)
    exists = command(
        inner,
        "exists",
        help="say by the exit status whether there is such a container: 0 or 1",
        examples="migrate container exists web1 || migrate run -d --name web1 app",
    )
    exists.add_argument("container", metavar="CONTAINER", help="name, id or the beginning of an id")


def add_everything(parser: argparse.ArgumentParser) -> None:
    """Options of `prune` and `system prune`."""
    parser.add_argument("-a", "--all", action="store_true", help="also images with a name that no container uses")
    parser.add_argument("--volumes", action="store_true", help="also anonymous volumes that no container uses")
    _options(parser)


def _options(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("-f", "--force", action="store_true", help="do not ask")
    parser.add_argument(
        "--filter",
        action="append",
        default=[],
        type=condition,
        metavar="KEY=VALUE",
        help="only what is older (until=24h), or has a label (label=KEY[=VALUE], label!=...)",
    )


def condition(text: str) -> tuple[str, str]:
    """("until", "24h") of "until=24h"; ("label!", "keep") of "label!=keep"."""
    key, equals, value = text.partition("=")
    if not equals or key not in ("until", "label", "label!"):
        raise argparse.ArgumentTypeError(f"{text!r}: filters are until=, label= and label!=")
    if key == "until":
        values.instant(value)
    return key, value


def fits(container: Container, conditions: list[tuple[str, str]]) -> bool:
    """Whether all of them hold."""

    def holds(key: str, value: str) -> bool:
        if key == "until":
            return container.created_unix_ns < values.instant(value)
        name, equals, wanted = value.partition("=")
        has = name in container.labels and (not equals or container.labels[name] == wanted)
        return has != (key == "label!")

    return all(holds(key, value) for key, value in conditions)


def run(args: argparse.Namespace) -> int:
    from migrate.client import Client

    only_containers = args.command == "container"
    if only_containers and args.verb == "exists":
        return _exists(args)
    what = "all containers that do not run" + ("" if only_containers else " and all images that nothing names")
    if not only_containers and args.all:
        what = "all containers that do not run and all images that no container uses"
    if not args.force and not _sure(f"This removes {what}. Go on? [y/N] "):
        return 1
    with Client(args.coordinator) as client:
        status = _containers(client, args.filter)
        if not only_containers:
            _images(client, args)
            if args.volumes:
                _volumes(client, args)
    return status


def _exists(args: argparse.Namespace) -> int:
    from migrate.client import Client
    from migrate.errors import NotFound

    with Client(args.coordinator) as client:
        try:
            client.inspect(args.container)
        except NotFound:
            return 1
    return 0


def _sure(question: str) -> bool:
    print(question, end="", file=sys.stderr, flush=True)
    return sys.stdin.readline().strip().lower() in ("y", "yes")


def _containers(client: Client, conditions: list[tuple[str, str]]) -> int:
    """Those of hosts that answer; one that starts or moves meanwhile is left alone."""
    from migrate.errors import MigrateError, WrongState

    status = 0
    for one in client.containers(all=True):
        if one.state not in STOPPED or one.migration_id or not fits(one, conditions):
            continue
        try:
            client.remove(one.id)
            print(f"removed container {one.name} ({tables.short(one.id)})", flush=True)
        except WrongState:
            continue
        except MigrateError as exc:
            status = failures.report(exc, command="prune")
    return status


def _volumes(client: Client, args: argparse.Namespace) -> None:
    if any(key != "label" for key, _ in args.filter):
        return  # volumes have no such filter, as images
    removed, freed = client.prune_volumes(labels=[value for _, value in args.filter])
    for one in removed:
        print(f"{one.host}: removed volume {tables.short(one.name)}")
    print(f"freed {tables.size(freed)} of volumes")


def _images(client: Client, args: argparse.Namespace) -> None:
    until = [values.instant(value) for key, value in args.filter if key == "until"]
    labels = [value for key, value in args.filter if key == "label"]
    if any(key == "label!" for key, _ in args.filter):
        return  # images have no such filter: none is removed that somebody may want to keep
    freed = 0
    done = client.prune_images(all=args.all, before_unix_ns=min(until, default=0), labels=labels)
    for one in done:
        freed += one.freed_bytes
        for name in one.untagged:
            print(f"{one.host}: untagged {name}")
        for digest in one.deleted:
            print(f"{one.host}: deleted {tables.short(digest)}")
    print(f"freed {tables.size(freed)}")
