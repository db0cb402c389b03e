"""`migrate inspect`."""

from __future__ import annotations

import argparse
import json
import sys
from typing import TYPE_CHECKING, Any

from migrate.cli import container_fields, failures, templates
from migrate.cli.parsers import command

if TYPE_CHECKING:
    from migrate.cli.parsers import Subparsers


def add_parser(subparsers: Subparsers) -> None:
    parser = command(
        subparsers,
        "inspect",
        help="print everything known about containers, as a JSON array",
        examples="migrate inspect web1\nmigrate inspect -f '{{.State.Health.Status}}' web1\nmigrate inspect web1 | jq -r .[0].host",
    )
    parser.add_argument(
        "-f",
        "--format",
        type=templates.form,
        default="json",
        metavar="FORMAT",
        help="json, or a template with our fields or Docker's: '{{.State.Status}} {{.RestartCount}}'",
    )
    parser.add_argument("containers", metavar="CONTAINER", nargs="+", help="name, id or the beginning of an id")


def run(args: argparse.Namespace) -> int:
    from migrate.client import Client
    from migrate.errors import MigrateError

    found: list[dict[str, Any]] = []
    status = 0
    with Client(args.coordinator) as client:
        for name in args.containers:
            try:
                container = client.inspect(name)
                if args.format != "json":
                    print(templates.line(args.format, container_fields.inspected(container)))
                found.append(container.to_dict())
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
