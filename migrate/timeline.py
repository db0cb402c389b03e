"""The frozen window of a move as parts with a beginning and a length, out of the record: whose part, and the gaps between them. Pure.

Three clocks are in a record: the coordinator's (journal) and each host's (marks). A mark was made within the call that brought it,
so the call's rows in the journal bound how far its host's clock can be off. Where the bounds allow that it is right it is taken as
it is; else all marks of that host are shifted by the least that fits, and that is said.

A mark says that something is done: its part began at the mark before, of the same host in the same call. Where two things go on at
once, a mark "begin NAME" says when the one that ends with the mark NAME began. Nothing here needs to know the names.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import Any

from migrate.records import Migration, Step

BEGIN = "begin "
COORDINATOR, SOURCE, TARGET = "coordinator", "source", "target"
_WHO = {"freeze": SOURCE, "restore": TARGET, "resume": TARGET, "release": SOURCE}
_FROZEN, _ENDS = "frozen", ("announced", "running")
_MEANING = {
    ("freeze", "frozen"): "CRIU stops the tasks, the link is cut",
    ("freeze", "looked"): "what was written last is known",
    ("freeze", "withheld"): "which memory CRIU is not shown is written down",
    ("freeze", "sent withheld memory"): "of that memory what the target lacks",
    ("freeze", "dumped"): "CRIU's dump",
    ("freeze", "held"): "frozen in the kernel",
    ("freeze", "compared"): "the target has all of it, its digests are the same",
    ("freeze", "confirmed"): "the target is ready for CRIU's restore",
    ("restore", "created"): "CRIU makes the tasks",
    ("restore", "frozen"): "the tasks are let go into the freezer",
    ("restore", "restored"): "CRIU ends",
    ("resume", "linked"): "on the bridge",
    ("resume", "running"): "thawed",
    ("resume", "announced"): "switches know where the address is",
    ("release", "released"): "the source's frozen tasks are dead, its root unmounted",
}


@dataclass(frozen=True, kw_only=True)
class Part:
    """A stretch by the coordinator's clock. `who`: "source", "target", "coordinator", or for a gap in a call "A > B"."""

    start_unix_ns: int
    end_unix_ns: int
    who: str
    name: str
    gap: bool = False


@dataclass(frozen=True, kw_only=True)
class Clock:
    """A host's clock against the coordinator's. `shift_ns` is added to its marks; it may be any value from `low_ns` to `high_ns`."""

    host: str
    shift_ns: int
    low_ns: int
    high_ns: int

    def text(self) -> str:
        within = f"known to {(self.high_ns - self.low_ns) / 1e6:.1f} ms"
        if self.low_ns > self.high_ns:
            return f"{self.host}'s clock was set during the move: its parts cannot be placed well"
        if self.shift_ns == 0:
            return f"{self.host}'s clock agrees with the coordinator's ({within})"
        way = "ahead" if self.shift_ns < 0 else "behind"
        return (
            f"{self.host}'s clock is {abs(self.shift_ns) / 1e6:.1f} ms or more {way}: its marks are shifted ({within})"
        )


@dataclass(frozen=True, kw_only=True)
class Timeline:
    """`parts`: in order of their start, from the call of the freeze on. `start_unix_ns`, `end_unix_ns`: the frozen window, from the
    source's mark "frozen" to the target's "announced"; both 0 where the record does not have these.
    """

    start_unix_ns: int
    end_unix_ns: int
    parts: tuple[Part, ...]
    clocks: tuple[Clock, ...]

    def busy_ns(self, who: str) -> int:
        """How long `who` was at work within the window."""
        return _length(self._within(part for part in self.parts if part.who == who and not part.gap))

    def gaps_ns(self) -> int:
        """How long nobody was, in the window."""
        span = self.end_unix_ns - self.start_unix_ns
        return span - _length(self._within(part for part in self.parts if not part.gap))

    def _within(self, parts: Iterable[Part]) -> list[tuple[int, int]]:
        return [
            (max(part.start_unix_ns, self.start_unix_ns), min(part.end_unix_ns, self.end_unix_ns)) for part in parts
        ]


@dataclass(frozen=True, kw_only=True)
class _Call:
    """A step that is one call to one host. `marks`: (name, instant by that host's clock), in order."""

    step: str
    who: str
    host: str
    started_ns: int
    done_ns: int
    marks: tuple[tuple[str, int], ...]


def timeline(record: Migration) -> Timeline:
    """Of a move that got through its freeze; without parts for any other."""
    calls = _calls(record)
    hosts = {record.source: SOURCE, record.target: TARGET}
    clocks = tuple(clock for host in hosts if (clock := _clock(host, calls)) is not None)
    shift = {clock.host: clock.shift_ns for clock in clocks}
    parts: list[Part] = []
    for call in calls:
        parts += _parts_of(call, shift.get(call.host, 0))
    parts += _coordinators(record.journal, calls)
    frozen = _instant(calls, "freeze", (_FROZEN,), shift)
    end = _instant(calls, "resume", _ENDS, shift)
    if not (frozen and end):
        frozen = end = 0
    parts += _unnamed(parts, frozen, end)
    ordered = sorted(parts, key=lambda part: (part.start_unix_ns, part.end_unix_ns))
    return Timeline(start_unix_ns=frozen, end_unix_ns=end, parts=tuple(ordered), clocks=clocks)


