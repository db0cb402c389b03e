"""The client library's calls about evacuations; part of migrate.client.Client.

for event in client.evacuate("host1", reason="new disk"):
    print(event)
"""

from __future__ import annotations

import os
from collections.abc import Iterable, Iterator, Mapping
from typing import TYPE_CHECKING, Any

from migrate import records
from migrate.rpc import messages
from protos import fleet_pb2, fleet_pb2_grpc

if TYPE_CHECKING:
    from migrate.records import Evacuation, EvacuationItem, EvacuationNote

_LIMIT_S = 60.0


class EvacuationCalls:
    """Streams yield the evacuation with its items once it is planned, then each item that changes, last the evacuation as it ended."""

    _evacuations: fleet_pb2_grpc.FleetEvacuationsStub

    def _call(self, method: Any, request: Any, timeout_s: float | None) -> Any:
        raise NotImplementedError  # the client's

    def _stream(self, method: Any, request: Any) -> Iterator[Any]:
        raise NotImplementedError  # the client's

    def evacuate(
        self,
        host: str,
        *,
        to: Iterable[str] = (),
        action: str = "",
        max_parallel: int = 0,
        bandwidth: int = 0,
        deadline_s: float = 0.0,
        selector: Mapping[str, str] | None = None,
        end_exec: bool = False,
        dry_run: bool = False,
        reason: str = "",
        request_id: str = "",
    ) -> Iterator[Evacuation | EvacuationItem | EvacuationNote]:
        """Cordon the host and take its containers to others. Leaving the iteration does not stop it; the same `request_id` is the same one.

        `action`: "live", "stop-and-copy", "stop", "skip"; "": by policy, else live. A container's label migrate.evacuate goes
        first. `bandwidth`: bytes per second of
        all moves together. After `deadline_s` no move is begun. `selector`: labels that a container must have.
        `end_exec`: what `exec` has started is ended right before a freeze.
        """
        request = fleet_pb2.EvacuateRequest(
            host=host,
            to=to,
            action=action,
            max_parallel=max_parallel,
            bandwidth=bandwidth,
            deadline_s=deadline_s,
            selector=dict(selector or {}),
            end_exec=end_exec,
            dry_run=dry_run,
            reason=reason,
            request_id=request_id or os.urandom(16).hex(),
        )
        return self._events(self._evacuations.Evacuate, request)

    def restore_host(
        self,
        host: str,
        *,
        skip: bool = False,
        max_parallel: int = 0,
        bandwidth: int = 0,
        dry_run: bool = False,
        reason: str = "",
        request_id: str = "",
    ) -> Iterator[Evacuation | EvacuationItem | EvacuationNote]:
        """Uncordon the host and bring home what evacuations took away from it; with `skip` bring nothing."""
        request = fleet_pb2.EvacuateRequest(
            host=host,
            skip=skip,
            max_parallel=max_parallel,
            bandwidth=bandwidth,
            dry_run=dry_run,
            reason=reason,
            request_id=request_id or os.urandom(16).hex(),
        )
        return self._events(self._evacuations.Restore, request)

    def watch_evacuation(self, evacuation_id: str) -> Iterator[Evacuation | EvacuationItem | EvacuationNote]:
        """Follow an evacuation or a restore, as it is now and then on."""
        return self._events(self._evacuations.Watch, fleet_pb2.EvacuationRequest(id=evacuation_id))

    def cancel_evacuation(self, evacuation_id: str) -> Evacuation:
        """No more moves are begun; those under way come to their end. The host stays cordoned."""
        return _record(self._call(self._evacuations.Cancel, fleet_pb2.EvacuationRequest(id=evacuation_id), _LIMIT_S))

    def evacuations(self, *, host: str = "", active: bool = False, limit: int = 0) -> list[Evacuation]:
        """Newest first, without items; `limit` 0 = all."""
        request = fleet_pb2.EvacuationsRequest(host=host, active=active, limit=limit)
        return [_record(one) for one in self._call(self._evacuations.Evacuations, request, _LIMIT_S).evacuations]

    def evacuation(self, evacuation_id: str) -> Evacuation:
        """With its items; by id or an unambiguous beginning of it."""
        return _record(self._call(self._evacuations.Inspect, fleet_pb2.EvacuationRequest(id=evacuation_id), _LIMIT_S))

    def _events(self, method: Any, request: Any) -> Iterator[Evacuation | EvacuationItem | EvacuationNote]:
        return _records(self._stream(method, request))


def _records(events: Iterable[Any]) -> Iterator[Evacuation | EvacuationItem | EvacuationNote]:
    for event in events:
        kind = event.WhichOneof("kind")
        if kind == "note":
            yield records.EvacuationNote(text=event.note)
        elif kind == "item":
            yield messages.record(records.EvacuationItem, event.item)
        else:
            yield _record(getattr(event, kind))


def _record(message: fleet_pb2.Evacuation) -> Evacuation:
    return messages.record(records.Evacuation, message)
