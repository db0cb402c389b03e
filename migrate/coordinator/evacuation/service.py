"""The service FleetEvacuations: unpack, call, pack. What the calls mean is in protos/fleet.proto."""

from __future__ import annotations

import threading
import time
from collections.abc import Iterator
from typing import Any

from migrate.coordinator import pack
from migrate.coordinator.evacuation.records import EVACUATE, RESTORE, Evacuation, Evacuations, Item, Options
from migrate.coordinator.evacuation.runner import Ended, EvacuationRunner, Event, Note, Planned
from migrate.errors import InvalidArgument
from protos import fleet_pb2, fleet_pb2_grpc

DEFAULT_PARALLEL = 2
MOST_PARALLEL = 64


class EvacuationsService(fleet_pb2_grpc.FleetEvacuationsServicer):
    """Thread-safe, as its parts are."""

    def __init__(self, runner: EvacuationRunner, evacuations: Evacuations) -> None:
        self._runner, self._evacuations = runner, evacuations

    def Evacuate(self, request: fleet_pb2.EvacuateRequest, context: Any) -> Iterator[fleet_pb2.EvacuationEvent]:  # noqa: N802
        return self._begin(EVACUATE, request, context)

    def Restore(self, request: fleet_pb2.EvacuateRequest, context: Any) -> Iterator[fleet_pb2.EvacuationEvent]:  # noqa: N802
        return self._begin(RESTORE, request, context)

    def Watch(self, request: fleet_pb2.EvacuationRequest, context: Any) -> Iterator[fleet_pb2.EvacuationEvent]:  # noqa: N802
        return self._watch(self._evacuations.get(request.id).id, context)

    def Cancel(self, request: fleet_pb2.EvacuationRequest, context: Any) -> fleet_pb2.Evacuation:  # noqa: N802, ARG002
        return _packed(self._runner.cancel(request.id))

    def Evacuations(self, request: fleet_pb2.EvacuationsRequest, context: Any) -> fleet_pb2.EvacuationList:  # noqa: N802, ARG002
        found = self._evacuations.newest(host=request.host, active=request.active, limit=request.limit)
        return fleet_pb2.EvacuationList(evacuations=[_packed(one) for one in found])

    def Inspect(self, request: fleet_pb2.EvacuationRequest, context: Any) -> fleet_pb2.Evacuation:  # noqa: N802, ARG002
        return _packed(self._evacuations.get(request.id))

    def _begin(
        self, kind: str, request: fleet_pb2.EvacuateRequest, context: Any
    ) -> Iterator[fleet_pb2.EvacuationEvent]:
        options = _options(request)
        if request.dry_run:
            yield fleet_pb2.EvacuationEvent(
                done=_packed(self._runner.dry_run(kind, request.host, options, request.reason))
            )
            return
        begun = self._runner.start(kind, request.host, options, request.reason, request.request_id)
        yield from self._watch(begun, context)

    def _watch(self, evacuation_id: str, context: Any) -> Iterator[fleet_pb2.EvacuationEvent]:
        wanted = threading.Event()
        wanted.set()
        if not context.add_callback(wanted.clear):
            return
        for event in self._runner.watch(evacuation_id, wanted=wanted):
            yield _event(event)


def _options(request: fleet_pb2.EvacuateRequest) -> Options:
    """Raises InvalidArgument."""
    if request.max_parallel > MOST_PARALLEL:
        raise InvalidArgument(f"{request.max_parallel} moves at once", hint=f"at most {MOST_PARALLEL}")
    if request.deadline_s < 0:
        raise InvalidArgument(f"a deadline in {request.deadline_s} s")
    return Options(
        to=tuple(request.to),
        action=request.action,
        max_parallel=request.max_parallel or DEFAULT_PARALLEL,
        bandwidth=request.bandwidth,
        deadline_unix_ns=time.time_ns() + int(request.deadline_s * 1e9) if request.deadline_s else 0,
        selector=dict(request.selector),
        skip=request.skip,
        end_exec=request.end_exec,
    )


def _event(event: Event) -> fleet_pb2.EvacuationEvent:
    if isinstance(event, Planned):
        return fleet_pb2.EvacuationEvent(plan=_packed(event.evacuation))
    if isinstance(event, Note):
        return fleet_pb2.EvacuationEvent(note=event.text)
    if isinstance(event, Ended):
        return fleet_pb2.EvacuationEvent(done=_packed(event.evacuation))
    return fleet_pb2.EvacuationEvent(item=_item(event))


def _packed(one: Evacuation) -> fleet_pb2.Evacuation:
    options = one.options
    return fleet_pb2.Evacuation(
        id=one.id,
        kind=one.kind,
        host=one.host,
        state=one.state,
        reason=one.reason,
        started_unix_ns=one.started_unix_ns,
        finished_unix_ns=one.finished_unix_ns,
        items=[_item(item) for item in one.items],
        max_parallel=options.max_parallel,
        bandwidth=options.bandwidth,
        deadline_s=max(0.0, (options.deadline_unix_ns - one.started_unix_ns) / 1e9),
        predicted_s=one.predicted_s,
        to=options.to,
        action=options.action or "live",
        selector=options.selector,
    )


def _item(item: Item) -> fleet_pb2.EvacuationItem:
    message = fleet_pb2.EvacuationItem(
        container_id=item.container_id,
        container=item.container,
        action=item.action,
        state=item.state,
        source=item.source,
        target=item.target,
        migration_id=item.migration_id,
        tries=item.tries,
        why=item.why,
        predicted_s=item.predicted_s,
        predicted_downtime_s=item.predicted_downtime_s,
        took_s=item.took_s,
        downtime_s=item.downtime_s,
        memory_bytes=item.memory_bytes,
    )
    if item.error is not None:
        message.error.CopyFrom(pack.error(item.error))
    return message
