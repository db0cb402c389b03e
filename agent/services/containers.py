"""gRPC service Containers: unpack, call the engine, pack. Streams of stdio are in streams.py."""

from __future__ import annotations

import contextlib
import dataclasses
from collections.abc import Iterator

import grpc

from agent.engine import adjust, session
from agent.engine.container import Engine
from agent.errors import InvalidArgument, NotFound, StorageError
from agent.services import convert, streams
from agent.storage.layers import WritableLayer
from protos import agent_pb2 as pb
from protos import agent_pb2_grpc, types_pb2


class ContainersService(agent_pb2_grpc.ContainersServicer):
    """This host's containers."""

    def __init__(self, engine: Engine) -> None:
        self._engine = engine

    def Create(self, request: pb.CreateRequest, context: grpc.ServicerContext) -> types_pb2.ContainerStatus:
        spec = convert.spec_from_proto(request.spec)
        secrets = dict(request.secrets)
        return convert.status_to_proto(self._engine.create(spec, request.epoch, start=request.start, secrets=secrets))

    def Start(self, request: pb.StartRequest, context: grpc.ServicerContext) -> types_pb2.ContainerStatus:
        return convert.status_to_proto(self._engine.start(convert.container_id(request.id)))

    def Stop(self, request: pb.StopRequest, context: grpc.ServicerContext) -> types_pb2.ContainerStatus:
        timeout_s = None if request.default_timeout else request.timeout_s
        return convert.status_to_proto(self._engine.stop(convert.container_id(request.id), timeout_s, request.signal))

    def Kill(self, request: pb.KillRequest, context: grpc.ServicerContext) -> pb.KillResponse:
        self._engine.kill(convert.container_id(request.id), request.signal or "SIGKILL")
        return pb.KillResponse()

    def Remove(self, request: pb.RemoveRequest, context: grpc.ServicerContext) -> pb.RemoveResponse:
        self._engine.remove(convert.container_id(request.id), request.force, volumes=request.volumes)
        return pb.RemoveResponse()

    def Inspect(self, request: pb.InspectRequest, context: grpc.ServicerContext) -> types_pb2.ContainerStatus:
        container_id = convert.container_id(request.id)
        self._engine.settled(container_id)  # of one that removes itself at its exit the name is free then
        return convert.status_to_proto(self._engine.inspect(container_id))

    def List(self, request: pb.ListRequest, context: grpc.ServicerContext) -> pb.ListResponse:
        found = [convert.status_to_proto(status) for status in self._engine.list()]
        if request.size:
            for one in found:
                with contextlib.suppress(StorageError):  # removed, or written to, while we look
                    one.layer_bytes = WritableLayer(self._engine.store.directory(one.spec.id) / "layer").size_bytes()
        return pb.ListResponse(containers=found)

    def Wait(self, request: pb.WaitRequest, context: grpc.ServicerContext) -> types_pb2.ContainerStatus:
        return convert.status_to_proto(
            self._engine.wait_for_exit(convert.container_id(request.id), wanted=context.is_active)
        )

    def Logs(self, request: pb.LogsRequest, context: grpc.ServicerContext) -> Iterator[pb.LogChunk]:
        tail = None if request.all else request.tail
        for entry in self._engine.logs(
            convert.container_id(request.id),
            follow=request.follow,
            tail=tail,
            since_unix_ns=request.since_unix_ns,
            wanted=context.is_active,
        ):
            yield pb.LogChunk(unix_ns=entry.unix_ns, stream=entry.stream, data=entry.data)

    def Exec(self, request_iterator: Iterator[pb.ExecInput], context: grpc.ServicerContext) -> Iterator[pb.ExecOutput]:
        start = _start(request_iterator)
        if not start.argv:
            raise InvalidArgument("exec takes a command")
        container_id = convert.container_id(start.id)
        spec = self._engine.store.spec(container_id)
        what = session.request(
            spec,
            pid=self._engine.running_pid(container_id),
            start_ticks=self._engine.store.record(container_id).start_ticks,
            cgroups=self._engine.cgroup(container_id).dirs,
            argv=start.argv,
            env=start.env,
            cwd=start.cwd,
            user=start.user,
            tty=start.tty,
            rows=start.rows,
            columns=start.columns,
            seccomp=self._engine.filters.path(spec),
            privileged=start.privileged,
        )
        if start.detach:
            streams.let_run(session.Session(what, stdin=False))
            yield from (pb.ExecOutput(started=True), pb.ExecOutput(exit_code=0))
            return
        with session.Session(what, stdin=start.stdin) as running:
            yield from streams.converse(running, request_iterator, context)

    def Attach(
        self, request_iterator: Iterator[pb.ExecInput], context: grpc.ServicerContext
    ) -> Iterator[pb.ExecOutput]:
        start = _start(request_iterator)
        container_id = convert.container_id(start.id)
        attached = streams.Attached(self._engine, container_id, self._engine.attach(container_id))
        try:
            if start.rows and start.columns and self._engine.store.spec(container_id).tty:
                attached.resize(start.rows, start.columns)
            yield from streams.converse(attached, request_iterator, context)
        finally:
            attached.hang_up()  # an attachment to a container that never starts ends here

    def Update(self, request: pb.UpdateRequest, context: grpc.ServicerContext) -> types_pb2.ContainerStatus:
        limits = convert.limits_from_proto(request.limits)
        return convert.status_to_proto(adjust.update(self._engine, convert.container_id(request.id), limits))

    def Pause(self, request: pb.PauseRequest, context: grpc.ServicerContext) -> types_pb2.ContainerStatus:
        return convert.status_to_proto(adjust.pause(self._engine, convert.container_id(request.id)))

    def Unpause(self, request: pb.PauseRequest, context: grpc.ServicerContext) -> types_pb2.ContainerStatus:
        return convert.status_to_proto(adjust.unpause(self._engine, convert.container_id(request.id)))

    def Usage(self, request: pb.UsageRequest, context: grpc.ServicerContext) -> pb.UsageResponse:
        usages = []
        for container_id in request.ids:
            try:
                limit, used = adjust.look(self._engine, convert.container_id(container_id))
            except NotFound:
                continue
            usages.append(convert.usage_to_proto(container_id, used, limit))
        return pb.UsageResponse(usages=usages)

    def Top(self, request: pb.TopRequest, context: grpc.ServicerContext) -> pb.TopResponse:
        found = adjust.top(self._engine, convert.container_id(request.id))
        return pb.TopResponse(processes=[types_pb2.ContainerProcess(**dataclasses.asdict(one)) for one in found])


def _start(requests: Iterator[pb.ExecInput]) -> pb.ExecStart:
    first = next(requests, None)
    if first is None or not first.HasField("start"):
        raise InvalidArgument("the stream begins with what to run")
    return first.start
