"""The service FleetPolicies: unpack, call, pack. What the calls mean is in protos/policy.proto."""

from __future__ import annotations

from typing import Any

from migrate.coordinator import create
from migrate.coordinator.policies import SETTINGS, Policies, Policy
from migrate.coordinator.store import Store
from protos import policy_pb2, policy_pb2_grpc


class PoliciesService(policy_pb2_grpc.FleetPoliciesServicer):
    """Thread-safe, as its parts are."""

    def __init__(self, store: Store) -> None:
        self._store, self._policies = store, Policies(store)

    def Put(self, request: policy_pb2.Policy, context: Any) -> policy_pb2.Policy:  # noqa: N802, ARG002
        self._policies.put(
            Policy(
                name=request.name,
                selector={**dict.fromkeys(request.any_value), **request.selector},
                **{name: getattr(request, name) for name in SETTINGS if request.HasField(name)},
            )
        )
        return request

    def List(self, request: policy_pb2.PoliciesRequest, context: Any) -> policy_pb2.PolicyList:  # noqa: N802, ARG002
        return policy_pb2.PolicyList(policies=[_packed(one) for one in self._policies.all()])

    def Remove(self, request: policy_pb2.RemovePolicyRequest, context: Any) -> policy_pb2.RemovedPolicy:  # noqa: N802, ARG002
        self._policies.remove(request.name)
        return policy_pb2.RemovedPolicy()

    def Test(self, request: policy_pb2.TestPolicyRequest, context: Any) -> policy_pb2.ResolvedPolicy:  # noqa: N802, ARG002
        labels = dict(request.labels)
        if request.container:
            labels = dict(create.spec_of(self._store.container(request.container)).labels)
        found = self._policies.of(labels)
        return policy_pb2.ResolvedPolicy(
            values={
                name: f"{value:g}" if isinstance(value, float) else str(value) for name, value in found.values.items()
            },
            sources=found.sources,
            matching=found.matching,
        )


def _packed(one: Policy) -> policy_pb2.Policy:
    return policy_pb2.Policy(
        name=one.name,
        selector={key: value for key, value in one.selector.items() if value is not None},
        any_value=sorted(key for key, value in one.selector.items() if value is None),
        **{name: getattr(one, name) for name in SETTINGS if getattr(one, name) is not None},
    )
