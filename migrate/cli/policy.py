"""`migrate policy set|ls|rm|test`. docs/fleet.md"""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Callable
from typing import TYPE_CHECKING

from migrate.cli import tables, values
from migrate.cli.evacuate import ACTIONS
from migrate.cli.parsers import command

if TYPE_CHECKING:
    from migrate.cli.parsers import Subparsers
    from migrate.client import Client
    from migrate.records_policies import Policy

EXAMPLES = """
migrate policy set everything --bandwidth 200M
migrate policy set web --selector tier=web --max-downtime 500 --priority high
migrate policy set batch --selector tier=batch --mode stop-and-copy --evacuate stop --priority low
migrate policy ls
migrate policy test web1
migrate policy test --label tier=web --label zone=a
migrate policy rm batch
"""


def add_parser(subparsers: Subparsers) -> None:
    family = command(
        subparsers,
        "policy",
        help="say how containers with certain labels move, where nobody says it by hand",
        examples=EXAMPLES,
    )
    verbs = family.add_subparsers(dest="action", required=True, metavar="set|ls|rm|test")
    add = command(
        verbs,
        "set",
        help="add a policy, or replace the one of that name; of several that say the same the most specific wins",
        examples="\n".join(line for line in EXAMPLES.splitlines() if " set " in line),
    ).add_argument
    add("name", metavar="NAME")
    add(
        "--selector",
        action="append",
        default=[],
        metavar="KEY[=VALUE]",
        help="for containers with this label; repeatable: with all of them (default: every container)",
    )
    add("--mode", choices=("auto", "precopy", "stop-and-copy", "postcopy"), help="as of migrate move")
    add("--max-downtime", type=values.milliseconds, metavar="MS", help="as of migrate move")
    add("--bandwidth", type=values.rate, metavar="RATE", help="of one move in a second, such as 100M, or unlimited")
    add("--evacuate", choices=ACTIONS, help="as --action of migrate evacuate")
    add("--priority", choices=("low", "normal", "high"), help="which goes first in an evacuation")
    ls = command(verbs, "ls", help="list policies", examples="migrate policy ls\nmigrate policy ls --format json")
    ls.add_argument("--format", choices=("table", "json"), default="table")
    rm = command(verbs, "rm", help="remove policies", examples="migrate policy rm web")
    rm.add_argument("names", metavar="POLICY", nargs="+")
    test = command(
        verbs,
        "test",
        help="what holds for a container, and which policy says so",
        examples="migrate policy test web1\nmigrate policy test --label tier=web",
    )
    test.add_argument("container", metavar="CONTAINER", nargs="?", default="")
    test.add_argument(
        "--label", action="append", default=[], metavar="KEY=VALUE", help="of a container that is not there yet"
    )
    test.add_argument("--format", choices=("table", "json"), default="table")


def run(args: argparse.Namespace) -> int:
    from migrate.client import Client
    from migrate.records_policies import Policy

    with Client(args.coordinator) as client:
        if args.action == "set":
            client.put_policy(
                Policy(
                    name=args.name,
                    selector=values.labels(text for text in args.selector if "=" in text),
                    any_value=tuple(text for text in args.selector if "=" not in text),
                    mode=args.mode,
                    max_downtime_s=args.max_downtime,
                    bandwidth=args.bandwidth,
                    action=args.evacuate,
                    priority=args.priority,
                )
            )
            print(args.name)
        elif args.action == "rm":
            for name in args.names:
                client.remove_policy(name)
                print(name)
        elif args.action == "ls":
            found = client.policies()
            if args.format == "json":
                print(json.dumps([one.to_dict() for one in found], indent=2))
            else:
                names = ("NAME", "SELECTOR", "MODE", "MAX DOWNTIME", "BANDWIDTH", "EVACUATE", "PRIORITY")
                print(tables.table(names, [_row(one) for one in found]))
        else:
            return _test(client, args)
    return 0


def _test(client: Client, args: argparse.Namespace) -> int:
    wrong = next((text for text in args.label if "=" not in text), "")
    if wrong or bool(args.container) == bool(args.label):
        why = f"{wrong!r} is not KEY=VALUE" if wrong else "name a container, or else labels"
        print(f"error: {why}\nhint: migrate policy test --help", file=sys.stderr)
        return 2
    found = client.test_policy(args.container, labels=values.labels(args.label))
    if args.format == "json":
        print(json.dumps(found.to_dict(), indent=2))
        return 0
    rows = [
        (_SETTINGS[name][0], _SETTINGS[name][1](found.values[name]), found.sources[name])
        for name in sorted(found.values)
    ]
    print(tables.table(("SETTING", "VALUE", "POLICY"), rows) if rows else "no policy says anything")
    return 0


def _rate(value: int | str) -> str:
    return f"{tables.size(int(value))}/s" if int(value) else "unlimited"


def _milliseconds(value: float | str) -> str:
    return f"{float(value) * 1000:g} ms"


_SETTINGS: dict[str, tuple[str, Callable[[str], str]]] = {
    "mode": ("mode", str),
    "max_downtime_s": ("max downtime", _milliseconds),
    "bandwidth": ("bandwidth", _rate),
    "action": ("evacuate", str),
    "priority": ("priority", str),
}


def _row(one: Policy) -> tuple[str, ...]:
    labels = [f"{key}={value}" for key, value in sorted(one.selector.items())]
    return (
        one.name,
        ",".join([*labels, *one.any_value]) or "(every container)",
        one.mode or "-",
        "-" if one.max_downtime_s is None else _milliseconds(one.max_downtime_s),
        "-" if one.bandwidth is None else _rate(one.bandwidth),
        one.action or "-",
        one.priority or "-",
    )
