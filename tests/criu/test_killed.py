"""Kill -9 of each process that takes part in a move, each once, in a phase where it matters: what web1 and its client see of it.

A part of the table that `python -m bench.kills` makes, on one lab, with real CRIU and one connected client. What each cell looks
at: web1 runs on one host and never on two, its client's connection goes on without a lost or repeated answer, its data is whole,
nothing is left behind, and a command that failed says what to type next (bench/kill_cell.py).
"""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from bench.kill_cell import KillLab
from bench.kill_victims import Phase, Victim
from tests.criu.moving_lab import MovingLab

pytestmark = pytest.mark.criu

FAILED, SUCCEEDED = "failed", "succeeded"


@pytest.fixture(scope="module")
def kills(fleet: MovingLab) -> Iterator[KillLab]:
    made = KillLab(fleet.lab, fleet.client, size_mb=4)
    made.begin()
    yield made
    made.end()


@pytest.mark.parametrize(
    ("victim", "phase", "ends"),
    [
        (Victim.SOURCE_CRIU, Phase.DUMP, FAILED),
        (Victim.SOURCE_MONITOR, Phase.DUMP, FAILED),
        (Victim.SOURCE_AGENT, Phase.SEND, FAILED),
        (Victim.SSH, Phase.SEND, FAILED),
        (Victim.RECEIVER, Phase.SEND, FAILED),
        (Victim.TARGET_CRIU, Phase.RESTORE, FAILED),
        (Victim.TARGET_MONITOR, Phase.RESTORED, FAILED),
        (Victim.TARGET_AGENT, Phase.RESTORE, SUCCEEDED),
        (Victim.COORDINATOR, Phase.RESTORE, SUCCEEDED),
        (Victim.SENDER, Phase.RELEASE, SUCCEEDED),
    ],
)
def test_killed(kills: KillLab, victim: Victim, phase: Phase, ends: str) -> None:
    """Whoever dies, one copy of web1 runs on under its client; the move is undone or finished, and says which."""
    outcome = kills.kill(phase, victim)
    assert outcome.ran, f"no {victim} in {phase}"
    assert not outcome.wrong, f"{outcome.wrong}; {outcome.said}"
    assert outcome.state == ends, outcome.said
    assert outcome.where == ("host2:running" if ends == SUCCEEDED else "host1:running")
