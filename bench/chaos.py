"""`python -m bench.chaos`: a random campaign of faults in moves, one or two in each; it prints its seed, and shrinks what fails.

    make chaos SECONDS=600 [SEED=n]

Which faults come, in which order and mode, follows from the seed alone, so that `--seed` with the number that is printed begins the same
campaign again. A cell that is not as it must be is tried again with fewer faults and without waiting where that shows it too. What a
cell is, and what is looked at: bench/faults.py. What is known to lose the container
(docs/fault-matrix.md) is left out, and said. Exit status 1 where something is wrong; the lab goes in any case.
"""

from __future__ import annotations

import argparse
import os
import random
import secrets
import sys
import time
from collections import Counter
from collections.abc import Iterator
from functools import partial
from itertools import combinations
from pathlib import Path

from bench import fault_disks, in_lab
from bench.fault_cell import FaultLab, Outcome
from bench.fault_instants import Instant, instants
from bench.fault_table import FAULTS, Fault, Injury
from bench.faults import HEAD, Recorder, line, told
from migrate.client import Client
from migrate.lab.layout import Lab

MODES = ("auto", "auto", "precopy", "stop-and-copy", "postcopy")
TWO = 0.4  # of the cells have two faults
SHRINK_TRIES = 2  # how often a smaller cell is tried: not everything shows each time
Cell = tuple[str, tuple[Injury, ...]]


def plan(seed: int, *, long: bool) -> Iterator[Cell]:
    """Without end. `long`: with faults that last longer than 10 s."""
    dice = random.Random(seed)
    faults = [each for each in FAULTS.values() if long or each.lasts_s <= 15]
    while True:
        mode = dice.choice(MODES)
        found = [_injury(dice, faults, mode)]
        if dice.random() < TWO:
            found.append(_injury(dice, faults, mode, after=found[0].instant))
        order = list(Instant)
        yield mode, tuple(sorted(found, key=lambda each: order.index(each.instant)))


def _injury(dice: random.Random, faults: list[Fault], mode: str, after: Instant | None = None) -> Injury:
    """`after`: there is another one there; then while that is being undone is an instant too."""
    while True:
        instant = dice.choice([*instants(mode), *([Instant.UNDO] * 4 if after else [])])
        fault = dice.choice(faults)
        if fault.fits(instant) and instant is not after and not fault.is_known_to_lose(instant):
            return Injury(instant=instant, fault=fault)


def smaller(cell: Cell) -> Iterator[Cell]:
    """The same with fewer faults, then in the plain mode."""
    mode, injuries = cell
    for count in range(1, len(injuries)):
        yield from ((mode, fewer) for fewer in combinations(injuries, count))
    if mode != "auto" and all(each.instant in (*instants("auto"), Instant.UNDO) for each in injuries):
        yield "auto", injuries


def shrink(cells: FaultLab, cell: Cell) -> Cell:
    """The first of the smaller ones that is wrong too, made smaller in its turn; the cell itself if none is."""
    for mode, injuries in smaller(cell):
        for _ in range(SHRINK_TRIES):
            outcome = cells.injure(injuries, mode=mode)
            print(f"    shrinking: {line(outcome)}", flush=True)
            if outcome.wrong:
                return shrink(cells, (mode, injuries))
    return cell


def campaign(cells: FaultLab, seed: int, seconds: float, *, long: bool, recorder: Recorder) -> list[Outcome]:
    """Until the time is over; the cell that is under way then comes to its end."""
    print(HEAD, flush=True)
    outcomes: list[Outcome] = []
    until = time.monotonic() + seconds
    for mode, injuries in plan(seed, long=long):
        if time.monotonic() > until:
            break
        outcome = cells.injure(injuries, mode=mode)
        outcomes.append(outcome)
        recorder.add(outcome)
        print(line(outcome), flush=True)
        for text in told(outcome) if outcome.wrong else ():
            print(f"    {text}", flush=True)
        if outcome.wrong:
            mode, injuries = shrink(cells, (mode, injuries))
            steps = " + ".join(str(each) for each in injuries)
            print(f'    as few steps as it takes: python -m bench.faults --mode {mode} --cell "{steps}"', flush=True)
    return outcomes


def table(outcomes: list[Outcome]) -> list[str]:
    """What came of cells, by the number of faults that were done in them. Markdown."""
    verdicts = list(dict.fromkeys(each.verdict for each in outcomes))
    lines = [f"| faults | cells | {' | '.join(verdicts)} |", "|---" * (len(verdicts) + 2) + "|"]
    for count in sorted({len(each.done) for each in outcomes}):
        mine = [each for each in outcomes if len(each.done) == count]
        found = Counter(each.verdict for each in mine)
        lines.append(f"| {count} | {len(mine)} | {' | '.join(str(found[verdict] or '-') for verdict in verdicts)} |")
    return lines


def main(argv: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(prog="python -m bench.chaos", description=(__doc__ or "").partition("\n\n")[0])
    parser.add_argument("--seconds", type=float, default=600, help="how long cells are begun (600)")
    parser.add_argument("--seed", type=int, default=secrets.randbelow(1 << 31), help="of an earlier campaign")
    parser.add_argument("--long", action="store_true", help="cuts of 30 s and for good too")
    parser.add_argument("--size-mb", type=int, default=16, help="data in Redis (16)")
    parser.add_argument("--lab", default=f"mchaos{os.getpid()}", help="the lab's name")
    parser.add_argument("--json", type=Path, help="append a line of JSON a cell to this file")
    parser.add_argument("--keep", action="store_true", help="leave the lab standing, to look at it")
    args = parser.parse_args(argv)
    outcomes: list[Outcome] = []
    print(f"seed {args.seed}", flush=True)
    for fault in FAULTS.values():
        if fault.loses_after:
            print(f"left out from {fault.loses_after} on: {fault.name}", flush=True)

    def run(lab: Lab) -> list[str]:
        with Client(lab.socket) as fleet:
            cells = FaultLab(lab, fleet, size_mb=args.size_mb)
            cells.begin()
            recorder = Recorder(args.json)
            outcomes.extend(campaign(cells, args.seed, args.seconds, long=args.long, recorder=recorder))
            cells.end()
        return [f"{each.mode}, {each.name}: {text}" for each in outcomes for text in each.wrong]

    begun = time.monotonic()
    with fault_disks.directory(args.lab) as files:
        before = partial(fault_disks.make, Lab(prefix=args.lab, hosts=2), files)
        wrong = in_lab.judged(args.lab, hosts=2, run=run, keep=args.keep, before=before)
    print("\n".join(table(outcomes)))
    print(
        f"seed {args.seed}: {len(outcomes)} cells, {time.monotonic() - begun:.0f} s; {'NOT all is well' if wrong else 'all is well'}"
    )
    return 1 if wrong else 0


if __name__ == "__main__":
    sys.exit(main())
