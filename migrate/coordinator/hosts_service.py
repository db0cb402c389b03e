"""The service FleetHosts: unpack, call, pack. What the calls mean is in protos/fleet.proto."""

from __future__ import annotations

from typing import Any

from migrate.coordinator import hosts
from migrate.coordinator.agents import AgentPool
from migrate.coordinator.store import Store
from protos import coordinator_pb2, fleet_pb2, fleet_pb2_grpc


class HostsService(fleet_pb2_grpc.FleetHostsServicer):
    """Thread-safe, as its parts are."""

    def __init__(self, store: Store, pool: AgentPool) -> None:
        self._store, self._pool = store, pool

    def Inspect(self, request: fleet_pb2.HostRequest, context: Any) -> coordinator_pb2.HostStatus:  # noqa: N802, ARG002
        return self._status(request.host)

    def Label(self, request: fleet_pb2.LabelHostRequest, context: Any) -> coordinator_pb2.HostStatus:  # noqa: N802, ARG002
        hosts.label(self._store, request.host, request.set, request.remove)
        return self._status(request.host)

    def Cordon(self, request: fleet_pb2.CordonRequest, context: Any) -> coordinator_pb2.HostStatus:  # noqa: N802, ARG002
        hosts.cordon(self._store, request.host, request.reason)
        return self._status(request.host)

    def Uncordon(self, request: fleet_pb2.HostRequest, context: Any) -> coordinator_pb2.HostStatus:  # noqa: N802, ARG002
        hosts.uncordon(self._store, request.host)
        return self._status(request.host)

    def _status(self, name: str) -> coordinator_pb2.HostStatus:
        (status,) = hosts.statuses(self._store, self._pool, facts=True, only=[name])
        return status
