"""The service FleetRebalance: the census put to migrate/placement/rebalance.py."""

from __future__ import annotations

import time
from typing import Any

from migrate.coordinator import census
from migrate.coordinator.agents import AgentPool
from migrate.coordinator.checks import state_name
from migrate.coordinator.store import MoveState, Store
from migrate.errors import InvalidArgument, MigrateError
from migrate.placement import rebalance
from migrate.placement.model import Need
from protos import rebalance_pb2, rebalance_pb2_grpc, types_pb2

DEFAULT_THRESHOLD, DEFAULT_MOVES, MOST_MOVES = 0.2, 10, 1000


class RebalanceService(rebalance_pb2_grpc.FleetRebalanceServicer):
    """Thread-safe, as its parts are."""

    def __init__(self, store: Store, pool: AgentPool) -> None:
        self._store, self._pool = store, pool

    def Plan(self, request: rebalance_pb2.RebalanceRequest, context: Any) -> rebalance_pb2.RebalancePlan:  # noqa: N802, ARG002
        threshold = request.threshold or DEFAULT_THRESHOLD
        if not 0 < threshold < 1 or request.cooldown_s < 0 or request.max_moves > MOST_MOVES:
            raise InvalidArgument(
                f"a threshold of {threshold:g}, a cooldown of {request.cooldown_s:g} s, {request.max_moves} moves",
                hint=f"a threshold between 0 and 1, a cooldown that is not negative, at most {MOST_MOVES} moves",
            )
        now = census.take(self._store, self._pool)
        needs, left = self._movable(now, request.cooldown_s)
        most = request.max_moves or DEFAULT_MOVES
        found = rebalance.plan(needs, now.states, threshold=threshold, most=most)
        return rebalance_pb2.RebalancePlan(
            moves=[
                rebalance_pb2.RebalanceMove(
                    container_id=one.need.container_id,
                    container=one.need.name,
                    source=one.need.source,
                    target=one.target,
                    memory_bytes=one.need.memory_bytes,
                    gain=one.gain,
                )
                for one in found.shifts
            ],
            before=found.before,
            after=found.after,
            left=left,
        )

    def _movable(self, now: census.Census, cooldown_s: float) -> tuple[list[Need], dict[str, str]]:
        """What may leave the hosts that are fuller than the average; and by name why others may not."""
        counted = [one for one in now.states if not one.silence and one.cordon is None and one.memory_bytes]
        free = {one.name: one.memory_free_bytes / one.memory_bytes for one in counted}
        average = sum(free.values()) / max(1, len(free))
        chosen = [one for one in self._store.containers() if free.get(one.owner, 1.0) < average]
        since = time.time_ns() - int(cooldown_s * 1e9)
        moves = self._store.migrations() if cooldown_s else []
        fresh = {
            one.container_id for one in moves if one.state is MoveState.SUCCEEDED and one.finished_unix_ns >= since
        }
        under_way = {one.container_id for one in self._store.migrations(active=True)}
        needs: list[Need] = []
        left: dict[str, str] = {}
        seen = census.look(self._store, self._pool, chosen, now)
        for container in chosen:
            found = seen[container.id]
            if isinstance(found, MigrateError):
                left[container.name] = found.message
            elif container.id in under_way:
                left[container.name] = "a move of it is under way"
            elif found.state != types_pb2.CONTAINER_STATE_RUNNING:
                left[container.name] = f"it is {state_name(found.state)}"
            elif found.blockers:
                left[container.name] = "; ".join(found.blockers)
            elif container.id in fresh:
                left[container.name] = f"it has moved in the last {cooldown_s:g} s"
            else:
                needs.append(found.need)
        return needs, left
