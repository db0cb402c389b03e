"""The client library's calls about volumes; part of migrate.client.Client."""

from __future__ import annotations

import os
from collections.abc import Iterable, Mapping
from typing import Any

from migrate import records
from migrate.rpc import messages
from protos import agent_pb2, coordinator_pb2_grpc

_LIMIT_S = 600.0


class VolumeCalls:
    """What a client asks about volumes. One that is on several hosts is there once for each."""

    _volumes: coordinator_pb2_grpc.FleetVolumesStub

    def _call(self, method: Any, request: Any, timeout_s: float | None) -> Any:
        raise NotImplementedError  # the client's

    def create_volume(
        self, name: str = "", *, host: str = "", labels: Mapping[str, str] | None = None, shared: str = ""
    ) -> list[records.Volume]:
        """On `host`, or on every host. `name` "" = one is made up. `shared`: a directory that is the same on every host."""
        request = agent_pb2.VolumeRequest(
            name=name or os.urandom(32).hex(), labels=dict(labels or {}), shared=shared, host=host
        )
        return _records(self._call(self._volumes.Create, request, _LIMIT_S).volumes)

    def volumes(self, *, host: str = "") -> list[records.Volume]:
        """By name, of the hosts that answer."""
        return _records(self._call(self._volumes.List, agent_pb2.ListVolumesRequest(host=host), _LIMIT_S).volumes)

    def inspect_volume(self, name: str, *, host: str = "") -> list[records.Volume]:
        """On each host that has it. Raises NotFound where none has."""
        return _records(
            self._call(self._volumes.Inspect, agent_pb2.VolumeRequest(name=name, host=host), _LIMIT_S).volumes
        )

    def remove_volume(self, name: str, *, host: str = "", force: bool = False) -> list[records.Volume]:
        """From every host that has it; what was removed. Raises WrongState with the names of the containers that use it."""
        request = agent_pb2.RemoveVolumeRequest(name=name, host=host, force=force)
        return _records(self._call(self._volumes.Remove, request, _LIMIT_S).volumes)

    def prune_volumes(
        self, *, all: bool = False, labels: Iterable[str] = (), host: str = ""
    ) -> tuple[list[records.Volume], int]:
        """Remove what no container uses: anonymous volumes, with `all` the named ones too. (they, bytes that were freed)"""
        reply = self._call(
            self._volumes.Prune, agent_pb2.PruneVolumesRequest(all=all, labels=labels, host=host), _LIMIT_S
        )
        return _records(reply.volumes), reply.freed_bytes


def _records(messages_: Iterable[Any]) -> list[records.Volume]:
    return [messages.record(records.Volume, one) for one in messages_]
