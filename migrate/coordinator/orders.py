"""What is asked of a move, checked, and the move that would begin."""

from __future__ import annotations

import dataclasses
import secrets
import time
from dataclasses import dataclass, field

from migrate.coordinator import create, events, learned, migration
from migrate.coordinator.events import MigrationRecord
from migrate.coordinator.policies import Policies
from migrate.coordinator.preflight import catalog
from migrate.coordinator.rates import check_bandwidth
from migrate.coordinator.steps import ON_TIMEOUT_POSTCOPY, POSTCOPY
from migrate.coordinator.store import (
    COMPRESS,
    MOST_CONNECTIONS,
    ON_TIMEOUT,
    Container,
    Migration,
    MigrationId,
    MoveState,
    PrecopyOptions,
    Store,
    TransferOptions,
)
from migrate.errors import InvalidArgument
from migrate.saga.journal import Journal

DEFAULT_DOWNTIME_S = 0.3
LEARN_FROM, LEARN_FROM_MOST = 5, 50  # moves that say what a freeze costs; how far back they are looked for


@dataclass(frozen=True, kw_only=True)
class MoveOrder:
    """As MoveRequest in protos/coordinator.proto. `mode` "" = "auto"; `max_downtime_s` 0 = the default; `no_policy`: only what is said
    here.
    """

    container: str
    to: str
    reason: str = ""
    mode: str = ""
    max_downtime_s: float = 0.0
    request_id: str = ""
    transfer: TransferOptions = field(default_factory=TransferOptions)
    precopy: PrecopyOptions = field(default_factory=PrecopyOptions)
    skip: tuple[str, ...] = ()
    rehearsal: bool = False
    no_policy: bool = False


def planned(order: MoveOrder, store: Store) -> Migration:
    """The move that would begin: what the order does not say is the policies' to say. Raises NotFound, InvalidArgument."""
    container = store.container(order.container)
    order, sources, priority = _by_policy(order, container, store)
    mode = order.mode or "auto"
    migration.saga(mode)  # raises for a mode that does not exist
    if order.max_downtime_s < 0:
        raise InvalidArgument(f"max_downtime_s is {order.max_downtime_s}, and cannot be below 0")
    if order.transfer.compress not in COMPRESS:
        raise InvalidArgument(f"no codec {order.transfer.compress!r}", hint=f"one of {', '.join(COMPRESS)}")
    if order.rehearsal:
        _check_rehearsal(mode, order.precopy)
    check_bandwidth(order.transfer.bandwidth)
    if not 1 <= order.transfer.connections <= MOST_CONNECTIONS:
        raise InvalidArgument(f"{order.transfer.connections} connections: a move can have 1 to {MOST_CONNECTIONS}")
    _check_precopy(mode, order)
    skip = catalog.checked_skips(order.skip)
    target = store.host(order.to)
    if container.owner == target.name:
        raise InvalidArgument(f"{container.name} is on {target.name} already", hint="choose another host")
    move = Migration(
        id=MigrationId(secrets.token_hex(8)),
        container_id=container.id,
        container=container.name,
        source=container.owner,
        target=target.name,
        epoch=container.epoch,
        state=MoveState.RUNNING,
        reason=order.reason,
        mode=mode,
        max_downtime_s=order.max_downtime_s or DEFAULT_DOWNTIME_S,
        request_id=order.request_id,
        started_unix_ns=time.time_ns(),
        finished_unix_ns=0,
        error=None,
        transfer=order.transfer,
        precopy=dataclasses.replace(order.precopy, binding=order.max_downtime_s > 0),
        skip=skip,
        rehearsal=order.rehearsal,
        policies=sources,
        priority=priority,
    )
    fixed_s = learned.fixed_s(last_moves(store, move))
    return dataclasses.replace(move, precopy=dataclasses.replace(move.precopy, fixed_s=fixed_s))


def _by_policy(order: MoveOrder, container: Container, store: Store) -> tuple[MoveOrder, dict[str, str], str]:
    """The whole order; which policy each setting came from; the move's priority."""
    if order.no_policy:
        return order, {}, "normal"
    found = Policies(store).of(create.spec_of(container).labels)
    given = {
        "mode": bool(order.mode),
        "max_downtime_s": order.max_downtime_s != 0,
        "bandwidth": order.transfer.bandwidth != 0,
        "action": True,  # an evacuation's to heed
    }
    taken = {name: value for name, value in found.values.items() if not given.get(name, False)}
    transfer = dataclasses.replace(order.transfer, bandwidth=taken.get("bandwidth", order.transfer.bandwidth))
    whole = dataclasses.replace(
        order,
        mode=taken.get("mode", order.mode),
        max_downtime_s=taken.get("max_downtime_s", order.max_downtime_s),
        transfer=transfer,
    )
    return whole, {name: found.sources[name] for name in taken}, taken.get("priority", "normal")


def last_moves(store: Store, planned: Migration) -> list[MigrationRecord]:
    """Newest first: of this container if there are any, else those between the same two hosts."""
    there = [
        move
        for move in store.migrations(limit=LEARN_FROM_MOST)
        if move.state is MoveState.SUCCEEDED and (move.source, move.target) == (planned.source, planned.target)
    ]
    own = [move for move in there if move.container_id == planned.container_id]
    return [events.record(move, Journal(store.database, move.id).entries()) for move in (own or there)[:LEARN_FROM]]


def same(known: Migration, order: MoveOrder) -> MigrationId:
    """The move that the same request began. Raises InvalidArgument where it asked for another one."""
    if (
        order.rehearsal != known.rehearsal
        or order.to != known.target
        or order.container not in (known.container, known.container_id)
    ):
        text = f"request {order.request_id!r} was for {known.container} to {known.target}, not for this"
        raise InvalidArgument(text, hint="a new move needs a new request id")
    return known.id


def _check_precopy(mode: str, order: MoveOrder) -> None:
    options = order.precopy
    if options.on_timeout not in ON_TIMEOUT:
        raise InvalidArgument(
            f"no way {options.on_timeout!r} to end sending ahead", hint=f"one of {', '.join(ON_TIMEOUT)}"
        )
    if options.timeout_s < 0:
        raise InvalidArgument(f"a timeout of {options.timeout_s} s")
    if mode == "stop-and-copy" and (options.max_rounds or options.timeout_s or options.throttle):
        raise InvalidArgument("stop-and-copy sends nothing ahead: rounds, a timeout and a throttle are of no use")


def _check_rehearsal(mode: str, options: PrecopyOptions) -> None:
    if mode == POSTCOPY or options.on_timeout == ON_TIMEOUT_POSTCOPY or options.hold or options.end_exec:
        raise InvalidArgument(
            "a rehearsal leaves no memory behind, holds nothing and ends nothing: the container stays where and what it is",
            hint="migrate rehearse with --mode auto, precopy or stop-and-copy",
        )
