"""`migrate doctor`: what this machine lacks; `migrate doctor LOG|MIGRATION`: why something failed and what to do."""

from __future__ import annotations

import argparse
import json
import sys
from pathlib import Path
from typing import TYPE_CHECKING

from agent.setup import doctor
from migrate.cli.parsers import command

if TYPE_CHECKING:
    from agent.diagnosis.diagnose import Diagnosis
    from migrate.cli.parsers import Subparsers
    from migrate.records import Migration, MoveLog

NOBODY_KNOWS = 1  # the exit status


def add_parser(subparsers: Subparsers) -> None:
    parser = command(
        subparsers,
        "doctor",
        help="check what this machine lacks; or say why a move or CRIU failed and what to do",
        examples="""
migrate doctor                              # this machine
migrate doctor --config /etc/migrate/agent.toml
migrate doctor 4f2a                         # a move: its error, and the logs that both hosts have kept
migrate doctor dump.log                     # a log of CRIU, also of another engine
podman logs -f x 2>&1 | migrate doctor - --format json
""",
    )
    parser.add_argument("what", metavar="LOG|MIGRATION", nargs="?", help="a file, - for stdin, or id of a move")
    doctor.add_arguments(parser)


def run(args: argparse.Namespace) -> int:
    """Of this machine: 0 if everything that is required is there, else 1. Of a failure: 0 if its cause is known, else 1."""
    if args.what is None:
        return doctor.report(output=args.format, config=args.config)
    if args.config is not None:
        print("error: --config is for the check of this machine\nhint: leave it out", file=sys.stderr)
        return 2
    if (text := _log(args.what)) is not None:
        return _show(args.format, _of_log(args.what, text), {})
    from migrate.client import Client

    with Client(args.coordinator) as client:
        record = client.migration(args.what)
        logs, silent = client.migration_logs(record.id)
    about = {"move": record.id, "container": record.container, "source": record.source, "target": record.target}
    found = _of_move(record, logs)
    failed = record.failure is not None and record.state != "cancelled"
    hint = record.failure.hint if record.failure and failed else ""
    return _show(args.format, found, {**about, "state": record.state, "silent": silent, "failed": failed, "hint": hint})


def _log(what: str) -> str | None:
    """Its text; None when it is the id of a move. Raises OSError for a file that cannot be read."""
    if what == "-":
        return sys.stdin.read()
    path = Path(what)
    if path.is_file() or "/" in what or what.endswith(".log"):
        return path.read_text(errors="replace")
    return None


def _of_log(name: str, text: str) -> tuple[str, Diagnosis]:
    from agent.diagnosis.diagnose import diagnose

    return ("stdin" if name == "-" else name), diagnose(text)


def _of_move(record: Migration, logs: list[MoveLog]) -> tuple[str, Diagnosis]:
    """(where it was found, the diagnosis): of what the move says, then of the logs, a known cause first.

    An undo ends a CRIU and a stream that would have gone on, so the logs of the other host have errors that are no cause.
    """
    from agent.diagnosis.diagnose import Diagnosis, diagnose

    said = [(f"step {row.step}", diagnose(row.error)) for row in record.journal if row.event == "failed" and row.error]
    if record.failure:
        text = f"{record.failure.message}\n{record.failure.detail}"
        said.insert(0, ("the move's error", diagnose(text)))
    ordered = sorted(logs, key=lambda log: ("dump.log", "restore.log").index(log.name) if log.name in CRIU_LOGS else 2)
    read = [(f"{log.name} of {log.host}", diagnose(log.text)) for log in ordered]
    if not record.failure or record.state == "cancelled":  # who cancelled it knows why
        return "the move's record", Diagnosis()
    for where, found in (*said, *read):
        if found.known:
            # The log has more lines around the same error than the message that it came in.
            return next(((place, one) for place, one in read if one.rule == found.rule), (where, found))
    if record.failure.code == PRECHECK:  # the agents and the coordinator have said why, and what to do
        reasons = record.failure.detail or record.failure.message
        cause = "a check before the move said no; nothing was touched"
        return "the move's error", Diagnosis(
            error=record.failure.message, rule="check", cause=cause, remedy=record.failure.hint, context=reasons
        )
    return next(((where, found) for where, found in (*read, *said) if found.error), ("the move's error", said[0][1]))


PRECHECK = "migration.precheck"
CRIU_LOGS = ("dump.log", "restore.log")


def _show(output: str, found: tuple[str, Diagnosis], of_move: dict[str, object]) -> int:
    where, diagnosis = found
    nothing_failed = not diagnosis.error and not of_move.get("failed", False)
    if output == "json":
        print(json.dumps({**of_move, "where": where, **diagnosis.to_dict()}, indent=2))
    else:
        print("\n".join(_lines(where, diagnosis, of_move)))
    return 0 if diagnosis.known or nothing_failed else NOBODY_KNOWS


def _lines(where: str, found: Diagnosis, of_move: dict[str, object]) -> list[str]:
    from agent.diagnosis.rule import CHECKS

    lines = ["move {move}: {container} from {source} to {target}, {state}".format(**of_move)] if of_move else []
    silent = of_move.get("silent", [])
    assert isinstance(silent, list)
    lines += [f"no log: {why}" for why in silent]
    if not found.error:
        return [
            *lines,
            f"{where}: no error in it",
            *([] if of_move else [f"  | {line}" for line in found.context.splitlines()]),
        ]
    error = found.error.replace(f" ({found.cause})", "")  # a move's own error has the cause in it
    lines.append(f"error:  {error}  ({where}{f', line {found.line}' if found.line else ''})")
    if found.known:
        lines += [f"cause:  {found.cause}", f"remedy: {found.remedy}"]
        if found.check:
            how = (
                "migrate doctor, on that host,"
                if CHECKS[found.check] == "doctor"
                else "migrate check CONTAINER --to HOST"
            )
            lines.append(f"check:  {found.check}: {how} finds it beforehand")
        if "#" in found.thread or found.thread.startswith("criu/"):  # else it is one of our own messages
            lines.append(f"seen:   {found.thread}")
    else:
        lines.append("cause:  nobody knows this one yet; the lines around it:")
    if (hint := of_move.get("hint")) and hint != found.remedy:
        lines.append(f"next:   {hint}")
    return [*lines, *(f"  | {line}" for line in found.context.splitlines())]
