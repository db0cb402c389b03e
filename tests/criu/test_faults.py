"""The most telling cells of `python -m bench.faults`: who is killed when, and what the container, its witness and its client see of it.

On one lab, with real CRIU. What each cell looks at (bench/fault_cell.py): the container runs on one host and never on two, by the
kernel's word and by its own; its client's connection goes on without a lost or repeated answer; its data and the file that it appends to
are whole; nothing is left behind; a command that failed says what to type next.
"""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from bench.fault_cell import FaultLab
from bench.fault_table import parse
from tests.criu.moving_lab import MovingLab

pytestmark = pytest.mark.criu

UNDONE, MOVED = "undone", "moved"


@pytest.fixture(scope="module")
def faults(fleet: MovingLab) -> Iterator[FaultLab]:
    made = FaultLab(fleet.lab, fleet.client, size_mb=4)
    made.begin()
    yield made
    made.end()


@pytest.mark.parametrize(
    ("cell", "ends"),
    [
        ("dump: kill source monitor", UNDONE),
        ("dump: kill source CRIU", UNDONE),
        ("send: kill receiver", UNDONE),
        ("restore: cut source-target 1 s", MOVED),  # the target has all of it
        ("restoring: kill target CRIU + undo: kill coordinator", UNDONE),
        ("restored: kill sender", MOVED),
        ("pivot: kill target monitor", MOVED),  # both copies are frozen, and only the target's may ever run
        ("pivot: kill coordinator + release: kill source agent", MOVED),
    ],
)
def test_fault(faults: FaultLab, cell: str, ends: str) -> None:
    """Whatever dies, one copy runs on under its client; the move is undone or finished, and says which."""
    outcome = faults.injure(parse(cell))
    assert not outcome.not_done
    assert not outcome.wrong, f"{outcome.wrong}; {outcome.said}"
    assert outcome.verdict == ends, outcome.said
