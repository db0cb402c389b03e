"""How a move ended, in words: which step failed, what state the container is in, what to type."""

from __future__ import annotations

import dataclasses
import re

from migrate.coordinator import migration
from migrate.coordinator.explained import explained
from migrate.coordinator.move import Move
from migrate.coordinator.steps import EndExec
from migrate.coordinator.store import Migration, MoveState
from migrate.errors import ErrorRecord, NeedsAttention
from migrate.saga.journal import SAGA, Event
from migrate.saga.saga import SagaStuck, SagaUndone


def failed(context: Move, undone: SagaUndone) -> tuple[MoveState, ErrorRecord | None]:
    """The whole move's error: of the step that failed, saying that the container runs on as before, and what to type."""
    if undone.error.code == migration.Rehearsed.code:
        return MoveState.REHEARSED, None
    began = {entry.step for entry in context.journal.entries() if entry.event is Event.STARTED}
    touched = "undone" if began - {"precheck"} else "nothing"
    error = dataclasses.replace(undone.error, touched=touched)
    if gone := _ended_by(context, began):
        error = dataclasses.replace(error, detail="\n".join(filter(None, (error.detail, gone))))
    if undone.cancelled:
        return MoveState.CANCELLED, error
    if not error.hint:  # else who failed knows what to do
        verb = "rehearse" if context.rehearsal else "move"
        again = f"try again: migrate {verb} {context.container} --to {context.target}"
        why = f"why: migrate doctor {context.id}"
        remedy = re.sub(
            r"[,;]? (then |and )?move again$|^move again$", "", explained(error).hint
        )  # which is said in full
        error = dataclasses.replace(explained(error), hint="; ".join(each for each in (remedy, again, why) if each))
    if undone.step not in (SAGA, "precheck"):
        error = dataclasses.replace(error, message=f"{undone.step} failed: {error.message}")
    return MoveState.FAILED, error


def _ended_by(context: Move, began: set[str]) -> str:
    """What no undo brings back; "" where there is nothing of it."""
    if EndExec.name not in began:
        return ""
    done = context.journal.results().get(EndExec.name)
    if done is None:
        return "what had come in by exec may have been ended, and is not started again"
    ended = done.get("ended")
    return f"ended for this move, and not started again: {', '.join(ended)}" if ended else ""


def stuck(move: Migration, why: SagaStuck) -> ErrorRecord:
    """Of one that needs an operator: the command to type, and each step's reason."""
    hints = [error.hint for error in why.errors.values() if error.code == NeedsAttention.code and error.hint]
    return ErrorRecord(
        code=NeedsAttention.code,
        message=str(why),
        hint=hints[0] if hints else f"migrate repair {move.id}",
        touched="something",
        detail="\n".join(
            line
            for step, error in why.errors.items()
            for line in (f"{step}: {explained(error).message}", *error.detail.splitlines())
        ),
    )
