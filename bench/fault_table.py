"""The faults by name: what is done, how long it lasts, and at which instants there is something to do it to."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import partial

from bench import fault_harm
from bench.fault_harm import Field, Heal
from bench.fault_instants import Instant
from bench.fault_scene import Victim

CUTS = {
    "1 s": 1.0,
    "30 s": 30.0,
    "for good": 100.0,
}  # the last is longer than anybody's patience; see docs/fault-matrix.md
FULL_S = 10.0
TWIN_S = 15.0
AT_END = -1.0


@dataclass(frozen=True, kw_only=True)
class Fault:
    """`lasts_s`: then what `begin` returned is called; AT_END: when the move has ended. `begin` raises NotThere.

    `client_may_be_told`: the client's connection may end with an error.
    """

    name: str
    kind: str
    begin: Callable[[Field], Heal]
    lasts_s: float = 0.0
    first: Instant = Instant.PRECHECK  # from here on, to `last`, there is something to do it to
    last: Instant = Instant.UNDO
    client_may_be_told: bool = False
    loses_after: Instant | None = (
        None  # from here on the container is known not to survive it: docs/fault-matrix.md, What falls short
    )

    def fits(self, instant: Instant) -> bool:
        order = list(Instant)
        return instant is Instant.UNDO or order.index(self.first) <= order.index(instant) <= order.index(self.last)

    def is_known_to_lose(self, instant: Instant) -> bool:
        order = list(Instant)
        return self.loses_after is not None and order.index(instant) >= order.index(self.loses_after)


# When a process that takes part exists; the others always do.
_LIVES = {
    Victim.SOURCE_CRIU: (Instant.DUMP, Instant.RELEASE),
    Victim.TARGET_CRIU: (Instant.RESTORING, Instant.RESTORED),
    Victim.SSH: (Instant.LAYERS, Instant.RELEASE),
    Victim.SSHD: (Instant.LAYERS, Instant.RELEASE),
    Victim.SENDER: (Instant.LAYERS, Instant.RELEASE),
    Victim.RECEIVER: (Instant.LAYERS, Instant.RELEASE),
    Victim.TARGET_MONITOR: (Instant.TUNNEL, Instant.RELEASE),
    Victim.FILLER: (Instant.TUNNEL, Instant.RESUME),
}
_LINKS = (("controller", "source"), ("controller", "target"), ("source", "target"))


def _all() -> list[Fault]:
    found = []
    for victim in Victim:
        first, last = _LIVES.get(victim, (Instant.PRECHECK, Instant.UNDO))
        begin, loses = partial(fault_harm.kill, victim), Instant.PIVOT if victim is Victim.FILLER else None
        found.append(Fault(name=f"kill {victim}", kind="kill", begin=begin, first=first, last=last, loses_after=loses))
    for length, seconds in CUTS.items():
        told = length == "for good"  # TCP's own patience ends too
        for one, other in _LINKS:
            begin = partial(fault_harm.cut, one, other)
            found.append(Fault(name=f"cut {one}-{other} {length}", kind="cut", begin=begin, lasts_s=seconds))
        for role in ("source", "target"):
            begin = partial(fault_harm.unplug, role)
            name = f"unplug {role} {length}"
            found.append(Fault(name=name, kind="cut", begin=begin, lasts_s=seconds, client_may_be_told=told))
    for role in ("source", "target", "controller"):
        begin = partial(fault_harm.full_disk, role)
        found.append(Fault(name=f"full disk {role}", kind="room", begin=begin, lasts_s=FULL_S))
    for role in ("source", "target"):
        begin = partial(fault_harm.full_run, role)
        found.append(Fault(name=f"full /run {role}", kind="room", begin=begin, lasts_s=FULL_S))
    for role, first in (("source", Instant.LAYERS), ("target", Instant.TUNNEL)):
        begin = partial(fault_harm.full_stage, role)
        found.append(Fault(name=f"full stage {role}", kind="room", begin=begin, lasts_s=FULL_S, first=first))
    for victim in (Victim.SENDER, Victim.RECEIVER, Victim.FILLER):
        first, last = _LIVES[victim]
        begin, loses = partial(fault_harm.no_memory, victim), Instant.PIVOT if victim is Victim.FILLER else None
        name = f"no memory {victim}"
        found.append(
            Fault(name=name, kind="memory", begin=begin, lasts_s=AT_END, first=first, last=last, loses_after=loses)
        )
    found += [
        Fault(name="old database", kind="coordinator", begin=fault_harm.old_database),
        Fault(name="second coordinator", kind="coordinator", begin=fault_harm.second_coordinator),
        Fault(name="twin coordinator", kind="coordinator", begin=fault_harm.twin_coordinator, lasts_s=TWIN_S),
        Fault(name="asked twice", kind="calls", begin=fault_harm.asked_twice),
        Fault(name="cancel", kind="calls", begin=fault_harm.cancelled),
        Fault(name="repair", kind="calls", begin=fault_harm.repaired),
        Fault(name="late calls", kind="calls", begin=fault_harm.late_calls, lasts_s=AT_END),
    ]
    return found


FAULTS = {each.name: each for each in _all()}


@dataclass(frozen=True, kw_only=True)
class Injury:
    """One fault at one instant. Written "instant: fault"."""

    instant: Instant
    fault: Fault

    def __str__(self) -> str:
        return f"{self.instant}: {self.fault.name}"

    @classmethod
    def parse(cls, text: str) -> Injury:
        """Raises ValueError."""
        instant, _, name = text.partition(":")
        if name.strip() not in FAULTS:
            raise ValueError(f"no fault {name.strip()!r}: --list shows them")
        return cls(instant=Instant(instant.strip()), fault=FAULTS[name.strip()])


def parse(text: str) -> tuple[Injury, ...]:
    """ "send: kill sender + undo: kill coordinator". Raises ValueError."""
    return tuple(Injury.parse(each) for each in text.split("+"))
