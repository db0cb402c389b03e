"""`python -m bench.dirty_trace OUT [--seconds S] -- PROGRAM ...`: what a program writes to its memory, and when. Needs root.

Every TICK_S the dirty tracker is asked what was written; kept is one bit for each GRANULE_BYTES of it. Policies are
played over such traces (tests/unit/agent/memory/test_policy_traces.py).
"""

from __future__ import annotations

import argparse
import subprocess
import sys
import time
from collections.abc import Sequence
from pathlib import Path

import numpy as np

from agent.memory.watching import watch
from bench import trackers

TICK_S = 0.05
GRANULE_BYTES = 16 << 10


def record(program: Sequence[str], seconds: float, settle_s: float) -> np.ndarray[tuple[int, int], np.dtype[np.bool_]]:
    """Shape (ticks, granules): written in that tick. Granules that nobody wrote to at all are left out."""
    way = trackers.ways()[0][0]
    process = subprocess.Popen(program, stdout=subprocess.DEVNULL)
    seen: dict[int, int] = {}
    ticks: list[list[int]] = []
    try:
        time.sleep(settle_s)
        tracker, why_not = watch(way, process.pid)
        if why_not:
            raise SystemExit(f"cannot watch {program[0]}: {why_not}")
        tracker.look()
        begin = time.monotonic()
        while time.monotonic() < begin + seconds:
            time.sleep(max(0.0, begin + (len(ticks) + 1) * TICK_S - time.monotonic()))
            written = tracker.look().written // np.uint64(GRANULE_BYTES)
            granules = {at for first, last in written.tolist() for at in range(first, last + 1)}
            ticks.append([seen.setdefault(at, len(seen)) for at in sorted(granules)])
        tracker.close()
    finally:
        process.kill()
        process.wait()
    trace = np.zeros((len(ticks), len(seen)), np.bool_)
    for number, granules_of in enumerate(ticks):
        trace[number, granules_of] = True
    return trace


def main(argv: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(prog="python -m bench.dirty_trace", description=__doc__)
    parser.add_argument("out", type=Path, help="an .npz file")
    parser.add_argument("--seconds", type=float, default=4.0)
    parser.add_argument("--settle", type=float, default=2.0, help="seconds before it begins (default: 2)")
    parser.add_argument("program", nargs="+")
    arguments = parser.parse_args(argv)
    trace = record(arguments.program, arguments.seconds, arguments.settle)
    packed = np.packbits(trace, axis=1)
    np.savez_compressed(
        arguments.out, written=packed, granules=trace.shape[1], tick_s=TICK_S, granule_bytes=GRANULE_BYTES
    )
    rate = trace.sum() * GRANULE_BYTES / (len(trace) * TICK_S) / 1e6
    print(f"{arguments.out}: {len(trace)} ticks, {trace.shape[1]} granules, {rate:.0f} MB/s at {TICK_S} s, "
          f"{arguments.out.stat().st_size} bytes")  # fmt: skip
    return 0


if __name__ == "__main__":
    sys.exit(main())
