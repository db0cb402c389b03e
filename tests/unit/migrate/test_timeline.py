"""The timeline of a move: parts from marks, gaps from the journal, clocks that disagree, and the three ways it is shown."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from itertools import pairwise
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from migrate.cli import timeline as shown
from migrate.records import Migration, Step
from migrate.timeline import timeline

pytestmark = pytest.mark.unit

MS = 10**6
BEGAN = 1_000_000 * MS
Marks = Sequence[tuple[str, float]]

# By the coordinator's clock, in milliseconds since the move began.
FREEZE: Marks = (("dump", 110), ("frozen", 120), ("dumped", 180), ("confirmed", 190))
RESTORE: Marks = (("restore", 205), ("created", 280), ("restored", 290))
RESUME: Marks = (("linked", 304), ("running", 306), ("announced", 308))


def _record(
    freeze: Marks = FREEZE, restore: Marks = RESTORE, resume: Marks = RESUME, source_ms: float = 0, target_ms: float = 0
) -> Migration:
    """`source_ms`, `target_ms`: how far that host's clock is ahead."""

    def marks(of: Marks, ahead_ms: float) -> Mapping[str, Any]:
        return {"marks": [{"name": name, "unix_ns": BEGAN + int((at + ahead_ms) * MS)} for name, at in of]}

    def row(step: str, event: str, at_ms: float, facts: Mapping[str, Any] | None = None) -> Step:
        unix_ns = BEGAN + int(at_ms * MS)
        return Step(migration_id="m", step=step, event=event, unix_ns=unix_ns, facts=facts or {}, error="")

    journal = (
        row("precheck", "started", 0),
        row("precheck", "done", 99),
        row("freeze", "started", 100),
        row("freeze", "done", 195, marks(freeze, source_ms)),
        row("restore", "started", 196),
        row("restore", "done", 298, marks(restore, target_ms)),
        row("saga", "committed", 300),
        row("resume", "started", 301),
        row("resume", "done", 310, marks((*restore, *resume), target_ms)),  # the monitor says all of its marks
        row("release", "started", 311),
        row("release", "done", 320, marks((("released", 315),), source_ms)),
    )
    return Migration(
        id="4f2a", container_id="c", container="web1", source="host1", target="host2", state="succeeded",
        step="release", reason="", mode="auto", started_unix_ns=BEGAN, finished_unix_ns=BEGAN + 320 * MS, epoch=1,
        failure=None, journal=journal, facts={}, sent_bytes={}, marks=(),
    )  # fmt: skip


def _parts(record: Migration) -> list[tuple[float, float, str, str]]:
    line = timeline(record)
    return [
        (
            (part.start_unix_ns - line.start_unix_ns) / MS,
            (part.end_unix_ns - part.start_unix_ns) / MS,
            part.who,
            part.name.partition(":")[0],
        )
        for part in line.parts
        if not part.gap
    ]


def test_a_part_ends_at_its_mark_and_begins_at_the_one_before() -> None:
    """Of the same host and call; marks that a later call says again count once."""
    assert _parts(_record()) == [
        (-10, 10, "source", "frozen"),
        (0, 60, "source", "dumped"),
        (60, 10, "source", "confirmed"),
        (75, 1, "coordinator", "journal, before restore"),
        (85, 75, "target", "created"),
        (160, 10, "target", "restored"),
        (178, 2, "coordinator", "pivot"),
        (180, 1, "coordinator", "journal, before resume"),
        (184, 2, "target", "running"),
        (186, 2, "target", "announced"),
        (190, 1, "coordinator", "journal, before release"),
    ]


def test_gaps_are_named_and_nothing_of_the_window_is_left_out() -> None:
    """Parts and gaps together cover the window; their sums are the window's length."""
    line = timeline(_record())
    assert (line.end_unix_ns - line.start_unix_ns) / MS == 188
    gaps = [part for part in line.parts if part.gap]
    assert [(part.who, (part.end_unix_ns - part.start_unix_ns) / MS) for part in gaps[:4]] == [
        ("coordinator > source", 10),
        ("source > coordinator", 5),
        ("coordinator > target", 9),
        ("target > coordinator", 8),
    ]
    assert all("host" in part.name for part in gaps)
    assert line.gaps_ns() / MS == 5 + 9 + 8 + 3
    assert [line.busy_ns(who) / MS for who in ("source", "target", "coordinator")] == [70, 89, 4]


def test_what_goes_on_at_once_is_shown_at_once() -> None:
    """A mark "begin NAME" says when NAME began, and does not cut the part beside it."""
    freeze = (("frozen", 120), ("begin layer", 121), ("layer", 150), ("dumped", 180), ("confirmed", 190))
    parts = _parts(_record(freeze=freeze))
    assert (1, 29, "source", "layer") in parts
    assert (0, 60, "source", "dumped") not in parts  # the part before "dumped" is the layer's end
    freeze = (("frozen", 120), ("begin layer", 121), ("dumped", 180), ("layer", 185), ("confirmed", 190))
    parts = _parts(_record(freeze=freeze))
    assert (1, 64, "source", "layer") in parts
    assert (0, 60, "source", "dumped") in parts


