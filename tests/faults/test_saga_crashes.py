"""The saga on its smallest world, the coordinator killed at every instant while any call may fail.

The mutants at the end prove that this test can see mistakes.
"""

from __future__ import annotations

import shutil
import sqlite3
import tempfile
from collections.abc import Iterator, Sequence
from pathlib import Path

import pytest

from migrate.saga import journal as journals
from migrate.saga.database import Database
from migrate.saga.journal import SAGA, Change, Direction, Event, Facts, Journal, Results
from migrate.saga.saga import Action, Pace, Saga, SagaStuck, SagaUndone, Step

pytestmark = pytest.mark.faults

SCHEMA = ((*journals.SCHEMA, "create table truth(owner text)", "insert into truth values('source')"),)
CALLS = ("reserve", "freeze", "restore", "pivot", "resume", "release", "unreserve", "thaw", "discard")
FAILURES = [None, *((call, nth) for call in CALLS for nth in (1, 2))]
FIRST = (None, *range(1, 25))
SECOND = (None, *range(1, 9))
GOOD_ENDS = {("source", "running", None), ("target", None, "running")}


class Crash(BaseException):
    """A power cut: no `except Exception` may swallow it."""


class World:
    """Two hosts. Crashes the coordinator at the n-th instant; makes the n-th call of one name fail."""

    def __init__(self, fail: tuple[str, int] | None) -> None:
        self.source: str | None = "running"
        self.target: str | None = None
        self.fail = fail
        self.crash_at: int | None = None
        self.tick = 0
        self.calls: dict[str, int] = {}
        self.seconds = 0.0
        self.violations: list[str] = []  # not raised: the saga would take it for a failed step

    def instant(self) -> None:
        self.tick += 1
        if self.tick == self.crash_at:
            raise Crash

    def call(self, name: str, **effect: str | None) -> None:
        """One idempotent call: arrives, may fail, has its effect, answers."""
        self.instant()
        self.calls[name] = self.calls.get(name, 0) + 1
        if self.fail == (name, self.calls[name]):
            raise RuntimeError("injected")
        if name == "unreserve" and self.target == "frozen":
            raise RuntimeError("there are tasks: discard them first")
        self.__dict__.update(effect)
        if self.source == "running" and self.target == "running":
            self.violations.append("two copies ran at once")
        if name == "thaw" and self.target == "frozen" and "discard" not in self.calls:
            self.violations.append("the source was thawed before anybody had tried to discard the target's copy")
        self.instant()

    def wait(self, seconds: float) -> None:
        self.seconds += seconds


class Reserve:
    name = "reserve"

    def do(self, world: World, done: Results) -> Facts:
        world.call("reserve", target="reserved")
        return {"place": 7}

    def undo(self, world: World) -> None:
        world.call("unreserve", target=None)


class Freeze:
    name = "freeze"

    def do(self, world: World, done: Results) -> Facts:
        assert done["reserve"]["place"] == 7, "a step gets the results of those before it, also after a crash"
        world.call("freeze", source="frozen")
        return {}

    def undo(self, world: World) -> None:
        world.call("thaw", source="running")


class Restore:
    name = "restore"

    def do(self, world: World, done: Results) -> Facts:
        world.call("restore", target="frozen")
        return {}

    def undo(self, world: World) -> None:
        world.call("discard", target="reserved" if world.target == "frozen" else world.target)


class Resume:
    name = "resume"

    def do(self, world: World, done: Results) -> Facts:
        world.call("resume", target="running")
        return {}


class Release:
    name = "release"

    def do(self, world: World, done: Results) -> Facts:
        world.call("release", source=None)
        return {}


BEFORE: tuple[Step[World], ...] = (Reserve(), Freeze(), Restore())
AFTER: tuple[Action[World], ...] = (Resume(), Release())


def pivot(world: World, db: sqlite3.Connection) -> None:
    world.call("pivot")
    if db.execute("update truth set owner='target' where owner='source'").rowcount != 1:
        raise RuntimeError("the source does not own it")


