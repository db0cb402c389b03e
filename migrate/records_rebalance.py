"""Plans of a rebalancing, as the client library gives them. Standard library only."""

from __future__ import annotations

from collections.abc import Mapping

from migrate.records_json import Json


class RebalanceMove(Json):
    """`gain`: by how much less full the fuller of the two hosts is then, as a part of its memory."""

    container_id: str
    container: str
    source: str
    target: str
    memory_bytes: int
    gain: float


class RebalancePlan(Json):
    """`before`, `after`: how full each host is, 0 to 1. `left`: containers of fuller hosts that stay, by name: why."""

    moves: tuple[RebalanceMove, ...]
    before: Mapping[str, float]
    after: Mapping[str, float]
    left: Mapping[str, str]