@pytest.mark.parametrize(("source_ms", "target_ms"), [(0, 5_000), (-7_200_000, 0), (300, -300)])
def test_clocks_that_cannot_be_right_are_shifted_and_named(source_ms: float, target_ms: float) -> None:
    """The window stays within what the coordinator's clock allows, whatever the hosts' say."""
    record = _record(source_ms=source_ms, target_ms=target_ms)
    line = timeline(record)
    began, ended = BEGAN + 100 * MS, BEGAN + 310 * MS
    assert began <= line.start_unix_ns < line.end_unix_ns <= ended
    for clock, ahead_ms in zip(line.clocks, (source_ms, target_ms), strict=True):
        assert clock.low_ns <= -ahead_ms * MS <= clock.high_ns  # the truth is within what is said
        assert ("agrees" in clock.text()) == (ahead_ms == 0)
    assert any("ahead" in clock.text() or "behind" in clock.text() for clock in line.clocks)


def test_a_clock_that_was_set_in_the_move_is_said() -> None:
    """No shift fits: the parts are shown, and that they cannot be trusted."""
    resume = tuple((name, at + 60_000) for name, at in RESUME)
    texts = [clock.text() for clock in timeline(_record(resume=resume)).clocks]
    assert "was set during the move" in texts[1]
    assert "agrees" in texts[0]


def test_a_move_that_never_froze_has_no_parts() -> None:
    """And is shown without a traceback in each format."""
    record = _record()
    cut = [row for row in record.journal if row.step == "precheck"]
    record = Migration(**{**vars(record), "journal": tuple(cut), "state": "failed"})
    assert timeline(record).parts == ()
    assert "no frozen window" in shown.text(record)
    assert json.loads(shown.as_json(record))["frozen_ms"] is None
    names = [event["name"] for event in json.loads(shown.as_chrome(record))["traceEvents"]]
    assert "precheck" in names
    assert "stands still" not in names


def test_text_has_a_line_a_part_and_the_sums() -> None:
    """Offset, length, whose and what; after the window nothing; then what was whose, and the clocks."""
    lines = shown.text(_record()).splitlines()
    assert lines[0] == "move 4f2a: web1 from host1 to host2, succeeded"
    dumped = next(line for line in lines if "dumped" in line)
    assert dumped.split()[:4] == ["0.0", "ms", "60.0", "ms"]
    assert dumped.split("|")[2].split()[0] == "source"
    assert not any("release" in line for line in lines)
    assert "stood still 188.0 ms" in lines[-3]
    assert "gaps 25.0 (13 %)" in lines[-3]
    assert lines[-1].strip().startswith("host2's clock agrees")


def test_the_chrome_trace_is_what_perfetto_reads() -> None:
    """Complete events with microseconds, each lane named; events of a thread nest or follow each other."""
    freeze = (("frozen", 120), ("begin layer", 121), ("dumped", 180), ("layer", 185), ("confirmed", 190))
    trace = json.loads(shown.as_chrome(_record(freeze=freeze)))
    events = [event for event in trace["traceEvents"] if event["ph"] == "X"]
    lanes = {event["pid"]: event["args"]["name"] for event in trace["traceEvents"] if event["name"] == "process_name"}
    assert set(lanes.values()) == {"coordinator", "source host1", "target host2", "web1"}
    still = next(event for event in events if event["name"] == "stands still")
    assert (still["ts"], still["dur"]) == (120_000, 188_000)
    by_thread: dict[tuple[int, int], list[tuple[float, float]]] = {}
    for event in events:
        by_thread.setdefault((event["pid"], event["tid"]), []).append((event["ts"], event["ts"] + event["dur"]))
    for stretches in by_thread.values():
        ordered = sorted(stretches)
        assert all(before[1] <= after[0] for before, after in pairwise(ordered))


@given(
    st.lists(st.tuples(st.sampled_from("abc"), st.booleans(), st.floats(121, 195)), max_size=8),
    st.floats(-1e6, 1e6),
    st.floats(-1e6, 1e6),
)
def test_any_marks_give_parts_that_fit(drawn: list[tuple[str, bool, float]], source: float, target: float) -> None:
    """Whatever names come in whatever order: no part is empty, and parts and gaps cover the window."""
    marks = (("frozen", 120.0), *((f"begin {name}" if begins else name, at) for name, begins, at in drawn))
    line = timeline(_record(freeze=marks, source_ms=source, target_ms=target))
    until = line.start_unix_ns
    for part in line.parts:
        assert part.end_unix_ns > part.start_unix_ns
        assert part.start_unix_ns <= until or part.start_unix_ns >= line.end_unix_ns or until < line.start_unix_ns
        until = max(until, part.end_unix_ns)
    assert until >= line.end_unix_ns
