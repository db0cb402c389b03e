"""What every agent keeps of a rehearsal: the container stays where it is, and its copy never becomes it."""

from __future__ import annotations

import pytest

from tests.contract.move_by_hand import MoveByHand, Pair, refused


@pytest.mark.parametrize("times", [1, 2])
def test_a_rehearsal_from_end_to_end(migration_pair: Pair, times: int) -> None:
    """The source runs as soon as its freeze is over, the copy when it is tried, and then there is none; each call twice is the same."""
    move = MoveByHand(migration_pair, migration_pair.run_container(), times=times, rehearsal=True)
    seen = [move.states()]
    for step in (*MoveByHand.STEPS, "try_out", "undo"):
        getattr(move, step)()
        if (states := move.states()) != seen[-1]:
            seen.append(states)
    assert seen == [
        ("running@1", "absent"),
        ("running@1", "arriving@1"),
        ("running@1", "frozen@1"),
        ("running@1", "running@1"),
        ("running@1", "absent"),
    ]


def test_what_a_try_says(migration_pair: Pair) -> None:
    """A copy that is well; with the mark of when it ran."""
    move = MoveByHand(migration_pair, migration_pair.run_container(), rehearsal=True)
    move.up_to("restore")
    answer = move.try_out()
    assert (answer.passed, bool(answer.text), answer.tasks > 0) == (True, True, True)
    assert "running" in [mark.name for mark in answer.marks]
    assert move.try_out() == answer
    move.undo()


@pytest.mark.parametrize("last", ["open_tunnel", "freeze", "restore", "try_out"])
def test_it_is_never_committed(migration_pair: Pair, last: str) -> None:
    """On neither side, however far it has come; and it can still be undone."""
    move = MoveByHand(migration_pair, migration_pair.run_container(), rehearsal=True)
    move.up_to("restore" if last == "try_out" else last)
    if last == "try_out":
        move.try_out()
    for role in ("target", "source"):
        with refused():
            move.finish(role, committed=True)
    move.undo()
    assert move.states() == ("running@1", "absent")


def test_what_is_restored_in_a_move_is_not_tried(migration_pair: Pair) -> None:
    """It would be a second copy that runs."""
    move = MoveByHand(migration_pair, migration_pair.run_container())
    move.up_to("restore")
    with refused():
        move.try_out()
    assert move.states() == ("frozen@1", "frozen@1")
    move.commit()
    assert move.states() == ("absent", "running@2")


def test_a_try_before_the_restore_and_after_the_undo(migration_pair: Pair) -> None:
    """There is nothing to try, yet or any more."""
    move = MoveByHand(migration_pair, migration_pair.run_container(), rehearsal=True)
    move.up_to("freeze")
    with refused():
        move.try_out()
    move.undo()
    with refused():
        move.try_out()
    assert move.states() == ("running@1", "absent")


def test_a_move_after_a_rehearsal(migration_pair: Pair) -> None:
    """Nothing of it is in the way."""
    container_id = migration_pair.run_container()
    first = MoveByHand(migration_pair, container_id, rehearsal=True)
    first.up_to("restore")
    first.try_out()
    first.undo()
    second = MoveByHand(migration_pair, container_id, move="2")
    second.up_to("restore")
    second.commit()
    assert second.states() == ("absent", "running@2")
