"""A machine that we are logged in to: what joining needs of it, whatever carries it. The real one is operator.py."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Protocol


@dataclass(frozen=True, kw_only=True)
class Ran:
    """How a command ended."""

    status: int
    out: str
    err: str


class Remote(Protocol):
    """Logged in. `where` is for people: "root@10.0.0.2". `host_key`: the line "ssh-ed25519 AAAA..." that it showed."""

    where: str
    host_key: str

    def run(self, script: str, *, stdin: bytes | Path = b"", timeout_s: float = 120.0) -> Ran:
        """Give `script` to the machine's sh, with `stdin` (bytes, or what is in a file) as its input. A script that
        fails is an answer; raises Unreachable where the machine went away, or did not end it in time.
        """

    def close(self) -> None:
        """Log out. Idempotent."""
