"""What benchmarks that have a lab of their own have in common."""

from __future__ import annotations

import contextlib
import os
import signal
import sys
from collections.abc import Callable, Iterator
from typing import TypeVar

from migrate.errors import MigrateError
from migrate.lab import down, observe, up
from migrate.lab.demo_run import CheckFailed
from migrate.lab.layout import Lab
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


@contextlib.contextmanager
def standing(
    prefix: str,
    *,
    hosts: int,
    say: Callable[[str], None] = print,
    keep: bool = False,
    before: Callable[[], None] = lambda: None,
) -> Iterator[Lab]:
    """A lab of that name, which goes whatever happens; what an earlier run left of it goes first. `keep`: it stays. `before`: called when
    nothing of it is there yet.
    """
    # A second Ctrl-C must not stop the clearing away, nor a SIGTERM skip it.
    signal.signal(signal.SIGTERM, signal.default_int_handler)
    down.down(prefix, force=True)
    try:
        before()
        yield up.up(prefix, hosts=hosts, criu="", say=say)
    finally:
        for number in (signal.SIGINT, signal.SIGTERM):
            signal.signal(number, signal.SIG_IGN)
        if not keep:
            down.down(prefix, force=True)


def judged(
    prefix: str,
    *,
    hosts: int,
    run: Callable[[Lab], list[str]],
    keep: bool = False,
    before: Callable[[], None] = lambda: None,
) -> list[str]:
    """As standing(). What is wrong, a line each, printed: what `run` says, what stopped it, what is left of the lab when it has gone."""
    wrong = ["it did not come to its end"]
    try:
        with standing(prefix, hosts=hosts, say=lambda _: None, keep=keep, before=before) as lab:
            wrong = run(lab)
    except (CheckFailed, MigrateError, OSError) as exc:
        wrong = [f"{type(exc).__name__}: {exc}", *(hint for hint in [getattr(exc, "hint", "")] if hint)]
    if not keep:
        wrong += [f"after the lab went: {line}" for line in observe.snapshot(prefix).describe()]
    for line in wrong:
        print(f"WRONG {line}")
    return wrong
