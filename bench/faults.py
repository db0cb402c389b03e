"""`python -m bench.faults`: everything that can die, break or fill up, at every instant of a move; prints what happened to web1.

A lab of its own with two hosts, real CRIU; in the container a Redis and a witness that appends to a file and says outside that it
lives; one client outside with one TCP connection. docs/fault-matrix.md says what the columns mean and what was seen. Exit status 1 where a
cell is not as it must be; the lab goes in any case.
"""

from __future__ import annotations

import argparse
import json
import os
import random
import sys
import time
from collections import Counter, defaultdict
from collections.abc import Iterable, Sequence
from functools import partial
from pathlib import Path
from typing import Any

from bench import fault_disks, in_lab
from bench.fault_cell import FaultLab, Outcome
from bench.fault_instants import Instant, instants
from bench.fault_table import FAULTS, Injury, parse
from migrate.client import Client
from migrate.coordinator.migration import MODES
from migrate.lab.layout import Lab

HEAD = "| mode | at: fault | the move | after | web1 ran on | web1 now | its client | verdict |\n|---|---|---|---|---|---|---|---|"
Cell = tuple[str, tuple[Injury, ...]]  # (mode, what is done)
KINDS = tuple(dict.fromkeys(each.kind for each in FAULTS.values()))


def line(outcome: Outcome) -> str:
    """A row, as Markdown."""
    state = f"{outcome.state}; {outcome.repair}" if outcome.repair else outcome.state or "unknown"
    if outcome.meanwhile:
        state = f"{outcome.meanwhile}, then {state}"
    ran_on = " then ".join(outcome.ran_on)
    return (
        f"| {outcome.mode} | {outcome.name} | {state} | {outcome.took_s:.1f} s | {ran_on} "
        f"| {outcome.where} | {outcome.client} | {outcome.verdict} |"
    )


def told(outcome: Outcome) -> list[str]:
    """What there is to say besides."""
    lines = [f"not done: {each}" for each in outcome.not_done] + outcome.notes
    return [*lines, *outcome.said.splitlines(), *(f"WRONG: {text}" for text in outcome.wrong)]


def record(outcome: Outcome) -> dict[str, Any]:
    """For `--json` and `--table`."""
    return {
        "mode": outcome.mode,
        "cell": outcome.name,
        "verdict": outcome.verdict,
        "state": outcome.state,
        "repair": outcome.repair,
        "meanwhile": outcome.meanwhile,
        "took_s": round(outcome.took_s, 2),
        "where": outcome.where,
        "client": outcome.client,
        "not_done": outcome.not_done,
        "notes": outcome.notes,
        "said": outcome.said,
        "wrong": outcome.wrong,
    }


class Recorder:
    """Appends each cell to a file as a line of JSON; None: to none."""

    def __init__(self, path: Path | None) -> None:
        self._path = path

    def add(self, outcome: Outcome) -> None:
        if self._path:
            with self._path.open("a") as file:
                file.write(json.dumps(record(outcome)) + "\n")


def matrix(records: Iterable[dict[str, Any]]) -> list[str]:
    """Instant by fault, of cells with one fault: what came of it, and how often. Markdown."""
    cells: dict[tuple[str, str], Counter[str]] = defaultdict(Counter)
    for each in records:
        if "+" not in each["cell"]:
            injury = Injury.parse(each["cell"])
            cells[injury.fault.name, injury.instant][each["verdict"]] += 1
    at = [instant for instant in Instant if any(key[1] == instant for key in cells)]
    lines = [f"| fault | {' | '.join(at)} |", "|---" * (len(at) + 1) + "|"]
    for fault in FAULTS:
        row = [cells.get((fault, instant), Counter()) for instant in at]
        if any(row):
            lines.append(f"| {fault} | {' | '.join(_counts(each) for each in row)} |")
    return lines


def _counts(found: Counter[str]) -> str:
    return ", ".join(f"{verdict} {count}" if count > 1 else verdict for verdict, count in found.most_common()) or "-"


