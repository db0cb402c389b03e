"""`migrate ps`."""

from __future__ import annotations

import argparse
import json
import sys
from typing import TYPE_CHECKING

from migrate.cli import container_fields, network, tables, templates, values
from migrate.cli.container_fields import FILTERS, matches
from migrate.cli.parsers import command

if TYPE_CHECKING:
    from migrate.cli.parsers import Subparsers
    from migrate.records import Container


def add_parser(subparsers: Subparsers) -> None:
    parser = command(
        subparsers,
        "ps",
        help="list containers on all hosts",
        examples=r"""
migrate ps
migrate ps -a --filter host=host1 --filter status=exited
migrate ps -q --filter name=web --filter health=unhealthy
migrate ps --format json
migrate ps --format 'table {{.Names}}\t{{.Status}}\t{{.Host}}'
""",
    )
    parser.add_argument("-a", "--all", action="store_true", help="also containers that do not run")
    parser.add_argument("-q", "--quiet", action="store_true", help="print only ids")
    parser.add_argument(
        "-n", "--last", type=values.positive, default=0, metavar="N", help="only the N newest, running or not"
    )
    parser.add_argument("-l", "--latest", action="store_true", help="only the newest, running or not")
    parser.add_argument("-s", "--size", action="store_true", help="with the size of the writable layer")
    parser.add_argument("--no-trunc", action="store_true", help="ids in full")
    parser.add_argument(
        "--filter",
        "-f",
        action="append",
        default=[],
        type=condition,
        metavar="KEY=VALUE",
        help=f"only those with {', '.join(FILTERS)}",
    )
    templates.add_option(parser)


def condition(text: str) -> tuple[str, str]:
    """("name", "web") of "name=web"."""
    key, equals, value = text.partition("=")
    if not equals or key not in FILTERS:
        raise argparse.ArgumentTypeError(f"{text!r}: filters are {', '.join(f'{name}=' for name in FILTERS)}")
    return key, value


def status(container: Container) -> str:
    """ "running 3 minutes (healthy)", "exited (1) 2 hours ago", "moving", "unknown: host2 unreachable"."""
    if container.state == "unknown":
        return f"unknown: {container.error or 'host unreachable'}"
    health = container.health_now.status
    if container.state == "running":
        text = f"running {tables.ago(container.started_unix_ns)}"
        text += f" ({'health: starting' if health == 'starting' else health})" if health else ""
    elif container.state in ("exited", "restarting"):
        why = ", out of memory" if container.oom_killed else ""
        code = "" if container.exit_code is None else f" ({container.exit_code}{why})"
        text = f"{container.state}{code} {tables.ago(container.finished_unix_ns)} ago"
    elif container.state == "paused":
        text = f"running {tables.ago(container.started_unix_ns)} (paused)"
    else:
        text = container.state
    return f"{text}, moving" if container.migration_id else text


def run(args: argparse.Namespace) -> int:
    from migrate.client import Client

    newest = 1 if args.latest else args.last
    with Client(args.coordinator) as client:
        # A filter by status or exit code says itself which ones: without -a it would never find an exited one.
        everything = args.all or newest or any(key in ("status", "exited") for key, _ in args.filter)
        known = client.containers(all=True, size=args.size) if everything else client.containers(size=args.size)
    found = [one for one in known if matches(one, args.filter, known)]
    found.sort(key=lambda one: one.created_unix_ns, reverse=True)
    found = found[:newest] if newest else found
    short = (lambda text: text) if args.no_trunc else tables.short
    if args.quiet:
        for one in found:
            print(short(one.id))
    elif args.format == "json":
        json.dump([container_fields.listed(one, truncate=False) for one in found], sys.stdout, indent=2)
        print()
    elif args.format != "table":
        return _template(args.format, found, truncate=not args.no_trunc)
    else:
        rows = [
            (
                short(one.id),
                one.name,
                one.host,
                status(one),
                one.image,
                one.address.partition("/")[0],
                network.summary(one),
                tables.ago(one.created_unix_ns) + " ago",
                *((tables.size(one.layer_bytes),) if args.size else ()),
            )
            for one in found
        ]
        head = ("CONTAINER ID", "NAME", "HOST", "STATUS", "IMAGE", "ADDRESS", "PORTS", "CREATED")
        print(tables.table((*head, "SIZE") if args.size else head, rows))
    return 0


def _template(form: str, found: list[Container], *, truncate: bool) -> int:
    try:
        text = templates.show(form, [container_fields.listed(one, truncate=truncate) for one in found])
    except argparse.ArgumentTypeError as exc:
        print(f"error: {exc}", file=sys.stderr)
        return 2
    if text:
        print(text)
    return 0
