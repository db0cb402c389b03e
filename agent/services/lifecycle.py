"""gRPC service Lifecycle: restart, rename, restart policies, and what happened here. Unpack, call the engine, pack."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator

import grpc

from agent.engine import adjust
from agent.engine.container import Engine
from agent.engine.spec import RestartPolicy
from agent.services import convert
from migrate.rpc import messages
from protos import agent_pb2 as pb
from protos import agent_pb2_grpc, types_pb2


class LifecycleService(agent_pb2_grpc.LifecycleServicer):
    """Of this host's containers."""

    def __init__(self, engine: Engine) -> None:
        self._engine = engine

    def Restart(self, request: pb.RestartRequest, context: grpc.ServicerContext) -> types_pb2.ContainerStatus:
        timeout_s = None if request.default_timeout else request.timeout_s
        container_id = convert.container_id(request.id)
        return convert.status_to_proto(self._engine.restarts.restart(container_id, timeout_s, request.signal))

    def Rename(self, request: pb.RenameRequest, context: grpc.ServicerContext) -> types_pb2.ContainerStatus:
        container_id = convert.container_id(request.id)
        return convert.status_to_proto(adjust.rename(self._engine, container_id, request.name))

    def SetRestart(self, request: pb.SetRestartRequest, context: grpc.ServicerContext) -> types_pb2.ContainerStatus:
        policy = messages.record(RestartPolicy, request.restart)
        container_id = convert.container_id(request.id)
        return convert.status_to_proto(self._engine.restarts.set_policy(container_id, policy))

    def Events(self, request: pb.EventsRequest, context: grpc.ServicerContext) -> Iterator[types_pb2.Event]:
        for event in self._engine.events.read(
            since_unix_ns=request.since_unix_ns,
            until_unix_ns=request.until_unix_ns,
            after=request.after,
            follow=request.follow,
            wanted=context.is_active,
        ):
            yield types_pb2.Event(**dataclasses.asdict(event))