def run_cells(cells: FaultLab, wanted: Sequence[Cell], *, recorder: Recorder, quiet: bool) -> list[Outcome]:
    """(mode, injuries) one after the other; each is printed as it ends."""
    print(HEAD, flush=True)
    outcomes = []
    for mode, injuries in wanted:
        outcome = cells.injure(injuries, mode=mode)
        outcomes.append(outcome)
        print(line(outcome), flush=True)
        if outcome.wrong or not quiet:
            print("".join(f"    {text}\n" for text in told(outcome)), end="", flush=True)
        recorder.add(outcome)
    return outcomes


def _wanted(args: argparse.Namespace) -> list[Cell]:
    modes = args.mode or ["auto"]
    if args.cell:
        return [(mode, parse(text)) for text in args.cell for mode in modes]
    kinds, names = args.kind or (() if args.fault else KINDS), args.fault or ()
    cells: list[Cell] = [
        (mode, (Injury(instant=instant, fault=fault),))
        for mode in modes
        for fault in FAULTS.values()
        if fault.kind in kinds or fault.name in names
        for instant in instants(mode)
        if instant in (args.instant or Instant) and fault.fits(instant)
    ]
    if args.resume and args.json and args.json.exists():
        before = [json.loads(text) for text in args.json.read_text().splitlines()]
        done = {(each["mode"], each["cell"]) for each in before}
        cells = [(mode, injuries) for mode, injuries in cells if (mode, str(injuries[0])) not in done]
    if args.shuffle:
        random.Random(args.shuffle).shuffle(cells)
    return cells[: args.most] if args.most else cells


def parser() -> argparse.ArgumentParser:
    made = argparse.ArgumentParser(prog="python -m bench.faults", description=(__doc__ or "").partition("\n\n")[0])
    made.add_argument("--instant", action="append", choices=list(Instant), help="only this one; may be repeated")
    made.add_argument("--fault", action="append", choices=list(FAULTS), help="only this one; may be repeated")
    made.add_argument("--kind", action="append", choices=KINDS, help="only faults of this kind; may be repeated")
    made.add_argument("--cell", action="append", help='"send: kill sender + undo: kill coordinator"; may be repeated')
    made.add_argument("--mode", action="append", choices=MODES, help="of the moves; may be repeated (auto)")
    made.add_argument("--size-mb", type=int, default=16, help="data in Redis (16)")
    made.add_argument("--lab", default=f"mfault{os.getpid()}", help="the lab's name")
    made.add_argument("--json", type=Path, help="append a line of JSON a cell to this file")
    made.add_argument("--resume", action="store_true", help="leave out what is in that file already")
    made.add_argument("--shuffle", type=int, metavar="SEED", help="in the order of this number, not of the table")
    made.add_argument("--most", type=int, help="so many cells at most")
    made.add_argument("--table", type=Path, action="append", help="only print the matrix of such files")
    made.add_argument("--list", action="store_true", help="only print the faults and the instants")
    made.add_argument("--keep", action="store_true", help="leave the lab standing, to look at it")
    made.add_argument("--quiet", action="store_true", help="only the table, not what the command said")
    return made


def main(argv: list[str] | None = None) -> int:
    args = parser().parse_args(argv)
    if args.list:
        print("\n".join([*(f"{each.kind:<12} {each.name}" for each in FAULTS.values()), f"at: {', '.join(Instant)}"]))
        return 0
    if args.table:
        records = [json.loads(text) for path in args.table for text in path.read_text().splitlines()]
        print("\n".join(matrix(records)))
        return 0
    wanted = _wanted(args)

    def run(lab: Lab) -> list[str]:
        with Client(lab.socket) as fleet:
            cells = FaultLab(lab, fleet, size_mb=args.size_mb)
            cells.begin()
            outcomes = run_cells(cells, wanted, recorder=Recorder(args.json), quiet=args.quiet)
            cells.end()
        return [f"{each.name}: {text}" for each in outcomes for text in each.wrong]

    begun = time.monotonic()
    lab = Lab(prefix=args.lab, hosts=2)
    with fault_disks.directory(args.lab) as files:
        before = partial(fault_disks.make, lab, files)
        wrong = in_lab.judged(args.lab, hosts=2, run=run, keep=args.keep, before=before)
    print(f"{len(wanted)} cells, {time.monotonic() - begun:.0f} s; {'NOT all is well' if wrong else 'all is well'}")
    return 1 if wrong else 0


if __name__ == "__main__":
    sys.exit(main())
