"""Run a list of steps so that a crash at any instant leaves work that can be finished or undone.

    before ─ each with an undo ──►  PIVOT  ──► after ─ retried until it works, never undone
       ◄── ABORTING, then undo ──┘ (one local transaction)

- STARTED is journalled before an effect and DONE after it, so a started step is undone even if nobody saw it finish.
- ABORTING is durable before the first undo; from then on nothing goes forward.
- A cancellation is honoured between steps before the pivot, and by the pivot's own transaction; later it is too late.
- Undo goes round by round over all steps that are not undone yet, last one first: one step whose host is gone must not
  keep the others waiting. What is left when patience ends is UNDO_FAILED and SagaStuck: an operator must look.

Nothing in this module knows what a container is.
"""

from __future__ import annotations

import sqlite3
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Generic, Protocol, TypeVar

from migrate.errors import Cancelled, ErrorRecord, MigrateError, NeedsAttention
from migrate.saga.journal import SAGA, Direction, Event, Facts, Journal, Results

C = TypeVar("C")
C_contra = TypeVar("C_contra", contravariant=True)


class Action(Protocol[C_contra]):
    """One journalled action. Must be idempotent: a crash can make it run twice."""

    name: str

    def do(self, context: C_contra, done: Results) -> Facts:
        """`done`: what the steps before this one found out, by name. Raises NeedsAttention to stop retrying."""


class Step(Action[C_contra], Protocol[C_contra]):
    """An action with a way back, idempotent too."""

    def undo(self, context: C_contra) -> None:
        """Must also succeed when `do` never began or stopped half way. NeedsAttention: trying again is of no use."""


class Interrupted(BaseException):
    """This process is going down: leave everything as it is, the journal tells the next one how to go on.

    A BaseException, like the power cut that it stands for: no `except Exception` may take it for a failed step.
    """


class SagaUndone(Exception):
    """The world is as it was before. `step` is "saga" when it was not a step that failed."""

    def __init__(self, step: str, error: ErrorRecord, *, cancelled: bool) -> None:
        super().__init__(f"{step}: {error.message}")
        self.step = step
        self.error = error
        self.cancelled = cancelled


class SagaStuck(Exception):
    """An operator must look; running the saga again tries again. `errors` by step."""

    def __init__(self, text: str, errors: dict[str, ErrorRecord]) -> None:
        super().__init__(text)
        self.errors = errors


@dataclass(frozen=True, kw_only=True)
class Pace:
    """How long to try. `wait(seconds)` sleeps, or raises Interrupted when the process goes down; wait(0) only asks.

    `waiting(step, error, seconds)` is told before each wait for a retry. Delays double from `first_s` to `longest_s`.
    """

    wait: Callable[[float], None]
    waiting: Callable[[str, Exception, float], None] = lambda _step, _error, _seconds: None
    now: Callable[[], float] = time.monotonic
    undo_limit_s: float = 60.0
    first_s: float = 0.2
    longest_s: float = 10.0

    def delays(self) -> Iterator[float]:
        delay = self.first_s
        while True:
            yield delay
            delay = min(2 * delay, self.longest_s)


