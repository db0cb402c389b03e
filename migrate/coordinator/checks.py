"""What speaks against a move, found by looking at both hosts and touching neither."""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass

from migrate.coordinator.move import Move
from migrate.errors import PrecheckError
from protos import agent_pb2, types_pb2

LOOK_S = 20.0  # deadline of a call that only reads
SPARE_BYTES = 64 << 20  # of memory and of disk, beyond what the container has


@dataclass(frozen=True, kw_only=True)
class Finding:
    """One reason against the move: what, on which host or of which process, and what to do about it."""

    what: str
    where: str
    remedy: str

    def __str__(self) -> str:
        return f"{self.where}: {self.what}" + (f" ({self.remedy})" if self.remedy else "")


@dataclass(frozen=True, kw_only=True)
class Examination:
    """`description` is the source's; `findings` is empty when nothing speaks against the move."""

    description: agent_pb2.Description
    findings: tuple[Finding, ...]


def describe(move: Move) -> agent_pb2.Description:
    """The container as it is on its source, now."""
    request = agent_pb2.DescribeRequest(migration_id=move.id, epoch=move.epoch, container_id=move.container_id)
    description: agent_pb2.Description = move.call(move.source, "Describe", request, timeout_s=LOOK_S)
    return description


def where(
    move: Move, host: str, *, timeout_s: float = LOOK_S, coming: agent_pb2.Description | None = None
) -> agent_pb2.WhereResponse:
    """What is on `host` of the container, now; and why its ports, mounts, volumes and devices could not be there, where it is to come."""
    request = agent_pb2.WhereRequest(container_id=move.container_id)
    if coming is not None:
        request.ports.extend(coming.spec.network.ports)
        request.mounts.extend(coming.spec.mounts)
        request.volumes.extend(coming.volumes)
        request.devices.extend(coming.spec.isolation.devices)
    seen: agent_pb2.WhereResponse = move.call(host, "Where", request, timeout_s=timeout_s)
    return seen


def examine(move: Move) -> Examination:
    """Everything that speaks against it, not only the first. Raises Unreachable."""
    source, target = move.agents.facts(move.source), move.agents.facts(move.target)
    description = describe(move)
    there = where(move, move.target, coming=description)
    findings = [
        *_hosts(move, source, target),
        *_container(move, description),
        *_room(move, description, target),
        *(Finding(what=one.what, where=move.target, remedy=one.remedy) for one in there.blockers),
    ]
    if there.present:
        what = f"has a container with the id of {move.container} already, state {state_name(there.state)}"
        findings.append(Finding(what=what, where=move.target, remedy="it must be removed there first"))
    return Examination(description=description, findings=tuple(findings))


def refuse(move: Move, findings: tuple[Finding, ...]) -> PrecheckError:
    """The error that lists them all; the first is in its message."""
    more = f", and {len(findings) - 1} more" if len(findings) > 1 else ""
    return PrecheckError(
        f"{move.container} cannot move to {move.target}: {findings[0].where}: {findings[0].what}{more}",
        hint=findings[0].remedy or f"migrate move {move.container} --to {move.target} --dry-run",
        detail="\n".join(str(finding) for finding in findings),
    )


def state_name(state: int) -> str:
    """ "running" of CONTAINER_STATE_RUNNING."""
    name: str = types_pb2.ContainerState.Name(state)
    return name.removeprefix("CONTAINER_STATE_").lower()


def _hosts(move: Move, source: agent_pb2.HostFacts, target: agent_pb2.HostFacts) -> Iterator[Finding]:
    if source.protocol != target.protocol:
        what = f"speaks protocol {target.protocol}, {move.source} speaks {source.protocol}"
        yield Finding(what=what, where=move.target, remedy="run the same version of migrate on both hosts")
    if source.architecture != target.architecture:
        what = f"is {target.architecture}, {move.source} is {source.architecture}"
        yield Finding(what=what, where=move.target, remedy="choose a host of the same architecture")
    if version(target.criu_version) < version(source.criu_version):
        what = f"has CRIU {target.criu_version or 'none'}, older than {source.criu_version} on {move.source}"
        yield Finding(
            what=what, where=move.target, remedy=f"upgrade CRIU on {move.target}: an old one cannot read new images"
        )
    for host, facts in ((move.source, source), (move.target, target)):
        for capability in facts.capabilities:
            if capability.required and not capability.ok:
                what = f"{capability.name} does not work here: {capability.value}"
                yield Finding(what=what, where=host, remedy=capability.remedy)


def _container(move: Move, description: agent_pb2.Description) -> Iterator[Finding]:
    if description.state != types_pb2.CONTAINER_STATE_RUNNING:
        what = f"{move.container} is {state_name(description.state)}, and only a running container can move"
        verb = "unpause" if description.state == types_pb2.CONTAINER_STATE_PAUSED else "start"
        remedy = f"migrate {verb} {move.container}"
        if (
            description.state == types_pb2.CONTAINER_STATE_LOST
        ):  # it runs: a start would be refused, or be a second copy
            what = f"{move.container} has lost its monitor and gets no other: it runs, and can only be killed"
            remedy = f"migrate kill --signal KILL {move.container}, then migrate start {move.container}"
        yield Finding(what=what, where=move.source, remedy=remedy)
    isolation = description.spec.isolation
    for name, what in (("pid", "processes"), ("ipc", "shared memory and queues")):
        if getattr(isolation, name) == "host":
            yield Finding(
                what=f"{move.container} shares the host's {what} (--{name} host): they are not its own to take along",
                where=move.source,
                remedy=f"run it without --{name} host",
            )
    for blocker in description.blockers:
        yield Finding(what=blocker.what, where=blocker.where or move.source, remedy=blocker.remedy)


def _room(move: Move, description: agent_pb2.Description, target: agent_pb2.HostFacts) -> Iterator[Finding]:
    memory = description.memory_bytes + SPARE_BYTES
    if target.memory_available_bytes < memory:
        what = f"has {target.memory_available_bytes >> 20} MiB of memory free, the move needs {memory >> 20} MiB"
        yield Finding(what=what, where=move.target, remedy="free memory there or choose another host")
    disk = (
        description.layer_bytes + SPARE_BYTES
    )  # image layers that are missing are the agent's to count: only it knows
    if target.disk_available_bytes < disk:
        what = f"has {target.disk_available_bytes >> 20} MiB of disk free, the move needs {disk >> 20} MiB"
        yield Finding(what=what, where=move.target, remedy="free disk space there or choose another host")


def version(text: str) -> tuple[int, ...]:
    """(4, 2, 1) of "4.2.1" and of "v4.2.1-3~bpo"; () of what has no number: older than everything."""
    found = re.match(r"v?(\d+(?:\.\d+)*)", text)
    return tuple(int(part) for part in found[1].split(".")) if found else ()
