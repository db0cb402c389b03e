"""What people decide about a move: that it switches over, goes slower, is taken back, and whose copy is kept."""

from __future__ import annotations

from migrate.coordinator import migration, steps
from migrate.coordinator.move import Move
from migrate.coordinator.rates import check_bandwidth
from migrate.coordinator.recovery import Seen
from migrate.coordinator.sightings import ASK_S
from migrate.coordinator.store import ACTIVE, Migration, MoveState, Store
from migrate.errors import ErrorRecord, NotFound, Unreachable, WrongState
from migrate.saga.journal import SAGA, Direction, Event, Journal
from protos import agent_pb2

NO_TUNNEL = "migration.no_tunnel"  # an agent's code


def end_rehearsal(context: Move) -> None:
    """After a crash of the coordinator: one that was cut off is thrown away, it is not worth going on with."""
    if not context.journal.has("try", Event.DONE):
        why = ErrorRecord(code="migration.rehearsal_cut_off", message="the coordinator ended in the middle of it")
        context.journal.abort({"step": SAGA, "error": why.to_json(), "cancelled": False})


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
    if move.state is MoveState.REHEARSED:
        raise WrongState(f"move {move.id} was a rehearsal: {move.container} stayed on {move.source}")
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


def keep(context: Move, seen: Seen, which: str) -> None:
    """An operator keeps the copy on the "source" or the "target": journalled, before anything is done."""
    facts = {
        "step": SAGA,
        "keep": which,
        "cancelled": False,
        "error": ErrorRecord(code="cancelled", message=f"an operator kept the copy on {which}").to_json(),
    }
    if which == "target":
        context.journal.decide(Event.COMMITTED, lambda db: migration.pivot(context, db), facts)
    elif seen.direction is Direction.COMMITTED:
        context.journal.decide(Event.ABORTING, lambda db: migration.unpivot(context, db), facts)
    else:
        context.journal.decide(Event.ABORTING, lambda _db: None, facts)


def set_bandwidth(move: Migration, context: Move, store: Store, bandwidth: int) -> str:
    """Bytes per second from now on, 0 = no limit; returns what that means, for people.

    Raises WrongState once the move sends no more, and where its steps would not end in time at that rate.
    """
    check_bandwidth(bandwidth)
    journal = context.journal
    if move.state not in ACTIVE or not _sends(journal):
        raise WrongState(f"move {move.id} sends nothing any more: it is {move.state}")
    least = min(steps.SLOWEST_BYTES_PER_S, move.transfer.bandwidth or steps.SLOWEST_BYTES_PER_S)
    if bandwidth and bandwidth < least and journal.has("layers", Event.STARTED):
        raise WrongState(
            f"move {move.id} has begun with time for {least} bytes a second at least",
            hint="to send more slowly, cancel it and move with that --bandwidth from the beginning",
        )
    store.set_migration_bandwidth(move.id, bandwidth)
    if journal.has("tunnel", Event.DONE):
        request = agent_pb2.SetBandwidthRequest(migration_id=move.id, epoch=move.epoch, bandwidth=bandwidth)
        try:
            context.call(move.source, "SetBandwidth", request, timeout_s=ASK_S)
        except WrongState as exc:
            if exc.code != NO_TUNNEL:
                raise  # else the next one, which post-copy opens when it can, gets it
    what = f"{bandwidth} bytes a second" if bandwidth else "as much as there is"
    return f"move {move.id} of {move.container} sends {what}"


def _sends(journal: Journal) -> bool:
    """Up to the end of the freeze; with post-copy until all memory has followed."""
    if not journal.has("freeze", Event.DONE):
        return journal.direction() is Direction.FORWARD
    later_bytes = journal.results()["freeze"].get("later_bytes")
    return bool(later_bytes) and journal.direction() is not Direction.BACK and not journal.has("rest", Event.DONE)
