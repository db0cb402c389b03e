"""How well a host would take a container: parts from 0 to 1, and their weighted mean."""

from __future__ import annotations

from collections.abc import Mapping

from migrate.placement.model import Need, Room, missing_bytes

WEIGHTS: Mapping[str, float] = {"memory": 0.4, "spread": 0.25, "cost": 0.2, "locality": 0.15}
HALF_FULL = 10  # containers on a host where `spread` is a half, unless processors say more
HALF_SENT = 1 << 30  # bytes to send where `cost` is a half
KEPT_PART = 0.1  # of the memory of a container that is sent to a host that keeps its pages


def parts(need: Need, room: Room) -> dict[str, float]:
    """`memory`: what is free afterwards; `spread`: how few others are there; `cost`: how little is sent;
    `locality`: how much of the image is there already, and pages of an earlier stay.
    """
    host = room.host
    missing = missing_bytes(need, host)
    everything = sum(need.layers.values())
    kept = host.name in need.kept_by
    sent = missing + (need.memory_bytes * (KEPT_PART if kept else 1.0) if need.source else 0)
    spread = HALF_FULL / (HALF_FULL + room.residents)
    if host.cpus and room.cpus_promised:
        spread = min(spread, max(0.0, 1 - room.cpus_promised / (2 * host.cpus)))
    image = 1 - missing / everything if everything else 1.0
    return {
        "memory": max(0, room.memory_free - need.memory_bytes) / host.memory_bytes if host.memory_bytes else 0.0,
        "spread": spread,
        "cost": HALF_SENT / (HALF_SENT + sent),
        "locality": (image + kept) / 2 if need.source else image,
    }


def total(found: Mapping[str, float]) -> float:
    return sum(weight * found[name] for name, weight in WEIGHTS.items())
