"""What speaks against a move, found by looking at both hosts and touching neither. The comparisons are in preflight/."""

from __future__ import annotations

import dataclasses
import time
from collections.abc import Iterable, Iterator
from dataclasses import dataclass

from migrate.coordinator.move import Move
from migrate.coordinator.preflight import hosts
from migrate.coordinator.preflight.finding import BLOCKER, WARNING, Finding, judged, of_agent
from migrate.coordinator.preflight.predict import Size
from migrate.errors import PrecheckError
from migrate.rpc.version import END_EXEC_MINOR, REHEARSAL_MINOR
from protos import agent_pb2, types_pb2

EXEC = "exec"  # the check
LOOK_S = 20.0  # deadline of a call that only reads


@dataclass(frozen=True, kw_only=True)
class Examination:
    """`description` is the source's; `findings`: blockers first. `lazy`: the target can let it run before its memory is in place."""

    description: agent_pb2.Description
    findings: tuple[Finding, ...]
    size: Size
    lazy: bool

    @property
    def blockers(self) -> tuple[Finding, ...]:
        """Empty when nothing speaks against the move."""
        return tuple(each for each in self.findings if each.severity == BLOCKER)


def describe(move: Move) -> agent_pb2.Description:
    """The container as it is on its source, now."""
    request = agent_pb2.DescribeRequest(migration_id=move.id, epoch=move.epoch, container_id=move.container_id)
    description: agent_pb2.Description = move.call(move.source, "Describe", request, timeout_s=LOOK_S)
    return description


def where(
    move: Move, host: str, *, timeout_s: float = LOOK_S, coming: agent_pb2.Description | None = None
) -> agent_pb2.WhereResponse:
    """What is on `host` of the container, now; and why what it brings along could not be there, where it is to come."""
    request = agent_pb2.WhereRequest(container_id=move.container_id)
    if coming is not None:
        request.ports.extend(coming.spec.network.ports)
        request.mounts.extend(coming.spec.mounts)
        request.volumes.extend(coming.volumes)
        request.devices.extend(coming.spec.isolation.devices)
        request.name = coming.spec.name
        request.address = coming.spec.network.address
        request.mac = coming.spec.network.mac
        request.layers.extend(coming.image.layers)
    seen: agent_pb2.WhereResponse = move.call(host, "Where", request, timeout_s=timeout_s)
    return seen


def examine(move: Move) -> Examination:
    """Everything that speaks against it, not only the first. Raises Unreachable."""
    source, target = _host(move, move.source), _host(move, move.target)
    description = describe(move)
    there = where(move, move.target, coming=description)
    size = _size(description, there)
    needs = max(REHEARSAL_MINOR if move.rehearsal else 0, END_EXEC_MINOR if move.precopy.end_exec else 0)
    findings = [
        *hosts.compare(source, target, description, size.image, needs),
        *of_container(move.container, move.source, description),
        *(of_agent(each, move.target) for each in there.blockers),
    ]
    if there.present:
        what = f"has a container with the id of {move.container} already, state {state_name(there.state)}"
        findings.append(Finding(check="present", what=what, where=move.target, remedy="it must be removed there first"))
    if move.precopy.end_exec:
        findings = without_exec(findings)
    able = {each.name: each.ok for each in target.facts.capabilities}
    return Examination(
        description=description,
        findings=judged(findings, move.skip),
        size=size,
        lazy=able.get("userfaultfd", True) and able.get("criu-uffd-noncoop", True),
    )


def without_exec(findings: Iterable[Finding]) -> list[Finding]:
    """As they are when what came in by exec has been ended: no blocker is about such a process."""
    found = list(findings)
    of_exec = {each.pid for each in found if each.check == EXEC and each.pid}
    ended = "it is ended right before the freeze (--end-exec)"
    return [
        dataclasses.replace(each, severity=WARNING, remedy=ended)
        if each.severity == BLOCKER and (each.check == EXEC or each.pid in of_exec)
        else each
        for each in found
    ]


def refuse(container: str, target: str, blockers: tuple[Finding, ...]) -> PrecheckError:
    """The error that lists them all; the first is in its message."""
    more = f", and {len(blockers) - 1} more" if len(blockers) > 1 else ""
    return PrecheckError(
        f"{container} cannot move to {target}: {blockers[0].where}: {blockers[0].what}{more}",
        hint=blockers[0].remedy or f"migrate check {container} --to {target}",
        detail="\n".join(str(finding) for finding in blockers),
    )


def state_name(state: int) -> str:
    """ "running" of CONTAINER_STATE_RUNNING."""
    name: str = types_pb2.ContainerState.Name(state)
    return name.removeprefix("CONTAINER_STATE_").lower()


def _host(move: Move, name: str) -> hosts.Host:
    """Its facts, and how far its clock is from ours: half of the way there and back is what nobody knows."""
    asked_ns = time.time_ns()
    facts = move.agents.facts(name)
    answered_ns = time.time_ns()
    if not facts.unix_ns:
        return hosts.Host(name=name, facts=facts)
    return hosts.Host(
        name=name,
        facts=facts,
        clock_s=(facts.unix_ns - (asked_ns + answered_ns) / 2) / 1e9,
        clock_error_s=max(1e-6, (answered_ns - asked_ns) / 2e9),
    )


def _size(description: agent_pb2.Description, there: agent_pb2.WhereResponse) -> Size:
    image = description.image
    sizes = dict(zip(image.layers, image.layer_bytes, strict=False))  # an old image's layers may have no sizes
    return Size(
        memory=description.memory_bytes,
        layer=description.layer_bytes,
        image=sum(sizes.get(layer, 0) for layer in there.missing_layers),
        missing_layers=len(there.missing_layers),
    )


def of_container(name: str, source: str, description: agent_pb2.Description) -> Iterator[Finding]:
    """What speaks against moving it wherever it went."""
    if description.state != types_pb2.CONTAINER_STATE_RUNNING:
        what = f"{name} is {state_name(description.state)}, and only a running container can move"
        verb = "unpause" if description.state == types_pb2.CONTAINER_STATE_PAUSED else "start"
        remedy = f"migrate {verb} {name}"
        if (
            description.state == types_pb2.CONTAINER_STATE_LOST
        ):  # it runs: a start would be refused, or be a second copy
            what = f"{name} has lost its monitor and gets no other: it runs, and can only be killed"
            remedy = f"migrate kill --signal KILL {name}, then migrate start {name}"
        yield Finding(check="state", what=what, where=source, remedy=remedy)
    isolation = description.spec.isolation
    for space, what in (("pid", "processes"), ("ipc", "shared memory and queues")):
        if getattr(isolation, space) == "host":
            yield Finding(
                check="host-namespace",
                what=f"{name} shares the host's {what} (--{space} host): they are not its own to take along",
                where=source,
                remedy=f"run it without --{space} host",
            )
    yield from (of_agent(each, source) for each in description.blockers)
