"""The service Lifecycle of one host in memory: what it was asked is done to the fake containers."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from agent.engine.events import EventLog
from protos import agent_pb2_grpc, types_pb2

if TYPE_CHECKING:
    from tests.fakes.host import FakeHost


class LifecycleService(agent_pb2_grpc.LifecycleServicer):
    """`events`: an agent's own log."""

    def __init__(self, host: FakeHost, events: EventLog) -> None:
        self._host = host
        self.events = events
        self.restarted: list[Any] = []

    def Restart(self, request, context):  # noqa: N802
        self._host.called("Lifecycle.Restart")
        container = self._host.container(request.id)
        with self._host.changed:
            container.state = types_pb2.CONTAINER_STATE_RUNNING
            self.restarted.append(request)
        return container.status(self._host.name)

    def Rename(self, request, context):  # noqa: N802
        self._host.called("Lifecycle.Rename")
        container = self._host.container(request.id)
        container.spec.name = request.name
        return container.status(self._host.name)

    def SetRestart(self, request, context):  # noqa: N802
        self._host.called("Lifecycle.SetRestart")
        container = self._host.container(request.id)
        container.spec.restart.CopyFrom(request.restart)
        return container.status(self._host.name)

    def Events(self, request, context):  # noqa: N802
        self._host.called("Lifecycle.Events")
        for event in self.events.read(
            since_unix_ns=request.since_unix_ns,
            until_unix_ns=request.until_unix_ns,
            after=request.after,
            follow=request.follow,
            wanted=context.is_active,
        ):
            yield types_pb2.Event(
                type=event.type,
                action=event.action,
                id=event.id,
                name=event.name,
                unix_ns=event.unix_ns,
                sequence=event.sequence,
                attributes=event.attributes,
            )
