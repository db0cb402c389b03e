"""What benchmarks that have a lab of their own have in common."""

from __future__ import annotations

import contextlib
import os
import sys
from collections.abc import Callable
from typing import TypeVar

from migrate.errors import MigrateError
from migrate.lab.lock import lock

_Result = TypeVar("_Result")


def alone(prefix: str, run: Callable[[], tuple[int, _Result]]) -> tuple[int, _Result | None]:
    """The exit status and the result of `run`, which has no other benchmark of this lab beside it; what it prints on the way goes to
    stderr. (1, None) where it cannot be: the reason is said.
    """
    if os.geteuid() != 0:
        print("error: a lab needs root\nhint: run it with sudo", file=sys.stderr)
        return 1, None
    try:
        with lock(f"{prefix}-bench", wait=False), contextlib.redirect_stdout(sys.stderr):
            return run()
    except MigrateError as exc:
        print(f"error: {exc}", file=sys.stderr)
        return 1, None
