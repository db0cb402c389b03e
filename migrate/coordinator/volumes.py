"""Volumes of the fleet: asked and told on the hosts that have them."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from migrate.coordinator.agents import Agent, AgentPool
from migrate.coordinator.hosts import LIST_RETRIES, ask_all, needed
from migrate.coordinator.store import Store
from migrate.errors import MigrateError, NotFound
from protos import agent_pb2, coordinator_pb2_grpc, types_pb2


class VolumesService(coordinator_pb2_grpc.FleetVolumesServicer):
    """The service FleetVolumes. Thread-safe."""

    def __init__(self, store: Store, pool: AgentPool) -> None:
        self._store, self._pool = store, pool

    def Create(self, request: agent_pb2.VolumeRequest, context: Any) -> agent_pb2.VolumeList:  # noqa: N802, ARG002
        """On one host, or on each of the fleet: where one fails the first error is raised, what was made stays."""
        if not request.host:
            needed(self._store)
        answers = self._ask(request.host, lambda agent: agent.call("Volumes", "Create", request))
        return agent_pb2.VolumeList(volumes=[_on(host, volume) for host, volume in answers])

    def List(self, request: agent_pb2.ListVolumesRequest, context: Any) -> agent_pb2.VolumeList:  # noqa: N802, ARG002
        """Of the hosts that answer; of one that was named, its error."""
        found: list[types_pb2.Volume] = []
        for answer in self._answers(request.host, _list):
            if answer.error is not None and request.host:
                raise answer.error
            if answer.value is not None:
                found += [_on(answer.host, volume) for volume in answer.value.volumes]
        found.sort(key=_place)
        return agent_pb2.VolumeList(volumes=found)

    def Inspect(self, request: agent_pb2.VolumeRequest, context: Any) -> agent_pb2.VolumeList:  # noqa: N802, ARG002
        answers = self._where(request.host, request.name, lambda agent: agent.call("Volumes", "Inspect", request))
        return agent_pb2.VolumeList(volumes=[_on(host, volume) for host, volume in answers])

    def Remove(self, request: agent_pb2.RemoveVolumeRequest, context: Any) -> agent_pb2.VolumeList:  # noqa: N802, ARG002
        """From every host that has it; from none while one of them uses it."""
        look = agent_pb2.VolumeRequest(name=request.name)
        try:
            seen = self._where(request.host, request.name, lambda agent: agent.call("Volumes", "Inspect", look))
        except NotFound:
            if request.force:
                return agent_pb2.VolumeList()
            raise
        # Those that are in use first: their refusal leaves the others.
        hosts = [host for host, volume in sorted(seen, key=lambda one: not one[1].used_by)]
        removed: list[types_pb2.Volume] = []
        for host in hosts:
            reply = self._pool.agent(host).call("Volumes", "Remove", request)
            removed += [_on(host, volume) for volume in reply.volumes]
        return agent_pb2.VolumeList(volumes=removed)

    def Prune(self, request: agent_pb2.PruneVolumesRequest, context: Any) -> agent_pb2.PrunedVolumes:  # noqa: N802, ARG002
        result = agent_pb2.PrunedVolumes()
        for host, reply in self._ask(request.host, lambda agent: agent.call("Volumes", "Prune", request)):
            result.volumes.extend(_on(host, volume) for volume in reply.volumes)
            result.freed_bytes += reply.freed_bytes
        return result

    # ------------------------------------------------------------ parts

    def _answers(self, host: str, question: Callable[[Agent], Any]) -> list[Any]:
        hosts = [self._store.host(host).name] if host else [one.name for one in self._store.hosts()]
        return list(ask_all(self._pool, hosts, question))

    def _ask(self, host: str, question: Callable[[Agent], Any]) -> list[tuple[str, Any]]:
        """(host, answer) of each; the first error is raised."""
        answers = self._answers(host, question)
        for answer in answers:
            if answer.error is not None:
                raise answer.error
        return [(answer.host, answer.value) for answer in answers]

    def _where(self, host: str, name: str, question: Callable[[Agent], Any]) -> list[tuple[str, Any]]:
        """Of the hosts that have it. Raises NotFound where none has, and no host's silence hides one."""
        answers = self._answers(host, question)
        found = [(answer.host, answer.value) for answer in answers if answer.error is None]
        silent: list[MigrateError] = [
            answer.error for answer in answers if answer.error is not None and not isinstance(answer.error, NotFound)
        ]
        if not found:
            if silent:
                raise silent[0]
            raise NotFound(f"no volume {name}" + (f" on {host}" if host else ""), hint="list them: migrate volume ls")
        return found


def _list(agent: Agent) -> Any:
    return agent.call("Volumes", "List", agent_pb2.ListVolumesRequest(), retries=LIST_RETRIES)


def _place(volume: types_pb2.Volume) -> tuple[str, str]:
    return volume.name, volume.host


def _on(host: str, volume: types_pb2.Volume) -> types_pb2.Volume:
    volume.host = host
    return volume
