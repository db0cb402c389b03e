"""What placement has to know, asked of all hosts at once and taken from the store: hosts as they are, and what containers need."""

from __future__ import annotations

import dataclasses
import secrets
import time
from collections.abc import Collection, Iterable, Mapping, Sequence

from migrate.coordinator import checks, create
from migrate.coordinator.agents import Agent, AgentPool
from migrate.coordinator.checks import LOOK_S
from migrate.coordinator.hosts import LIST_RETRIES, ask_all
from migrate.coordinator.preflight import finding
from migrate.coordinator.preflight import hosts as preflight
from migrate.coordinator.preflight.finding import BLOCKER, Finding
from migrate.coordinator.preflight.hosts import SPARE_BYTES
from migrate.coordinator.store import Container, Desired, MoveState, Store
from migrate.errors import MigrateError
from migrate.placement import labels
from migrate.placement.model import HostState, Need, Port, Resident
from protos import agent_pb2, types_pb2

# Of the checks of a move: those that placement makes itself, for their answer changes while a plan is made, or for every container.
JUDGED_ELSEWHERE = frozenset({"memory", "disk", "capability"})
KEPT_NS = (
    24 * 3600 * 10**9
)  # as kept_memory_hours of agent.toml is without a word; a host may keep less, which costs only time


@dataclasses.dataclass(frozen=True, kw_only=True)
class Census:
    """`states` of every host, by name; `facts` of those that answer."""

    states: tuple[HostState, ...]
    facts: Mapping[str, agent_pb2.HostFacts]


@dataclasses.dataclass(frozen=True, kw_only=True)
class Seen:
    """A container that was looked at on its host. `state`: ContainerState; `blockers`: of a live move, whatever its target."""

    need: Need
    state: int
    blockers: tuple[str, ...]


def take(store: Store, pool: AgentPool) -> Census:
    """All hosts are asked at the same time; one that does not answer is there with the reason."""
    known = store.hosts()
    residents = _residents(store)

    def ask(agent: Agent) -> tuple[agent_pb2.HostFacts, frozenset[str]]:
        facts = agent.call("Host", "Facts", agent_pb2.FactsRequest(), retries=LIST_RETRIES)
        images = agent.call("Images", "List", agent_pb2.ListImagesRequest(), retries=LIST_RETRIES).images
        return facts, frozenset(layer for image in images for layer in image.layers)

    found: list[HostState] = []
    facts: dict[str, agent_pb2.HostFacts] = {}
    for host, answer in zip(known, ask_all(pool, [one.name for one in known], ask), strict=True):
        state = HostState(
            name=host.name,
            silence=answer.error.message if answer.error else "",
            cordon=host.cordon.reason if host.cordon else None,
            labels=host.labels,
            residents=tuple(residents.get(host.name, ())),
        )
        if answer.value is not None:
            facts[host.name] = answer.value[0]
            state = _with_facts(state, *answer.value)
        found.append(state)
    return Census(states=tuple(found), facts=facts)


def _with_facts(state: HostState, facts: agent_pb2.HostFacts, layers: frozenset[str]) -> HostState:
    return dataclasses.replace(
        state,
        lacking=tuple(one.name for one in facts.capabilities if one.required and not one.ok),
        cpus=facts.cpus,
        memory_bytes=facts.memory_total_bytes,
        memory_free_bytes=facts.memory_available_bytes,
        disk_free_bytes=facts.disk_available_bytes,
        layers=layers,
    )


def _residents(store: Store) -> dict[str, list[Resident]]:
    """By host: what it has, and what is on its way there."""
    coming = {move.container_id: move.target for move in store.migrations(active=True)}
    found: dict[str, list[Resident]] = {}
    for container in store.containers():
        one = resident(container)
        found.setdefault(container.owner, []).append(one)
        if container.id in coming and coming[container.id] != container.owner:
            found.setdefault(coming[container.id], []).append(one)
    return found


def resident(container: Container) -> Resident:
    spec = create.spec_of(container)
    runs = container.desired is Desired.RUNNING
    return Resident(
        container_id=container.id,
        labels=dict(spec.labels),
        anti_affinity=labels.terms(spec.labels.get(labels.ANTI_AFFINITY, "")),
        ports=ports(spec.network.ports) if runs else (),
        cpus=spec.limits.cpus if runs else 0.0,
    )


def ports(published: Iterable[types_pb2.Port]) -> tuple[Port, ...]:
    """Those whose number on the host is fixed."""
    return tuple(
        ("" if one.host_address in ("0.0.0.0", "::") else one.host_address, one.host_port, one.protocol or "tcp")  # noqa: S104
        for one in published
        if one.host_port and not one.host_port_end
    )


def look(
    store: Store, pool: AgentPool, containers: Sequence[Container], census: Census, *, end_exec: bool = False
) -> dict[str, Seen | MigrateError]:
    """Each container as its host describes it now, and what every other host has against it: by the checks of a move. By id.

    A container whose host does not answer has the error. `end_exec`: what came in by exec keeps nobody.
    """
    described = _described(pool, containers)
    asked = {cid: one for cid, one in described.items() if not isinstance(one, MigrateError)}
    against = _against(pool, list(census.facts), asked)
    kept = _kept(store)
    found: dict[str, Seen | MigrateError] = {}
    for container in containers:
        description = described[container.id]
        if isinstance(description, MigrateError):
            found[container.id] = description
            continue
        against_any = list(checks.of_container(container.name, container.owner, description))
        found[container.id] = Seen(
            need=_need(
                container,
                description,
                kept,
                _compared(container.owner, description, census, against.get(container.id, {})),
            ),
            state=description.state,
            blockers=_blocking(against_any if not end_exec else checks.without_exec(against_any), but={"state"}),
        )
    return found


