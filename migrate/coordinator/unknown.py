"""A move that the hosts know of and the database does not: the database is an older copy of the one that the move was written to.

    repair WORD ─ no such move ─► every host is asked for the container ─► a row and a journal, as far as they can be told ─►
    repaired as any other

Which way it goes follows from the target alone: where its copy has run, it is the container; else the source's is, which stands still at
most. Both agents check that once more before they end anything.
"""

from __future__ import annotations

import secrets
import sqlite3
import time
from collections.abc import Iterator, Mapping
from dataclasses import dataclass

from migrate.coordinator.checks import state_name
from migrate.coordinator.move import Agents, naming
from migrate.coordinator.recovery import EXITED, FROZEN, RUNS
from migrate.coordinator.store import (
    Container,
    Migration,
    MigrationId,
    MoveState,
    Store,
    change_owner,
    insert_migration,
    set_owner,
)
from migrate.errors import ErrorRecord, MigrateError, NeedsAttention, NotFound, Unreachable
from migrate.saga.journal import SAGA, Event, Journal
from protos import agent_pb2

ASK_S = 10.0
REASON = "taken up from the hosts: the database did not know it"
_UNDONE = ("reserve", "tunnel", "freeze", "restore")  # whatever of them has been begun


@dataclass(frozen=True, kw_only=True)
class Found:
    """What the hosts say of a move. `epoch`: the container's before the pivot; `ran`: on the target, so that there is no way back."""

    id: str
    source: str
    target: str
    epoch: int
    ran: bool
    restored: bool = False  # the target has a whole copy
    later_bytes: int = 0  # of the running container's memory, still on the source
    rehearsal: bool = False  # what runs on the target is not the container


def known(store: Store, agents: Agents, word: str, *, dry_run: bool = False) -> MigrationId:
    """The move of that id or its beginning, else the active one of the container `word`, else as take_up()."""
    try:
        return store.migration(word).id
    except NotFound:
        active = [move for move in store.migrations(active=True) if word in (move.container, move.container_id)]
    return active[0].id if active else take_up(store, agents, word, dry_run=dry_run)


def take_up(store: Store, agents: Agents, word: str, *, dry_run: bool = False) -> MigrationId:
    """The move of the container `word`, or that whose id begins so: in the database, needing attention, from here on.

    Raises NotFound, Unreachable (a host that may run it does not answer), NeedsAttention with what would be done for `dry_run`.
    """
    for container in _candidates(store, word):
        found = look(container, _everywhere(store, agents, container))
        if found is None or not (word in (container.name, container.id) or found.id.startswith(word)):
            continue
        if store_knows(store, found.id):
            continue
        if dry_run:
            text = f"set {container.name} running on {found.target}" if found.ran else f"let it run on {found.source}"
            raise NeedsAttention(
                f"{container.name} takes part in move {found.id} from {found.source} to {found.target}, which the database does not "
                f"know; a repair would take it up and {text}",
                hint=f"migrate repair {container.name}",
            )
        return _write(store, container, found)
    raise NotFound(f"no move {word!r}", hint="migrate migrations", code="migration.not_found")


def store_knows(store: Store, migration_id: str) -> bool:
    return any(move.id == migration_id for move in store.migrations())


def look(container: Container, seen: Mapping[str, agent_pb2.WhereResponse]) -> Found | None:
    """From what each host says; None: the container is where the database has it, and in no move."""
    moving = {host: answer for host, answer in seen.items() if answer.present and answer.migration_id}
    sources = [host for host, answer in moving.items() if answer.role == "source"]
    targets = [host for host, answer in moving.items() if answer.role == "target"]
    if not moving:
        return _elsewhere(container, seen)
    migration_id, epoch = next((answer.migration_id, answer.epoch) for answer in moving.values())
    source = sources[0] if sources else container.owner
    ended = [host for host, answer in seen.items() if host != source and answer.present and answer.epoch == epoch + 1]
    target = (targets or ended or [host for host in seen if host != source] or [source])[0]
    there = seen[target]
    if any(answer.rehearsal for answer in moving.values()):
        return Found(id=migration_id, source=source, target=target, epoch=epoch, ran=False, rehearsal=True)
    ran = bool(ended) or (there.present and state_name(there.state) in (*RUNS, EXITED))
    return Found(
        id=migration_id,
        source=source,
        target=target,
        epoch=epoch,
        ran=ran,
        restored=ran or (there.present and state_name(there.state) == FROZEN),
        later_bytes=sum(each.bytes for each in there.missing),
    )


