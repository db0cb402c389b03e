"""Many containers at once: what goes where, and what does not fit.

The largest are placed first, each where it scores best, which spreads them. Where that leaves some without a place, the same is tried
with the tightest place for each, which keeps room for the large ones; the plan that places more of them is taken. Last, for each that is
left, one that was placed is moved over to another host if that makes room.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass

from migrate.placement import filters, scores
from migrate.placement.filters import CHANGING, LASTING
from migrate.placement.model import HostState, Need, Room
from migrate.placement.ranking import Ranked, because, ranked

Choice = Callable[[Need, Room], float]  # the more the better
MOST_SHIFTS = 2000  # pairs that are tried for one that does not fit
MOST_LEFT = 200  # that are tried to be given a place by shifting others


@dataclass(frozen=True, kw_only=True)
class Placed:
    """`why`: in words, of the hosts that could have taken it when it was placed."""

    host: str
    why: str


@dataclass(frozen=True, kw_only=True)
class Packing:
    """By container id; each is in one of the two. `refused`: by host, every reason."""

    placed: Mapping[str, Placed]
    refused: Mapping[str, tuple[Ranked, ...]]


def pack(needs: Iterable[Need], hosts: Iterable[HostState]) -> Packing:
    """Every one of `needs` gets at most one host; what they take there is reserved for them."""
    known = tuple(hosts)
    wanted = _largest_first(tuple(needs), known)
    spread = _Plan(wanted, known, _best)
    if spread.left:
        tight = _Plan(wanted, known, _tightest)
        if len(tight.left) < len(spread.left):
            spread = tight
        spread.shift()
    return spread.packing()


def _best(need: Need, room: Room) -> float:
    return scores.total(scores.parts(need, room))


def _tightest(need: Need, room: Room) -> float:
    """By what is scarcer there afterwards."""
    memory = (room.memory_free - need.memory_bytes) / (room.host.memory_bytes or 1)
    disk = (room.disk_free - need.disk_bytes) / (room.host.disk_free_bytes or 1)
    return -min(memory, disk)


def _largest_first(needs: Sequence[Need], hosts: Sequence[HostState]) -> list[Need]:
    """By the largest part that one takes of an average host; those that must be beside others come after those others."""
    memory = sum(host.memory_free_bytes for host in hosts) / max(1, len(hosts)) or 1
    disk = sum(host.disk_free_bytes for host in hosts) / max(1, len(hosts)) or 1

    def order(need: Need) -> tuple[bool, float, str]:
        part = max(need.memory_bytes / memory, need.disk_bytes / disk)
        return bool(need.affinity), -part, need.name

    return sorted(needs, key=order)


class _Plan:
    """One try. `left`: without a place."""

    def __init__(self, needs: Sequence[Need], hosts: Sequence[HostState], choice: Choice) -> None:
        self._needs = {need.container_id: need for need in needs}
        self._rooms = {host.name: Room(host) for host in hosts}
        self._lasting: dict[object, list[Room]] = {}
        self._choice = choice
        self._placed: dict[str, Placed] = {}
        self.left: list[Need] = []
        for need in needs:
            if not self._place(need):
                self.left.append(need)

    def _place(self, need: Need) -> bool:
        able = [room for room in self._possible(need) if filters.fits(need, room, CHANGING)]
        if not able:
            return False
        best = max(able, key=lambda room: self._choice(need, room))
        self._put(need, best, because(ranked(need, best), len(able) - 1))
        return True

    def _put(self, need: Need, room: Room, why: str) -> None:
        room.put(need)
        self._placed[need.container_id] = Placed(host=room.name, why=why)

    def _possible(self, need: Need) -> list[Room]:
        """The hosts that nothing lasting speaks against: found once for all containers that are alike in that."""
        key = (
            need.source, need.constraints, need.cpus, tuple(sorted(need.blockers.items())),
        )  # fmt: skip
        if key not in self._lasting:
            self._lasting[key] = [room for room in self._rooms.values() if filters.fits(need, room, LASTING)]
        return self._lasting[key]

    def shift(self) -> None:
        """Make room for those that are left by giving one other a place elsewhere."""
        self.left = [need for i, need in enumerate(self.left) if i >= MOST_LEFT or not self._shifted(need)]

    def _shifted(self, need: Need) -> bool:
        there: dict[str, list[Need]] = {}
        for container_id, placed in self._placed.items():
            there.setdefault(placed.host, []).append(self._needs[container_id])
        tries = 0
        for room in self._possible(need):
            for other in sorted(there.get(room.name, ()), key=lambda one: one.memory_bytes):
                tries += 1
                if tries > MOST_SHIFTS:
                    return False
                room.take(other)
                if filters.fits(need, room, CHANGING):
                    why = self._placed.pop(other.container_id)
                    room.put(need)
                    if self._elsewhere(other, room):
                        self._placed[need.container_id] = Placed(host=room.name, why=f"{other.name} makes room for it")
                        return True
                    room.take(need)
                    self._placed[other.container_id] = why
                room.put(other)
        return False

    def _elsewhere(self, need: Need, but: Room) -> bool:
        able = [one for one in self._possible(need) if one is not but and filters.fits(need, one, CHANGING)]
        if not able:
            return False
        self._put(need, max(able, key=lambda room: self._choice(need, room)), "so that another has a place")
        return True

    def packing(self) -> Packing:
        refused = {
            need.container_id: tuple(
                Ranked(host=room.name, refusals=tuple(filters.refusals(need, room))) for room in self._rooms.values()
            )
            for need in self.left
        }
        return Packing(placed=self._placed, refused=refused)
