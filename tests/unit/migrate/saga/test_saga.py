"""migrate/saga/saga.py case by case; tests/faults/test_saga_crashes.py has the crashes."""

from __future__ import annotations

import sqlite3
from collections.abc import Callable
from pathlib import Path

import pytest

from migrate.errors import Cancelled, NeedsAttention, StepError
from migrate.saga import journal as journals
from migrate.saga.database import Database
from migrate.saga.journal import SAGA, Direction, Event, Facts, Journal, Results
from migrate.saga.saga import Interrupted, Pace, Saga, SagaStuck, SagaUndone

pytestmark = pytest.mark.unit

Log = list[str]


class Scripted:
    """A step that logs what it does and raises what it is given, once a call."""

    def __init__(
        self,
        name: str,
        *,
        do: list[Exception | BaseException] | None = None,
        undo: list[Exception] | None = None,
        during: Callable[[], None] = lambda: None,
    ) -> None:
        self.name = name
        self._do, self._undo, self._during = do or [], undo or [], during

    def do(self, context: Log, done: Results) -> Facts:
        context.append(f"do {self.name}")
        self._during()
        if self._do:
            raise self._do.pop(0)
        return {"knew": sorted(done)}

    def undo(self, context: Log) -> None:
        context.append(f"undo {self.name}")
        if self._undo:
            raise self._undo.pop(0)


class Clock:
    def __init__(self) -> None:
        self.now = 0.0
        self.waits: list[float] = []
        self.stop_at: float | None = None
        self.told: list[tuple[str, str]] = []

    def wait(self, seconds: float) -> None:
        self.now += seconds
        if seconds:
            self.waits.append(seconds)
        if self.stop_at is not None and self.now >= self.stop_at:
            raise Interrupted

    def pace(self) -> Pace:
        return Pace(
            wait=self.wait,
            now=lambda: self.now,
            waiting=lambda step, error, _seconds: self.told.append((step, str(error))),
            undo_limit_s=5.0,
            first_s=1.0,
            longest_s=2.0,
        )


@pytest.fixture
def journal(tmp_path: Path) -> Journal:
    return Journal(Database(tmp_path / "db", (journals.SCHEMA,)), "one")


def nothing(_context: Log, _db: sqlite3.Connection) -> None:
    pass


def rows(journal: Journal) -> list[str]:
    return [f"{entry.step} {entry.event}" for entry in journal.entries()]


def test_a_saga_without_trouble_does_every_step_in_order(journal: Journal) -> None:
    """Steps, COMMITTED, later steps; each gets the results of those before it."""
    log: Log = []
    saga = Saga(before=[Scripted("a"), Scripted("b")], pivot=nothing, after=[Scripted("c")])
    saga.run(log, journal, Clock().pace())
    assert log == ["do a", "do b", "do c"]
    assert rows(journal) == [
        "a started", "a done", "b started", "b done", "saga committed", "c started", "c done",
    ]  # fmt: skip
    assert journal.results()["c"] == {"knew": ["a", "b"]}


def test_a_saga_that_is_over_does_nothing_again(journal: Journal) -> None:
    """Running it once more touches nothing."""
    saga = Saga(before=[Scripted("a")], pivot=nothing, after=[Scripted("b")])
    saga.run([], journal, Clock().pace())
    log: Log = []
    saga.run(log, journal, Clock().pace())
    assert log == []


def test_a_failed_step_undoes_all_that_began_last_first(journal: Journal) -> None:
    """The failed one too; those that never began are left alone."""
    log: Log = []
    error = StepError("no room", hint="make room", code="storage")
    saga = Saga(before=[Scripted("a"), Scripted("b", do=[error]), Scripted("c")], pivot=nothing, after=[])
    with pytest.raises(SagaUndone) as caught:
        saga.run(log, journal, Clock().pace())
    assert log == ["do a", "do b", "undo b", "undo a"]
    assert (caught.value.step, caught.value.error.code, caught.value.error.hint) == ("b", "storage", "make room")
    assert not caught.value.cancelled
    assert rows(journal)[3:] == ["b failed", "saga aborting", "b undone", "a undone"]


def test_a_mistake_in_a_step_is_undone_too(journal: Journal) -> None:
    """Any Exception, not only the ones we foresaw."""
    log: Log = []
    saga = Saga(before=[Scripted("a", do=[KeyError("x")])], pivot=nothing, after=[])
    with pytest.raises(SagaUndone) as caught:
        saga.run(log, journal, Clock().pace())
    assert caught.value.error.code == "internal"
    assert log == ["do a", "undo a"]


def test_one_undo_that_fails_does_not_hold_up_the_others(journal: Journal) -> None:
    """All are tried before any is tried again."""
    log: Log = []
    steps = [Scripted("a"), Scripted("b", undo=[OSError("gone")]), Scripted("c", do=[OSError("x")])]
    clock = Clock()
    with pytest.raises(SagaUndone):
        Saga(before=steps, pivot=nothing, after=[]).run(log, journal, clock.pace())
    assert log[3:] == ["undo c", "undo b", "undo a", "undo b"]
    assert clock.waits == [1.0]
    assert clock.told == [("b", "gone")]


