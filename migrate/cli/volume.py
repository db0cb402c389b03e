"""`migrate volume ACTION`."""

from __future__ import annotations

import argparse
import fnmatch
import json
import sys
from argparse import ArgumentTypeError
from typing import TYPE_CHECKING, Any

from migrate.cli import failures, tables, templates, values
from migrate.cli.parsers import command

if TYPE_CHECKING:
    from migrate.cli.parsers import Subparsers
    from migrate.client import Client
    from migrate.records import Volume

CREATE = """
migrate volume create data
migrate volume create --host host1 --label tier=web data
migrate volume create --shared /mnt/nfs/data data      the same file system on every host: a move copies nothing
"""
LS = """
migrate volume ls --format '{{.Name}} {{.Host}}'
migrate volume ls
migrate volume ls -q --filter dangling=true
migrate volume ls --format json
"""
INSPECT = "migrate volume inspect data | jq '.[0].path'"
RM = "migrate volume rm data logs\nmigrate volume rm -f --host host1 data"
PRUNE = """
migrate volume prune                anonymous volumes that no container uses
migrate volume prune -a -f          named ones too, without asking
migrate volume prune --filter label=tier=test
"""
FILTERS = "name=PATTERN, dangling=true|false, label=KEY[=VALUE], host=HOST"


def add_parser(subparsers: Subparsers) -> None:
    family = command(subparsers, "volume", help="create, list, inspect, remove and prune volumes", examples=CREATE)
    actions = family.add_subparsers(dest="action", required=True, metavar="ACTION")
    create = command(actions, "create", help="create a volume", examples=CREATE)
    create.add_argument("name", metavar="NAME", nargs="?", default="", help="letters, digits, _ . - (default: made up)")
    create.add_argument("--host", default="", help="only on this host (default: on every host)")
    create.add_argument("--label", action="append", default=[], metavar="KEY=VALUE", help="label; repeatable")
    create.add_argument(
        "--shared", default="", metavar="PATH", help="its files are this directory, the same file system on every host"
    )
    create.add_argument(
        "-o", "--opt", action="append", default=[], type=option, metavar="shared=PATH", help="as --shared"
    )
    create.add_argument("-d", "--driver", choices=("local",), default="local", help="accepted: there is one")
    ls = command(actions, "ls", help="list volumes", examples=LS)
    ls.add_argument("-q", "--quiet", action="store_true", help="print only names")
    ls.add_argument("-f", "--filter", action="append", default=[], type=pair, metavar="KEY=VALUE", help=FILTERS)
    ls.add_argument("--host", default="", help="only of this host")
    templates.add_option(ls, text="table, json, or '{{.Name}}'")
    inspect = command(actions, "inspect", help="print all that is known of volumes, as JSON", examples=INSPECT)
    templates.add_option(inspect, "-f", "--format", default="json", text="json, or '{{.Mountpoint}}'")
    remove = command(actions, "rm", help="remove volumes that no container uses", examples=RM)
    remove.add_argument("-f", "--force", action="store_true", help="one that is not there is no error")
    for parser in (inspect, remove):
        parser.add_argument("volumes", metavar="VOLUME", nargs="+", help="name")
        parser.add_argument("--host", default="", help="only on this host (default: wherever it is)")
    exists = command(
        actions,
        "exists",
        help="say by the exit status whether there is such a volume: 0 or 1",
        examples="migrate volume exists data || migrate volume create data",
    )
    exists.add_argument("volume", metavar="VOLUME", help="name")
    exists.add_argument("--host", default="", help="whether this host has it")
    prune = command(actions, "prune", help="remove anonymous volumes that no container uses", examples=PRUNE)
    prune.add_argument("-a", "--all", action="store_true", help="named ones too")
    prune.add_argument("-f", "--force", action="store_true", help="do not ask")
    prune.add_argument(
        "--filter", action="append", default=[], type=pair, metavar="KEY=VALUE", help="label=KEY[=VALUE]"
    )
    prune.add_argument("--host", default="", help="only on this host")


def _exists(client: Client, args: argparse.Namespace) -> int:
    from migrate.errors import NotFound

    try:
        client.inspect_volume(args.volume, host=args.host)
    except NotFound:
        return 1
    return 0


def option(text: str) -> str:
    key, equals, value = text.partition("=")
    if key != "shared" or not equals or not value.startswith("/"):
        raise ArgumentTypeError(f"{text!r} is not shared=PATH, the only option there is")
    return value


def pair(text: str) -> tuple[str, str]:
    key, equals, value = text.partition("=")
    if not equals or not value:
        raise ArgumentTypeError(f"{text!r} is not KEY=VALUE")
    return key, value


