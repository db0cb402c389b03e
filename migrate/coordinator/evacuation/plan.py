"""Which containers of a host go where, all of them at once; and which of those that were taken away come home."""

from __future__ import annotations

import dataclasses
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Protocol

from migrate.coordinator import census, create, events, learned
from migrate.coordinator.agents import AgentPool
from migrate.coordinator.census import Census
from migrate.coordinator.checks import state_name
from migrate.coordinator.evacuation.records import ACTIONS, EVACUATE, Evacuation, Evacuations, Item, ItemState
from migrate.coordinator.orders import DEFAULT_DOWNTIME_S
from migrate.coordinator.policies import Policies, Policy, resolve
from migrate.coordinator.preflight.predict import Known, Size
from migrate.coordinator.preflight.predict import predict as assumed
from migrate.coordinator.store import Container, Migration, MoveState, Store
from migrate.errors import ErrorRecord, MigrateError, NotFound
from migrate.placement import packing, ranking, schedule
from migrate.placement.model import HostState, Need
from migrate.placement.schedule import Prediction, Sample
from migrate.saga.journal import Journal
from protos import types_pb2

MOVES = ("live", "stop-and-copy")
LABEL = "migrate.evacuate"  # of a container: its action, whatever the evacuation says
LEARN_FROM_MOST = 200  # moves of the fleet that times are predicted from
STILL = (types_pb2.CONTAINER_STATE_CREATED, types_pb2.CONTAINER_STATE_EXITED)
BY_HAND = "by_hand"


class Planner(Protocol):
    """Makes the items of an evacuation, and finds another target for one whose move has failed."""

    def items(self, evacuation: Evacuation) -> tuple[list[Item], float]:
        """In the order in which they are to go; and the seconds that all of it is predicted to take, 0 = not known."""

    def elsewhere(self, evacuation: Evacuation, item: Item) -> Item:
        """With another target; without one where none is left, and `why`."""