def test_an_undo_that_never_works_ends_in_a_state_that_can_be_tried_again(journal: Journal) -> None:
    """UNDO_FAILED after the time limit; the next run undoes just what is left."""
    log: Log = []
    steps = [Scripted("a"), Scripted("b", undo=[OSError("gone")] * 4), Scripted("c", do=[OSError("x")])]
    saga = Saga(before=steps, pivot=nothing, after=[])
    clock = Clock()
    with pytest.raises(SagaStuck) as caught:
        saga.run(log, journal, clock.pace())
    assert clock.waits == [1.0, 2.0, 2.0]
    assert list(caught.value.errors) == ["b"]
    assert journal.has("b", Event.UNDO_FAILED)
    log.clear()
    with pytest.raises(SagaUndone) as undone:
        saga.run(log, journal, clock.pace())
    assert log == ["undo b"]
    assert undone.value.step == "c", "the reason is still the one from before"


def test_an_undo_that_asks_for_an_operator_is_not_repeated(journal: Journal) -> None:
    """NeedsAttention from every step that is left ends the waiting at once."""
    clock = Clock()
    steps = [Scripted("a", do=[OSError("x")], undo=[NeedsAttention("look")])]
    with pytest.raises(SagaStuck):
        Saga(before=steps, pivot=nothing, after=[]).run([], journal, clock.pace())
    assert clock.waits == []


def test_a_step_after_the_pivot_is_tried_for_ever(journal: Journal) -> None:
    """With growing delays; a failure that repeats itself is one row; it is never undone."""
    clock = Clock()
    log: Log = []
    after = [Scripted("b", do=[OSError("gone")] * 3 + [OSError("other")])]
    Saga(before=[Scripted("a")], pivot=nothing, after=after).run(log, journal, clock.pace())
    assert log == ["do a"] + ["do b"] * 5
    assert clock.waits == [1.0, 2.0, 2.0, 2.0]
    assert rows(journal)[3:] == ["b started", "b failed", "b failed", "b done"]


def test_a_step_after_the_pivot_may_ask_for_an_operator(journal: Journal) -> None:
    """NeedsAttention stops the retries; the direction stays COMMITTED."""
    saga = Saga(before=[], pivot=nothing, after=[Scripted("b", do=[NeedsAttention("lost", hint="type this")])])
    with pytest.raises(SagaStuck) as caught:
        saga.run([], journal, Clock().pace())
    assert caught.value.errors["b"].hint == "type this"
    assert journal.direction() is Direction.COMMITTED
    saga.run([], journal, Clock().pace())
    assert journal.has("b", Event.DONE)


def test_going_down_is_no_failure_of_a_step(journal: Journal) -> None:
    """The channels close under a step: nothing is journalled, and the next life does it again."""
    clock = Clock()
    clock.stop_at = 0.5

    def closing() -> None:
        clock.now = 1.0

    log: Log = []
    steps = [Scripted("a", do=[OSError("channel closed")], during=closing)]
    saga = Saga(before=steps, pivot=nothing, after=[])
    with pytest.raises(Interrupted):
        saga.run(log, journal, clock.pace())
    assert rows(journal) == ["a started"]
    saga.run(log, journal, Clock().pace())
    assert log == ["do a", "do a"]


def test_going_down_while_waiting_leaves_the_rest_for_the_next_life(journal: Journal) -> None:
    """Past the pivot, in the middle of a retry."""
    clock = Clock()
    clock.stop_at = 2.5
    saga = Saga(before=[], pivot=nothing, after=[Scripted("b", do=[OSError("gone")] * 2)])
    with pytest.raises(Interrupted):
        saga.run([], journal, clock.pace())
    saga.run([], journal, Clock().pace())
    assert journal.has("b", Event.DONE)


def test_a_cancellation_is_honoured_before_the_next_step(journal: Journal) -> None:
    """The step under way ends, the next does not begin, and the end is told from a failure."""
    log: Log = []
    steps = [Scripted("a", during=lambda: bool(journal.request_cancel()) and None), Scripted("b")]
    with pytest.raises(SagaUndone) as caught:
        Saga(before=steps, pivot=nothing, after=[]).run(log, journal, Clock().pace())
    assert caught.value.cancelled
    assert log == ["do a", "undo a"]


def test_a_cancellation_in_the_last_moment_before_the_pivot_counts(journal: Journal) -> None:
    """It arrives after the last check between steps: the pivot's transaction sees it."""
    clock = Clock()
    waits = 0

    def wait(seconds: float) -> None:
        nonlocal waits
        waits += 1
        if waits == 2:  # before a, then before the pivot
            journal.request_cancel()

    log: Log = []
    with pytest.raises(SagaUndone) as caught:
        Saga(before=[Scripted("a")], pivot=nothing, after=[]).run(log, journal, Pace(wait=wait, now=lambda: clock.now))
    assert caught.value.cancelled
    assert caught.value.step == SAGA
    assert journal.direction() is Direction.BACK


def test_a_call_that_was_cancelled_by_the_transport_is_a_failure(journal: Journal) -> None:
    """Only what somebody asked for is "cancelled"."""
    saga = Saga(before=[Scripted("a", do=[Cancelled("the call was cancelled")])], pivot=nothing, after=[])
    with pytest.raises(SagaUndone) as caught:
        saga.run([], journal, Clock().pace())
    assert not caught.value.cancelled


def test_a_pivot_that_fails_is_undone(journal: Journal) -> None:
    """It is a transaction like any other until it is durable."""

    def fail(_context: Log, _db: sqlite3.Connection) -> None:
        raise StepError("owned by another")

    log: Log = []
    with pytest.raises(SagaUndone):
        Saga(before=[Scripted("a")], pivot=fail, after=[Scripted("b")]).run(log, journal, Clock().pace())
    assert log == ["do a", "undo a"]
