"""`migrate migrations [show|set|commit ID]`, `migrate cancel`, `migrate undo`, `migrate repair`."""

from __future__ import annotations

import argparse
import json
import sys
from typing import TYPE_CHECKING

from migrate.cli import progress, tables, timeline, values
from migrate.cli.parsers import command
from migrate.cli.rounds import rounds

if TYPE_CHECKING:
    from migrate.cli.parsers import Subparsers
    from migrate.client import Client
    from migrate.records import Migration


def add_parser(subparsers: Subparsers) -> None:
    family = command(
        subparsers,
        "migrations",
        help="list moves; show one with its timeline",
        examples="migrate migrations\nmigrate migrations --active\nmigrate migrations show 4f2a\n"
        "migrate migrations show 4f2a --format json\nmigrate migrations set 4f2a --bandwidth 50M",
    )
    # `list` may be left out, so these options are the family's too.
    _list_options(family)
    actions = family.add_subparsers(dest="action", metavar="[list|show ID|set ID|commit ID]")
    _list_options(
        command(
            actions, "list", aliases=["ls"], help="list moves, newest first", examples="migrate migrations list -n 5"
        )
    )
    show = command(
        actions,
        "show",
        help="the journal of one move and its frozen window",
        examples="migrate migrations show 4f2a\nmigrate migrations show 4f2a --timeline\n"
        "migrate migrations show 4f2a --format chrome > move.json    # for chrome://tracing or ui.perfetto.dev",
    )
    show.add_argument("id", metavar="ID", help="id of the move, or its beginning")
    show.add_argument(
        "--timeline", action="store_true", help="only the frozen window: each part, whose it is, and the gaps between"
    )
    show.add_argument(
        "--format",
        choices=("text", "json", "chrome"),
        default="text",
        help="chrome: the move and its timeline as trace events, for chrome://tracing and Perfetto",
    )
    change = command(
        actions,
        "set",
        help="change a move that is sending",
        examples="migrate migrations --active\nmigrate migrations set 4f2a --bandwidth 50M\n"
        "migrate migrations set 4f2a --bandwidth unlimited",
    )
    change.add_argument("id", metavar="ID", help="id of the move, or its beginning")
    change.add_argument(
        "--bandwidth",
        type=values.rate,
        required=True,
        metavar="RATE",
        help="bytes per second from now on, such as 100M or 1G; 0 or unlimited: as much as there is",
    )
    commit = command(
        actions,
        "commit",
        help="let a move that holds (move --hold) switch over",
        examples="migrate move db1 --to host2 --hold --detach\nmigrate migrations commit 4f2a\n"
        "migrate commit 4f2a    # the same, where no container has that name",
    )
    commit.add_argument("id", metavar="ID", help="id of the move, or its beginning")
    cancel = command(
        subparsers,
        "cancel",
        help="stop a move before its pivot; the container stays where it is",
        examples="migrate migrations --active\nmigrate cancel 4f2a",
    )
    cancel.add_argument("id", metavar="ID", help="id of the move, or its beginning")
    watch = command(
        subparsers,
        "watch",
        help="follow a move from its beginning",
        examples="migrate move web1 --to host2 --detach\nmigrate watch 4f2a",
    )
    watch.add_argument("id", metavar="ID", help="id of the move, or its beginning")
    watch.add_argument("--format", choices=("text", "json"), default="text")
    undo = command(
        subparsers,
        "undo",
        help="bring a container back from where a move has taken it",
        examples="migrate undo 4f2a\nmigrate undo 4f2a --format json | tail -n 1",
    )
    undo.add_argument("id", metavar="ID", help="id of the move, or its beginning")
    undo.add_argument("--format", choices=("text", "json"), default="text")
    resume = command(
        subparsers,
        "resume",
        help="follow a move that waits for a host, or for memory that is still on the source (post-copy); go on with one that "
        "needs attention after its pivot",
        examples="migrate migrations --active\nmigrate resume 4f2a",
    )
    resume.add_argument("id", metavar="ID", help="id of the move, or its beginning")
    resume.add_argument("--format", choices=("text", "json"), default="text")
    repair = command(
        subparsers,
        "repair",
        help="finish or undo what a crash or an error left of a move",
        examples="migrate repair --dry-run        # of every move that needs attention\n"
        "migrate repair 4f2a --dry-run\nmigrate repair 4f2a\nmigrate repair 4f2a --keep target\n"
        "migrate repair web1             # also of a move that the coordinator's database has lost",
    )
    repair.add_argument(
        "id",
        metavar="ID",
        nargs="?",
        help="id of the move, or its beginning, or the container's name (default: every move that needs attention)",
    )
    repair.add_argument(
        "--keep", choices=("source", "target"), default="", help="decide whose copy lives, where the hosts contradict"
    )
    repair.add_argument("--dry-run", action="store_true", help="ask both hosts and say what would be done")
    repair.add_argument("--format", choices=("text", "json"), default="text")