def _described(pool: AgentPool, containers: Sequence[Container]) -> dict[str, agent_pb2.Description | MigrateError]:
    by_host: dict[str, list[Container]] = {}
    for container in containers:
        by_host.setdefault(container.owner, []).append(container)

    def ask(agent: Agent) -> dict[str, agent_pb2.Description | MigrateError]:
        answers: dict[str, agent_pb2.Description | MigrateError] = {}
        for one in by_host[agent.name]:
            request = agent_pb2.DescribeRequest(migration_id=secrets.token_hex(8), epoch=one.epoch, container_id=one.id)
            try:
                answers[one.id] = agent.call("Migration", "Describe", request, timeout_s=LOOK_S)
            except MigrateError as exc:
                answers[one.id] = exc
        return answers

    found: dict[str, agent_pb2.Description | MigrateError] = {}
    for answer in ask_all(pool, by_host, ask):
        found.update(answer.value or {})
        if answer.error is not None:
            found.update(dict.fromkeys((one.id for one in by_host[answer.host]), answer.error))
    return found


def _against(
    pool: AgentPool, hosts_: Sequence[str], described: Mapping[str, agent_pb2.Description]
) -> dict[str, dict[str, tuple[str, ...]]]:
    """By container and host: why its ports, mounts, volumes and devices could not be there."""
    questions = {cid: question for cid, one in described.items() if (question := _where(cid, one)) is not None}
    found: dict[str, dict[str, tuple[str, ...]]] = {}
    if not questions:
        return found

    def ask(agent: Agent) -> dict[str, tuple[str, ...]]:
        return {
            cid: _blocking(
                finding.of_agent(one, agent.name)
                for one in agent.call("Migration", "Where", question, timeout_s=LOOK_S).blockers
            )
            for cid, question in questions.items()
        }

    for answer in ask_all(pool, hosts_, ask):
        if answer.error is not None:
            found.update({cid: {**found.get(cid, {}), answer.host: (answer.error.message,)} for cid in questions})
        for cid, reasons in (answer.value or {}).items():
            if reasons:
                found.setdefault(cid, {})[answer.host] = reasons
    return found


def _compared(
    source: str, description: agent_pb2.Description, census: Census, against: Mapping[str, tuple[str, ...]]
) -> dict[str, tuple[str, ...]]:
    """What each host said itself, and what its facts say beside the source's."""
    found = dict(against)
    if source not in census.facts:
        return found
    here = preflight.Host(name=source, facts=census.facts[source])
    for name, facts in census.facts.items():
        if name == source:
            continue
        findings = preflight.compare(here, preflight.Host(name=name, facts=facts), description)
        if reasons := _blocking(findings, but=JUDGED_ELSEWHERE):
            found[name] = (*found.get(name, ()), *reasons)
    return found


def _blocking(findings: Iterable[Finding], but: Collection[str] = ()) -> tuple[str, ...]:
    """Their words, without warnings and without the checks `but`."""
    return tuple(one.what for one in findings if one.severity == BLOCKER and one.check not in but)


def _where(container_id: str, described: agent_pb2.Description) -> agent_pb2.WhereRequest | None:
    """None: there is nothing that only the host could say."""
    spec = described.spec
    if not (spec.network.ports or spec.mounts or described.volumes or spec.isolation.devices):
        return None
    return agent_pb2.WhereRequest(
        container_id=container_id,
        ports=spec.network.ports,
        mounts=spec.mounts,
        volumes=described.volumes,
        devices=spec.isolation.devices,
    )


def _kept(store: Store) -> dict[str, set[str]]:
    """By container: hosts that it has left not long ago, and that keep its pages for its return."""
    since = time.time_ns() - KEPT_NS
    found: dict[str, set[str]] = {}
    for move in store.migrations():
        if move.state is MoveState.SUCCEEDED and move.finished_unix_ns > since:
            found.setdefault(move.container_id, set()).add(move.source)
    return found


def _need(
    container: Container,
    description: agent_pb2.Description,
    kept: Mapping[str, set[str]],
    against: Mapping[str, tuple[str, ...]],
) -> Need:
    spec, image = description.spec, description.image
    sizes = image.layer_bytes or [0] * len(image.layers)
    return Need(
        container_id=container.id,
        name=container.name,
        source=container.owner,
        memory_bytes=description.memory_bytes + SPARE_BYTES,
        disk_bytes=description.layer_bytes + SPARE_BYTES,
        cpus=spec.limits.cpus,
        labels=dict(spec.labels),
        constraints=labels.constraints(spec.labels.get(labels.CONSTRAINTS, "")),
        affinity=labels.terms(spec.labels.get(labels.AFFINITY, "")),
        anti_affinity=labels.terms(spec.labels.get(labels.ANTI_AFFINITY, "")),
        ports=ports(spec.network.ports),
        layers=dict(zip(image.layers, sizes, strict=True)),
        kept_by=frozenset(kept.get(container.id, ())),
        blockers=against,
    )
