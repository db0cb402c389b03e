"""All hosts for one container: best first, then those that cannot take it, with every reason."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field

from migrate.placement import filters, scores
from migrate.placement.model import HostState, Need, Room


@dataclass(frozen=True, kw_only=True)
class Ranked:
    """`refusals` empty: it can take it, with `score` (0 to 1) made of `parts`."""

    host: str
    score: float = 0.0
    parts: Mapping[str, float] = field(default_factory=dict)
    refusals: tuple[str, ...] = ()


def rank(need: Need, hosts: Iterable[HostState]) -> list[Ranked]:
    """Of equal ones the first by name."""
    found = [ranked(need, Room(host)) for host in hosts]
    return sorted(found, key=lambda one: (bool(one.refusals), -one.score, one.host))


def ranked(need: Need, room: Room) -> Ranked:
    if reasons := filters.refusals(need, room):
        return Ranked(host=room.name, refusals=tuple(reasons))
    parts = scores.parts(need, room)
    return Ranked(host=room.name, score=scores.total(parts), parts=parts)


def because(best: Ranked, others: int) -> str:
    """Why it was chosen, in a few words."""
    said = ", ".join(f"{name} {value:.2f}" for name, value in best.parts.items())
    beside = f"the best of {others + 1}" if others else "the only one that can take it"
    return f"{beside} ({said})"
