"""The service Fleet: unpack, call, pack. What the calls mean is in protos/coordinator.proto and in the modules called.

Errors leave as they are raised; migrate.rpc.errors.ErrorInterceptor maps them. The calls about moves are in moves_service.
"""

from __future__ import annotations

from collections.abc import Iterator

import migrate
from migrate.coordinator import adjust, hosts, image_streams, images, streams
from migrate.coordinator.containers import Call, FleetContainers
from migrate.coordinator.moves import MoveRunner
from migrate.coordinator.moves_service import MoveCalls
from migrate.rpc.version import OURS
from protos import agent_pb2, coordinator_pb2, coordinator_pb2_grpc, types_pb2


class FleetService(MoveCalls, coordinator_pb2_grpc.FleetServicer):
    """One fleet. Thread-safe, as its parts are."""

    def __init__(self, containers: FleetContainers, runner: MoveRunner) -> None:
        MoveCalls.__init__(self, containers.store, containers.pool, runner)
        self._containers = containers
        self._store = containers.store
        self._pool = containers.pool

    # ------------------------------------------------------------ fleet

    def Version(self, request: coordinator_pb2.VersionRequest, context: Call) -> coordinator_pb2.VersionResponse:  # noqa: N802, ARG002
        return coordinator_pb2.VersionResponse(
            version=migrate.__version__,
            protocol=OURS.major,
            protocol_minor=OURS.minor,
            fleet=self._store.fleet().name,
        )

    def Hosts(self, request: coordinator_pb2.HostsRequest, context: Call) -> coordinator_pb2.HostsResponse:  # noqa: N802, ARG002
        return coordinator_pb2.HostsResponse(hosts=hosts.statuses(self._store, self._pool, facts=request.facts))

    # ------------------------------------------------------------ containers

    def Run(self, request: coordinator_pb2.RunRequest, context: Call) -> types_pb2.ContainerStatus:  # noqa: N802, ARG002
        return self._containers.run(request)

    def Containers(self, request: coordinator_pb2.ContainersRequest, context: Call) -> agent_pb2.ListResponse:  # noqa: N802, ARG002
        return agent_pb2.ListResponse(
            containers=self._containers.list(all=request.all, host=request.host, size=request.size)
        )

    def Inspect(self, request: coordinator_pb2.NameRequest, context: Call) -> types_pb2.ContainerStatus:  # noqa: N802, ARG002
        return self._containers.inspect(request.name)

    def Start(self, request: coordinator_pb2.NameRequest, context: Call) -> types_pb2.ContainerStatus:  # noqa: N802, ARG002
        return self._containers.start(request.name)

    def Stop(self, request: coordinator_pb2.StopContainerRequest, context: Call) -> types_pb2.ContainerStatus:  # noqa: N802, ARG002
        return self._containers.stop(request)

    def Kill(self, request: coordinator_pb2.KillContainerRequest, context: Call) -> agent_pb2.KillResponse:  # noqa: N802, ARG002
        self._containers.kill(request.name, request.signal)
        return agent_pb2.KillResponse()

    def Remove(self, request: coordinator_pb2.RemoveContainerRequest, context: Call) -> agent_pb2.RemoveResponse:  # noqa: N802, ARG002
        self._containers.remove(request.name, force=request.force, volumes=request.volumes)
        return agent_pb2.RemoveResponse()

    def Wait(self, request: coordinator_pb2.NameRequest, context: Call) -> types_pb2.ContainerStatus:  # noqa: N802
        return self._containers.wait(request.name, context)

    def Logs(self, request: coordinator_pb2.ContainerLogsRequest, context: Call) -> Iterator[agent_pb2.LogChunk]:  # noqa: N802
        return streams.logs(self._containers, request, context)

    def Exec(self, request_iterator: Iterator[agent_pb2.ExecInput], context: Call) -> Iterator[agent_pb2.ExecOutput]:  # noqa: N802
        return streams.exec_(self._containers, request_iterator, context)

    def Attach(self, request_iterator: Iterator[agent_pb2.ExecInput], context: Call) -> Iterator[agent_pb2.ExecOutput]:  # noqa: N802
        return streams.attach(self._containers, request_iterator, context)

    def Update(self, request: coordinator_pb2.UpdateContainerRequest, context: Call) -> types_pb2.ContainerStatus:  # noqa: N802, ARG002
        return adjust.update(self._containers, request.name, request.limits, request.fields)

    def Pause(self, request: coordinator_pb2.NameRequest, context: Call) -> types_pb2.ContainerStatus:  # noqa: N802, ARG002
        return adjust.pause(self._containers, request.name)

    def Unpause(self, request: coordinator_pb2.NameRequest, context: Call) -> types_pb2.ContainerStatus:  # noqa: N802, ARG002
        return adjust.unpause(self._containers, request.name)

    def Stats(self, request: coordinator_pb2.StatsRequest, context: Call) -> agent_pb2.UsageResponse:  # noqa: N802, ARG002
        return agent_pb2.UsageResponse(usages=adjust.usages(self._containers, request.names))

    def Top(self, request: coordinator_pb2.NameRequest, context: Call) -> agent_pb2.TopResponse:  # noqa: N802, ARG002
        return adjust.top(self._containers, request.name)

    # ------------------------------------------------------------ images

    def ImportImage(  # noqa: N802
        self,
        request_iterator: Iterator[coordinator_pb2.ImportImageChunk],
        context: Call,  # noqa: ARG002
    ) -> coordinator_pb2.ImportImageResponse:
        imported = image_streams.import_to(self._store, self._pool, request_iterator)
        return coordinator_pb2.ImportImageResponse(images=imported)

    def ListImages(self, request: coordinator_pb2.HostsRequest, context: Call) -> agent_pb2.ListImagesResponse:  # noqa: N802, ARG002
        return agent_pb2.ListImagesResponse(images=images.list_all(self._store, self._pool))

    def RemoveImage(  # noqa: N802
        self,
        request: coordinator_pb2.RemoveImageFromRequest,
        context: Call,  # noqa: ARG002
    ) -> agent_pb2.RemoveImageResponse:
        return images.remove(self._store, self._pool, request.name, host=request.host, force=request.force)

    def InspectImage(self, request: agent_pb2.InspectImageRequest, context: Call) -> agent_pb2.ListImagesResponse:  # noqa: N802, ARG002
        return agent_pb2.ListImagesResponse(images=images.inspect(self._store, self._pool, request))

    def TagImage(self, request: agent_pb2.TagImageRequest, context: Call) -> agent_pb2.ListImagesResponse:  # noqa: N802, ARG002
        return agent_pb2.ListImagesResponse(images=images.tag(self._store, self._pool, request))

    def PruneImages(  # noqa: N802
        self,
        request: agent_pb2.PruneImagesRequest,
        context: Call,  # noqa: ARG002
    ) -> coordinator_pb2.PruneImagesOfFleet:
        return coordinator_pb2.PruneImagesOfFleet(hosts=images.prune(self._store, self._pool, request))

    def LoadImages(  # noqa: N802
        self, request_iterator: Iterator[coordinator_pb2.ImportImageChunk], context: Call
    ) -> Iterator[agent_pb2.ImageEvent]:
        return image_streams.load(self._store, self._pool, request_iterator, context)

    def SaveImages(self, request: agent_pb2.SaveImagesRequest, context: Call) -> Iterator[agent_pb2.SaveChunk]:  # noqa: N802
        return image_streams.save(self._store, self._pool, request, context)

    def PullImage(self, request: agent_pb2.PullImageRequest, context: Call) -> Iterator[agent_pb2.ImageEvent]:  # noqa: N802
        return image_streams.pull(self._store, self._pool, request, context)

    def PushImage(self, request: agent_pb2.PushImageRequest, context: Call) -> Iterator[agent_pb2.ImageEvent]:  # noqa: N802
        return image_streams.push(self._store, self._pool, request, context)

    def RegistryLogin(self, request: agent_pb2.LoginRequest, context: Call) -> agent_pb2.LoginResponse:  # noqa: N802, ARG002
        return image_streams.login(self._store, self._pool, request)
