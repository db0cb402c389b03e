"""The client library's call about rebalancing; part of migrate.client.Client."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import grpc

from migrate.rpc import messages

if TYPE_CHECKING:
    from migrate.records_rebalance import RebalancePlan

_LIMIT_S = 120.0


class RebalanceCalls:
    """Messages and records are imported by the first call: other commands need none of them."""

    _channel: grpc.Channel

    def _call(self, method: Any, request: Any, timeout_s: float | None) -> Any:
        raise NotImplementedError  # the client's

    def plan_rebalance(self, *, threshold: float = 0.0, cooldown_s: float = 0.0, max_moves: int = 0) -> RebalancePlan:
        """Which moves would bring the fullest and the emptiest host within `threshold` (a part of their memory, 0 = 0.2); nothing is moved.

        Containers that have moved in the last `cooldown_s` stay. `max_moves` 0 = 10.
        """
        from migrate import records_rebalance
        from protos import rebalance_pb2, rebalance_pb2_grpc

        stub = rebalance_pb2_grpc.FleetRebalanceStub(self._channel)  # type: ignore[no-untyped-call]  # generated
        request = rebalance_pb2.RebalanceRequest(threshold=threshold, cooldown_s=cooldown_s, max_moves=max_moves)
        return messages.record(records_rebalance.RebalancePlan, self._call(stub.Plan, request, _LIMIT_S))