def _list_options(parser: argparse.ArgumentParser) -> None:
    # SUPPRESS: a default of the inner parser would overwrite what the outer one read.
    parser.add_argument("--active", action="store_true", default=argparse.SUPPRESS, help="only those that go on")
    parser.add_argument("--container", default=argparse.SUPPRESS, metavar="CONTAINER", help="only of this one")
    parser.add_argument(
        "-n", "--limit", type=values.positive, default=argparse.SUPPRESS, help="only the newest (default: 50)"
    )
    parser.add_argument("--format", choices=("table", "json"), default=argparse.SUPPRESS)


def run(args: argparse.Namespace) -> int:
    from migrate.client import Client

    with Client(args.coordinator) as client:
        if args.command == "cancel":
            state, text = client.cancel(args.id)
            print(text or state)
            return 0
        if args.command == "repair":
            return _repair(client, args)
        if args.command in ("undo", "resume", "watch"):
            from migrate.cli.follow import Following

            call = {"undo": client.undo_move, "resume": client.resume, "watch": client.watch}[args.command]
            moving = call(args.id)
            return Following(client, moving, progress.view(format=args.format, quiet=False)).to_the_end()
        if args.action == "commit":
            print(client.commit_move(args.id))
            return 0
        if args.action == "set":
            print(client.set_migration(args.id, bandwidth=args.bandwidth))
            return 0
        if args.action == "show":
            record = client.migration(args.id)
            print(shown(record, format=args.format, only_timeline=args.timeline))
            return 0
        records = client.migrations(
            container=getattr(args, "container", ""),
            limit=getattr(args, "limit", 50),
            active=getattr(args, "active", False),
        )
    if getattr(args, "format", "table") == "json":
        json.dump([record.to_dict() for record in records], sys.stdout, indent=2)
        print()
        return 0
    print(
        tables.table(
            ("ID", "CONTAINER", "FROM", "TO", "STATE", "STARTED", "TIME", "STOOD STILL"), [_row(one) for one in records]
        )
    )
    return 0


_STRANGE = ("frozen", "arriving", "unknown")  # states of a container that is in a move, or was


def _repair(client: Client, args: argparse.Namespace) -> int:
    """Of the move that is named, else of each that needs attention: the exit status is the worst."""
    from migrate.cli import failures
    from migrate.cli.follow import Following
    from migrate.errors import MigrateError

    def repaired(migration_id: str) -> int:
        moving = client.repair(migration_id, dry_run=args.dry_run, keep=args.keep)
        return Following(client, moving, progress.view(format=args.format, quiet=False)).to_the_end()

    if args.id:
        return repaired(args.id)
    if args.keep:
        print("error: --keep decides for one move\nhint: name it: migrate migrations --active", file=sys.stderr)
        return 2
    active = client.migrations(active=True)
    waiting = [record for record in active if record.state == "needs-attention"]
    held = {record.container for record in active}
    strange = [one for one in client.containers(all=True) if one.name not in held and one.state in _STRANGE]
    if strange:  # of a host that is silent nothing can be told
        answers = {host.name for host in client.hosts(facts=True) if host.reachable}
        strange = [one for one in strange if one.host in answers]
    if not waiting and not strange:
        print("no move needs attention", file=sys.stderr)
    worst = 0
    for container in strange:  # no move that the database knows explains it
        if args.format == "text":
            print(f"{container.name} is {container.state} on {container.host}, and in no move that is known")
        try:
            worst = max(worst, repaired(container.name))
        except MigrateError as exc:
            worst = max(worst, failures.report(exc, command="repair"))
    for record in waiting:
        if args.format == "text":
            print(f"move {record.id}: {record.container} from {record.source} to {record.target}")
        try:
            worst = max(worst, repaired(record.id))
        except MigrateError as exc:  # the others need it too
            worst = max(worst, failures.report(exc, command="repair"))
    return worst


