"""What a host remembers of moves that are over."""

from __future__ import annotations

import time
from pathlib import Path

import pytest

from agent.errors import WrongState
from agent.handover import ended
from agent.handover.ended import EndedMoves

pytestmark = pytest.mark.unit

ID = "1" * 16


def test_a_decision_outlives_the_agent(tmp_path: Path) -> None:
    """Another instance over the same directory knows it, with what Finish answered, and refuses the calls."""
    first = EndedMoves(tmp_path)
    decided = first.decide(ID, "source", "c1", 3, committed=True)
    first.done(decided, [{"name": "released", "unix_ns": 7}])
    again = EndedMoves(tmp_path)
    found = again.get(ID, "source")
    assert found is not None
    assert (found.done, found.committed, found.marks) == (True, True, [{"name": "released", "unix_ns": 7}])
    with pytest.raises(WrongState, match="committed"):
        again.refuse(ID, "source")
    again.refuse(ID, "target")  # the other role of a move is another host's in real life


@pytest.mark.parametrize("committed", [True, False])
def test_a_decision_is_not_turned_round(tmp_path: Path, committed: bool) -> None:
    """After a commit no undo, after an undo no commit; the same again is the same."""
    moves = EndedMoves(tmp_path)
    first = moves.decide(ID, "target", "c1", 1, committed=committed)
    assert moves.decide(ID, "target", "c1", 1, committed=committed) == first
    with pytest.raises(WrongState):
        moves.decide(ID, "target", "c1", 1, committed=not committed)
    assert moves.get(ID, "target") == first


def test_the_epoch_that_a_move_tells(tmp_path: Path) -> None:
    """A commit makes it one more than in the calls, and it is known when the container has left."""
    moves = EndedMoves(tmp_path)
    assert moves.known_epoch("c1") == 0
    moves.decide("2" * 16, "source", "c1", 4, committed=False)
    assert moves.known_epoch("c1") == 4
    moves.decide("3" * 16, "source", "c1", 4, committed=True)
    assert (moves.known_epoch("c1"), moves.known_epoch("c2")) == (5, 0)


def test_old_moves_are_forgotten(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """At the agent's start and with each new end, so that they do not pile up; young ones stay."""
    moves = EndedMoves(tmp_path)
    moves.decide(ID, "source", "c1", 1, committed=True)
    later = time.time_ns() + (ended.KEEP_S + 60) * 10**9
    monkeypatch.setattr(ended.time, "time_ns", lambda: later)
    moves.decide("2" * 16, "source", "c2", 1, committed=True)
    assert (moves.get(ID, "source"), len(list(tmp_path.iterdir()))) == (None, 1)
    monkeypatch.setattr(ended.time, "time_ns", lambda: later + (ended.KEEP_S + 60) * 10**9)
    assert EndedMoves(tmp_path).get("2" * 16, "source") is None
    assert list(tmp_path.iterdir()) == []


def test_a_damaged_file_keeps_no_agent_from_starting(tmp_path: Path) -> None:
    """It is left for somebody to look at, the others are read."""
    EndedMoves(tmp_path).decide(ID, "source", "c1", 1, committed=True)
    (tmp_path / "x.source.json").write_text("{")
    assert EndedMoves(tmp_path).get(ID, "source") is not None
    assert (tmp_path / "x.source.json").exists()
