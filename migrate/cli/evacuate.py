"""`migrate evacuate`, `migrate restore`, `migrate evacuations`. docs/fleet.md"""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Iterable
from typing import TYPE_CHECKING

from migrate.cli import check, tables, values
from migrate.cli.parsers import command

if TYPE_CHECKING:
    from migrate.cli.parsers import Subparsers
    from migrate.client import Client
    from migrate.records import Evacuation, EvacuationItem, EvacuationNote

# As migrate/coordinator/evacuation/plan.py has them.
ACTIONS = ("live", "stop-and-copy", "stop", "skip")

EVACUATE = """
migrate evacuate host1 --dry-run
migrate evacuate host1 --reason "kernel upgrade" --max-parallel 4
migrate evacuate host1 --to host2 --to host3 --bandwidth 200M --deadline 30m
migrate evacuate host1 --selector tier=web
migrate evacuate host1 --action stop
migrate evacuate host1 --format json | tail -n 1 | jq '.items[] | {container, state, target}'
"""


def add_parser(subparsers: Subparsers) -> None:
    evacuate = command(
        subparsers,
        "evacuate",
        help="take all containers of a host to others: it is cordoned first, and one that fails holds up none",
        examples=EVACUATE,
    )
    add = evacuate.add_argument
    add("host", metavar="HOST")
    add("--to", action="append", default=[], metavar="HOST", help="only there; repeatable (default: any other host)")
    add(
        "--action",
        choices=ACTIONS,
        default="",
        help="live (default, where no policy says another) moves; stop-and-copy moves while the container stands still; "
        "stop stops it and leaves it there, until `migrate restore` starts it; skip leaves it alone. "
        "A container's label migrate.evacuate=ACTION goes first",
    )
    add(
        "--deadline",
        type=values.duration,
        default=0.0,
        metavar="TIME",
        help="from now, such as 30m: then no move is begun any more; those under way come to their end",
    )
    add(
        "--selector",
        action="append",
        default=[],
        metavar="KEY=VALUE",
        help="only containers with this label; repeatable: with all of them",
    )
    check.add_end_exec(evacuate)
    _pace(evacuate)
    restore = command(
        subparsers,
        "restore",
        help="let a host take containers again, and bring home what evacuations took away from it",
        examples="migrate restore host1\nmigrate restore host1 --skip\nmigrate restore host1 --dry-run",
    )
    restore.add_argument("host", metavar="HOST")
    restore.add_argument("--skip", action="store_true", help="only uncordon it: bring nothing home")
    _pace(restore)
    _family(subparsers)


def _pace(parser: argparse.ArgumentParser) -> None:
    add = parser.add_argument
    add("--max-parallel", type=values.positive, default=0, metavar="N", help="moves at once (default: 2)")
    add(
        "--bandwidth",
        type=values.rate,
        default=0,
        metavar="RATE",
        help="of all moves together in a second, such as 100M; each gets its part of --max-parallel",
    )
    add(
        "--dry-run",
        action="store_true",
        help="print the plan: what goes where, how long it may take, what does not fit",
    )
    add("--reason", default="", metavar="TEXT", help="kept with the record, and shown to whom the cordon refuses")
    add("--detach", action="store_true", help="print the id and return; it goes on")
    add("--format", choices=("text", "json"), default="text", help="json: one object a line, last the record")


def _family(subparsers: Subparsers) -> None:
    family = command(
        subparsers,
        "evacuations",
        help="list evacuations and restores; show, follow or cancel one",
        examples="migrate evacuations\nmigrate evacuations --active\nmigrate evacuations show 4f2a\n"
        "migrate evacuations watch 4f2a\nmigrate evacuations cancel 4f2a",
    )
    _list_options(family)
    verbs = family.add_subparsers(dest="action", metavar="[list|show ID|watch ID|cancel ID]")
    _list_options(
        command(verbs, "list", aliases=["ls"], help="list them, newest first", examples="migrate evacuations list -n 5")
    )
    for name, help_ in (
        ("show", "what became of each container"),
        ("watch", "follow one to its end"),
        ("cancel", "begin no more moves; those under way come to their end, and the host stays cordoned"),
    ):
        parser = command(verbs, name, help=help_, examples=f"migrate evacuations {name} 4f2a")
        parser.add_argument("id", metavar="EVACUATION", help="id, or its beginning")
        if name != "cancel":
            parser.add_argument("--format", choices=("text", "json"), default="text")


