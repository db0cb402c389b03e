"""A move's timeline for people, for programs, and for chrome://tracing and Perfetto (Trace Event Format)."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

from migrate.timeline import COORDINATOR, SOURCE, TARGET, Part, Timeline, timeline

if TYPE_CHECKING:
    from collections.abc import Sequence

    from migrate.records import Migration

BAR = 30  # characters for the whole
_LANES = (COORDINATOR, SOURCE, TARGET)


def text(record: Migration) -> str:
    """Everything that `migrations show --timeline` prints."""
    head = f"move {record.id}: {record.container} from {record.source} to {record.target}, {record.state}"
    return "\n".join([head, *lines(record)])


def lines(record: Migration) -> list[str]:
    """One a part: milliseconds since the container stood still, length, where it lies, whose, what. Then sums and clocks.

    What comes after the window is in the other formats.
    """
    line = timeline(record)
    parts = [part for part in line.parts if not line.end_unix_ns or part.start_unix_ns < line.end_unix_ns]
    if not parts:
        return ["  no frozen window: the move ended before its container stood still, or in the middle of it"]
    zero = line.start_unix_ns or parts[0].start_unix_ns
    first, last = parts[0].start_unix_ns, max(part.end_unix_ns for part in parts)
    width = max(len(part.who) for part in parts)
    found = [
        f"  {'start':>9}     {'length':>9}     {'':<{BAR + 2}}  {'who':<{width}}  what",
        *(
            f"  {(part.start_unix_ns - zero) / 1e6:9.1f} ms  {(part.end_unix_ns - part.start_unix_ns) / 1e6:9.1f} ms"
            f"  |{_bar(part, first, last)}|  {part.who:<{width}}  {'gap: ' if part.gap else ''}{part.name}"
            for part in parts
        ),
    ]
    return [*found, *(f"  {each}" for each in _summary(line))]


def _bar(part: Part, first: int, last: int) -> str:
    span = max(1, last - first)
    left = (part.start_unix_ns - first) * BAR // span
    right = max(left + 1, (part.end_unix_ns - first) * BAR // span)
    return f"{' ' * left}{('.' if part.gap else '#') * (right - left)}"[:BAR].ljust(BAR)


def _summary(line: Timeline) -> list[str]:
    found = []
    if line.end_unix_ns:
        span = (line.end_unix_ns - line.start_unix_ns) / 1e6
        busy = ", ".join(f"{who} {line.busy_ns(who) / 1e6:.1f}" for who in (SOURCE, TARGET, COORDINATOR))
        share = f" ({100 * line.gaps_ns() / 1e6 / span:.0f} %)" if span > 0 else ""
        found.append(
            f"stood still {span:.1f} ms, from the source's mark frozen to the target's announced: {busy}, "
            f"gaps {line.gaps_ns() / 1e6:.1f}{share}"
        )
    return [*found, *(clock.text() for clock in line.clocks)]


def as_json(record: Migration) -> str:
    """One object; times in milliseconds since the container stood still, by the coordinator's clock."""
    line = timeline(record)
    zero = line.start_unix_ns or (line.parts[0].start_unix_ns if line.parts else 0)
    return json.dumps(
        {
            "id": record.id,
            "container": record.container,
            "source": record.source,
            "target": record.target,
            "state": record.state,
            "zero_unix_ns": zero,
            "frozen_ms": (line.end_unix_ns - line.start_unix_ns) / 1e6 if line.end_unix_ns else None,
            "gaps_ms": line.gaps_ns() / 1e6 if line.end_unix_ns else None,
            "clocks": [
                {
                    "host": clock.host,
                    "shift_ms": clock.shift_ns / 1e6,
                    "shift_from_ms": clock.low_ns / 1e6,
                    "shift_to_ms": clock.high_ns / 1e6,
                    "text": clock.text(),
                }
                for clock in line.clocks
            ],
            "parts": [
                {
                    "start_ms": (part.start_unix_ns - zero) / 1e6,
                    "duration_ms": (part.end_unix_ns - part.start_unix_ns) / 1e6,
                    "who": part.who,
                    "name": part.name,
                    "gap": part.gap,
                }
                for part in line.parts
            ],
        },
        indent=2,
    )


