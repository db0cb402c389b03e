"""`migrate version`."""

from __future__ import annotations

import argparse
import json
import sys
from typing import TYPE_CHECKING, Any

import migrate
from migrate.cli import failures, templates
from migrate.cli.parsers import command

if TYPE_CHECKING:
    from migrate.cli.parsers import Subparsers


def add_parser(subparsers: Subparsers) -> None:
    parser = command(
        subparsers,
        "version",
        help="print the version of the client and the coordinator",
        examples="migrate version\nmigrate version --client\nmigrate version --format json\nmigrate version -f '{{.Server.Version}}'",
    )
    parser.add_argument("--client", action="store_true", help="do not ask the coordinator")
    templates.add_option(
        parser, "-f", "--format", text="table, json, or a template: '{{.Client.Version}} {{.Server.Version}}'"
    )


def run(args: argparse.Namespace) -> int:
    answer: dict[str, Any] = {"client": migrate.__version__}
    status = 0
    if not args.client:
        from migrate.client import Client
        from migrate.errors import MigrateError

        try:
            with Client(args.coordinator) as client:
                reply = client.version()
            answer |= {"coordinator": reply.version, "protocol": reply.protocol, "fleet": reply.fleet}
        except MigrateError as exc:
            status = failures.report(exc, command="version")
    if args.format == "json":
        print(json.dumps(answer))
    elif args.format != "table":
        sides = {"Client": {"Version": migrate.__version__}, "Server": {"Version": answer.get("coordinator", "")}}
        try:
            print(templates.line(args.format, answer | sides))
        except argparse.ArgumentTypeError as exc:
            print(f"error: {exc}", file=sys.stderr)
            return 2
    else:
        for key, value in answer.items():
            print(f"{key + ':':<13}{value}")
    return status
