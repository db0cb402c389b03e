"""The service FleetLifecycle: restart, rename, restart policies, and the events of the whole fleet."""

from __future__ import annotations

from collections.abc import Iterator

from google.protobuf import json_format

from migrate.coordinator import allocate, create, watching
from migrate.coordinator.agents import Agent
from migrate.coordinator.containers import STOP_MARGIN_S, Call, FleetContainers
from migrate.coordinator.store import Container, Desired
from migrate.errors import InvalidArgument, MigrateError, WrongState
from protos import agent_pb2, coordinator_pb2_grpc, types_pb2

START_MARGIN_S = 120.0


class LifecycleService(coordinator_pb2_grpc.FleetLifecycleServicer):
    """Thread-safe, as its parts are."""

    def __init__(self, containers: FleetContainers) -> None:
        self._containers = containers

    def Restart(self, request: agent_pb2.RestartRequest, context: Call) -> types_pb2.ContainerStatus:  # noqa: N802, ARG002
        return restart(self._containers, request)

    def Rename(self, request: agent_pb2.RenameRequest, context: Call) -> types_pb2.ContainerStatus:  # noqa: N802, ARG002
        return rename(self._containers, request.id, request.name)

    def SetRestart(self, request: agent_pb2.SetRestartRequest, context: Call) -> types_pb2.ContainerStatus:  # noqa: N802, ARG002
        return set_restart(self._containers, request.id, request.restart)

    def Events(self, request: agent_pb2.EventsRequest, context: Call) -> Iterator[types_pb2.Event]:  # noqa: N802
        return watching.events(self._containers, request, context)


def restart(containers: FleetContainers, request: agent_pb2.RestartRequest) -> types_pb2.ContainerStatus:
    """On its owner, as one call: who dies in between leaves it to the container's restart policy."""

    def ask(agent: Agent, container: Container) -> types_pb2.ContainerStatus:
        own_s = create.spec_of(container).stop_timeout_s
        timeout_s = own_s if request.default_timeout else request.timeout_s
        message = agent_pb2.RestartRequest()
        message.CopyFrom(request)
        message.id = container.id
        status: types_pb2.ContainerStatus = agent.call(
            "Lifecycle", "Restart", message, timeout_s=timeout_s + STOP_MARGIN_S + START_MARGIN_S
        )
        return status

    container, status = containers.at_owner(request.id, ask)
    containers.store.set_desired(container.id, Desired.RUNNING)
    return containers.complete(container, status)


def rename(containers: FleetContainers, old: str, new: str) -> types_pb2.ContainerStatus:
    """The store first, whose names are unique, then the host; a host that does not follow undoes it. Not during a move."""
    allocate.check_name(new)
    container = containers.store.container(old)
    if container.name == new:
        raise InvalidArgument(f"the container is called {new} already")
    containers.store.rename(container.id, new, _renamed(container, new))
    try:

        def ask(agent: Agent, container: Container) -> types_pb2.ContainerStatus:
            request = agent_pb2.RenameRequest(id=container.id, name=new)
            status: types_pb2.ContainerStatus = agent.call("Lifecycle", "Rename", request)
            return status

        container, status = containers.at_owner(container.id, ask)
    except MigrateError as exc:
        try:
            containers.store.rename(container.id, container.name, container.spec)
        except WrongState:  # a move has begun: it keeps the new name, which only the host does not know yet
            exc.touched = "something"
            raise
        exc.touched = "undone"
        raise
    return containers.complete(container, status)


def set_restart(containers: FleetContainers, name: str, policy: types_pb2.RestartPolicy) -> types_pb2.ContainerStatus:
    """From its next exit on. The agent's spec is the one that moves: it is written first, this record follows."""
    container = containers.store.container(name)
    if move := containers.move_of(container):
        raise WrongState(f"{container.name} is being moved: {move}", hint=f"wait for it: migrate watch {move}")

    def ask(agent: Agent, container: Container) -> types_pb2.ContainerStatus:
        request = agent_pb2.SetRestartRequest(id=container.id, restart=policy)
        status: types_pb2.ContainerStatus = agent.call("Lifecycle", "SetRestart", request)
        return status

    container, status = containers.at_owner(container.id, ask)
    spec = create.spec_of(containers.store.container(container.id))
    spec.restart.CopyFrom(policy)
    containers.store.set_spec(container.id, _text(spec))
    return containers.complete(container, status)


def _renamed(container: Container, name: str) -> str:
    spec = create.spec_of(container)
    spec.name = name
    return _text(spec)


def _text(spec: types_pb2.ContainerSpec) -> str:
    return json_format.MessageToJson(spec, preserving_proto_field_name=True, indent=0)
