"""The client library's calls about single hosts and about placement; part of migrate.client.Client."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import TYPE_CHECKING, Any

from migrate import records, wire
from migrate.rpc import messages
from protos import coordinator_pb2, fleet_pb2, fleet_pb2_grpc

if TYPE_CHECKING:
    from migrate.records import Host, Joined, Left, Ranking, Run

_LIMIT_S = 60.0
_JOIN_LIMIT_S = 900.0  # a slow host's agent probes for minutes, and then two tunnels are measured


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

    def authorities(self) -> list[str]:
        """Public keys, "ssh-ed25519 AAAA...", of whom a host's sshd has to trust."""
        return list(self._call(self._hosts.Authority, fleet_pb2.AuthorityRequest(), _LIMIT_S).authorities)

    def join_host(
        self,
        name: str,
        address: str,
        *,
        host_keys: Iterable[str],
        port: int = 22,
        labels: Mapping[str, str] | None = None,
        login: str = "",
        untested: bool = False,
    ) -> Joined:
        """Take in a machine whose agent runs. One that was there is mended: address, keys, labels. `untested`: it need not answer."""
        request = fleet_pb2.JoinRequest(
            name=name, address=address, port=port, host_keys=host_keys, labels=labels, login=login, untested=untested
        )
        reply = self._call(self._hosts.Join, request, _JOIN_LIMIT_S)
        tunnels = tuple(messages.record(records.TunnelTest, one) for one in reply.tunnels)
        return records.Joined(host=wire.host(reply.host), was_there=reply.was_there, tunnels=tunnels)

    def leave_host(self, name: str, *, force: bool = False) -> Left:
        """The host trusts the fleet no more and is forgotten. `force`: with its containers, which run on there unseen."""
        reply = self._call(self._hosts.Leave, fleet_pb2.LeaveRequest(host=name, force=force), _LIMIT_S)
        return messages.record(records.Left, reply)

    def rotate_keys(self) -> tuple[list[str], str]:
        """Another authority for the fleet: the hosts that trust it alone now, and its fingerprint."""
        reply = self._call(self._hosts.RotateKeys, fleet_pb2.RotateKeysRequest(), _JOIN_LIMIT_S)
        return list(reply.hosts), reply.fingerprint

    def place_run(self, wanted: Run, *, will_pull: bool = False) -> Ranking:
        """Where `run` would go, and why not elsewhere; nothing is made. `will_pull`: the image may be missing there."""
        request = fleet_pb2.PlaceRunRequest(run=wire.run_request(wanted, create_only=False), will_pull=will_pull)
        return messages.record(records.Ranking, self._call(self._hosts.PlaceRun, request, _LIMIT_S))

    def place_move(self, container: str, *, constraints: Iterable[str] = ()) -> Ranking:
        """Where `move` without `to` would go, and why not elsewhere; nothing is moved."""
        request = coordinator_pb2.MoveRequest(container=container, constraints=constraints)
        return messages.record(records.Ranking, self._call(self._hosts.PlaceMove, request, _LIMIT_S))
