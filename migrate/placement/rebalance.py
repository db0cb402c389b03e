"""Which containers should change places so that no host is much fuller than another. Pure; memory is what counts.

Step by step: from the fullest host the container whose move leaves the fuller of the two hosts least full, until the fullest and the
emptiest are within the threshold, or no move helps. Each container moves once at most: a plan is no dance.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

from migrate.placement import filters
from migrate.placement.filters import CHANGING, LASTING
from migrate.placement.model import HostState, Need, Room

LEAST_GAIN = 0.01  # of the fuller host's memory: a move that brings less is not worth its bytes


@dataclass(frozen=True, kw_only=True)
class Shift:
    """One container to another host. `gain`: by how much less full the fuller of the two is then, as a part of its memory."""

    need: Need
    target: str
    gain: float


@dataclass(frozen=True, kw_only=True)
class Balance:
    """`before`, `after`: how full each host is that counts, 0 to 1."""

    shifts: tuple[Shift, ...]
    before: Mapping[str, float]
    after: Mapping[str, float]


def plan(needs: Iterable[Need], hosts: Iterable[HostState], *, threshold: float, most: int) -> Balance:
    """Of the hosts that answer and are not cordoned. `threshold`: between the fullest and the emptiest, 0 to 1; `most` moves."""
    rooms = {one.name: Room(one) for one in hosts if not one.silence and one.cordon is None and one.memory_bytes}
    before = {name: _fullness(room) for name, room in rooms.items()}
    there: dict[str, list[Need]] = {}
    for need in needs:
        there.setdefault(need.source, []).append(need)
    shifts: list[Shift] = []
    while len(shifts) < most and rooms:
        full = {name: _fullness(room) for name, room in rooms.items()}
        if max(full.values()) - min(full.values()) <= threshold:
            break
        source = rooms[max(full, key=lambda name: full[name])]
        shift = _best(source, there.get(source.name, ()), list(rooms.values()))
        if shift is None:
            break
        source.take(shift.need)
        rooms[shift.target].put(shift.need)
        there[source.name].remove(shift.need)
        shifts.append(shift)
    return Balance(shifts=tuple(shifts), before=before, after={name: _fullness(room) for name, room in rooms.items()})


def _best(source: Room, needs: Sequence[Need], rooms: Sequence[Room]) -> Shift | None:
    full = _fullness(source)
    best: Shift | None = None
    for need in needs:
        for room in rooms:
            if not (filters.fits(need, room, LASTING) and filters.fits(need, room, CHANGING)):
                continue
            gain = full - max(_fullness(source, -need.memory_bytes), _fullness(room, need.memory_bytes))
            if gain >= LEAST_GAIN and (best is None or gain > best.gain):
                best = Shift(need=need, target=room.name, gain=gain)
    return best


def _fullness(room: Room, more: int = 0) -> float:
    return 1 - (room.memory_free - more) / room.host.memory_bytes