class CensusPlanner:
    """The one that asks the hosts."""

    def __init__(self, store: Store, pool: AgentPool, evacuations: Evacuations) -> None:
        self._store, self._pool, self._evacuations = store, pool, evacuations

    def items(self, evacuation: Evacuation) -> tuple[list[Item], float]:
        found = self._leaving(evacuation) if evacuation.kind == EVACUATE else self._coming_home(evacuation)
        return _scheduled(evacuation, found, self._priorities(found))

    def _priorities(self, items: Iterable[Item]) -> dict[str, int]:
        """By container: 0 goes first."""
        policies = Policies(self._store).all()
        found: dict[str, int] = {}
        for item in items:
            try:
                labels = create.spec_of(self._store.container(item.container_id)).labels
            except NotFound:
                continue  # removed meanwhile
            said = str(resolve(policies, labels).values.get("priority", "normal"))
            found[item.container_id] = ("high", "normal", "low").index(said)
        return found

    def elsewhere(self, evacuation: Evacuation, item: Item) -> Item:
        container = self._store.container(item.container_id)
        now = census.take(self._store, self._pool)
        seen = census.look(self._store, self._pool, [container], now)[container.id]
        if isinstance(seen, MigrateError):
            return dataclasses.replace(item, target="", why=f"{container.owner}: {seen.message}")
        ranked = ranking.rank(seen.need, self._targets(evacuation, now))
        able = [one for one in ranked if not one.refusals]
        if not able:
            reasons = "; ".join(f"{one.host}: {', '.join(one.refusals)}" for one in ranked)
            return dataclasses.replace(item, target="", why=f"no other host can take it: {reasons}")
        fresh = [one for one in able if one.host not in item.tried] or able
        why = f"again, after {item.tried[-1]}: {ranking.because(fresh[0], len(able) - 1)}"
        return dataclasses.replace(item, target=fresh[0].host, why=why)

    # ------------------------------------------------------------ away

    def _leaving(self, evacuation: Evacuation) -> list[Item]:
        chosen = [
            container
            for container in self._store.containers(evacuation.host)
            if evacuation.options.selector.items() <= create.spec_of(container).labels.items()
        ]
        policies = Policies(self._store).all()
        items = [_item(container, _action(container, evacuation, policies), container.owner) for container in chosen]
        now = census.take(self._store, self._pool)
        return self._placed(evacuation, items, now, self._targets(evacuation, now))

    def _targets(self, evacuation: Evacuation, now: Census) -> list[HostState]:
        """The hosts that may be one, with what running evacuations have promised to them already taken off."""
        promised = self._evacuations.promised()
        found: list[HostState] = []
        for state in now.states:
            if evacuation.kind == EVACUATE:
                if state.name == evacuation.host or (evacuation.options.to and state.name not in evacuation.options.to):
                    continue
            elif state.name != evacuation.host:
                continue
            free = state.memory_free_bytes - promised.get(state.name, 0)
            found.append(dataclasses.replace(state, memory_free_bytes=max(0, free)))
        return found

    # ------------------------------------------------------------ home

    def _coming_home(self, restore: Evacuation) -> list[Item]:
        items: list[Item] = []
        for old in self._evacuations.away(restore.host):
            try:
                container = self._store.container(old.container_id)
            except NotFound:
                continue  # removed since
            if old.state is ItemState.STOPPED:
                items.append(_item(container, "start", container.owner))
            elif (moves := self._moved_since(old)) is not None and container.owner != restore.host:
                action = old.action if old.action in MOVES else "live"
                item = _item(container, action, container.owner)
                if moves == BY_HAND:
                    why = f"it was moved to {container.owner} since, by no evacuation"
                    item = dataclasses.replace(item, state=ItemState.SKIPPED, why=why)
                items.append(item)
        now = census.take(self._store, self._pool)
        targets = [dataclasses.replace(state, cordon=None) for state in self._targets(restore, now)]  # of a dry run
        return self._placed(restore, items, now, targets)

    def _moved_since(self, old: Item) -> str | None:
        """Who has moved it last; None: nobody, for the evacuation's move did not succeed."""
        if not old.migration_id:
            return None
        if self._store.migration(old.migration_id).state is not MoveState.SUCCEEDED:
            return None
        moves = [
            one for one in self._store.migrations(container_id=old.container_id) if one.state is MoveState.SUCCEEDED
        ]
        ours = {one.id for one in self._evacuations.newest()}
        return "evacuation" if moves[0].request_id.partition(".")[0] in ours else BY_HAND

    # ------------------------------------------------------------ both

    def _placed(
        self, evacuation: Evacuation, items: Sequence[Item], now: Census, targets: Sequence[HostState]
    ) -> list[Item]:
        """With targets, predictions, and what speaks against each."""
        looked_at = [item for item in items if item.action in (*MOVES, "stop") and item.state is ItemState.PLANNED]
        containers = [self._store.container(item.container_id) for item in looked_at]
        seen = census.look(self._store, self._pool, containers, now, end_exec=evacuation.options.end_exec)
        needs: list[Need] = []
        judged: dict[str, Item] = {}
        for item in looked_at:
            found = seen[item.container_id]
            judged[item.container_id] = _judged(item, found)
            if (
                item.action in MOVES
                and isinstance(found, census.Seen)
                and judged[item.container_id].state is ItemState.PLANNED
            ):
                needs.append(found.need)
        packed = packing.pack(needs, targets)
        predict = self._predictor(evacuation)
        for need in needs:
            item = dataclasses.replace(judged[need.container_id], memory_bytes=need.memory_bytes)
            judged[need.container_id] = _with_target(item, packed, predict(need, item.action))
        return [judged.get(item.container_id, item) for item in items]

    def _predictor(self, evacuation: Evacuation) -> Callable[[Need, str], Prediction]:
        """By need and action: from earlier moves; where the fleet has none, what `migrate check` assumes."""
        options = evacuation.options
        share = options.bandwidth // options.max_parallel
        moves = [one for one in self._store.migrations(limit=LEARN_FROM_MOST) if one.state is MoveState.SUCCEEDED]
        everyone = self._samples(moves)
        own: dict[str, list[Migration]] = {}
        for move in moves:
            own.setdefault(move.container_id, []).append(move)

        def predict(need: Need, action: str) -> Prediction:
            mine = self._samples(own.get(need.container_id, ()))
            if mine or everyone:
                return schedule.predict(need.memory_bytes, mine, everyone, share)
            size = Size(memory=need.memory_bytes, layer=need.disk_bytes, image=0, missing_layers=0)
            first = assumed(size, Known(), mode=action, max_downtime_s=DEFAULT_DOWNTIME_S, lazy=True, bandwidth=share)
            return Prediction(total_s=first.total_s, downtime_s=first.downtime_s)

        return predict

    def _samples(self, moves: Iterable[Migration]) -> list[Sample]:
        records = [events.record(one, Journal(self._store.database, one.id).entries()) for one in moves]
        return learned.samples(records)