def _list_options(parser: argparse.ArgumentParser) -> None:
    # SUPPRESS: a default of the inner parser would overwrite what the outer one read.
    parser.add_argument("--active", action="store_true", default=argparse.SUPPRESS, help="only those that go on")
    parser.add_argument("--host", default=argparse.SUPPRESS, metavar="HOST", help="only of this one")
    parser.add_argument("-n", "--limit", type=values.positive, default=argparse.SUPPRESS, help="only the newest")
    parser.add_argument("--format", choices=("table", "json"), default=argparse.SUPPRESS)


def run(args: argparse.Namespace) -> int:
    from migrate.client import Client

    with Client(args.coordinator) as client:
        if args.command == "evacuations":
            return _evacuations(client, args)
        wrong = next((text for text in getattr(args, "selector", ()) if "=" not in text), "")
        if wrong or (args.detach and args.dry_run):
            why = f"{wrong!r} is not KEY=VALUE" if wrong else "--dry-run has nothing to detach from"
            print(f"error: {why}\nhint: migrate {args.command} --help", file=sys.stderr)
            return 2
        pace = {
            "max_parallel": args.max_parallel,
            "bandwidth": args.bandwidth,
            "dry_run": args.dry_run,
            "reason": args.reason,
        }
        if args.command == "restore":
            events = client.restore_host(args.host, skip=args.skip, **pace)
        else:
            selector = values.labels(args.selector)
            events = client.evacuate(
                args.host,
                to=args.to,
                action=args.action,
                deadline_s=args.deadline,
                selector=selector,
                end_exec=args.end_exec,
                **pace,
            )
        if args.detach:
            next(events)  # it has begun
            print(client.evacuations(host=args.host, limit=1)[0].id)
            return 0
        return follow(events, args.host, format=args.format)


def _evacuations(client: Client, args: argparse.Namespace) -> int:
    if args.action == "watch":
        return follow(client.watch_evacuation(args.id), client.evacuation(args.id).host, format=args.format)
    if args.action == "cancel":
        found = client.cancel_evacuation(args.id)
        running = found.state == "running"
        print("no more moves are begun" if running else f"too late: it has ended, {found.state}")
        return 0 if running else 1
    if args.action == "show":
        found = client.evacuation(args.id)
        print(json.dumps(found.to_dict(), indent=2) if args.format == "json" else shown(found))
        return 0
    listed = client.evacuations(
        host=getattr(args, "host", ""), active=getattr(args, "active", False), limit=getattr(args, "limit", 50)
    )
    if getattr(args, "format", "table") == "json":
        print(json.dumps([one.to_dict() for one in listed], indent=2))
        return 0
    rows = [
        (
            tables.short(one.id),
            one.kind,
            one.host,
            one.state,
            f"{tables.ago(one.started_unix_ns)} ago",
            _took(one),
            one.reason,
        )
        for one in listed
    ]
    print(tables.table(("ID", "KIND", "HOST", "STATE", "STARTED", "TIME", "REASON"), rows))
    return 0