def _calls(record: Migration) -> list[_Call]:
    """A mark counts for the first call that brought it: the target's monitor says all of its marks each time."""
    started: dict[str, int] = {}
    calls: list[_Call] = []
    known: set[tuple[str, str, int]] = set()
    host = {SOURCE: record.source, TARGET: record.target}
    for row in record.journal:
        if row.event == "started":
            started.setdefault(row.step, row.unix_ns)  # after a crash a step is done again, and answers as before
        elif row.event == "done" and row.step in _WHO and row.step in started:
            who = _WHO[row.step]
            marks = [(mark["name"], mark["unix_ns"]) for mark in _marks(row.facts)]
            fresh = [mark for mark in marks if (who, *mark) not in known]
            known.update((who, *mark) for mark in fresh)
            calls.append(
                _Call(
                    step=row.step,
                    who=who,
                    host=host[who],
                    started_ns=started[row.step],
                    done_ns=row.unix_ns,
                    marks=tuple(sorted(fresh, key=lambda mark: mark[1])),
                )
            )
    return calls


def _marks(facts: Mapping[str, Any]) -> Sequence[Mapping[str, Any]]:
    marks: Sequence[Mapping[str, Any]] = facts.get("marks", ())
    return marks


def _clock(host: str, calls: Sequence[_Call]) -> Clock | None:
    """None: it has no mark."""
    theirs = [call for call in calls if call.host == host and call.marks]
    if not theirs:
        return None
    low = max(call.started_ns - call.marks[0][1] for call in theirs)
    high = min(call.done_ns - call.marks[-1][1] for call in theirs)
    shift = (low + high) // 2 if low > high else min(max(0, low), high)
    return Clock(host=host, shift_ns=shift, low_ns=low, high_ns=high)


def _parts_of(call: _Call, shift_ns: int) -> list[Part]:
    marks = [(name, unix_ns + shift_ns) for name, unix_ns in call.marks]
    if not marks:
        whole = Part(start_unix_ns=call.started_ns, end_unix_ns=call.done_ns, who=call.who, name=call.step)
        return [whole]  # all that is known: the call
    parts = [
        Part(
            start_unix_ns=call.started_ns,
            end_unix_ns=marks[0][1],
            who=f"{COORDINATOR} > {call.who}",
            name=f"the call {call.step} reaches {call.host} and its agent gets ready, until the mark {marks[0][0]}",
            gap=True,
        )
    ]
    opened: dict[str, int] = {}
    before = 0
    for name, unix_ns in marks:
        if name.startswith(BEGIN):
            opened[name.removeprefix(BEGIN)] = unix_ns
            continue
        if (start := opened.pop(name, 0) or before) and unix_ns > start:
            parts.append(Part(start_unix_ns=start, end_unix_ns=unix_ns, who=call.who, name=_described(call.step, name)))
        before = unix_ns
    last = marks[-1][1]
    parts.append(
        Part(
            start_unix_ns=last,
            end_unix_ns=call.done_ns,
            who=f"{call.who} > {COORDINATOR}",
            name=f"the agent of {call.host} ends the call {call.step}, its answer comes",
            gap=True,
        )
    )
    return [part for part in parts if part.end_unix_ns > part.start_unix_ns]


def _described(step: str, name: str) -> str:
    meaning = _MEANING.get((step, name))
    return f"{name}: {meaning}" if meaning else name


def _coordinators(journal: Sequence[Step], calls: Sequence[_Call]) -> list[Part]:
    """From row to row of its journal while no call is under way, from the freeze on."""
    begin = next((call.started_ns for call in calls if call.step == "freeze"), None)
    if begin is None:
        return []
    rows = [row for row in journal if row.unix_ns >= begin]
    parts = []
    for row, after in pairwise(rows):
        middle = (row.unix_ns + after.unix_ns) // 2
        if after.unix_ns > row.unix_ns and not any(call.started_ns <= middle <= call.done_ns for call in calls):
            name = "pivot: the target owns it" if after.event == "committed" else f"journal, before {after.step}"
            parts.append(Part(start_unix_ns=row.unix_ns, end_unix_ns=after.unix_ns, who=COORDINATOR, name=name))
    return parts


def _instant(calls: Sequence[_Call], step: str, names: Sequence[str], shift: Mapping[str, int]) -> int:
    """0: there is no such mark."""
    for name in names:
        for call in calls:
            for mark, unix_ns in call.marks:
                if (call.step, mark) == (step, name):
                    return unix_ns + shift.get(call.host, 0)
    return 0


def _unnamed(parts: Sequence[Part], start_ns: int, end_ns: int) -> list[Part]:
    """What no part and no gap of a call covers."""
    found, until = [], start_ns
    for part in sorted(parts, key=lambda part: part.start_unix_ns):
        if part.start_unix_ns > until and until < end_ns:
            end = min(part.start_unix_ns, end_ns)
            found.append(Part(start_unix_ns=until, end_unix_ns=end, who="-", name="nobody's", gap=True))
        until = max(until, part.end_unix_ns)
    return found


def _length(stretches: Iterable[tuple[int, int]]) -> int:
    """Of their union."""
    total, until = 0, 0
    for start, end in sorted(stretches):
        start = max(start, until)
        if end > start:
            total, until = total + end - start, end
    return total
