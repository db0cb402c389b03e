"""`migrate fleet export|import`: the fleet's hosts as TOML. docs/hosts.md"""

from __future__ import annotations

import argparse
import json
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

from migrate.cli.parsers import command

if TYPE_CHECKING:
    from collections.abc import Iterable

    from migrate.cli.parsers import Subparsers
    from migrate.client import Client
    from migrate.records import Host

VERSION = 1
KINDS = {
    "name": str, "address": str, "port": int, "host_keys": list, "login": str, "labels": dict, "cordoned": bool, "cordon_reason": str,
}  # fmt: skip


def add_parser(subparsers: Subparsers) -> None:
    family = command(
        subparsers,
        "fleet",
        help="write the fleet's hosts to a file, or take hosts in from one",
        examples="migrate fleet export > fleet.toml\nmigrate fleet import fleet.toml --dry-run\nmigrate fleet import fleet.toml",
    )
    verbs = family.add_subparsers(dest="action", required=True, metavar="export|import")
    command(
        verbs,
        "export",
        help="print the hosts as TOML: addresses, pinned keys, labels, cordons; no containers and no secrets",
        examples="migrate fleet export > fleet.toml",
    )
    take = command(
        verbs,
        "import",
        help="take in the hosts of a file whose agents answer and trust this fleet, with their labels and cordons; others stay as they are",
        examples="migrate fleet import fleet.toml --dry-run\nmigrate fleet import fleet.toml\nmigrate fleet import - < fleet.toml",
    )
    take.add_argument("file", metavar="FILE", help="- is stdin")
    take.add_argument("--dry-run", action="store_true", help="say what would change")
    take.add_argument("--untested", action="store_true", help="take in also those that do not answer now")


def run(args: argparse.Namespace) -> int:
    from migrate.client import Client

    with Client(args.coordinator) as client:
        if args.action == "export":
            print(text(client.hosts(facts=False)), end="")
            return 0
        raw = sys.stdin.read() if args.file == "-" else Path(args.file).read_text()
        return _import(client, parse(raw, args.file), dry_run=args.dry_run, untested=args.untested)


def text(hosts: Iterable[Host]) -> str:
    """TOML; JSON's strings, numbers, lists and booleans are TOML's."""
    lines = [f"version = {VERSION}\n"]
    for host in hosts:
        lines.append("\n[[hosts]]\n")
        for name in KINDS:
            value: Any = getattr(host, name)
            if name == "labels":
                pairs = ", ".join(f"{json.dumps(key)} = {json.dumps(one)}" for key, one in sorted(value.items()))
                lines.append(f"labels = {{{pairs}}}\n")
            elif value not in ("", False):
                lines.append(f"{name} = {json.dumps(list(value) if isinstance(value, tuple) else value)}\n")
    return "".join(lines)


def parse(raw: str, where: str) -> list[dict[str, Any]]:
    """Every host with all of KINDS. Raises InvalidArgument, naming what is wrong with which."""
    import tomllib

    from migrate.errors import InvalidArgument

    try:
        document = tomllib.loads(raw)
    except tomllib.TOMLDecodeError as exc:
        raise InvalidArgument(f"{where} is not TOML: {exc}") from exc
    if document.get("version") != VERSION:
        raise InvalidArgument(f"{where}: version is {document.get('version')!r}, this program knows {VERSION}")
    found = []
    for number, host in enumerate(document.get("hosts", []), 1):
        for name, value in host.items():
            if name not in KINDS or type(value) is not KINDS[name]:
                what = f"{name} takes a {KINDS[name].__name__}" if name in KINDS else f"unknown field {name!r}"
                raise InvalidArgument(f"{where}: host {number}: {what}", hint=f"known fields: {', '.join(KINDS)}")
        if missing := [name for name in ("name", "address", "host_keys") if not host.get(name)]:
            raise InvalidArgument(f"{where}: host {number}: {', '.join(missing)} is missing")
        found.append({**{name: kind() for name, kind in KINDS.items()}, "port": 22, **host})
    return found


def _import(client: Client, wanted: list[dict[str, Any]], *, dry_run: bool, untested: bool) -> int:
    """One that fails holds up none. 1 where one has."""
    from migrate.errors import MigrateError

    known = {host.name: host for host in client.hosts(facts=False)}
    status = 0
    for one in wanted:
        there = known.get(one["name"])
        differing = [name for name in KINDS if there is not None and _plain(getattr(there, name)) != one[name]]
        if there is not None and not differing:
            print(f"{one['name']}: is there, as it should be")
            continue
        what = "joins" if there is None else f"changes: {', '.join(differing)}"
        if dry_run:
            print(f"{one['name']}: {what}")
            continue
        try:
            client.join_host(
                one["name"],
                one["address"],
                port=one["port"],
                host_keys=one["host_keys"],
                labels=one["labels"],
                login=one["login"],
                untested=untested,
            )
            if one["cordoned"]:
                client.cordon(one["name"], reason=one["cordon_reason"])
            print(f"{one['name']}: {what}")
        except MigrateError as exc:
            status = 1
            print(f"{one['name']}: error: {exc.message}" + (f"\nhint: {exc.hint}" if exc.hint else ""), file=sys.stderr)
    return status


def _plain(value: Any) -> Any:
    return list(value) if isinstance(value, tuple) else value
