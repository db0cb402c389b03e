"""`migrate host ls|inspect|label|cordon|uncordon`, and `migrate hosts`, which is `host ls`; the other verbs: host_join.py."""

from __future__ import annotations

import argparse
import json
import sys
from typing import TYPE_CHECKING

from migrate.cli import host_join, tables
from migrate.cli.parsers import command

if TYPE_CHECKING:
    from migrate.cli.parsers import Subparsers
    from migrate.records import Host, Pulse


NONE_YET = """This fleet has no hosts yet. For each machine that shall become one:
  migrate host add host1 root@10.0.0.11
What the machine needs: docs/hosts.md; to try it on this machine alone: migrate lab up
"""


def add_parser(subparsers: Subparsers) -> None:
    _add_list(subparsers, "hosts")
    _add_family(subparsers)


def _add_list(subparsers: Subparsers, name: str) -> None:
    called = "hosts" if name == "hosts" else f"host {name}"
    parser = command(
        subparsers,
        name,
        help="list hosts and what they can do",
        examples=f"migrate {called}\nmigrate {called} -v\nmigrate {called} --format json",
    )
    parser.set_defaults(action="ls")
    parser.add_argument(
        "-v", "--verbose", action="store_true", help="also each capability, with the remedy where one is missing"
    )
    parser.add_argument("--format", choices=("table", "json"), default="table")


def _add_family(subparsers: Subparsers) -> None:
    family = command(
        subparsers,
        "host",
        help="add hosts to the fleet, look at them, label them, keep containers away from one, upgrade, remove",
        examples="migrate host add host2 root@10.0.0.2\nmigrate host ls\nmigrate host inspect host1\n"
        "migrate host label host1 disk=ssd zone=a\n"
        'migrate host cordon host1 --reason "new disk on Monday"\nmigrate host uncordon host1',
    )
    verbs = family.add_subparsers(
        dest="action", required=True, metavar="add|ls|inspect|label|cordon|uncordon|upgrade|rotate-keys|rm"
    )
    host_join.add_parsers(verbs)
    _add_list(verbs, "ls")
    inspect = command(
        verbs,
        "inspect",
        help="everything known about hosts, as JSON",
        examples="migrate host inspect host1\nmigrate host inspect host1 | jq '.[0].labels'",
    )
    inspect.add_argument("hosts", metavar="HOST", nargs="+")
    label = command(
        verbs,
        "label",
        help="label a host",
        examples="migrate host label host1 disk=ssd zone=a\nmigrate host label host1 --rm zone\nmigrate host label host1",
    )
    label.add_argument("host", metavar="HOST")
    label.add_argument("labels", metavar="KEY=VALUE", nargs="*", help="none: print those that it has")
    label.add_argument("--rm", action="append", default=[], metavar="KEY", help="take one away; repeatable")
    cordon = command(
        verbs,
        "cordon",
        help="a host takes no new containers and no moves; what runs there goes on",
        examples='migrate host cordon host1\nmigrate host cordon host1 host2 --reason "kernel upgrade"',
    )
    cordon.add_argument("hosts", metavar="HOST", nargs="+")
    cordon.add_argument("--reason", default="", metavar="TEXT", help="shown to whoever is refused")
    uncordon = command(
        verbs,
        "uncordon",
        help="a host takes containers and moves again",
        examples="migrate host uncordon host1",
    )
    uncordon.add_argument("hosts", metavar="HOST", nargs="+")


