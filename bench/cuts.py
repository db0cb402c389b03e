"""`python -m bench.cuts`: one host's link is cut in each phase of a move, for a second, half a minute, for good; prints what came of it.

A lab of its own with two hosts, a Redis in a container, one client outside with one TCP connection. The link of the source or of
the target goes down at the switch (`ip link set down`): whoever is on the other side is cut off from that host, the coordinator and
the client too. "For good" is longer than anybody's patience; then it comes back, for a host that stays away for ever is a host that
has died, and those are in docs/kill-table.md. docs/cuts.md says what the columns mean. Exit status 1 where a cell is not as it must be.
"""

from __future__ import annotations

import argparse
import os
import subprocess
import sys
import threading
import time
from collections.abc import Sequence
from functools import partial

from bench import in_lab
from bench.kill_cell import CONTAINER, KillLab, Outcome
from bench.kill_victims import Phase, Scene
from bench.kill_victims import phases as phases_of
from migrate.client import Client
from migrate.coordinator.migration import MODES
from migrate.errors import MigrateError
from migrate.lab import images
from migrate.lab.layout import Lab
from migrate.records import Migration

SIDES = ("source", "target")
CUTS = {"1 s": 1.0, "30 s": 30.0, "for good": 100.0}
HEAD = (
    "| mode | link of the | cut | during | the move, while cut | afterwards | its end after | web1 ran on | web1 now "
    "| its client | verdict |\n|---|---|---|---|---|---|---|---|---|---|---|"
)


class CutLab(KillLab):
    """As where processes are killed, but a link goes down."""

    end_limit_s = 300.0
    clean_limit_s = 80.0  # sshd ends sessions whose other end was cut off after a minute (agent/setup/sshd.py)
    _healed = threading.Event()

    def cut(self, phase: Phase, side: str, cut: str) -> Outcome:
        """One cell. Afterwards the link is up and web1 runs on host1 again, under its client."""
        self.client_may_be_lost = cut == "for good"  # TCP's own patience ends too
        self._healed.set()
        outcome = Outcome(phase=phase, victim=f"{side} | {cut}")
        return self._cell(outcome, partial(self._cut, side, CUTS[cut]))

    def _do_as_told(self, record: Migration, outcome: Outcome) -> None:
        """When the link is back: an operator looks at that first."""
        self._healed.wait()
        super()._do_as_told(record, outcome)

    def _where(self) -> str:
        self._healed.wait()
        return super()._where()

    def _cut(self, side: str, length_s: float, scene: Scene, outcome: Outcome) -> None:
        host = scene.source if side == "source" else scene.target
        self._healed.clear()
        self._link(host, "down")

        def heal() -> None:
            time.sleep(length_s)
            outcome.meanwhile = self._state()
            self._link(host, "up")
            self._healed.set()

        threading.Thread(target=heal, daemon=True).start()

    def _state(self) -> str:
        try:
            record = self._fleet.migrations(container=CONTAINER, limit=1)[0]
        except MigrateError as exc:
            return exc.message
        return f"{record.state}: {record.step}" if record.state in ("running", "waiting") else record.state

    def _link(self, host: str, state: str) -> None:
        command = ["ip", "-n", self._lab.netns("switch"), "link", "set", host, state]
        subprocess.run(command, check=True, capture_output=True)


def line(mode: str, outcome: Outcome) -> str:
    """A row of the table, as Markdown."""
    state = f"{outcome.state}; {outcome.repair}" if outcome.repair else outcome.state
    ran_on = " then ".join(outcome.ran_on.split())
    return (
        f"| {mode} | {outcome.victim} | {outcome.phase} | {outcome.meanwhile} | {state} | {outcome.took_s:.1f} s | {ran_on} "
        f"| {outcome.where} | {outcome.client} | {'WRONG' if outcome.wrong else 'ok'} |"
    )


def cuts(
    lab: Lab, modes: Sequence[str], phases: Sequence[Phase], sides: Sequence[str], lengths: Sequence[str]
) -> list[str]:
    """All cells, each printed as it ends. What is wrong, a line each."""
    wrong: list[str] = []
    with Client(lab.socket) as fleet:
        with images.redis_rootfs().open("rb") as tar:
            fleet.import_image(tar, "redis", host="host1")
        for mode in modes:
            cells = CutLab(lab, fleet, mode=mode)
            cells.begin()
            print(HEAD, flush=True)
            for phase in phases:
                if phase not in phases_of(mode):
                    continue
                for side in sides:
                    for cut in lengths:
                        outcome = cells.cut(phase, side, cut)
                        print(line(mode, outcome), flush=True)
                        for text in (*outcome.said.splitlines(), *(f"WRONG: {each}" for each in outcome.wrong)):
                            print(f"    {text}", flush=True)
                        wrong += [f"{mode}, {outcome.victim}, {phase}: {text}" for text in outcome.wrong]
            cells.end()
    return wrong


def main(argv: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(prog="python -m bench.cuts", description=(__doc__ or "").partition("\n\n")[0])
    parser.add_argument("--mode", action="append", choices=MODES, help="only this one; may be repeated (auto)")
    parser.add_argument("--phase", action="append", choices=list(Phase), help="only this one; may be repeated")
    parser.add_argument("--side", action="append", choices=SIDES, help="only the link of this host; may be repeated")
    parser.add_argument("--cut", action="append", choices=list(CUTS), help="only this long; may be repeated")
    parser.add_argument("--lab", default=f"mcut{os.getpid()}", help="the lab's name")
    parser.add_argument("--keep", action="store_true", help="leave the lab standing, to look at it")
    args = parser.parse_args(argv)
    begun = time.monotonic()
    run = partial(
        cuts,
        modes=args.mode or ["auto"],
        phases=[Phase(name) for name in args.phase or Phase],
        sides=args.side or SIDES,
        lengths=args.cut or list(CUTS),
    )
    wrong = in_lab.judged(args.lab, hosts=2, run=run, keep=args.keep)
    print(f"{time.monotonic() - begun:.0f} s; {'NOT all is well' if wrong else 'all is well'}")
    return 1 if wrong else 0


if __name__ == "__main__":
    sys.exit(main())
