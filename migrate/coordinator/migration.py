"""THE MAIN PATH OF THE PROJECT: what happens when a container moves, in order.

Nothing else decides the order. What each step does, and how it is undone, is in steps.py; how a list of steps survives
a crash at any instant is in migrate/saga/saga.py; what happens when something dies is in docs/migration.md.
"""

from __future__ import annotations

import sqlite3

from migrate.coordinator import steps
from migrate.coordinator.move import Move
from migrate.coordinator.rest import Rest
from migrate.coordinator.store import change_owner
from migrate.errors import InvalidArgument, MigrateError
from migrate.saga.saga import Action, Saga, Step

# Undone in reverse: first the target's copy is discarded, then the source's is thawed.
BEFORE: tuple[Step[Move], ...] = (
    steps.Precheck(),  # both: read-only; says no while nothing has been touched
    steps.Reserve(),  # target: id, address and memory are kept; nothing visible changes
    steps.Tunnel(),  # source: ssh to the target, warm, with a certificate for this move alone
    steps.Layers(),  # source: image layers that the target lacks
    steps.Precopy(),  # source: rounds of changed memory and files; the container runs on
    steps.Hold(),  # source, only with --hold: rounds go on until somebody commits the move; the container runs on
    steps.EndExec(),  # source, only with --end-exec: programs that came in by exec are ended; the container runs on
    steps.Freeze(),  # source: dump, frozen in the kernel; the rest is sent, the target has all of it
    steps.Restore(),  # target: tasks exist and are frozen, link down
)

AFTER: tuple[Action[Move], ...] = (
    steps.Resume(),  # target: link up, thaw, announce the address
    Rest(),  # source: the memory that post-copy kept back; nothing in the other modes
    steps.Release(),  # source: the frozen tasks die, nothing is left
)

MODES = ("auto", "precopy", "stop-and-copy", steps.POSTCOPY)


def pivot(move: Move, db: sqlite3.Connection) -> None:
    """Until here only the source may run, from here only the target may: owner := target, epoch += 1."""
    change_owner(db, move.container_id, source=move.source, target=move.target, epoch=move.epoch)


def unpivot(move: Move, db: sqlite3.Connection) -> None:
    """An operator's decision, when the target lost the container before it ever ran there: owner := source."""
    change_owner(db, move.container_id, source=move.target, target=move.source, epoch=move.epoch + 1)


class Rehearsed(MigrateError):
    """A rehearsal has come to where a move has its pivot: everything is undone now."""

    code = "migration.rehearsed"
    touched = "undone"


def no_pivot(move: Move, _db: sqlite3.Connection) -> None:
    """Instead of the pivot of a rehearsal. Raises."""
    over = Rehearsed(f"{move.container} could move to {move.target}; it stays on {move.source}")
    over.facts = {"rehearsed": True}
    raise over


def saga(mode: str, *, hold: bool = False, end_exec: bool = False, rehearsal: bool = False) -> Saga[Move]:
    """The steps of a move in one of MODES, or of its rehearsal. "auto": the agent decides round by round whether precopy pays."""
    if mode not in MODES:
        raise InvalidArgument(f"no mode {mode!r}", hint=f"one of {', '.join(MODES)}")
    left_out = {"precopy"} if mode == "stop-and-copy" else set()
    left_out |= set() if hold else {"hold"}
    left_out |= set() if end_exec else {steps.EndExec.name}
    before = [step for step in BEFORE if step.name not in left_out]
    if rehearsal:
        return Saga(before=[*before, steps.Try()], pivot=no_pivot, after=())
    return Saga(before=before, pivot=pivot, after=AFTER)
