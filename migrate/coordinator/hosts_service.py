"""The service FleetHosts: unpack, call, pack. What the calls mean is in protos/fleet.proto."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

from migrate.coordinator import choose, hosts
from migrate.coordinator.agents import AgentPool
from migrate.coordinator.store import Store
from migrate.placement.ranking import Ranked
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

    def PlaceRun(self, request: fleet_pb2.PlaceRunRequest, context: Any) -> fleet_pb2.Ranking:  # noqa: N802, ARG002
        ranking = choose.rank_for_run(self._store, self._pool, request.run, will_pull=request.will_pull)
        return _packed(request.run.name, ranking)

    def PlaceMove(self, request: coordinator_pb2.MoveRequest, context: Any) -> fleet_pb2.Ranking:  # noqa: N802, ARG002
        ranking = choose.rank_for_move(self._store, self._pool, request.container, request.constraints)
        return _packed(self._store.container(request.container).name, ranking)

    def _status(self, name: str) -> coordinator_pb2.HostStatus:
        (status,) = hosts.statuses(self._store, self._pool, facts=True, only=[name])
        return status


def _packed(container: str, ranking: Iterable[Ranked]) -> fleet_pb2.Ranking:
    hosts_ = [
        fleet_pb2.RankedHost(host=one.host, score=one.score, parts=dict(one.parts), refusals=one.refusals)
        for one in ranking
    ]
    return fleet_pb2.Ranking(container=container, hosts=hosts_)