def run(args: argparse.Namespace) -> int:
    from migrate.client import Client

    with Client(args.coordinator) as client:
        if args.action in host_join.VERBS:
            return host_join.run(args, client)
        if args.action == "ls":
            return _list(client.hosts(facts=True), format=args.format, verbose=args.verbose)
        if args.action == "inspect":
            json.dump([client.inspect_host(name).to_dict() for name in args.hosts], sys.stdout, indent=2)
            print()
            return 0
        if args.action == "label":
            wrong = [text for text in args.labels if "=" not in text]
            if wrong:
                print(f"error: {wrong[0]!r} is not KEY=VALUE\nhint: migrate host label --help", file=sys.stderr)
                return 2
            labels = dict(text.split("=", 1) for text in args.labels)
            host = client.label_host(args.host, labels, remove=args.rm)
            for key, value in sorted(host.labels.items()):
                print(f"{key}={value}")
            return 0
        for name in args.hosts:
            if args.action == "cordon":
                host = client.cordon(name, reason=args.reason)
                runs = f"; its {host.containers} containers stay" if host.containers else ""
                print(f"{name} takes no new containers and no moves{runs}")
            else:
                client.uncordon(name)
                print(f"{name} takes containers and moves again")
    return 0


def _list(hosts: list[Host], *, format: str, verbose: bool) -> int:
    if format == "json":
        json.dump([host.to_dict() for host in hosts], sys.stdout, indent=2)
        print()
        return 0
    if not hosts:
        print(NONE_YET, file=sys.stderr)
    print(
        tables.table(
            (
                "HOST",
                "STATUS",
                "HEALTH",
                "CONTAINERS",
                "KERNEL",
                "CRIU",
                "MEMORY FREE",
                "DISK FREE",
                "ADDRESS",
                "LABELS",
            ),
            [row(host) for host in hosts],
        )
    )
    for host in hosts:
        for line in problems(host, verbose=verbose):
            print(line)
    return 0


def row(host: Host) -> tuple[object, ...]:
    """One line of the table."""
    facts = host.facts
    where = f"{host.address}:{host.port}"
    labels = ",".join(f"{key}={value}" for key, value in sorted(host.labels.items()))
    if facts is None:
        status = _status("unreachable", host)
        return host.name, status, health(host.pulse), host.containers, "-", "-", "-", "-", where, labels
    ready = all(one.ok for one in facts.capabilities if one.required)
    return (
        host.name,
        _status("ready" if ready else "lacking", host),
        health(host.pulse),
        host.containers,
        facts.kernel,
        facts.criu_version or "-",
        tables.size(facts.memory_available_bytes),
        tables.size(facts.disk_available_bytes),
        where,
        labels,
    )


def health(pulse: Pulse) -> str:
    """ "up 3 hours", "down 5 minutes", "unknown"."""
    return f"{pulse.health} {tables.ago(pulse.since_unix_ns)}" if pulse.since_unix_ns else pulse.health


def _status(text: str, host: Host) -> str:
    return f"{text},cordoned" if host.cordoned else text


def problems(host: Host, *, verbose: bool) -> list[str]:
    """What is wrong with a host and what to do about it; with `verbose` also what is right."""
    lines: list[str] = []
    if host.cordoned:
        since = f"for {tables.ago(host.cordoned_unix_ns)}" + (f": {host.cordon_reason}" if host.cordon_reason else "")
        lines.append(f"  cordoned {since}  (migrate host uncordon {host.name})")
    if host.pulse.health in ("suspect", "down"):
        seen = f", last heard {tables.ago(host.pulse.seen_unix_ns)} ago" if host.pulse.seen_unix_ns else ""
        lines.append(f"  {host.pulse.health} for {tables.ago(host.pulse.since_unix_ns)}{seen}: {host.pulse.error}")
        if host.containers:
            lines.append("  its containers may run there all the same: nothing starts them elsewhere")
    if not host.reachable:
        return ["", f"{host.name}: unreachable: {host.error}", *lines]
    for one in host.facts.capabilities if host.facts else ():
        if verbose or (one.required and not one.ok):
            mark = "ok" if one.ok else "MISSING" if one.required else "absent"
            lines.append(
                f"  {mark:<8}{one.name}: {one.value}" + (f"  ({one.remedy})" if one.remedy and not one.ok else "")
            )
    return ["", f"{host.name}:", *lines] if lines else []
