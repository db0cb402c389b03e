"""The client library's calls about policies; part of migrate.client.Client.

client.put_policy(Policy(name="web", selector={"tier": "web"}, max_downtime_s=0.5))
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

import grpc

from migrate.rpc import messages

if TYPE_CHECKING:
    from migrate.records_policies import Policy, ResolvedPolicy

_LIMIT_S = 60.0


class PolicyCalls:
    """Messages and records are imported by the first call: other commands need none of them."""

    _channel: grpc.Channel

    def _call(self, method: Any, request: Any, timeout_s: float | None) -> Any:
        raise NotImplementedError  # the client's

    def put_policy(self, policy: Policy) -> None:
        """Add it, or replace the one of that name."""
        said = {name: value for name, value in policy.to_dict().items() if value is not None}
        self._of_policies("Put", "Policy", **said)

    def policies(self) -> list[Policy]:
        """By name."""
        from migrate import records_policies

        return [
            messages.record(records_policies.Policy, one)
            for one in self._of_policies("List", "PoliciesRequest").policies
        ]

    def remove_policy(self, name: str) -> None:
        """Moves that have begun keep what they took from it."""
        self._of_policies("Remove", "RemovePolicyRequest", name=name)

    def test_policy(self, container: str = "", *, labels: Mapping[str, str] | None = None) -> ResolvedPolicy:
        """What would hold for a container; or for one with these labels."""
        from migrate import records_policies

        found = self._of_policies("Test", "TestPolicyRequest", container=container, labels=dict(labels or {}))
        return messages.record(records_policies.ResolvedPolicy, found)

    def _of_policies(self, method: str, request: str, **fields: Any) -> Any:
        from protos import policy_pb2, policy_pb2_grpc

        stub = policy_pb2_grpc.FleetPoliciesStub(self._channel)  # type: ignore[no-untyped-call]  # generated
        return self._call(getattr(stub, method), getattr(policy_pb2, request)(**fields), _LIMIT_S)