class CrashingJournal(Journal):
    """The power may go after every row too."""

    def __init__(self, db: Database, world: World) -> None:
        super().__init__(db, "saga1", on_append=world.instant)


@pytest.fixture(scope="module")
def directory() -> Iterator[Path]:
    """Memory, where there is some: thousands of databases, each with its fsyncs."""
    shm = Path("/dev/shm")
    path = Path(tempfile.mkdtemp(prefix="hsaga-", dir=shm if shm.is_dir() else None))
    Database(path / "template", SCHEMA).close()
    yield path
    shutil.rmtree(path)


def attempt(saga: Saga[World], world: World, journal: Journal, crash_at: int | None) -> BaseException | None:
    """One life of the coordinator."""
    world.tick, world.crash_at = 0, crash_at
    try:
        saga.run(world, journal, Pace(wait=world.wait, now=lambda: world.seconds))
    except (Crash, SagaUndone, SagaStuck) as exc:
        return exc
    return None


def play(
    directory: Path,
    saga: Saga[World],
    fail: tuple[str, int] | None,
    crashes: Sequence[int | None],
    *,
    journal_class: type[Journal] = CrashingJournal,
    cancel_before: int | None = None,
) -> tuple[str, str | None, str | None]:
    """Coordinators live and die as `crashes` says, then one has luck; returns (owner, source, target)."""
    path = directory / "case"
    shutil.copy(directory / "template", path)
    for suffix in ("-wal", "-shm"):
        (directory / f"case{suffix}").unlink(missing_ok=True)
    db = Database(path, SCHEMA)
    try:
        world = World(fail)
        journal = journal_class(db, world)  # type: ignore[arg-type]  # every class here takes the world
        for life, crash in enumerate(crashes):
            if cancel_before == life:
                Journal(db, "saga1").request_cancel()
            attempt(saga, world, journal, crash)
        world.fail = None
        attempt(saga, world, journal, None)
        assert not world.violations, world.violations
        owner = db.connection.execute("select owner from truth").fetchone()[0]
        return owner, world.source, world.target
    finally:
        db.close()


def cases() -> Iterator[tuple[int | None, int | None]]:
    for first in FIRST:
        for second in SECOND if first else (None,):
            yield first, second


@pytest.mark.parametrize("fail", FAILURES, ids=str)
def test_any_crash_any_failure(directory: Path, fail: tuple[str, int] | None) -> None:
    """Whatever dies and whatever fails, exactly one host ends up running the container: the owner."""
    saga = Saga(before=BEFORE, pivot=pivot, after=AFTER)
    for first, second in cases():
        end = play(directory, saga, fail, (first, second))
        assert end in GOOD_ENDS, f"crashes at {first} and {second}: {end}"


def test_there_are_thousands_of_cases_and_they_reach_every_instant(directory: Path) -> None:
    """More than 2 000 cases; without crashes a whole move, and a whole undo, end before the last instant tried."""
    assert len(FAILURES) * len(list(cases())) > 2000
    saga = Saga(before=BEFORE, pivot=pivot, after=AFTER)
    for fail in (None, ("restore", 1)):
        db = Database(directory / f"reach-{fail}", SCHEMA)
        world = World(fail)
        attempt(saga, world, CrashingJournal(db, world), None)
        db.close()
        assert world.tick <= FIRST[-1], world.tick


@pytest.mark.parametrize("life", [0, 1])
def test_a_cancelled_saga_never_passes_its_pivot(directory: Path, life: int) -> None:
    """Asked for before or after a crash at any instant before the pivot, a cancellation ends at the source."""
    saga = Saga(before=BEFORE, pivot=pivot, after=AFTER)
    for first in range(1, 14):
        end = play(directory, saga, None, (first, None), cancel_before=life)
        committed_before = end == ("target", None, "running") and life == 1 and first > 12
        assert end == ("source", "running", None) or committed_before, f"crash at {first}: {end}"


# ---------------------------------------------------------------- mutants


class UndoesOnlyWhatIsDone(Saga[World]):
    def _to_undo(self, journal: Journal) -> list[Step[World]]:
        return [step for step in super()._to_undo(journal) if journal.has(step.name, Event.DONE)]


