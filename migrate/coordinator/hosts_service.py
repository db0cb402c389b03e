"""The service FleetHosts: unpack, call, pack. What the calls mean is in protos/fleet.proto."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

from migrate.coordinator import choose, hosts
from migrate.coordinator.agents import AgentPool
from migrate.coordinator.membership import Membership
from migrate.coordinator.rotation import Rotation
from migrate.coordinator.store import Host, Store
from migrate.placement.ranking import Ranked
from migrate.tunnel import transport
from protos import coordinator_pb2, fleet_pb2, fleet_pb2_grpc


class HostsService(fleet_pb2_grpc.FleetHostsServicer):
    """Thread-safe, as its parts are."""

    def __init__(self, store: Store, pool: AgentPool, members: Membership, rotation: Rotation) -> None:
        self._store, self._pool, self._members, self._rotation = store, pool, members, rotation

    def Authority(self, request: fleet_pb2.AuthorityRequest, context: Any) -> fleet_pb2.AuthorityResponse:  # noqa: N802, ARG002
        return fleet_pb2.AuthorityResponse(authorities=self._rotation.authorities())

    def Join(self, request: fleet_pb2.JoinRequest, context: Any) -> fleet_pb2.JoinResponse:  # noqa: N802, ARG002
        host = Host(
            name=request.name,
            address=request.address,
            port=request.port or 22,
            host_keys=tuple(request.host_keys),
            joined=True,
            login=request.login,
        )
        was_there, tunnels = self._members.join(host, dict(request.labels), untested=request.untested)
        tests = [fleet_pb2.TunnelTest(source=t.source, target=t.target, bytes_per_s=t.bytes_per_s) for t in tunnels]
        return fleet_pb2.JoinResponse(host=self._status(request.name), was_there=was_there, tunnels=tests)

    def Leave(self, request: fleet_pb2.LeaveRequest, context: Any) -> fleet_pb2.LeaveResponse:  # noqa: N802, ARG002
        forgotten, silence = self._members.leave(request.host, force=request.force)
        return fleet_pb2.LeaveResponse(forgotten=forgotten, still_trusts=silence)

    def RotateKeys(self, request: fleet_pb2.RotateKeysRequest, context: Any) -> fleet_pb2.RotateKeysResponse:  # noqa: N802, ARG002
        names = self._rotation.rotate()
        line = self._rotation.authorities()[0]
        return fleet_pb2.RotateKeysResponse(hosts=names, fingerprint=transport.fingerprint(line))

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
