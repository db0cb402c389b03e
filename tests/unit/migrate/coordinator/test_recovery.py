"""What a coordinator does with an unfinished move, for everything that it can see."""

from __future__ import annotations

import itertools

import pytest

from migrate.coordinator import recovery
from migrate.coordinator.recovery import Seen, Sighting
from migrate.saga.journal import Direction
from tests.fakes.coordinator import a_move

pytestmark = pytest.mark.unit

MOVE = a_move(epoch=4)
ABSENT = Sighting(present=False)
FORWARD, BACK, COMMITTED = Direction.FORWARD, Direction.BACK, Direction.COMMITTED


def at(state: str, epoch: int = 4, migration_id: str = "m1") -> Sighting:
    return Sighting(present=True, state=state, epoch=epoch, migration_id=migration_id)


def seen(
    direction: Direction, source: Sighting | None, target: Sighting | None, done: str = "", undone: str = ""
) -> Seen:
    return Seen(direction=direction, done=done.split(), undone=undone.split(), source=source, target=target)


ANYTHING = [None, ABSENT, *(at(state) for state in ("running", "frozen", "exited", "arriving", "lost"))]


@pytest.mark.parametrize(
    ("direction", "source", "target", "done"),
    [
        (FORWARD, at("running"), ABSENT, ""),
        (FORWARD, at("running"), at("arriving"), "reserve"),
        (FORWARD, at("frozen"), at("frozen"), "restore"),
        (FORWARD, at("exited"), at("frozen"), "restore"),  # the pivot makes the target's copy the one that counts
        (FORWARD, None, at("frozen"), "restore"),
        (FORWARD, at("exited"), ABSENT, ""),  # it has ended by itself: the move fails, nothing is lost
        (BACK, at("frozen"), at("frozen"), "restore"),
        (BACK, at("running"), at("frozen"), "restore"),
        (BACK, at("lost"), ABSENT, ""),
        (BACK, None, None, ""),
        (COMMITTED, at("frozen"), at("frozen"), ""),
        (COMMITTED, at("frozen"), at("running", 5), ""),
        (COMMITTED, at("frozen"), at("exited", 5), ""),  # resumed, and has ended since
        (COMMITTED, ABSENT, at("running", 5), "resume"),
        (COMMITTED, ABSENT, ABSENT, "resume"),  # removed since by somebody
        (COMMITTED, None, at("frozen"), ""),
    ],
)
def test_what_agrees_goes_on(direction: Direction, source: Sighting, target: Sighting, done: str) -> None:
    """The journal's direction, and the text says what will be done and what was seen."""
    verdict = recovery.judge(MOVE, seen(direction, source, target, done))
    assert verdict.go_on, verdict.text
    assert "web1" in verdict.text


@pytest.mark.parametrize(
    ("direction", "source", "target", "done", "hint"),
    [
        (FORWARD, at("running"), at("running"), "", "host1 owns it"),
        (COMMITTED, at("running"), at("lost", 5), "resume", "host2 owns it"),
        (FORWARD, at("frozen"), at("running"), "restore", "--keep source"),
        (BACK, ABSENT, at("running"), "restore", "--keep target"),
        (FORWARD, ABSENT, ABSENT, "", "look at host1"),
        (BACK, ABSENT, at("arriving"), "", "look at host1"),
        (BACK, ABSENT, at("frozen"), "restore", "--keep target"),
        (BACK, at("exited"), at("frozen"), "restore", "--keep target"),
        (COMMITTED, at("running"), at("frozen"), "", "--keep source"),
        (COMMITTED, at("frozen"), ABSENT, "", "--keep source"),
        (COMMITTED, at("frozen"), at("exited", 4), "", "--keep source"),
    ],
)
def test_what_contradicts_the_journal_is_left_alone(
    direction: Direction, source: Sighting, target: Sighting, done: str, hint: str
) -> None:
    """The error says what was seen on both hosts and what to type."""
    verdict = recovery.judge(MOVE, seen(direction, source, target, done))
    assert not verdict.go_on
    error = verdict.error()
    assert hint in error.hint
    assert "host1: " in error.message
    assert "host2: " in error.message


