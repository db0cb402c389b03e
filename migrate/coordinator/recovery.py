"""Whether an unfinished move may go on by itself: the journal says where it was, both hosts say what is there now.

The journal alone decides the direction. Where reality contradicts it, nothing is touched: the move needs attention, and
the error says what was seen and what to type. All of this is a pure function of what was seen.
"""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import dataclass

from migrate.coordinator.store import Migration
from migrate.errors import NeedsAttention
from migrate.saga.journal import Direction

FROZEN = "frozen"
EXITED = "exited"
RUNS = ("running", "lost", "paused")  # lost: the tasks run, their monitor has died; paused: they may go on at any time
ALIVE = (*RUNS, FROZEN)


@dataclass(frozen=True, kw_only=True)
class Sighting:
    """What a host says is there of the container: WhereResponse in protos/agent.proto, `state` as in "frozen"."""

    present: bool
    state: str = ""
    epoch: int = 0
    migration_id: str = ""
    role: str = ""
    committed: bool = False

    def __str__(self) -> str:
        return f"{self.state} at epoch {self.epoch}" if self.present else "absent"


@dataclass(frozen=True, kw_only=True)
class Seen:
    """None: the host did not answer. `done`, `undone`: names of steps, from the journal. `kept_back`: post-copy, the target's copy is not
    complete without the source's.
    """

    direction: Direction
    done: Collection[str]
    undone: Collection[str]
    source: Sighting | None
    target: Sighting | None
    kept_back: bool = False


@dataclass(frozen=True, kw_only=True)
class Verdict:
    """`go_on`: the saga may run, and `text` says what it will do. Else `text` is what contradicts the journal."""

    go_on: bool
    text: str
    hint: str = ""

    def error(self) -> NeedsAttention:
        return NeedsAttention(self.text, hint=self.hint)


def judge(move: Migration, seen: Seen) -> Verdict:
    """What the coordinator does with an unfinished move."""
    if move.rehearsal:  # the container is the source's, whatever runs on the target
        return Verdict(go_on=True, text=f"throw the rehearsal on {move.target} away; {_sight(move, seen)}")
    contradiction = _contradiction(move, seen)
    if contradiction is not None:
        return contradiction
    what = {
        Direction.FORWARD: f"go on with moving {move.container} from {move.source} to {move.target}",
        Direction.BACK: f"undo what is left, so that {move.container} runs on {move.source}",
        Direction.COMMITTED: f"set {move.container} running on {move.target} and release {move.source}",
    }
    return Verdict(go_on=True, text=f"{what[seen.direction]}; {_sight(move, seen)}")


def _contradiction(move: Migration, seen: Seen) -> Verdict | None:
    source, target = seen.source, seen.target
    if _is(source, *RUNS) and _is(target, *RUNS):
        return _attention(
            move, seen, "it runs on both hosts", f"stop the wrong one on its host: {_owner(move, seen)} owns it"
        )
    if seen.direction is Direction.COMMITTED:
        if _is(source, *RUNS):
            return _attention(move, seen, f"{move.target} owns it, but it runs on {move.source}", _keep(move, "source"))
        if "resume" not in seen.done and target is not None and not _can_run(move, target):
            return _attention(move, seen, f"{move.target} lost it before it ran there", _keep(move, "source"))
        return None
    if _is(target, *RUNS):
        which = "source" if _is(source, *ALIVE) else "target"
        return _attention(move, seen, f"{move.source} owns it, but it runs on {move.target}", _keep(move, which))
    if source is not None and not _is(source, *ALIVE):
        if _is(target, FROZEN):
            # Forward is fine: the pivot makes this copy the one that counts. Back would kill it.
            if seen.direction is Direction.BACK and "freeze" not in seen.undone and not seen.kept_back:
                return _attention(
                    move, seen, f"the only copy may be the frozen one on {move.target}", _keep(move, "target")
                )
        elif not source.present:
            return _attention(
                move,
                seen,
                f"{move.source} owns it and does not have it",
                f"look at {move.source}; to give up: {_keep(move, 'source')}",
            )
    return None


def may_keep_target(move: Migration, seen: Seen) -> Verdict:
    """Whether an operator may declare the target's frozen copy the container."""
    if move.rehearsal:
        return _refusal(
            f"move {move.id} is a rehearsal: {move.container} stays on {move.source}", f"migrate repair {move.id}"
        )
    if seen.direction is Direction.COMMITTED:
        return _refusal(f"{move.target} owns {move.container} already", f"migrate repair {move.id}")
    if "restore" not in seen.done or not _is(seen.target, *ALIVE) or _of_another_move(move, seen.target):
        return _refusal(f"{move.target} has no complete copy of {move.container}: {_sight(move, seen)}")
    if seen.kept_back and not _is(seen.source, *ALIVE):
        return _refusal(
            f"the copy of {move.container} on {move.target} lacks memory that was only on {move.source}: {_sight(move, seen)}",
            _keep(move, "source"),
        )
    if _is(seen.source, *RUNS) or "freeze" in seen.undone:
        return _refusal(f"{move.container} has run on {move.source} since: the copy on {move.target} is of the past")
    warning = "" if seen.source else f"; {move.source} does not answer: make sure that it is off"
    return Verdict(go_on=True, text=f"the copy on {move.target} becomes {move.container} and runs{warning}")


def may_keep_source(move: Migration, seen: Seen) -> Verdict:
    """Whether an operator may declare the source's copy the container."""
    if seen.direction is not Direction.COMMITTED:
        return Verdict(go_on=True, text=f"what is on {move.target} is discarded; {_sight(move, seen)}")
    if "resume" in seen.done or _is(seen.target, *RUNS):
        return _refusal(f"{move.container} has run on {move.target} since: the copy on {move.source} is of the past")
    if seen.target is None:
        return _refusal(f"{move.target} does not answer, and may run {move.container}", f"bring {move.target} up first")
    if not _is(seen.source, *ALIVE):
        return _refusal(f"{move.source} has no copy of {move.container}: {_sight(move, seen)}")
    return Verdict(go_on=True, text=f"{move.source} owns {move.container} again and runs it on")


def _is(seen: Sighting | None, *states: str) -> bool:
    return seen is not None and seen.present and seen.state in states


def _of_another_move(move: Migration, seen: Sighting | None) -> bool:
    return seen is not None and seen.migration_id != move.id


def _can_run(move: Migration, target: Sighting) -> bool:
    """After the pivot: it waits there to be resumed, or has been, and may have exited since."""
    return _is(target, *ALIVE) or (_is(target, EXITED) and target.epoch > move.epoch)


def _owner(move: Migration, seen: Seen) -> str:
    return move.target if seen.direction is Direction.COMMITTED else move.source


def _keep(move: Migration, which: str) -> str:
    return f"migrate repair {move.id} --keep {which}"


def _attention(move: Migration, seen: Seen, text: str, hint: str) -> Verdict:
    return Verdict(go_on=False, text=f"{move.container}: {text}; {_sight(move, seen)}", hint=hint)


def _refusal(text: str, hint: str = "") -> Verdict:
    return Verdict(go_on=False, text=text, hint=hint)


def _sight(move: Migration, seen: Seen) -> str:
    return f"{move.source}: {seen.source or 'no answer'}, {move.target}: {seen.target or 'no answer'}"