def _item(container: Container, action: str, source: str) -> Item:
    item = Item(
        container_id=container.id, container=container.name, action=action, state=ItemState.PLANNED, source=source
    )
    if action == "skip":
        return dataclasses.replace(item, state=ItemState.SKIPPED, why="as asked")
    if action not in (*ACTIONS, "start"):
        why = f"its label {LABEL} says {action!r}, which is none of {', '.join(ACTIONS)}"
        return dataclasses.replace(item, state=ItemState.REFUSED, why=why)
    return item


def _action(container: Container, evacuation: Evacuation, policies: Sequence[Policy]) -> str:
    """By the container's label, else the order, else policy."""
    labels = create.spec_of(container).labels
    given = labels.get(LABEL, "") or evacuation.options.action
    return given or str(resolve(policies, labels).values.get("action", "live"))


def _judged(item: Item, seen: census.Seen | MigrateError) -> Item:
    """What speaks against a move wherever it went."""
    if isinstance(seen, MigrateError):
        error = ErrorRecord.of(seen)
        return dataclasses.replace(item, state=ItemState.REFUSED, why=seen.message, error=error)
    if seen.state in STILL:
        why = f"it is {state_name(seen.state)}: only what runs is taken away"
        return dataclasses.replace(item, state=ItemState.SKIPPED, why=why)
    if item.action == "stop":
        return item
    if seen.state != types_pb2.CONTAINER_STATE_RUNNING:
        why = f"it is {state_name(seen.state)}, and only a running container can move"
        return dataclasses.replace(item, state=ItemState.REFUSED, why=why)
    if seen.blockers:
        return dataclasses.replace(item, state=ItemState.REFUSED, why="; ".join(seen.blockers))
    return item


def _with_target(item: Item, packed: packing.Packing, predicted: Prediction) -> Item:
    placed = packed.placed.get(item.container_id)
    if placed is None:
        ranked = packed.refused[item.container_id]
        reasons = "; ".join(f"{one.host}: {', '.join(one.refusals)}" for one in ranked) or "there is no other host"
        return dataclasses.replace(item, state=ItemState.REFUSED, why=reasons)
    return dataclasses.replace(
        item,
        target=placed.host,
        why=placed.why,
        predicted_s=predicted.total_s,
        predicted_downtime_s=predicted.downtime_s,
    )


def _scheduled(
    evacuation: Evacuation, items: Sequence[Item], priorities: Mapping[str, int]
) -> tuple[list[Item], float]:
    """In the order of the moves, by priority first; what needs none last; those that will hardly be away by the deadline say so."""
    options = evacuation.options
    by_id: Mapping[str, Item] = {item.container_id: item for item in items}
    going = [item for item in items if item.state is ItemState.PLANNED]
    order = schedule.order(
        [(item.container_id, item.predicted_s) for item in going], deadline=options.deadline_unix_ns > 0
    )
    order = sorted(order, key=lambda one: priorities.get(one, 1))
    times = [by_id[one].predicted_s for one in order]
    known = all(times[n] for n, one in enumerate(order) if by_id[one].action in MOVES)
    total_s = schedule.longest_s(times, options.max_parallel) if known else 0.0
    left_s = (options.deadline_unix_ns - time.time_ns()) / 1e9
    planned: list[Item] = []
    for n, one in enumerate(order):
        item = by_id[one]
        if options.deadline_unix_ns and known and schedule.longest_s(times[: n + 1], options.max_parallel) > left_s:
            item = dataclasses.replace(item, why=f"{item.why}; hardly away by the deadline".lstrip("; "))
        planned.append(item)
    return [*planned, *(item for item in items if item.state is not ItemState.PLANNED)], total_s