class UndoesInForwardOrder(Saga[World]):
    def _to_undo(self, journal: Journal) -> list[Step[World]]:
        return super()._to_undo(journal)[::-1]


class AbortsAfterTheUndo(Saga[World]):
    """ABORTING comes too late: a crash during the undo makes the next life go forward."""

    def _forward(self, context: World, journal: Journal, pace: Pace) -> None:
        super()._forward(context, _AbortLater(journal, lambda: self._undo(context, journal, pace)), pace)


class _AbortLater:
    def __init__(self, journal: Journal, undo: object) -> None:
        self._journal, self._undo = journal, undo

    def __getattr__(self, name: str) -> object:
        return getattr(self._journal, name)

    def abort(self, data: Facts) -> Direction:
        self._undo()  # type: ignore[operator]
        return self._journal.abort(data)


class NeverWritesAborting(Saga[World]):
    def run(self, context: World, journal: Journal, pace: Pace) -> None:
        if journal.direction() is Direction.FORWARD:
            failed = _AbortNowhere(journal)
            self._forward(context, failed, pace)  # type: ignore[arg-type]
            if failed.aborted:
                self._undo(context, journal, pace)
                raise SagaStuck("undone", {})
        self._finish(context, journal, pace)


class _AbortNowhere(_AbortLater):
    aborted = False

    def __init__(self, journal: Journal) -> None:
        super().__init__(journal, None)

    def abort(self, data: Facts) -> Direction:
        self.aborted = True
        return Direction.BACK


class PivotInTwoTransactions(CrashingJournal):
    """The change of owner is durable before COMMITTED is."""

    def commit(self, change: Change) -> None:
        with self._db.transaction() as db:
            change(db)
        self._on_append()
        self.append(SAGA, Event.COMMITTED)


class CommittedBeforeThePivot(CrashingJournal):
    """And the other way round."""

    def commit(self, change: Change) -> None:
        self.append(SAGA, Event.COMMITTED)
        with self._db.transaction() as db:
            change(db)


class StopsAtTheFirstErrorOfAnUndo(Saga[World]):
    def _undo(self, context: World, journal: Journal, pace: Pace) -> None:
        for step in self._to_undo(journal):
            try:
                step.undo(context)
            except RuntimeError as exc:
                raise SagaStuck("gave up", {}) from exc
            finally:
                journal.append(step.name, Event.UNDONE)


class IntentAfterTheEffect(Saga[World]):
    """STARTED is written together with DONE."""

    def _do(self, step: Step[World], context: World, journal: Journal, pace: Pace) -> None:
        if not journal.has(step.name, Event.DONE):
            facts = step.do(context, journal.results())
            journal.append(step.name, Event.STARTED)
            journal.append(step.name, Event.DONE, facts)


MUTANTS = [
    (UndoesOnlyWhatIsDone, CrashingJournal),
    (UndoesInForwardOrder, CrashingJournal),
    (AbortsAfterTheUndo, CrashingJournal),
    (NeverWritesAborting, CrashingJournal),
    (Saga, PivotInTwoTransactions),
    (Saga, CommittedBeforeThePivot),
    (StopsAtTheFirstErrorOfAnUndo, CrashingJournal),
    (IntentAfterTheEffect, CrashingJournal),
]


@pytest.mark.parametrize(("saga_class", "journal_class"), MUTANTS, ids=lambda c: c.__name__)
def test_the_crashes_find_a_mutant(
    directory: Path, saga_class: type[Saga[World]], journal_class: type[Journal]
) -> None:
    """Each deliberate mistake in the saga makes some case end badly."""
    saga = saga_class(before=BEFORE, pivot=pivot, after=AFTER)
    for fail in FAILURES:
        for first, second in cases():
            try:
                end = play(directory, saga, fail, (first, second), journal_class=journal_class)
            except AssertionError:
                return  # a violation
            if end not in GOOD_ENDS:
                return
    pytest.fail(f"no case noticed {saga_class.__name__} with {journal_class.__name__}")