def _elsewhere(container: Container, seen: Mapping[str, agent_pb2.WhereResponse]) -> Found | None:
    """A move that is over: another host has the container since, at a higher epoch."""
    newest = max(seen, key=lambda host: seen[host].epoch if seen[host].present else 0)
    answer = seen[newest]
    if newest == container.owner or not answer.present or answer.epoch <= container.epoch:
        return None
    if seen[container.owner].present:
        return None  # two of them: nobody's to decide here
    return Found(
        id=secrets.token_hex(8), source=container.owner, target=newest, epoch=answer.epoch - 1, ran=True, restored=True
    )


def _candidates(store: Store, word: str) -> Iterator[Container]:
    """One that is named; where none is, all that no move holds."""
    containers = store.containers()
    named = [each for each in containers if word and word in (each.name, each.id)]
    held = {move.container_id for move in store.migrations(active=True)}
    yield from named or [each for each in containers if word and each.id not in held]


def _everywhere(store: Store, agents: Agents, container: Container) -> dict[str, agent_pb2.WhereResponse]:
    """Raises Unreachable: whoever does not answer may be the one that runs it."""
    answers = {}
    for host in store.hosts():
        try:
            with naming(host.name):
                request = agent_pb2.WhereRequest(container_id=container.id)
                answers[host.name] = agents.migration(host.name).Where(request, timeout=ASK_S)
        except MigrateError as exc:
            raise Unreachable(
                f"{exc.message}; where {container.name} runs cannot be told without it",
                hint=f"bring {host.name} up, or take it out of the fleet",
            ) from exc
    return answers


def _write(store: Store, container: Container, found: Found) -> MigrationId:
    """In one transaction: an unfinished move that has been begun, and its direction."""
    migration = Migration(
        id=MigrationId(found.id),
        container_id=container.id,
        container=container.name,
        source=found.source,
        target=found.target,
        epoch=found.epoch,
        state=MoveState.NEEDS_ATTENTION,
        reason=REASON,
        mode="auto",
        max_downtime_s=0.0,
        request_id="",
        started_unix_ns=time.time_ns(),
        finished_unix_ns=0,
        error=None,
        rehearsal=found.rehearsal,
    )
    journal = Journal(store.database, migration.id)
    with store.database.transaction() as db:
        insert_migration(db, migration)
        set_owner(db, container.id, owner=found.source, epoch=found.epoch)
        for step in _UNDONE:
            journal.write(db, step, Event.STARTED)
        if found.restored:
            journal.write(db, "restore", Event.DONE, {"marks": []})
        _decide(db, journal, migration, found)
    return migration.id


def _decide(db: sqlite3.Connection, journal: Journal, migration: Migration, found: Found) -> None:
    if found.ran:
        journal.write(db, "freeze", Event.DONE, {"marks": [], "sent_bytes": {}, "later_bytes": found.later_bytes})
        change_owner(db, migration.container_id, source=found.source, target=found.target, epoch=found.epoch)
        journal.write(db, SAGA, Event.COMMITTED)
        return
    error = ErrorRecord(
        code="migration.unknown",
        message=f"the database did not know the move: {migration.container} runs on {found.source} again",
        hint=f"migrate move {migration.container} --to {found.target}",
    )
    journal.write(db, SAGA, Event.ABORTING, {"step": SAGA, "error": error.to_json(), "cancelled": False})
