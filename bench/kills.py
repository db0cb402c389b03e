"""`python -m bench.kills`: kill -9 of everything that takes part in a move, in each phase of it; prints what happened to web1.

A lab of its own with two hosts, a Redis in a container, one client outside with one TCP connection. docs/kill-table.md says
what the columns mean. Exit status 1 where a cell is not as it must be; the lab goes in any case.
"""

from __future__ import annotations

import argparse
import os
import sys
import time
from collections.abc import Sequence

from bench import in_lab
from bench.kill_cell import KillLab, Outcome
from bench.kill_victims import Phase, Victim, phases
from migrate.client import Client
from migrate.coordinator.migration import MODES
from migrate.lab import images
from migrate.lab.layout import Lab

HEAD = "| killed | during | the move | after | web1 ran on | web1 now | its client | verdict |\n|---|---|---|---|---|---|---|---|"


def line(outcome: Outcome) -> str:
    """A row of the table, as Markdown."""
    if not outcome.ran:
        return f"| {outcome.victim} | {outcome.phase} | not running | | | | | {_verdict(outcome)} |"
    state = f"{outcome.state}; {outcome.repair}" if outcome.repair else outcome.state
    ran_on = " then ".join(outcome.ran_on.split())
    return (
        f"| {outcome.victim} | {outcome.phase} | {state} | {outcome.took_s:.1f} s | {ran_on} "
        f"| {outcome.where} | {outcome.client} | {_verdict(outcome)} |"
    )


def _verdict(outcome: Outcome) -> str:
    return "WRONG" if outcome.wrong else "ok"


def table(kills: KillLab, cells: Sequence[tuple[Phase, Victim]], *, quiet: bool = False) -> list[Outcome]:
    """Run the cells; each row is printed as it comes, with what the user was told."""
    print(HEAD, flush=True)
    outcomes: list[Outcome] = []
    for phase, victim in cells:
        outcome = kills.kill(phase, victim)
        outcomes.append(outcome)
        print(line(outcome), flush=True)
        for text in outcome.wrong:
            print(f"    WRONG: {text}", flush=True)
        if outcome.wrong or (outcome.ran and not quiet):
            for text in outcome.said.splitlines():
                print(f"    {text}", flush=True)
    return outcomes


def main(argv: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(prog="python -m bench.kills", description=(__doc__ or "").partition("\n\n")[0])
    parser.add_argument("--phase", action="append", choices=list(Phase), help="only this one; may be repeated")
    parser.add_argument("--victim", action="append", choices=list(Victim), help="only this one; may be repeated")
    parser.add_argument("--mode", choices=MODES, default="auto", help="of the moves (auto)")
    parser.add_argument("--size-mb", type=int, default=16, help="data in Redis (16)")
    parser.add_argument("--lab", default=f"mkill{os.getpid()}", help="the lab's name")
    parser.add_argument("--keep", action="store_true", help="leave the lab standing, to look at it")
    parser.add_argument("--quiet", action="store_true", help="only the table, not what the command said")
    args = parser.parse_args(argv)
    victims = [Victim(name) for name in args.victim or Victim]
    cells = [(phase, victim) for phase in phases(args.mode) if phase in (args.phase or Phase) for victim in victims]

    def run(lab: Lab) -> list[str]:
        with Client(lab.socket) as fleet:
            with images.redis_rootfs().open("rb") as tar:
                fleet.import_image(tar, "redis", host="host1")
            kills = KillLab(lab, fleet, size_mb=args.size_mb, mode=args.mode)
            kills.begin()
            outcomes = table(kills, cells, quiet=args.quiet)
            kills.end()
        return [f"{each.victim}, {each.phase}: {text}" for each in outcomes for text in each.wrong]

    begun = time.monotonic()
    wrong = in_lab.judged(args.lab, hosts=2, run=run, keep=args.keep)
    print(f"{len(cells)} cells, {time.monotonic() - begun:.0f} s; {'NOT all is well' if wrong else 'all is well'}")
    return 1 if wrong else 0


if __name__ == "__main__":
    sys.exit(main())
