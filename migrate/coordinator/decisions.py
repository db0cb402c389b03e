"""What people decide about a move that holds, and about one that is over."""

from __future__ import annotations

from migrate.coordinator import steps
from migrate.coordinator.move import Move
from migrate.coordinator.store import ACTIVE, Migration, MoveState, Store
from migrate.errors import NotFound, Unreachable, WrongState
from migrate.saga.journal import Direction, Event


def commit(move: Migration, context: Move) -> str:
    """A move that holds switches over; returns that, for people. Durable before the source is told; said again, it is told again.

    Raises WrongState where there is nothing to commit, and what the source's silence is: then the move itself tells it later.
    """
    if move.state not in ACTIVE:
        raise WrongState(f"move {move.id} has ended, {move.state}: there is nothing to commit")
    if not move.precopy.hold:
        raise WrongState(
            f"move {move.id} does not hold: it switches over by itself", hint=f"migrate migrations show {move.id}"
        )
    journal = context.journal
    if not journal.request_commit():
        why = {
            Direction.FORWARD: "is to be cancelled",
            Direction.BACK: "is being undone",
            Direction.COMMITTED: f"has switched over: {move.target} owns {move.container}",
        }[journal.direction()]
        raise WrongState(f"move {move.id} {why}", hint=f"migrate migrations show {move.id}")
    if journal.has("hold", Event.DONE):
        return f"{move.container} is switching over to {move.target} already"
    if journal.has("hold", Event.STARTED):
        steps.switch_over(context)
        return f"{move.container} switches over to {move.target}"
    return f"{move.container} switches over to {move.target} as soon as all is ready"


def refuse_undo(move: Migration, store: Store) -> None:
    """Raises WrongState or NotFound where there is no way back, or another command for it."""
    if move.state in ACTIVE:
        hint = f"migrate cancel {move.id} before the pivot; after it, wait for its end or migrate repair {move.id}"
        raise WrongState(f"move {move.id} is not over: it is {move.state}", hint=hint)
    if move.state is not MoveState.SUCCEEDED:
        raise WrongState(
            f"move {move.id} {move.state}: {move.container} stayed on {move.source}, nothing is to be undone"
        )
    try:
        container = store.container(move.container_id)
    except NotFound as exc:
        raise NotFound(f"{move.container}, which move {move.id} took to {move.target}, is removed") from exc
    if (container.owner, container.epoch) != (move.target, move.epoch + 1):
        raise WrongState(
            f"{container.name} has moved since move {move.id}: it is on {container.owner}",
            hint="" if container.owner == move.source else f"migrate move {container.name} --to {move.source}",
        )


def nothing_kept(move: Migration) -> Unreachable:
    """An undo whose target is gone: the state of the container is nowhere else."""
    return Unreachable(
        f"{move.target} does not answer, and {move.container} is nowhere else: {move.source} has kept memory that makes a way back short, "
        "no images that could run",
        hint=f"bring {move.target} up and say it again; to start anew from its image: migrate rm -f {move.container}, then migrate run",
    )