def run(args: argparse.Namespace) -> int:
    from migrate.client import Client

    verbs = {"create": _create, "ls": _ls, "inspect": _inspect, "rm": _rm, "prune": _prune, "exists": _exists}
    action = verbs[args.action]
    with Client(args.coordinator) as client:
        try:
            return action(client, args)
        except ArgumentTypeError as exc:
            print(f"error: {exc}", file=sys.stderr)
            return 2


def _create(client: Client, args: argparse.Namespace) -> int:
    shared = {path for path in (args.shared, *args.opt) if path}
    if len(shared) > 1:
        raise ArgumentTypeError(f"a volume is shared from one directory, not from {' and '.join(sorted(shared))}")
    made = client.create_volume(
        args.name, host=args.host, labels=values.labels(args.label), shared=shared.pop() if shared else ""
    )
    print(made[0].name)
    return 0


def _ls(client: Client, args: argparse.Namespace) -> int:
    found = [one for one in client.volumes(host=args.host) if passes(one, args.filter)]
    if args.quiet:
        for name in dict.fromkeys(one.name for one in found):
            print(name)
    elif args.format == "json":
        print(json.dumps([fields(one) for one in found], indent=2))
    elif args.format != "table":
        if text := templates.show(args.format, [fields(one) for one in found]):
            print(text)
    else:
        rows = [
            (one.name, one.host, one.shared or "-", ", ".join(one.used_by) or "-", tables.ago(one.created_unix_ns))
            for one in found
        ]
        print(tables.table(("VOLUME NAME", "HOST", "SHARED", "USED BY", "AGE"), rows))
    return 0


def fields(volume: Volume) -> dict[str, Any]:
    """Ours and Docker's."""
    return volume.to_dict() | {
        "Name": volume.name,
        "Driver": "local",
        "Scope": "global" if volume.shared else "local",
        "Mountpoint": volume.path,
        "Labels": dict(volume.labels),
        "CreatedAt": tables.stamp(volume.created_unix_ns),
        "Host": volume.host,
        "UsedBy": ",".join(volume.used_by),
    }


def passes(volume: Volume, filters: list[tuple[str, str]]) -> bool:
    """Several of one key: any of them. Raises ArgumentTypeError for a key that there is not."""
    return all(
        any(_passes(volume, key, value) for name, value in filters if name == key)
        for key in dict.fromkeys(key for key, _ in filters)
    )


def _passes(volume: Volume, key: str, value: str) -> bool:
    if key == "name":
        return value in volume.name or fnmatch.fnmatchcase(volume.name, value)
    if key == "dangling":
        if value not in ("true", "false", "1", "0"):
            raise ArgumentTypeError(f"dangling={value}: it takes true or false")
        return (not volume.used_by) == (value in ("true", "1"))
    if key == "label":
        label, equals, text = value.partition("=")
        return label in volume.labels and (not equals or volume.labels[label] == text)
    if key == "host":
        return volume.host == value
    if key == "driver":
        return value == "local"
    raise ArgumentTypeError(f"there is no filter {key!r}; known are {FILTERS}")


def _inspect(client: Client, args: argparse.Namespace) -> int:
    from migrate.errors import MigrateError

    status = 0
    found: list[Volume] = []
    for name in args.volumes:
        try:
            found += client.inspect_volume(name, host=args.host)
        except MigrateError as exc:
            status = failures.report(exc, command="volume")
    if args.format == "json":
        print(json.dumps([fields(one) for one in found], indent=2))
    elif text := templates.show(args.format, [fields(one) for one in found]):
        print(text)
    return status


def _rm(client: Client, args: argparse.Namespace) -> int:
    from migrate.errors import MigrateError

    status = 0
    for name in args.volumes:
        try:
            client.remove_volume(name, host=args.host, force=args.force)
            print(name, flush=True)
        except MigrateError as exc:
            status = failures.report(exc, command="volume")
    return status


def _prune(client: Client, args: argparse.Namespace) -> int:
    labels = [value for _, value in args.filter]
    if unknown := [key for key, _ in args.filter if key != "label"]:
        raise ArgumentTypeError(f"there is no filter {unknown[0]!r}; known is label=KEY[=VALUE]")
    if not args.force:
        which = "all volumes" if args.all else "anonymous volumes"
        print(f"This removes {which} that no container uses. Go on? [y/N] ", end="", flush=True)
        if sys.stdin.readline().strip().lower() not in ("y", "yes"):
            return 1
    removed, freed_bytes = client.prune_volumes(all=args.all, labels=labels, host=args.host)
    for one in removed:
        print(f"{one.name}  {one.host}")
    print(f"Total reclaimed space: {tables.size(freed_bytes)}")
    return 0