def test_a_stale_copy_on_the_target_may_be_discarded() -> None:
    """The source has run since the freeze and has ended: what the target has is of the past."""
    assert recovery.judge(MOVE, seen(BACK, at("exited"), at("frozen"), "restore", undone="freeze")).go_on


def test_two_running_copies_are_never_gone_on_with() -> None:
    """Whatever the journal says."""
    for direction, source, target in itertools.product(Direction, ("running", "lost"), ("running", "lost")):
        assert not recovery.judge(MOVE, seen(direction, at(source), at(target, 5), "restore resume")).go_on


def test_nothing_that_runs_on_the_wrong_side_is_ever_gone_on_with() -> None:
    """Before the pivot a running target, after it a running source."""
    for other, done in itertools.product(ANYTHING, ("", "restore", "restore resume")):
        for direction in (FORWARD, BACK):
            assert not recovery.judge(MOVE, seen(direction, other, at("running"), done)).go_on
        assert not recovery.judge(MOVE, seen(COMMITTED, at("running"), other, done)).go_on


def test_every_contradiction_has_a_remedy() -> None:
    """A hint for each of all combinations, and no combination without an answer."""
    for direction, source, target, done in itertools.product(Direction, ANYTHING, ANYTHING, ("", "restore")):
        verdict = recovery.judge(MOVE, seen(direction, source, target, done))
        assert verdict.text
        assert verdict.go_on or verdict.hint


@pytest.mark.parametrize(
    ("source", "target", "done", "undone", "ok"),
    [
        (at("exited"), at("frozen"), "restore", "", True),
        (ABSENT, at("frozen"), "restore", "", True),
        (at("frozen"), at("frozen"), "restore", "", True),
        (None, at("frozen"), "restore", "", True),
        (at("exited"), at("frozen"), "", "", False),  # not complete
        (at("exited"), at("arriving"), "restore", "", False),
        (at("exited"), None, "restore", "", False),
        (at("exited"), at("frozen", migration_id="m0"), "restore", "", False),
        (at("running"), at("frozen"), "restore", "", False),
        (at("exited"), at("frozen"), "restore", "freeze", False),  # of the past
    ],
)
def test_when_an_operator_may_keep_the_target(
    source: Sighting, target: Sighting, done: str, undone: str, ok: bool
) -> None:
    """A complete copy of this very move, and no sign that the source has run since."""
    verdict = recovery.may_keep_target(MOVE, seen(BACK, source, target, done, undone))
    assert verdict.go_on is ok
    assert ("make sure that it is off" in verdict.text) is (ok and source is None)


def test_the_target_cannot_be_kept_twice() -> None:
    """After the pivot it owns the container already."""
    assert not recovery.may_keep_target(MOVE, seen(COMMITTED, at("frozen"), at("frozen"), "restore")).go_on


@pytest.mark.parametrize(
    ("source", "target", "done", "ok"),
    [
        (at("frozen"), ABSENT, "", True),
        (at("frozen"), at("exited"), "", True),
        (at("frozen"), at("frozen"), "", True),
        (at("frozen"), None, "", False),  # it may run there
        (at("frozen"), at("running", 5), "", False),
        (at("frozen"), ABSENT, "resume", False),  # it has run there
        (at("exited"), ABSENT, "", False),
        (None, ABSENT, "", False),
    ],
)
def test_when_an_operator_may_take_a_pivot_back(source: Sighting, target: Sighting, done: str, ok: bool) -> None:
    """Only if the target answers, has never run it, and the source still has it."""
    assert recovery.may_keep_source(MOVE, seen(COMMITTED, source, target, done)).go_on is ok


def test_before_the_pivot_the_source_may_always_be_kept() -> None:
    """That is what an undo does anyway; an operator only says that the target's copy may go."""
    for source, target in itertools.product(ANYTHING, ANYTHING):
        assert recovery.may_keep_source(MOVE, seen(BACK, source, target, "restore")).go_on
