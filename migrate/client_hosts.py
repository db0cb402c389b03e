"""The client library's calls about single hosts and about placement; part of migrate.client.Client."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import TYPE_CHECKING, Any

from migrate import records, wire
from migrate.rpc import messages
from protos import coordinator_pb2, fleet_pb2, fleet_pb2_grpc

if TYPE_CHECKING:
    from migrate.records import Host, Ranking, Run

_LIMIT_S = 60.0


class HostCalls:
    """What a client asks about one host."""

    _hosts: fleet_pb2_grpc.FleetHostsStub

    def _call(self, method: Any, request: Any, timeout_s: float | None) -> Any:
        raise NotImplementedError  # the client's

    def inspect_host(self, name: str) -> Host:
        """With its facts, where it answers."""
        return wire.host(self._call(self._hosts.Inspect, fleet_pb2.HostRequest(host=name), _LIMIT_S))

    def label_host(self, name: str, labels: Mapping[str, str], *, remove: Iterable[str] = ()) -> Host:
        """Add or change `labels`, take those of the keys `remove` away."""
        request = fleet_pb2.LabelHostRequest(host=name, set=dict(labels), remove=remove)
        return wire.host(self._call(self._hosts.Label, request, _LIMIT_S))

    def cordon(self, name: str, *, reason: str = "") -> Host:
        """The host takes no new containers and no moves from now on; what runs there goes on. Idempotent."""
        return wire.host(self._call(self._hosts.Cordon, fleet_pb2.CordonRequest(host=name, reason=reason), _LIMIT_S))

    def uncordon(self, name: str) -> Host:
        """It takes them again. Idempotent."""
        return wire.host(self._call(self._hosts.Uncordon, fleet_pb2.HostRequest(host=name), _LIMIT_S))

    def place_run(self, wanted: Run, *, will_pull: bool = False) -> Ranking:
        """Where `run` would go, and why not elsewhere; nothing is made. `will_pull`: the image may be missing there."""
        request = fleet_pb2.PlaceRunRequest(run=wire.run_request(wanted, create_only=False), will_pull=will_pull)
        return messages.record(records.Ranking, self._call(self._hosts.PlaceRun, request, _LIMIT_S))

    def place_move(self, container: str, *, constraints: Iterable[str] = ()) -> Ranking:
        """Where `move` without `to` would go, and why not elsewhere; nothing is moved."""
        request = coordinator_pb2.MoveRequest(container=container, constraints=constraints)
        return messages.record(records.Ranking, self._call(self._hosts.PlaceMove, request, _LIMIT_S))
