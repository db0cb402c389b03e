"""What both hosts say is there of a container whose move was cut off: the input of recovery.py."""

from __future__ import annotations

import logging
import time
from collections.abc import Callable

from migrate.coordinator.checks import state_name
from migrate.coordinator.move import Move
from migrate.coordinator.recovery import Seen, Sighting
from migrate.coordinator.store import Migration
from migrate.errors import MigrateError
from migrate.saga.journal import Event
from protos import agent_pb2

ASK_S = 10.0  # deadline of Where
ASK_AGAIN_S = 1.0

log = logging.getLogger(__name__)


def look(context: Move, move: Migration, *, ask_s: float, wait: Callable[[float], None]) -> Seen:
    """Both hosts, and the journal. A silent host is asked again for `ask_s`; `wait` sleeps, or raises Interrupted."""
    journal = context.journal
    entries = journal.entries()
    give_up = time.monotonic() + ask_s
    sightings: dict[str, Sighting | None] = {}
    for host in (move.source, move.target):
        while (sighting := sight(context, move, host)) is None and time.monotonic() < give_up:
            wait(ASK_AGAIN_S)
        sightings[host] = sighting
    return Seen(
        direction=journal.direction(),
        done={entry.step for entry in entries if entry.event is Event.DONE},
        undone={entry.step for entry in entries if entry.event is Event.UNDONE},
        source=sightings[move.source],
        target=sightings[move.target],
        kept_back=bool(journal.results().get("freeze", {}).get("later_bytes")),
    )


def sight(context: Move, move: Migration, host: str) -> Sighting | None:
    """None: it does not answer."""
    request = agent_pb2.WhereRequest(container_id=move.container_id)
    try:
        answer = context.call(host, "Where", request, timeout_s=ASK_S)
    except MigrateError as exc:
        log.warning("move %s: %s cannot say what is there: %s", move.id, host, exc.message)
        return None
    return Sighting(
        present=answer.present,
        state=state_name(answer.state),
        epoch=answer.epoch,
        migration_id=answer.migration_id,
        role=answer.role,
        committed=answer.committed,
    )