def as_chrome(record: Migration) -> str:
    """Trace Event Format, JSON object form. A process each for coordinator, source, target and the container; microseconds since
    the move began. What overlaps on one lane goes to a thread of its own, for complete events of a thread must nest.
    """
    line = timeline(record)
    zero = record.started_unix_ns
    names = {COORDINATOR: COORDINATOR, SOURCE: f"source {record.source}", TARGET: f"target {record.target}"}
    events: list[dict[str, Any]] = []
    for pid, who in enumerate(_LANES, start=1):
        events.append({"ph": "M", "name": "process_name", "pid": pid, "tid": 0, "args": {"name": names[who]}})
        events.append({"ph": "M", "name": "process_sort_index", "pid": pid, "tid": 0, "args": {"sort_index": pid}})
        for tid, row in enumerate(_rows([part for part in line.parts if part.who == who]), start=2):
            events += [_complete(part, pid, tid, zero) for part in row]
    waits = [part for part in line.parts if part.who not in _LANES]
    for tid, row in enumerate(_rows(waits), start=10):
        events += [_complete(part, 1, tid, zero) for part in row]
    events += [_complete(step, 1, 1, zero) for step in _steps(record)]
    still = len(_LANES) + 1
    events.append({"ph": "M", "name": "process_name", "pid": still, "tid": 0, "args": {"name": record.container}})
    if line.end_unix_ns:
        where = (
            (record.started_unix_ns, line.start_unix_ns, f"runs on {record.source}"),
            (line.start_unix_ns, line.end_unix_ns, "stands still"),
            (line.end_unix_ns, max(record.finished_unix_ns, line.end_unix_ns), f"runs on {record.target}"),
        )
        stretches = [
            Part(start_unix_ns=start, end_unix_ns=end, who=record.container, name=name) for start, end, name in where
        ]
        events += [_complete(part, still, 1, zero) for part in stretches]
    about = {
        "migration": record.id,
        "container": record.container,
        "state": record.state,
        "started_unix_ns": record.started_unix_ns,
        "clocks": [clock.text() for clock in line.clocks],
    }
    return json.dumps({"traceEvents": events, "displayTimeUnit": "ms", "otherData": about}, indent=1)


def _steps(record: Migration) -> list[Part]:
    """Each step from its first start to its end, by the coordinator's journal."""
    started: dict[str, int] = {}
    found = []
    for row in record.journal:
        if row.event == "started":
            started.setdefault(row.step, row.unix_ns)
        elif row.event in ("done", "failed") and row.step in started:
            name = row.step if row.event == "done" else f"{row.step}: failed"
            found.append(Part(start_unix_ns=started.pop(row.step), end_unix_ns=row.unix_ns, who=COORDINATOR, name=name))
    return found


def _rows(parts: Sequence[Part]) -> list[list[Part]]:
    """Rows in which nothing overlaps."""
    rows: list[list[Part]] = []
    for part in sorted(parts, key=lambda part: part.start_unix_ns):
        row = next((row for row in rows if row[-1].end_unix_ns <= part.start_unix_ns), None)
        if row is None:
            rows.append([part])
        else:
            row.append(part)
    return rows


def _complete(part: Part, pid: int, tid: int, zero_ns: int) -> dict[str, Any]:
    return {
        "ph": "X",
        "name": part.name,
        "cat": "gap" if part.gap else part.who,
        "pid": pid,
        "tid": tid,
        "ts": (part.start_unix_ns - zero_ns) / 1e3,
        "dur": (part.end_unix_ns - part.start_unix_ns) / 1e3,
    }
