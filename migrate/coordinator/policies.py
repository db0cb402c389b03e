"""Policies: how containers with certain labels move, where whoever moves them does not say it. docs/fleet.md, docs/adr/0017

Each setting comes from the most specific policy that has it. `resolve` is pure; `Policies` keeps them in the coordinator's store.
"""

from __future__ import annotations

import dataclasses
import json
import re
import sqlite3
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any

from migrate.coordinator import migration
from migrate.coordinator.evacuation.records import ACTIONS
from migrate.coordinator.rates import check_bandwidth
from migrate.coordinator.store import Store
from migrate.errors import InvalidArgument, NotFound

PRIORITIES = ("low", "normal", "high")
SETTINGS = ("mode", "max_downtime_s", "bandwidth", "action", "priority")
_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9_.-]{0,62}")


@dataclass(frozen=True, kw_only=True)
class Policy:
    """`selector`: labels of containers; the value None: whatever it says. A setting that is None is not this policy's to say.

    `bandwidth`: bytes per second of one move, 0 = no limit. `action`: of evacuations. `max_downtime_s`: a limit, as one given by hand.
    """

    name: str
    selector: Mapping[str, str | None] = field(default_factory=dict)
    mode: str | None = None
    max_downtime_s: float | None = None
    bandwidth: int | None = None
    action: str | None = None
    priority: str | None = None

    def matches(self, labels: Mapping[str, str]) -> bool:
        return all(key in labels and value in (None, labels[key]) for key, value in self.selector.items())

    @property
    def rank(self) -> tuple[int, int, str]:
        """The most specific sorts first: more labels, then more of them with a value, then by name."""
        return -len(self.selector), -sum(value is not None for value in self.selector.values()), self.name


@dataclass(frozen=True, kw_only=True)
class Resolved:
    """`values`: settings that some policy has, by name. `sources`: which policy each comes from. `matching`: most specific first."""

    values: Mapping[str, Any]
    sources: Mapping[str, str]
    matching: tuple[str, ...]


def resolve(policies: Iterable[Policy], labels: Mapping[str, str]) -> Resolved:
    """For a container with these labels."""
    matching = sorted((one for one in policies if one.matches(labels)), key=lambda one: one.rank)
    values: dict[str, Any] = {}
    sources: dict[str, str] = {}
    for policy in matching:
        for name in SETTINGS:
            value = getattr(policy, name)
            if value is not None and name not in values:
                values[name], sources[name] = value, policy.name
    return Resolved(values=values, sources=sources, matching=tuple(one.name for one in matching))


class Policies:
    """Thread-safe. Everything written is durable."""

    def __init__(self, store: Store) -> None:
        self._database = store.database

    def put(self, policy: Policy) -> None:
        """Add it, or replace the one of that name. Raises InvalidArgument."""
        _check(policy)
        with self._database.transaction() as db:
            row = (policy.name, json.dumps(dataclasses.asdict(policy)))
            db.execute("insert or replace into policies(name, policy) values(?,?)", row)

    def remove(self, name: str) -> None:
        """Moves that have begun keep what they took from it. Raises NotFound."""
        with self._database.transaction() as db:
            if db.execute("delete from policies where name=?", (name,)).rowcount != 1:
                raise NotFound(f"no policy {name!r}", hint="migrate policy ls", code="policy.not_found")

    def all(self) -> list[Policy]:
        """By name."""
        rows: list[sqlite3.Row] = self._database.connection.execute("select * from policies order by name").fetchall()
        return [Policy(**json.loads(row["policy"])) for row in rows]

    def of(self, labels: Mapping[str, str]) -> Resolved:
        return resolve(self.all(), labels)


def _check(policy: Policy) -> None:
    if not _NAME.fullmatch(policy.name):
        raise InvalidArgument(f"{policy.name!r} cannot name a policy", hint="a letter or digit, then also _ . -")
    if all(getattr(policy, name) is None for name in SETTINGS):
        raise InvalidArgument(f"policy {policy.name} says nothing", hint=f"one of {', '.join(SETTINGS)}")
    if policy.mode is not None:
        migration.saga(policy.mode)
    if policy.max_downtime_s is not None and policy.max_downtime_s <= 0:
        raise InvalidArgument(f"a downtime of {policy.max_downtime_s:g} s is no limit", hint="more than nothing")
    check_bandwidth(policy.bandwidth or 0)
    if policy.action is not None and policy.action not in ACTIONS:
        raise InvalidArgument(f"no action {policy.action!r}", hint=f"one of {', '.join(ACTIONS)}")
    if policy.priority is not None and policy.priority not in PRIORITIES:
        raise InvalidArgument(f"no priority {policy.priority!r}", hint=f"one of {', '.join(PRIORITIES)}")