def _row(record: Migration) -> tuple[str, ...]:
    took = "-"
    if record.finished_unix_ns:
        took = tables.seconds((record.finished_unix_ns - record.started_unix_ns) / 1e9)
    still = tables.seconds(record.facts["downtime_s"]) if "downtime_s" in record.facts else "-"
    state = f"{record.state}: {record.step}" if record.state in ("running", "waiting") and record.step else record.state
    started = f"{tables.ago(record.started_unix_ns)} ago"
    return tables.short(record.id), record.container, record.source, record.target, state, started, took, still


def shown(record: Migration, *, format: str, only_timeline: bool) -> str:
    """What `migrations show` prints."""
    if format == "chrome":
        return timeline.as_chrome(record)
    if only_timeline:
        return timeline.as_json(record) if format == "json" else timeline.text(record)
    return json.dumps(record.to_dict(), indent=2) if format == "json" else describe(record)


def describe(record: Migration) -> str:
    """The record as a page for people: head, journal, frozen window."""
    lines = [
        f"move {record.id}: {record.container} from {record.source} to {record.target}",
        f"state:    {record.state}" + (f" ({record.step})" if record.step and record.state != "succeeded" else ""),
        f"started:  {tables.stamp(record.started_unix_ns)}",
    ]
    if record.finished_unix_ns:
        lines.append(f"finished: {tables.stamp(record.finished_unix_ns)}")
    if record.mode:
        lines.append(f"mode:     {record.mode}")
    if record.policies:
        lines.append(f"policy:   {', '.join(_by_policy(record, name) for name in sorted(record.policies))}")
    if record.reason:
        lines.append(f"reason:   {record.reason}")
    if record.state == "succeeded":
        lines.append(progress.summary(record))
    if record.state == "rehearsed":
        lines += progress.rehearsed(record)
    if record.failure:
        lines.append(f"error:    {record.failure.message}")
        lines += [f"  | {line}" for line in record.failure.detail.splitlines()]
        if record.failure.hint:
            lines.append(f"hint:     {record.failure.hint}")
    if record.journal:
        lines += ["", "journal:", *journal(record)]
    if memory := rounds(record):
        lines += ["", "memory sent ahead:", *memory]
    if sent := travelled(record):
        lines += ["", "what travelled:", *sent]
    if record.marks:
        lines += ["", "frozen window:", *timeline.lines(record)]
    return "\n".join(lines)


def _by_policy(record: Migration, name: str) -> str:
    value = {
        "mode": record.mode,
        "max_downtime_s": f"{record.max_downtime_s * 1000:g} ms",
        "bandwidth": f"{tables.size(record.bandwidth)}/s" if record.bandwidth else "unlimited",
        "priority": record.priority,
    }.get(name, "")
    return f"{name.removesuffix('_s').replace('_', ' ')} {value} ({record.policies[name]})"


def journal(record: Migration) -> list[str]:
    """One line a row: seconds since the beginning, step, event, error."""
    begin = record.journal[0].unix_ns
    return [
        f"  {(row.unix_ns - begin) / 1e9:9.3f} s  {row.step:<10} {row.event}{f': {row.error}' if row.error else ''}"
        for row in record.journal
    ]


def travelled(record: Migration) -> list[str]:
    """One line a kind of bytes: on the wire, and before packing where that differs; then codecs, and what was left out."""
    if not record.travelled.raw_bytes:
        return []
    lines = [
        f"  compress {record.compress}, bandwidth {tables.size(record.bandwidth) + '/s' if record.bandwidth else 'unlimited'}"
        + (f", {record.connections} connections" if record.connections > 1 else "")
    ]
    for kind, wire in sorted(record.sent_bytes.items(), key=lambda one: -one[1]):
        raw = record.travelled.raw_bytes.get(kind, 0)
        packed = f"  from {tables.size(raw)}" if raw > wire else ""
        lines.append(f"  {kind.replace('_', ' '):<15} {tables.size(wire):>9}{packed}")
    for what, counts in (("as", record.travelled.codec_bytes), ("not sent:", record.travelled.skipped_bytes)):
        lines += [f"  {what} {name:<12} {tables.size(count):>9}" for name, count in sorted(counts.items()) if count]
    return lines