def follow(events: Iterable[Evacuation | EvacuationItem | EvacuationNote], host: str, *, format: str) -> int:
    """Print what happens; 0 when every container is where it should be, else 1. Ctrl-C leaves it going on: 130."""
    from migrate.errors import Unreachable
    from migrate.records import Evacuation, EvacuationItem

    last: Evacuation | None = None
    try:
        for event in events:
            if isinstance(event, Evacuation):
                last = event
            if format == "json":
                kind = (
                    "record"
                    if isinstance(event, Evacuation)
                    else "item"
                    if isinstance(event, EvacuationItem)
                    else "note"
                )
                print(json.dumps({"type": kind, **event.to_dict()}), flush=True)
            elif isinstance(event, Evacuation):
                print(shown(event), flush=True)
            elif isinstance(event, EvacuationItem):
                print(line(event), flush=True)
            else:
                print(event.text, flush=True)
    except Unreachable as exc:
        if last is None or not last.id:
            raise
        raise Unreachable(
            f"lost sight of {last.kind} {last.id}: {exc.message}",
            hint=f"it goes on when the coordinator is back: migrate evacuations watch {last.id}",
            touched="something",
        ) from exc
    except KeyboardInterrupt:
        where = last.id if last else f"$(migrate evacuations --host {host} -n 1 --format json | jq -r '.[0].id')"
        print(
            f"\nit goes on; to see: migrate evacuations watch {where}; to end it: migrate evacuations cancel {where}",
            file=sys.stderr,
        )
        return 130
    return 0 if last is not None and last.state in ("succeeded", "planned") and not _refused(last) else 1


def _refused(found: Evacuation) -> bool:
    return any(item.state == "refused" for item in found.items)


def line(item: EvacuationItem) -> str:
    """What has just become of one container."""
    where = f" to {item.target}" if item.target else ""
    if item.state == "moving":
        again = f", try {item.tries}" if item.tries > 1 else ""
        return f"{item.container}: moving{where}{again}" + (f" ({item.migration_id[:12]})" if item.migration_id else "")
    if item.state == "moved":
        return f"{item.container}: moved{where} in {tables.seconds(item.took_s)}, stood still {_still(item.downtime_s)}"
    error = f": {item.error.message}" if item.error and item.error.message not in item.why else ""
    return f"{item.container}: {item.state}" + (f": {item.why}" if item.why else "") + error


def shown(found: Evacuation) -> str:
    """Head, a line a container, and what is left to do."""
    head = f"{found.kind} {found.id}".strip() + f" of {found.host}: {found.state}"
    if found.state == "planned" and not found.id:
        head = f"{found.kind} of {found.host}: the plan"
    parts = [f"{len(found.items)} containers"]
    parts += [f"{tables.seconds(found.predicted_s)} predicted"] if found.predicted_s else []
    parts += [f"took {_took(found)}"] if found.finished_unix_ns else []
    parts += [found.reason] if found.reason else []
    rows = [
        (
            item.container,
            item.action,
            item.state,
            item.source,
            item.target or "-",
            _span(item.predicted_s),
            _span(item.took_s),
            _span(item.predicted_downtime_s),
            _span(item.downtime_s),
            item.tries or "-",
        )
        for item in found.items
    ]
    lines = [f"{head}, {', '.join(parts)}"]
    if rows:
        names = (
            "CONTAINER",
            "ACTION",
            "STATE",
            "FROM",
            "TO",
            "PREDICTED",
            "TOOK",
            "STILL PREDICTED",
            "STOOD STILL",
            "TRIES",
        )
        lines.append(tables.table(names, rows))
    for item in found.items:
        if item.state in ("planned", "moved", "moving") and item.tries < 2 and "deadline" not in item.why:
            continue
        error = f": {item.error.message}" if item.error and item.error.message not in item.why else ""
        lines.append(
            f"{item.container}: {item.state}: {item.why}{error}"
            if item.why or error
            else f"{item.container}: {item.state}"
        )
    if found.kind == "evacuate" and found.finished_unix_ns:
        lines.append(f"{found.host} stays cordoned; to bring them home: migrate restore {found.host}")
    return "\n".join(lines)


def _span(span_s: float) -> str:
    return tables.seconds(span_s) if span_s else "-"


def _still(span_s: float) -> str:
    return tables.seconds(span_s) if span_s else "for an unknown time"


def _took(found: Evacuation) -> str:
    if not found.finished_unix_ns:
        return "-"
    return tables.seconds((found.finished_unix_ns - found.started_unix_ns) / 1e9)
