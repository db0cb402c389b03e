"""What is done to a container while it runs on, and how much it uses: limits changed, paused, looked at, on its owner."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Sequence

from google.protobuf import json_format

from migrate.coordinator import create
from migrate.coordinator.agents import Agent
from migrate.coordinator.containers import FleetContainers
from migrate.coordinator.hosts import LIST_RETRIES, ask_all
from migrate.coordinator.store import Container
from migrate.errors import InvalidArgument, MigrateError, WrongState
from protos import agent_pb2, types_pb2

FIELDS = types_pb2.Limits.DESCRIPTOR.fields_by_name
PAUSE_MARGIN_S = 15.0  # a task in an uninterruptible sleep holds a pause up


def update(
    containers: FleetContainers, name: str, changes: types_pb2.Limits, fields: Sequence[str]
) -> types_pb2.ContainerStatus:
    """`fields` of the container's limits become those of `changes`. The agent's spec is the one that a move takes along, so it
    is asked first and written first; this record follows it.
    """
    if unknown := [field for field in fields if field not in FIELDS]:
        raise InvalidArgument(f"no limit is called {unknown[0]!r}", hint=f"known are {', '.join(FIELDS)}")
    container = containers.store.container(name)
    if move := containers.move_of(container):
        raise WrongState(f"{container.name} is being moved: {move}", hint=f"wait for it: migrate watch {move}")

    def change(agent: Agent, container: Container) -> types_pb2.ContainerStatus:
        now = agent.call("Containers", "Inspect", agent_pb2.InspectRequest(id=container.id))
        request = agent_pb2.UpdateRequest(id=container.id, limits=merged(now.spec.limits, changes, fields))
        status: types_pb2.ContainerStatus = agent.call("Containers", "Update", request)
        return status

    container, status = containers.at_owner(container.id, change)
    recorded = create.spec_of(container)
    recorded.limits.CopyFrom(status.spec.limits)
    spec = json_format.MessageToJson(recorded, preserving_proto_field_name=True, indent=0)
    containers.store.set_spec(container.id, spec)
    if move := containers.move_of(container):
        # The move may have read the spec before; nobody can tell from here.
        raise WrongState(
            f"{container.name} has its new limits, but the move {move} began meanwhile and may not take them along",
            hint=f"after the move, look (migrate inspect {container.name}) and give the same command again",
            touched="something",
        )
    return containers.complete(container, status)


def merged(now: types_pb2.Limits, changes: types_pb2.Limits, fields: Iterable[str]) -> types_pb2.Limits:
    """`now` with `fields` from `changes`. Of device_rates: those that `changes` names; 0 takes one away."""
    result = types_pb2.Limits()
    result.CopyFrom(now)
    for field in fields:
        if field == "device_rates":
            rates = {(one.path, one.what): one for one in (*now.device_rates, *changes.device_rates)}
            del result.device_rates[:]
            result.device_rates.extend(one for one in rates.values() if one.rate)
        elif field == "ulimits":
            del result.ulimits[:]
            result.ulimits.extend(changes.ulimits)
        else:
            setattr(result, field, getattr(changes, field))
    return result


def pause(containers: FleetContainers, name: str) -> types_pb2.ContainerStatus:
    """Not while a move holds it, not even one that needs attention: frozen tasks must then be the move's."""
    container = containers.store.container(name)
    if move := containers.move_of(container):
        raise WrongState(f"{container.name} is being moved: {move}", hint=f"migrate migrations show {move}")
    return _switch(containers, name, "Pause")


def unpause(containers: FleetContainers, name: str) -> types_pb2.ContainerStatus:
    return _switch(containers, name, "Unpause")


def _switch(containers: FleetContainers, name: str, method: str) -> types_pb2.ContainerStatus:
    def switch(agent: Agent, container: Container) -> types_pb2.ContainerStatus:
        request = agent_pb2.PauseRequest(id=container.id)
        status: types_pb2.ContainerStatus = agent.call("Containers", method, request, timeout_s=PAUSE_MARGIN_S)
        return status

    container, status = containers.at_owner(name, switch)
    return containers.complete(container, status)


def usages(containers: FleetContainers, names: Sequence[str]) -> list[types_pb2.ContainerUsage]:
    """One sample of each, by name; without names of every container that runs. Every host is asked once, all at the same time.

    Of a host that does not answer: its error for a container that was named, else nothing.
    """
    if names:
        wanted = [containers.store.container(name) for name in names]
    else:
        running = {status.spec.id for status in containers.list(all=False)}
        wanted = [one for one in containers.store.containers() if one.id in running]
    by_owner: defaultdict[str, list[str]] = defaultdict(list)
    for one in wanted:
        by_owner[one.owner].append(one.id)

    def ask(agent: Agent) -> agent_pb2.UsageResponse:
        request = agent_pb2.UsageRequest(ids=by_owner[agent.name])
        answer: agent_pb2.UsageResponse = agent.call("Containers", "Usage", request, retries=LIST_RETRIES)
        return answer

    found: dict[str, types_pb2.ContainerUsage] = {}
    for answer in ask_all(containers.pool, by_owner, ask):
        if answer.error is not None and names:
            raise answer.error
        for usage in answer.value.usages if answer.value is not None else ():
            usage.host = answer.host
            found[usage.id] = usage
    result = []
    for one in wanted:
        if one.id in found:
            found[one.id].name = one.name
            result.append(found[one.id])
        elif names:
            result.append(_again(containers, one))
    return result


def _again(containers: FleetContainers, container: Container) -> types_pb2.ContainerUsage:
    """It was moved away between question and answer, or it is gone: then its own error says so."""

    def ask(agent: Agent, container: Container) -> types_pb2.ContainerUsage:
        agent.call("Containers", "Inspect", agent_pb2.InspectRequest(id=container.id))
        answer = agent.call("Containers", "Usage", agent_pb2.UsageRequest(ids=[container.id]))
        if not answer.usages:
            raise MigrateError(f"container {container.name} went away while it was looked at", hint="try again")
        usage: types_pb2.ContainerUsage = answer.usages[0]
        return usage

    container, found = containers.at_owner(container.id, ask)
    usage: types_pb2.ContainerUsage = found
    usage.host, usage.name = container.owner, container.name
    return usage


def top(containers: FleetContainers, name: str) -> agent_pb2.TopResponse:
    def ask(agent: Agent, container: Container) -> agent_pb2.TopResponse:
        answer: agent_pb2.TopResponse = agent.call("Containers", "Top", agent_pb2.TopRequest(id=container.id))
        return answer

    _, answer = containers.at_owner(name, ask)
    found: agent_pb2.TopResponse = answer
    return found
