"""`migrate lab`: a small fleet out of namespaces on this machine."""

from __future__ import annotations

import argparse
import json
import os
from typing import TYPE_CHECKING

from migrate.cli import tables
from migrate.cli.parsers import command, rest

if TYPE_CHECKING:
    from migrate.cli.parsers import Subparsers

_EXAMPLES = """migrate lab up --hosts 3
migrate lab status
migrate lab enter host1 ps ax
migrate lab logs host2
migrate lab down
MIGRATE_LAB=other migrate lab up     a second lab beside the first"""


def add_parser(subparsers: Subparsers) -> None:
    parser = command(
        subparsers, "lab", help="a small fleet of hosts on this machine, to try and test everything", examples=_EXAMPLES
    )
    verbs = parser.add_subparsers(dest="verb", required=True, metavar="VERB")
    up = command(
        verbs,
        "up",
        help="build the lab and start it; one that is up already is left alone",
        examples="migrate lab up\nmigrate lab up --hosts 3\nmigrate lab up --hosts 1 --bare 1",
    )
    up.add_argument("--hosts", type=int, metavar="N", default=None, help="how many (default: 2, or as many as it had)")
    up.add_argument(
        "--bare",
        type=int,
        metavar="N",
        default=None,
        help="machines beside them with an sshd and nothing of ours, for `migrate host add` (default: 0, or as many as it had)",
    )
    up.add_argument(
        "--criu",
        metavar="FILE",
        default=os.environ.get("MIGRATE_CRIU", ""),
        help="the CRIU that its agents use (default: $MIGRATE_CRIU, else they find one)",
    )
    status = command(
        verbs,
        "status",
        help="what of it lives; exit status 1 unless all does",
        examples="migrate lab status\nmigrate lab status --format json",
    )
    status.add_argument("--format", choices=("table", "json"), default="table")
    down = command(
        verbs,
        "down",
        help="end and remove everything of it, containers and images too",
        examples="migrate lab down\nmigrate lab down --keep",
    )
    down.add_argument("--force", action="store_true", help="kill at once, ask nothing to end by itself")
    down.add_argument("--keep", action="store_true", help="leave its directory: images, keys, logs")
    enter = command(
        verbs,
        "enter",
        help="a shell, or a command, on one of its nodes",
        examples="migrate lab enter host1\nmigrate lab enter client ping -c 1 10.88.64.1",
    )
    enter.add_argument("name", metavar="NODE", help="host1, host2, ..., controller, client, switch")
    enter.add_argument("argv", metavar="CMD", nargs=argparse.REMAINDER)
    logs = command(
        verbs,
        "logs",
        help="what the programs of a node wrote",
        examples="migrate lab logs host2\nmigrate lab logs controller --tail 50",
    )
    logs.add_argument("name", metavar="NODE", help="host1, host2, ..., controller")
    logs.add_argument("--tail", type=int, metavar="N", default=1000, help="the last N lines of each (default: 1000)")


def run(args: argparse.Namespace) -> int:
    from migrate.lab import layout

    verbs = {"up": _up, "status": _status, "down": _down, "enter": _enter, "logs": _logs}
    return verbs[args.verb](layout.prefix_from(), args)


def _up(prefix: str, args: argparse.Namespace) -> int:
    from migrate.lab import layout, up

    lab = up.up(prefix, hosts=args.hosts, bare=args.bare, criu=args.criu, say=print)
    for node in lab.nodes:
        if node.role is layout.Role.BARE:
            words = f"{node.name} root@{node.address} --identity {lab.operator_key} --cgroup {lab.container_cgroup(node.name)}"
            print(f"to add {node.name}: migrate lab enter controller migrate host add {words}")
    if prefix != layout.DEFAULT_PREFIX:
        print(f"to use it: export MIGRATE_COORDINATOR={lab.socket}")
    return 0


def _down(prefix: str, args: argparse.Namespace) -> int:
    from migrate.lab import down

    done = down.down(prefix, force=args.force, keep=args.keep)
    print("\n".join(done) or "there was no lab")
    return 0


def _status(prefix: str, args: argparse.Namespace) -> int:
    from migrate.lab import status

    found = status.status(prefix)
    if args.format == "json":
        print(json.dumps(found.to_dict(), indent=2))
    else:
        rows = []
        for node in found.nodes:
            programs = " ".join(f"{each.name}:{each.pid or 'down'}" for each in node.programs)
            rows.append(
                (
                    node.name,
                    "up" if node.up else "DOWN",
                    node.address or "-",
                    node.pid or "-",
                    programs or "-",
                    "-" if node.containers is None else node.containers,
                    node.netns,
                )
            )
        print(tables.table(("NODE", "STATUS", "ADDRESS", "PID", "PROGRAMS", "CONTAINERS", "NETNS"), rows))
        print(f"\nthe lab is {found.state}; coordinator: {found.socket}")
        for problem in found.problems:
            print(f"  {problem}")
    return 0 if found.state == "up" else 1


def _enter(prefix: str, args: argparse.Namespace) -> int:
    from migrate.lab import layout, nodes

    nodes.enter(layout.require(prefix), args.name, rest(args.argv))  # becomes the command: never returns


def _logs(prefix: str, args: argparse.Namespace) -> int:
    from migrate.lab import layout, nodes

    lab = layout.require(prefix)
    directory = lab.log_dir(lab.node(args.name).name)
    for path in sorted(directory.glob("*.log")) if directory.is_dir() else ():
        print(nodes.tail(path, args.tail))
    return 0
