"""Where an error becomes text and an exit status. Nothing else in the command line prints errors."""

from __future__ import annotations

import os
import re
import sys
from typing import TextIO

from migrate.errors import MigrateError

TOUCHED = {
    "nothing": "nothing was changed",
    "undone": "what had been changed was put back",
    "something": "something was changed and is still changed",
}


def report(exc: Exception, *, command: str = "", file: TextIO | None = None) -> int:
    """Print `exc` for people and return the exit status; with MIGRATE_DEBUG=1 the traceback as well."""
    file = file or sys.stderr
    if os.environ.get("MIGRATE_DEBUG"):
        import traceback

        traceback.print_exception(exc, file=file)
    if isinstance(exc, MigrateError):
        print(describe(exc), file=file)
        return exit_status(exc, command)
    if isinstance(exc, OSError):
        print(f"error: {exc}", file=file)
        return 125 if command in ("run", "exec") else 1
    print(f"error: {type(exc).__name__}: {exc}", file=file)
    print("hint: this is a mistake in migrate; MIGRATE_DEBUG=1 prints where", file=file)
    return 125 if command in ("run", "exec") else 1


def describe(exc: MigrateError) -> str:
    """The lines that people get: error, detail, what was touched, hint."""
    lines = [f"error: {exc.message}"]
    lines += [f"  | {line}" for line in (exc.detail or "").rstrip().splitlines()]
    # "nothing" is what people assume of a wrong argument or a missing name; only a change is news.
    if exc.touched in ("undone", "something"):
        lines.append(f"state: {TOUCHED[exc.touched]}")
    if exc.hint:
        lines.append(f"hint: {exc.hint}")
    return "\n".join(lines)


def exit_status(exc: MigrateError, command: str) -> int:
    """Docker's convention for run and exec: 127 no such program, 126 it cannot be executed, 125 the rest of ours."""
    if command not in ("run", "exec"):
        return exc.exit_status
    if exc.code in ("container.start_failed", "container.exec_failed"):
        # The agent names the step that failed and then the reason: "exec: sh: no such file in PATH=..."
        found = re.search(r"(?:^|: )exec: (.*)", exc.message)
        if found:
            return 127 if re.search(r"no such file|no program", found[1], re.IGNORECASE) else 126
    return 125
