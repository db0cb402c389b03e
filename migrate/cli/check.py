"""`migrate check`: what speaks against a move, before anything is touched."""

from __future__ import annotations

import argparse
import json
import shutil
import textwrap
from collections.abc import Iterable
from typing import TYPE_CHECKING

from migrate.cli import values
from migrate.cli.parsers import command

if TYPE_CHECKING:
    from migrate.cli.parsers import Subparsers
    from migrate.client import Client
    from migrate.records_check import CheckFinding, CheckReport

REFUSED = 5  # of a check that finds a blocker, and of a move that is refused for it
_NARROWEST, _WIDEST = 60, 120


def add_parser(subparsers: Subparsers) -> None:
    parser = command(
        subparsers,
        "check",
        help="say what speaks against moving a container, how long it would stand still, and touch nothing",
        examples="""
migrate check web1 --to host2
migrate check web1 --to host2 --format json | jq '.findings[] | select(.severity == "blocker")'
migrate check db1 --to host2 --mode stop-and-copy
migrate check web1 --to host2 --skip cpu-features

exit status: 0 nothing against it (warnings or not), 5 a blocker, 4 a host does not answer, 3 no such container or host
""",
    )
    parser.add_argument("container", metavar="CONTAINER", help="name, id or the beginning of an id")
    parser.add_argument("--to", required=True, metavar="HOST", help="where it would go")
    parser.add_argument("--mode", choices=("auto", "precopy", "stop-and-copy"), default="", help="as of `migrate move`")
    parser.add_argument(
        "--max-downtime", type=values.milliseconds, default=0.0, metavar="MS", help="as of `migrate move`"
    )
    parser.add_argument("--bandwidth", type=values.rate, default=0, metavar="RATE", help="as of `migrate move`")
    add_end_exec(parser)
    add_skip(parser)
    parser.add_argument("--format", choices=("text", "json"), default="text", help="json: one object, the whole report")


def add_end_exec(parser: argparse.ArgumentParser) -> None:
    """Of `check`, `move` and `evacuate`."""
    parser.add_argument(
        "--end-exec",
        action="store_true",
        help="end what `migrate exec` has started (also exec -d) right before the freeze: SIGTERM and SIGHUP, after 5 s SIGKILL;"
        " else it keeps the container from moving",
    )


def add_skip(parser: argparse.ArgumentParser) -> None:
    """Of `check` and of `move`."""
    parser.add_argument(
        "--skip",
        action="append",
        default=[],
        metavar="CHECK",
        help="what this check finds is not to stop the move; repeatable, never all at once: docs/check.md",
    )


def run(args: argparse.Namespace) -> int:
    from migrate.client import Client

    with Client(args.coordinator) as client:
        return show(client, args, to=args.to)


def show(
    client: Client, args: argparse.Namespace, *, to: str, constraints: Iterable[str] = (), with_plan: bool = False
) -> int:
    """Print the report; the exit status. Also `migrate move --dry-run`, which has the plan below it. `to` "" = the best host."""
    report = client.check(
        args.container,
        to=to,
        constraints=constraints,
        mode=args.mode,
        max_downtime_s=args.max_downtime,
        bandwidth=args.bandwidth,
        skip=args.skip,
        end_exec=args.end_exec,
    )
    if args.format == "json":
        print(json.dumps(report.to_dict()))
    else:
        print(text(report, with_plan=with_plan, width=shutil.get_terminal_size((_WIDEST, 24)).columns))
    return REFUSED if report.blockers else 0


def text(report: CheckReport, *, with_plan: bool = False, width: int = _WIDEST) -> str:
    """The report for people."""
    width = min(max(width, _NARROWEST), _WIDEST)
    lines = [f"{report.container}: {report.source} -> {report.target}, mode {report.mode}"]
    for severity, title in (
        ("blocker", "against it"),
        ("skipped", "against it, and skipped"),
        ("warning", "to know"),
    ):
        found = [each for each in report.findings if each.severity == severity]
        if found:
            lines += ["", f"{title}:"]
            for each in found:
                lines += _finding(each, width)
    predicted = report.prediction
    lines += [""]
    lines += _wrapped(f"stands still  about {_seconds(predicted.downtime_s)}: {predicted.downtime_because}", width, 14)
    lines += _wrapped(f"takes         about {_seconds(predicted.total_s)}: {predicted.total_because}", width, 14)
    if predicted.round_trip_s:
        lines.append(
            f"tunnel        {predicted.bytes_per_s / 1e6:.0f} MB/s, round trip {predicted.round_trip_s * 1000:.1f} ms, measured now"
        )
    if with_plan and not report.blockers:
        lines += ["", "what it would do:"]
        for step in report.plan:
            lines += _wrapped(f"  {step}", width, 12)
    return "\n".join([*lines, "", _verdict(report)])


def _finding(finding: CheckFinding, width: int) -> list[str]:
    lines = _wrapped(f"  {finding.check}: {finding.where}: {finding.what}", width, 4)
    if finding.remedy:
        lines += _wrapped(f"    -> {finding.remedy}", width, 7)
    if finding.severity == "blocker" and finding.skippable and f"--skip {finding.check}" not in finding.remedy:
        lines += _wrapped(f"    -> or, if you know better: --skip {finding.check}", width, 7)
    return lines


def _verdict(report: CheckReport) -> str:
    count = len(report.blockers)
    if not count:
        return f"Nothing speaks against it: migrate move {report.container} --to {report.target}{_skips(report)}"
    return f"It cannot move: {count} reason{'s' if count > 1 else ''}. Nothing was touched."


def _skips(report: CheckReport) -> str:
    names = sorted({each.check for each in report.findings if each.severity == "skipped"})
    return "".join(f" --skip {name}" for name in names)


def _seconds(seconds: float) -> str:
    return f"{seconds * 1000:.0f} ms" if seconds < 1 else f"{seconds:.1f} s"


def _wrapped(line: str, width: int, indent: int) -> list[str]:
    """Later lines begin below the `indent`-th character of the first. Names of files stay whole."""
    return textwrap.wrap(
        line,
        width,
        subsequent_indent=" " * indent,
        break_long_words=False,
        break_on_hyphens=False,
        drop_whitespace=True,
    )
