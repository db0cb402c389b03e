"""Whatever a container does to its writable layer between the rounds of a move, the copy is exact."""

from __future__ import annotations

import tempfile
import time
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from tests.system.tree_move import NOT_RACY_S, Move, act, operation

pytestmark = pytest.mark.system


@pytest.mark.parametrize("watch", [True, False], ids=["watched", "scanned"])
@settings(max_examples=80, deadline=None, suppress_health_check=list(HealthCheck))
@given(
    rounds=st.lists(st.tuples(st.lists(operation, max_size=14), st.booleans()), min_size=1, max_size=4),
    first=st.lists(operation, max_size=25),
)
def test_after_the_last_round_the_trees_are_equal(
    first: list[tuple[str, int, int, int]],
    rounds: list[tuple[list[tuple[str, int, int, int]], bool]],
    watch: bool,
) -> None:
    """Whatever happened between the rounds, the target is the source, by a comparison that shares no code with the product."""
    with tempfile.TemporaryDirectory(prefix="hstor-") as base:
        move = Move(Path(base), watch=watch)
        try:
            for step in first:
                act(move.upper, *step)
            move.round()
            for index, (steps, wait) in enumerate(rounds):
                if wait:
                    time.sleep(NOT_RACY_S)
                    move.round()  # now nothing is racy, and only times and numbers tell what changes next
                for step in steps:
                    act(move.upper, *step)
                if index < len(rounds) - 1:
                    move.round()
                    assert move.differences() == []  # nothing writes: a running round is exact as well
            move.finish()
            assert move.differences() == []
        finally:
            move.close()
