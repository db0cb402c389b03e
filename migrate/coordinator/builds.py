"""A build: sent to one host of the fleet, with an address and ids for the containers of RUN, which nobody else gets meanwhile."""

from __future__ import annotations

from collections.abc import Iterator

from migrate.coordinator import allocate
from migrate.coordinator.agents import AgentPool
from migrate.coordinator.containers import Call, bind
from migrate.coordinator.hosts import needed
from migrate.coordinator.store import Store
from migrate.errors import InvalidArgument
from protos import agent_pb2, coordinator_pb2_grpc, types_pb2


class BuildsService(coordinator_pb2_grpc.FleetBuildsServicer):
    """The service FleetBuilds. Thread-safe."""

    def __init__(self, store: Store, pool: AgentPool) -> None:
        self._store, self._pool = store, pool

    def Build(self, request_iterator: Iterator[agent_pb2.BuildChunk], context: Call) -> Iterator[agent_pb2.BuildEvent]:  # noqa: N802
        first = next(request_iterator, None)
        if first is None or not first.HasField("start"):
            raise InvalidArgument("a build begins with its Dockerfile")
        start = first.start
        host = self._host(start.host)
        with allocate.reserved(self._store) as place:
            start.ids.CopyFrom(types_pb2.IdRange(base=place.ids_base, count=allocate.IDS_COUNT))
            start.address.CopyFrom(types_pb2.Network(address=place.address, mac=place.mac, gateway=place.gateway))

            def requests() -> Iterator[agent_pb2.BuildChunk]:
                yield first
                yield from request_iterator

            stream = self._pool.agent(host).stream("Builds", "Build", requests())
            bind(context, stream)
            for event in stream:
                if event.HasField("done"):
                    event.done.host = host
                yield event

    def _host(self, wanted: str) -> str:
        if wanted:
            return self._store.host(wanted).name
        hosts = needed(self._store)
        return hosts[0]