class Saga(Generic[C]):
    """`pivot` changes what is true, inside the transaction that it is given."""

    def __init__(
        self,
        *,
        before: Sequence[Step[C]],
        pivot: Callable[[C, sqlite3.Connection], None],
        after: Sequence[Action[C]],
    ) -> None:
        self.before = before
        self.pivot = pivot
        self.after = after

    def run(self, context: C, journal: Journal, pace: Pace) -> None:
        """Start, or go on after a crash: the journal alone decides which. Returns when every step is done.

        Raises SagaUndone, SagaStuck, Interrupted, and sqlite3.Error when the journal cannot be written.
        """
        if journal.direction() is Direction.FORWARD:
            self._forward(context, journal, pace)
        if journal.direction() is Direction.BACK:
            self._undo(context, journal, pace)
            raise _undone(journal)
        self._finish(context, journal, pace)

    def _forward(self, context: C, journal: Journal, pace: Pace) -> None:
        step = SAGA
        try:
            for each in self.before:
                pace.wait(0)
                if journal.has(SAGA, Event.CANCEL_REQUESTED):
                    raise Cancelled(f"cancelled before the step {each.name}")
                step = each.name
                self._do(each, context, journal, pace)
            step = SAGA
            pace.wait(0)
            journal.commit(lambda db: self.pivot(context, db))
        except Exception as exc:  # noqa: BLE001  whatever it was: what has been started must be undone
            asked = isinstance(exc, Cancelled) and journal.has(SAGA, Event.CANCEL_REQUESTED)
            found = exc.facts if step == SAGA and isinstance(exc, MigrateError) else {}  # a step's are with its failure
            journal.abort({**found, "step": step, "error": ErrorRecord.of(exc).to_json(), "cancelled": asked})

    def _do(self, step: Step[C], context: C, journal: Journal, pace: Pace) -> None:
        if journal.has(step.name, Event.DONE):
            return
        journal.append(step.name, Event.STARTED)
        try:
            facts = step.do(context, journal.results())
        except Exception as exc:
            pace.wait(0)  # going down closes the channels to the hosts: that is no failure of the step
            found = exc.facts if isinstance(exc, MigrateError) else {}
            journal.append(step.name, Event.FAILED, {**found, "error": ErrorRecord.of(exc).to_json()})
            raise
        journal.append(step.name, Event.DONE, facts)

    def _undo(self, context: C, journal: Journal, pace: Pace) -> None:
        give_up = pace.now() + pace.undo_limit_s
        for delay in pace.delays():
            errors: dict[str, ErrorRecord] = {}
            for step in self._to_undo(journal):
                try:
                    step.undo(context)
                except Exception as exc:  # noqa: BLE001  the other steps must still be undone
                    pace.wait(0)
                    errors[step.name] = ErrorRecord.of(exc)
                    pace.waiting(step.name, exc, delay)
                else:
                    journal.append(step.name, Event.UNDONE)
            if not errors:
                return
            no_use = all(error.code == NeedsAttention.code for error in errors.values())
            if no_use or pace.now() + delay > give_up:
                break
            pace.wait(delay)
        for name, error in errors.items():
            journal.append(name, Event.UNDO_FAILED, {"error": error.to_json()})
        raise SagaStuck("; ".join(f"{name} could not be undone: {e.message}" for name, e in errors.items()), errors)

    def _to_undo(self, journal: Journal) -> list[Step[C]]:
        """Last first."""
        return [
            step
            for step in reversed(self.before)
            if journal.has(step.name, Event.STARTED) and not journal.has(step.name, Event.UNDONE)
        ]

    def _finish(self, context: C, journal: Journal, pace: Pace) -> None:
        for step in self.after:
            if not journal.has(step.name, Event.DONE):
                self._until_done(step, context, journal, pace)

    def _until_done(self, step: Action[C], context: C, journal: Journal, pace: Pace) -> None:
        journal.append(step.name, Event.STARTED)
        results = journal.results()
        said = ""  # a step that fails for hours in the same way needs one row, not one a try
        for delay in pace.delays():
            try:
                facts = step.do(context, results)
            except NeedsAttention as exc:
                journal.append(step.name, Event.FAILED, {**exc.facts, "error": ErrorRecord.of(exc).to_json()})
                raise SagaStuck(f"{step.name}: {exc.message}", {step.name: ErrorRecord.of(exc)}) from exc
            except Exception as exc:  # noqa: BLE001  past the pivot there is only forward
                pace.wait(0)
                error = ErrorRecord.of(exc)
                if error.message != said:
                    journal.append(step.name, Event.FAILED, {"error": error.to_json()})
                    said = error.message
                pace.waiting(step.name, exc, delay)
                pace.wait(delay)
            else:
                journal.append(step.name, Event.DONE, facts)
                return


def _undone(journal: Journal) -> SagaUndone:
    why = journal.last(SAGA, Event.ABORTING)
    assert why is not None  # the direction is back
    error = ErrorRecord.from_json(dict(why.data["error"]))
    return SagaUndone(str(why.data["step"]), error, cancelled=bool(why.data["cancelled"]))
