"""Files of containers from outside, on the host that has the container: names in, the agents' streams through."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

from migrate.coordinator.agents import Agent
from migrate.coordinator.containers import OWNER_TRIES, Call, FleetContainers, bind
from migrate.coordinator.store import Container
from migrate.errors import InvalidArgument, MigrateError, WrongState
from protos import agent_pb2, coordinator_pb2_grpc, types_pb2


class FilesService(coordinator_pb2_grpc.FleetFilesServicer):
    """The service FleetFiles. Thread-safe."""

    def __init__(self, containers: FleetContainers) -> None:
        self._containers = containers

    def CopyOut(self, request: agent_pb2.CopyOutRequest, context: Call) -> Iterator[agent_pb2.FileChunk]:  # noqa: N802
        return self._streamed("copy from", "CopyOut", request, context)

    def Export(self, request: agent_pb2.ExportRequest, context: Call) -> Iterator[agent_pb2.FileChunk]:  # noqa: N802
        return self._streamed("export", "Export", request, context)

    def Diff(self, request: agent_pb2.DiffRequest, context: Call) -> Iterator[agent_pb2.DiffChunk]:  # noqa: N802
        return self._streamed("diff", "Diff", request, context)

    def CopyIn(  # noqa: N802
        self, request_iterator: Iterator[agent_pb2.CopyInChunk], context: Call
    ) -> agent_pb2.CopyInResponse:
        first = next(request_iterator, None)
        if first is None or not first.HasField("start"):
            raise InvalidArgument("a copy begins with where it goes")
        container = self._container("copy to", first.start.id)  # its owner takes part in no move until it is over
        first.start.id = container.id

        def requests() -> Iterator[agent_pb2.CopyInChunk]:
            yield first
            yield from request_iterator

        pending = self._containers.pool.agent(container.owner).begin("Files", "CopyIn", requests())
        bind(context, pending)
        response: agent_pb2.CopyInResponse = pending.result()
        return response

    def Commit(self, request: agent_pb2.CommitRequest, context: Call) -> types_pb2.Image:  # noqa: N802
        def commit(agent: Agent, container: Container) -> types_pb2.Image:
            pending = agent.begin("Files", "Commit", _for(request, container))
            bind(context, pending)
            image: types_pb2.Image = pending.result()
            image.host = container.owner
            return image

        return self._asked("commit", request.id, commit)

    def Root(self, request: agent_pb2.RootRequest, context: Call) -> agent_pb2.RootResponse:  # noqa: N802, ARG002
        def ask(agent: Agent, container: Container) -> agent_pb2.RootResponse:
            response: agent_pb2.RootResponse = agent.call("Files", "Root", _for(request, container))
            response.host = container.owner
            return response

        _, response = self._containers.at_owner(request.id, ask)
        return response  # type: ignore[no-any-return]

    def _streamed(self, verb: str, method: str, request: Any, context: Call) -> Iterator[Any]:
        """Once more where the container was moved away before the first answer."""
        container = self._container(verb, request.id)
        for left in reversed(range(OWNER_TRIES)):
            stream = self._containers.pool.agent(container.owner).stream("Files", method, _for(request, container))
            bind(context, stream)
            begun = False
            try:
                for answer in stream:
                    begun = True
                    yield answer
                return
            except MigrateError:
                owner = container.owner
                container = self._containers.store.container(container.id)
                if begun or not left or container.owner == owner:
                    raise

    def _asked(self, verb: str, name: str, action: Callable[[Agent, Container], types_pb2.Image]) -> types_pb2.Image:
        container = self._container(verb, name)
        image: types_pb2.Image = self._containers.at_owner(container.id, action)[1]
        return image

    def _container(self, verb: str, name: str) -> Container:
        """Raises NotFound, and WrongState while it is being moved: the agent says so too, but only from its part's beginning on."""
        container = self._containers.store.container(name)
        if move := self._containers.move_of(container):
            raise WrongState(
                f"cannot {verb} {container.name}: it is being moved: {move}", hint=f"wait for it: migrate watch {move}"
            )
        return container


def _for(request: Any, container: Container) -> Any:
    asked = type(request)()
    asked.CopyFrom(request)
    asked.id = container.id
    return asked
