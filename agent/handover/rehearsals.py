"""What sets a rehearsal apart from a move on a host: it ends by itself with the agent, and touches nothing of the host's."""

from __future__ import annotations

import logging
import threading
from collections.abc import Callable, Sequence
from pathlib import Path

from agent.errors import AgentError, WrongState
from agent.handover.record import Move

Finish = Callable[..., object]

_log = logging.getLogger(__name__)


def throw_away(move: Move, role: str, finish: Finish) -> None:
    """At the agent's start: a rehearsal of the agent before this one is over, whoever else lives. Returns at once."""
    try:
        record = move.read()
    except AgentError as exc:
        _log.error("migration %s: %s", move.migration_id, exc.message)
        return
    if record.role != role or not record.rehearsal:
        return

    def end() -> None:
        try:
            finish(record.migration_id, record.epoch, record.container_id, committed=False)
            _log.info("migration %s, a rehearsal, was thrown away: the agent was restarted", record.migration_id)
        except (AgentError, OSError) as exc:
            _log.error("migration %s, a rehearsal, is left as it is: %s", record.migration_id, exc)

    threading.Thread(target=end, name="rehearsal", daemon=True).start()


def is_one(moves_dir: Path, migration_id: str, role: str) -> bool:
    """Whether what this host does for that move, if anything, is for a rehearsal."""
    if not migration_id:
        return False
    try:
        return Move(moves_dir, migration_id, role).read().rehearsal
    except AgentError:
        return False  # after a reboot: nothing of a copy runs then


def refuse_what_cannot_be_undone(sources: Sequence[Path]) -> None:
    """Raises WrongState for a bind's source that is neither a directory nor a file: a socket, a device."""
    for source in sources:
        if not source.is_dir() and not source.is_file():
            raise WrongState(
                f"the container uses {source} of its host, and what it does there could not be undone",
                hint="there is no rehearsal of such a container: migrate check says what speaks against its move",
            )
