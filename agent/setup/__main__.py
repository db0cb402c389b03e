"""`python3 -m agent.setup [STEP...]`: make this machine ready, doing only what is missing. What `make setup` runs.

Steps: packages (Debian's), venv (.venv in the checkout), criu (a CRIU that works on this kernel), link (the command
`migrate`). Run by the system's Python before anything is installed, so standard library only.
"""

from __future__ import annotations

import argparse
import fcntl
import os
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import TextIO

from agent.errors import AgentError
from agent.setup import criu_bundle, debian, environment, withheld

CHECKOUT = Path(__file__).resolve().parents[2]


def main(argv: list[str] | None = None) -> int:
    """Exit status: 0 when everything is there, 1 when a step failed (it says which, why, and what to type)."""
    steps: dict[str, Callable[[], str]] = {
        "packages": debian.ensure,
        "venv": lambda: _environment(CHECKOUT),
        "criu": lambda: "; ".join(filter(None, (criu_bundle.ensure(), withheld.ensure()))),
        "link": lambda: environment.link_command(CHECKOUT),
    }
    parser = argparse.ArgumentParser(prog="python3 -m agent.setup", description="make this machine ready for migrate")
    parser.add_argument("steps", nargs="*", metavar="STEP", help=f"{', '.join(steps)}; all of them when none is named")
    chosen = parser.parse_args(argv).steps or list(steps)
    if unknown := [name for name in chosen if name not in steps]:
        parser.error(f"unknown step {unknown[0]!r}: {', '.join(steps)}")
    begun = time.monotonic()
    lock = os.open(CHECKOUT, os.O_RDONLY)
    try:
        fcntl.flock(lock, fcntl.LOCK_EX)  # two of us at once would install into one environment
        for name in chosen:
            try:
                did = steps[name]()
            except AgentError as exc:
                _say(f"FAILED at {name}: {exc.message}\n  what to do: {exc.hint}", stream=sys.stderr)
                return 1
            except OSError as exc:
                _say(
                    f"FAILED at {name}: {exc}\n  what to do: run it as root, from a checkout that you may write to",
                    stream=sys.stderr,
                )
                return 1
            if did:
                _say(did)
    finally:
        os.close(lock)
    _say(f"ready ({', '.join(chosen)}) after {time.monotonic() - begun:.1f} s")
    return 0


def _environment(checkout: Path) -> str:
    did = environment.ensure(checkout, Path(sys.executable))
    environment.compile_sources(checkout)
    return did


def _say(text: str, *, stream: TextIO = sys.stdout) -> None:
    print(f"setup: {text}", file=stream, flush=True)


if __name__ == "__main__":
    sys.exit(main())
