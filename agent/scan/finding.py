"""What a check before a move says: against it, or about it."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, kw_only=True)
class Blocker:
    """`check`: its name in docs/check.md. `where`: "" = this host. `warning`: the move goes on all the same.

    `pid` on this host, 0 where it is of no one process; `descriptor` of that process, or "mapped"; `path` as /proc shows it.
    """

    check: str
    what: str
    remedy: str
    where: str = ""
    warning: bool = False
    pid: int = 0
    descriptor: str = ""
    path: str = ""
