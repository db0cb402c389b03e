"""Post-copy: which memory a container that runs here already still lacks, for it is on the source; or was, if that is lost."""

from __future__ import annotations

import bisect
from collections.abc import Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

from agent.handover.record import Move
from agent.linux import process
from agent.transfer import later

MOST_RANGES = 20_000  # that are told one by one, of all tasks: a message has an end


@dataclass(frozen=True, kw_only=True)
class Range:
    """[start, end) of the address space, as it was when the task stood still. `area`: what lies there: "[heap]", a path, ""."""

    start: int
    end: int
    area: str


@dataclass(frozen=True, kw_only=True)
class Lacking:
    """One task. `task`: its pid inside the container, `program`: its name; `ranges`: the first of `range_count`."""

    task: int
    program: str
    size_bytes: int
    range_count: int
    ranges: tuple[Range, ...]


def of(moves: Sequence[Move], pids: Sequence[int]) -> list[Lacking]:
    """Of the container that came by `moves` and has the tasks `pids` here. Raises TransferError when it cannot be told."""
    here = {}
    for pid in pids:
        with suppress(OSError):  # it ends
            here[process.inner_pid(pid)] = pid
    return [found for move in moves for found in _of_move(later.still_missing(move.images) or {}, here)]


def _of_move(missing: Mapping[int, later.Pairs], here: Mapping[int, int]) -> Iterator[Lacking]:
    left = MOST_RANGES
    for task, pairs in missing.items():
        areas = _areas(here.get(task, 0))
        joined = _joined(pairs)
        told, left = joined[:left], max(left - len(joined), 0)
        yield Lacking(
            task=task,
            program=_program(here.get(task, 0)),
            size_bytes=sum(end - start for start, end in joined),
            range_count=len(joined),
            ranges=tuple(Range(start=start, end=end, area=_area(areas, start)) for start, end in told),
        )


def _joined(pairs: later.Pairs) -> later.Pairs:
    """Those that touch, as one."""
    joined: later.Pairs = []
    for start, end in sorted(pairs):
        if joined and joined[-1][1] >= start:
            joined[-1] = joined[-1][0], max(joined[-1][1], end)
        else:
            joined.append((start, end))
    return joined


def _program(pid: int) -> str:
    """The task may wait for memory: nothing of that is read here."""
    try:
        return Path(f"/proc/{pid}/comm").read_text().strip()
    except OSError:
        return ""


def _areas(pid: int) -> list[tuple[int, int, str]]:
    """(start, end, name), ascending. None for a task that has ended."""
    found = []
    with suppress(OSError):
        for line in Path(f"/proc/{pid}/maps").read_text(errors="replace").splitlines():
            span, _, _, _, _, *name = line.split(maxsplit=5)
            start, _, end = span.partition("-")
            found.append((int(start, 16), int(end, 16), name[0] if name else ""))
    return found


def _area(areas: list[tuple[int, int, str]], address: int) -> str:
    at = bisect.bisect_right(areas, address, key=lambda area: area[0]) - 1
    return areas[at][2] if at >= 0 and address < areas[at][1] else ""
