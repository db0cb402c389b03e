"""`python -m bench.crashes`: kill -9 of agent, monitor and others in the middle of each verb; prints what came of it.

A lab of its own; its hosts take cells side by side, for most of a cell is waiting for an agent to be started again. docs/crashes.md says
what is looked at. Exit status 1 where something is not as it must be; the lab goes in any case.
"""

from __future__ import annotations

import argparse
import os
import statistics
import sys
import time
from collections import Counter
from collections.abc import Iterable, Sequence
from concurrent.futures import ThreadPoolExecutor
from queue import Empty, SimpleQueue

from bench import in_lab
from bench.crash_cell import VICTIMS, CrashHost, Outcome, Victim
from bench.crash_look import database
from bench.crash_verbs import IMAGE, VERBS, Verb
from migrate.client import Client
from migrate.lab import images
from migrate.lab.layout import Lab

BEYOND = 1.15  # the last instants lie a little after the verb's usual end
HEAD = "| verb | killed | kills | not there | afterwards | the caller was told | wrong |\n|---|---|---|---|---|---|---|"
Cell = tuple[Verb, Victim, float]


def instants(took_s: float, count: int) -> list[float]:
    return [took_s * BEYOND * number / max(count - 1, 1) for number in range(count)]


def run(hosts: Sequence[CrashHost], cells: Iterable[Cell], *, quiet: bool) -> list[Outcome]:
    """All cells, each host taking the next one when it has done its last."""
    queue: SimpleQueue[Cell] = SimpleQueue()
    for cell in cells:
        queue.put(cell)
    outcomes: list[Outcome] = []

    def work(host: CrashHost) -> None:
        while True:
            try:
                verb, victim, instant_s = queue.get_nowait()
            except Empty:
                return
            outcome = host.kill(verb, victim, instant_s)
            outcomes.append(outcome)
            if outcome.wrong or not quiet:
                print(_line(outcome), flush=True)

    with ThreadPoolExecutor(max_workers=len(hosts)) as pool:
        list(pool.map(work, hosts))
    return outcomes


def _line(outcome: Outcome) -> str:
    what = "killed" if outcome.killed else "not there"
    line = f"{outcome.verb:<9} {outcome.victim:<12} {outcome.instant_s * 1000:4.0f} ms {what}: {outcome.state}"
    line += f"; told: {outcome.said}" if outcome.said else ""
    return "\n".join([line, *(f"    WRONG: {text}" for text in outcome.wrong)])


def rows(outcomes: Sequence[Outcome]) -> list[str]:
    """The table's, as Markdown."""
    lines = []
    for verb in VERBS:
        for victim in Victim:
            cell = [one for one in outcomes if (one.verb, one.victim) == (verb, victim)]
            if not cell:
                continue
            killed = [one for one in cell if one.killed]
            states = ", ".join(
                f"{state} {count}" for state, count in Counter(one.state for one in killed).most_common()
            )
            told = Counter(one.said.partition(":")[0] or "done" for one in killed)
            said = ", ".join(f"{code} {count}" for code, count in told.most_common())
            wrong = sum(1 for one in cell if one.wrong)
            lines.append(
                f"| {verb} | {victim} | {len(killed)} | {len(cell) - len(killed)} | {states} | {said} | {wrong or '-'} |"
            )
    return lines


def crashes(
    lab: Lab, verbs: Sequence[Verb], victims: Sequence[Victim], count: int, *, quiet: bool = True
) -> list[Outcome]:
    """Everything in a lab that is up. Raises MigrateError where it cannot begin."""
    with Client(lab.socket) as fleet:
        for number in range(1, lab.hosts + 1):
            with images.redis_rootfs().open("rb") as tar:
                fleet.import_image(tar, IMAGE, host=f"host{number}")
        hosts = [CrashHost(lab, fleet, f"host{number}") for number in range(1, lab.hosts + 1)]
        cells: list[Cell] = []
        for verb in verbs:
            took_s = statistics.median(hosts[0].measure(verb) for _ in range(3))
            print(f"{verb.name}: {took_s * 1000:.0f} ms", flush=True)
            for victim in sorted(set(VICTIMS[verb.name]) & set(victims)):
                cells += [(verb, victim, instant_s) for instant_s in instants(took_s, count)]
        beside = [cell for cell in cells if cell[1] is not Victim.COORDINATOR]
        alone = [cell for cell in cells if cell[1] is Victim.COORDINATOR]  # it is everybody's
        outcomes = run(hosts, beside, quiet=quiet) + run(hosts[:1], alone, quiet=quiet)
        if rest := database(lab, fleet.containers(all=True)):
            outcomes[-1].wrong += rest
        for host in hosts:
            fleet.remove(host.stays.id, force=True)
    return outcomes


def main(argv: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(prog="python -m bench.crashes", description=(__doc__ or "").partition("\n\n")[0])
    parser.add_argument("--verb", action="append", choices=list(VERBS), help="only this one; may be repeated")
    parser.add_argument("--victim", action="append", choices=list(Victim), help="only this one; may be repeated")
    parser.add_argument("--instants", type=int, default=8, help="kills a cell, spread over the verb's duration (8)")
    parser.add_argument("--hosts", type=int, default=4, help="hosts that take cells side by side (4)")
    parser.add_argument("--lab", default=f"mcrash{os.getpid()}", help="the lab's name")
    parser.add_argument("--keep", action="store_true", help="leave the lab standing, to look at it")
    parser.add_argument("--quiet", action="store_true", help="print only what is wrong, and the table")
    args = parser.parse_args(argv)
    begun, outcomes = time.monotonic(), list[Outcome]()

    def run(lab: Lab) -> list[str]:
        verbs = [VERBS[name] for name in args.verb or VERBS]
        victims = [Victim(name) for name in args.victim or Victim]
        outcomes.extend(crashes(lab, verbs, victims, args.instants, quiet=args.quiet))
        return [f"{one.verb}, {one.victim}: {text}" for one in outcomes for text in one.wrong]

    wrong = in_lab.judged(args.lab, hosts=args.hosts, run=run, keep=args.keep)
    print("\n".join([HEAD, *rows(outcomes)]))
    kills = sum(1 for one in outcomes if one.killed)
    print(f"{kills} kills, {time.monotonic() - begun:.0f} s; {'NOT all is well' if wrong else 'all is well'}")
    return 1 if wrong else 0


if __name__ == "__main__":
    sys.exit(main())
