"""What both hosts have kept of a move's logs."""

from __future__ import annotations

from migrate.coordinator.move import Move
from migrate.errors import MigrateError
from protos import agent_pb2

LOOK_S = 20.0


def fetch(move: Move) -> agent_pb2.MoveLogs:
    """Of the source first. A host that does not answer, or is older than this call, is among `silent`, with why."""
    found = agent_pb2.MoveLogs()
    for host in (move.source, move.target):
        request = agent_pb2.MoveLogsRequest(migration_id=move.id)
        try:
            answer = move.call(host, "Logs", request, timeout_s=LOOK_S)
        except MigrateError as exc:
            found.silent.append(exc.message)
            continue
        found.logs.extend(agent_pb2.MoveLog(name=log.name, host=host, tail=log.tail) for log in answer.logs)
    return found
