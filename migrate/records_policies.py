"""Policies, as the client library takes and gives them. Standard library only."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import field

from migrate.records_json import Json


class Policy(Json):
    """For containers with all labels of `selector`, and those of `any_value`, whatever they say. None: not this policy's to say.

    `bandwidth`: bytes per second of one move, 0 = no limit; `action`: of evacuations; `priority`: "low", "normal", "high".
    """

    name: str
    selector: Mapping[str, str] = field(default_factory=dict)
    any_value: tuple[str, ...] = ()
    mode: str | None = None
    max_downtime_s: float | None = None
    bandwidth: int | None = None
    action: str | None = None
    priority: str | None = None


class ResolvedPolicy(Json):
    """`values`: as text, by the names of Policy's settings; `sources`: the policy that each comes from; `matching`: most specific first."""

    values: Mapping[str, str]
    sources: Mapping[str, str]
    matching: tuple[str, ...]
