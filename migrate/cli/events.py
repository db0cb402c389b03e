"""`migrate events`."""

from __future__ import annotations

import argparse
import json
import sys
from typing import TYPE_CHECKING, Any

from migrate.cli import tables, templates, values
from migrate.cli.parsers import command

if TYPE_CHECKING:
    from migrate.cli.parsers import Subparsers
    from migrate.records import Happening

FILTERS = ("container", "event", "image", "label", "type", "host", "migration")


def add_parser(subparsers: Subparsers) -> None:
    parser = command(
        subparsers,
        "events",
        help="follow what happens to containers, images and moves on all hosts",
        examples="""
migrate events
migrate events --since 10m --until 0s
migrate events --filter event=health_status --filter container=web1
migrate events --format json --filter event=die
migrate events --format '{{.Time}} {{.Actor.Attributes.name}} {{.Action}}'
""",
    )
    parser.add_argument(
        "--since", type=values.instant, default=None, metavar="TIME", help="also what was since then: 10m, or a date"
    )
    parser.add_argument(
        "--until", type=values.instant, default=0, metavar="TIME", help="only what was until then, and end there"
    )
    parser.add_argument(
        "-f",
        "--filter",
        action="append",
        default=[],
        type=condition,
        metavar="KEY=VALUE",
        help=f"only those with {', '.join(FILTERS)}",
    )
    templates.add_option(parser, text="json: an object a line; or a template")


def condition(text: str) -> tuple[str, str]:
    """("event", "die") of "event=die"."""
    key, equals, value = text.partition("=")
    if not equals or key not in FILTERS:
        raise argparse.ArgumentTypeError(f"{text!r}: filters are {', '.join(f'{name}=' for name in FILTERS)}")
    return key, value


def matches(event: Happening, conditions: list[tuple[str, str]]) -> bool:
    """Of each key at least one value holds; event=health_status is every state of health, event=die no other."""

    def holds(key: str, value: str) -> bool:
        if key == "label":
            name, equals, wanted = value.partition("=")
            return name in event.attributes and (not equals or event.attributes[name] == wanted)
        if key == "event":
            return value in (event.action, event.action.partition(":")[0])
        if key == "container":
            return event.type == "container" and (event.name == value or event.id.startswith(value))
        if key == "image":
            image = event.name if event.type == "image" else event.attributes.get("image", "")
            return value in (image, image.partition(":")[0])
        if key == "migration":
            return event.attributes.get("migration", "").startswith(value)
        return value == (event.type if key == "type" else event.host)

    return all(any(holds(k, v) for k, v in conditions if k == key) for key in {key for key, _ in conditions})


def line(event: Happening) -> str:
    """Docker's, with the host."""
    attributes = {**event.attributes, "name": event.name, "host": event.host}
    listed = ", ".join(f"{key}={value}" for key, value in sorted(attributes.items()) if value)
    return f"{tables.stamp(event.unix_ns)} {event.type} {event.action} {event.id} ({listed})"


def fields(event: Happening) -> dict[str, Any]:
    """For templates: ours, and beside them Docker's."""
    return event.to_dict() | {
        "Type": event.type,
        "Action": event.action,
        "Status": event.action,
        "ID": event.id,
        "From": event.attributes.get("image", ""),
        "Actor": {"ID": event.id, "Attributes": {**event.attributes, "name": event.name}},
        "Time": event.unix_ns // 10**9,
        "TimeNano": event.unix_ns,
        "Host": event.host,
    }


def run(args: argparse.Namespace) -> int:
    from migrate.client import Client

    with Client(args.coordinator) as client:
        for event in client.events(since_unix_ns=args.since, until_unix_ns=args.until):
            if not matches(event, args.filter):
                continue
            if args.format == "json":
                text = json.dumps(event.to_dict())
            elif args.format == "table":
                text = line(event)
            else:
                try:
                    text = templates.line(args.format, fields(event))
                except argparse.ArgumentTypeError as exc:
                    print(f"error: {exc}", file=sys.stderr)
                    return 2
            print(text, flush=True)
    return 0
