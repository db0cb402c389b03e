"""Where a container goes when nobody says it: the census put to migrate.placement, for `run`, `create` and `move`."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterable, Sequence

from migrate.coordinator import census, hosts, images, inside, mounts
from migrate.coordinator.agents import Agent, AgentPool
from migrate.coordinator.checks import LOOK_S
from migrate.coordinator.hosts import LIST_RETRIES, ask_all
from migrate.coordinator.preflight.hosts import SPARE_BYTES
from migrate.coordinator.store import Store
from migrate.errors import InvalidArgument, MigrateError, NotFound, WrongState
from migrate.placement import labels
from migrate.placement.model import HostState, Need
from migrate.placement.ranking import Ranked, rank
from protos import agent_pb2, coordinator_pb2, types_pb2

NOBODY = "placement.wrong_state"


def for_run(store: Store, pool: AgentPool, request: coordinator_pb2.RunRequest) -> str:
    """The host of a container that is still to be made: the only one, or the best that has the image."""
    known = hosts.needed(store)
    if len(known) == 1:
        return known[0]
    return best(rank_for_run(store, pool, request), request.name or f"a container of {request.image}").host


def rank_for_run(
    store: Store, pool: AgentPool, request: coordinator_pb2.RunRequest, *, will_pull: bool = False
) -> list[Ranked]:
    """All hosts for a container that is still to be made; `will_pull`: the image may be missing there.

    Raises NotFound where no host has the image, InvalidArgument where hosts have different ones of that name (not if it will be
    pulled), WrongState where the fleet has no hosts.
    """
    hosts.needed(store)
    now = census.take(store, pool)
    states, facts = now.states, now.facts
    having = _having(pool, [state.name for state in states if not state.silence], request.image)
    if not having and not will_pull:
        raise _no_image(request.image, [state.name for state in states if state.silence])
    if len({image.digest for image in having.values()}) > 1 and not will_pull:
        names = sorted(having)
        raise InvalidArgument(
            f"{request.image!r} is not the same image on {', '.join(names)}: which one?", hint=f"--host {names[0]}"
        )
    image = next(iter(having.values()), types_pb2.Image())
    blockers = _against_run(pool, request, states)
    homes = mounts.homes(store, pool, request.mounts)
    for state in states:
        reasons = list(blockers.get(state.name, ()))
        if (
            request.platform
            and state.name in facts
            and not inside.fits(request.platform, facts[state.name].architecture)
        ):
            reasons.append(f"runs {inside.platform_of(facts[state.name].architecture)}, not {request.platform}")
        if state.name not in having and not will_pull:
            reasons.append(f"does not have the image {request.image}")
        if homes and state.name not in homes:
            reasons.append(f"the container's volumes are on {', '.join(sorted(homes))}")
        if reasons:
            blockers[state.name] = tuple(reasons)
    told = {**image.config.labels, **request.labels}
    need = Need(
        container_id="",
        name=request.name,
        memory_bytes=request.limits.memory_reservation_bytes + SPARE_BYTES,
        disk_bytes=SPARE_BYTES,
        cpus=request.limits.cpus,
        labels=told,
        constraints=labels.constraints(told.get(labels.CONSTRAINTS, "")),
        affinity=labels.terms(told.get(labels.AFFINITY, "")),
        anti_affinity=labels.terms(told.get(labels.ANTI_AFFINITY, "")),
        ports=census.ports(request.network.ports),
        layers=dict(zip(image.layers, image.layer_bytes or [0] * len(image.layers), strict=True)),
        blockers=blockers,
    )
    return rank(need, states)


def rank_for_move(store: Store, pool: AgentPool, name: str, constraints: Iterable[str] = ()) -> list[Ranked]:
    """All hosts for a container that moves. Raises what describing it on its host raises."""
    wanted = tuple(labels.constraint(text) for text in constraints)
    container = store.container(name)
    now = census.take(store, pool)
    seen = census.look(store, pool, [container], now)[container.id]
    if isinstance(seen, MigrateError):
        raise seen
    return rank(dataclasses.replace(seen.need, constraints=seen.need.constraints + wanted), now.states)


def best(ranking: Sequence[Ranked], what: str) -> Ranked:
    """The first that can take it. WrongState, with every host's reasons, where none can."""
    if ranking and not ranking[0].refusals:
        return ranking[0]
    raise WrongState(
        f"no host can take {what}",
        detail="\n".join(f"{one.host}: {'; '.join(one.refusals)}" for one in ranking),
        hint="name a host to insist, or make room: migrate host ls",
        code=NOBODY,
    )


def _having(pool: AgentPool, hosts: Sequence[str], image: str) -> dict[str, types_pb2.Image]:
    request = agent_pb2.InspectImageRequest(name=image)
    answers = ask_all(pool, hosts, lambda agent: agent.call("Images", "Inspect", request, retries=LIST_RETRIES))
    return {answer.host: answer.value for answer in answers if answer.value is not None}


def _no_image(image: str, silent: Sequence[str]) -> NotFound:
    if silent:
        return NotFound(
            f"no host that answers has the image {image!r}; no answer from {', '.join(silent)}", hint="migrate hosts"
        )
    return NotFound(f"no host has the image {image!r}", hint=f"migrate image import FILE {image}", code=images.NO_IMAGE)


def _against_run(
    pool: AgentPool, request: coordinator_pb2.RunRequest, states: Sequence[HostState]
) -> dict[str, tuple[str, ...]]:
    """By host: why its ports, bind mounts and devices could not be there."""
    question = agent_pb2.WhereRequest(
        ports=[one for one in request.network.ports if one.host_port and not one.host_port_end],
        mounts=[one for one in request.mounts if one.kind == "bind" and not one.create_source],
        devices=request.isolation.devices,
    )
    if not (question.ports or question.mounts or question.devices):
        return {}
    question.container_id = "0" * 32  # of nobody: only its needs are asked about

    def ask(agent: Agent) -> tuple[str, ...]:
        found = agent.call("Migration", "Where", question, timeout_s=LOOK_S).blockers
        return tuple(one.what for one in found if not one.warning)

    answers = ask_all(pool, [state.name for state in states if not state.silence], ask)
    found = {one.host: (one.error.message,) if one.error else (one.value or ()) for one in answers}
    return {host: reasons for host, reasons in found.items() if reasons}
