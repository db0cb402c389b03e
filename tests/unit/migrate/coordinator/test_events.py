"""Feeds never hold up their writer; the record says what the journal says."""

from __future__ import annotations

import threading
import time
from typing import Any

import pytest

from migrate.coordinator import events
from migrate.coordinator.events import MOST_PROGRESS, Feed, Progress
from migrate.coordinator.store import MoveState
from migrate.saga.journal import SAGA, Entry, Event
from tests.fakes.coordinator import a_move

pytestmark = pytest.mark.unit

SECOND = 1_000_000_000


def line(number: int) -> Progress:
    return Progress(phase="precopy", text=str(number), done_bytes=0, total_bytes=0, facts={}, unix_ns=number)


def test_a_watcher_that_sleeps_loses_the_oldest_lines_and_holds_up_nobody() -> None:
    """Ten times more lines than it keeps: the writer is through at once, the last ones are there."""
    feed = Feed()
    watcher = feed.watch()
    began = time.monotonic()
    for number in range(10 * MOST_PROGRESS):
        feed.report(line(number))
    assert time.monotonic() - began < 1.0
    progress, ended = watcher.take()
    assert [p.text for p in progress] == [str(n) for n in range(9 * MOST_PROGRESS, 10 * MOST_PROGRESS)]
    assert not ended


def test_every_watcher_gets_every_line() -> None:
    """And one that has gone gets none and costs nothing."""
    feed = Feed()
    one, two, gone = feed.watch(), feed.watch(), feed.watch()
    gone.close()
    feed.report(line(1))
    assert [p.text for p in one.take()[0]] == ["1"]
    assert [p.text for p in two.take()[0]] == ["1"]
    assert not gone.pending


def test_a_watcher_waits_for_news_and_for_the_end() -> None:
    """The first take returns at once, the next when the journal has grown, the last when the feed has ended."""
    feed = Feed()
    watcher = feed.watch()
    assert watcher.take() == ([], False)
    for act, ended in ((feed.wake, False), (feed.end, True)):
        timer = threading.Timer(0.02, act)
        timer.start()
        assert watcher.take() == ([], ended)
        timer.join()


MOVE = a_move(state=MoveState.SUCCEEDED, started_unix_ns=100 * SECOND, finished_unix_ns=109 * SECOND)


def journal(skew_ns: int = 0) -> list[Entry]:
    """A move that froze after 5 s; the target's clock is ahead by `skew_ns`."""

    def marks(*pairs: tuple[str, float]) -> list[dict[str, Any]]:
        return [{"name": name, "unix_ns": int(seconds * SECOND)} for name, seconds in pairs]

    target = skew_ns / SECOND
    restored = marks(("frozen", 105.3 + target), ("restored", 105.4 + target))
    rows: list[tuple[str, Event, float, dict[str, Any]]] = [
        ("precopy", Event.STARTED, 101.0, {}),
        ("precopy", Event.DONE, 105.0, {}),
        ("freeze", Event.STARTED, 105.0, {}),
        (
            "freeze",
            Event.DONE,
            105.2,
            {"marks": marks(("dump", 105.01), ("frozen", 105.05), ("held", 105.1)), "sent_bytes": {"memory": 5}},
        ),
        ("restore", Event.STARTED, 105.2, {}),
        ("restore", Event.DONE, 105.4, {"marks": restored}),
        (SAGA, Event.COMMITTED, 105.41, {}),
        ("resume", Event.STARTED, 105.41, {}),
        (
            "resume",
            Event.DONE,
            105.5,
            {"marks": [*restored, *marks(("running", 105.45 + target), ("announced", 105.47 + target))]},
        ),
    ]
    return [
        Entry(seq=n, step=step, event=event, unix_ns=int(seconds * SECOND), data=data)
        for n, (step, event, seconds, data) in enumerate(rows, start=1)
    ]


def test_the_record_of_a_move() -> None:
    """Total, frozen and down times, bytes by kind, marks of both hosts in order and none twice."""
    record = events.record(MOVE, journal())
    assert record.facts == pytest.approx({"total_s": 9.0, "frozen_at_most_s": 0.5, "frozen_s": 0.4, "downtime_s": 0.42})
    assert record.sent_bytes == {"memory": 5}
    assert [(mark.host, mark.name) for mark in record.marks] == [
        ("host1", "dump"), ("host1", "frozen"), ("host1", "held"),
        ("host2", "frozen"), ("host2", "restored"), ("host2", "running"), ("host2", "announced"),
    ]  # fmt: skip
    assert record.step == "resume"
    assert [event.event for event in record.journal][-3:] == ["committed", "started", "done"]


@pytest.mark.parametrize("skew_ns", [-3600 * SECOND, -SECOND, SECOND, 3600 * SECOND])
def test_clocks_that_disagree_give_no_number(skew_ns: int) -> None:
    """Rather none than a wrong one; what the coordinator's own clock says is always there."""
    facts = events.record(MOVE, journal(skew_ns)).facts
    assert set(facts) == {"total_s", "frozen_at_most_s"}


def test_the_record_of_a_move_that_has_only_begun() -> None:
    """No times, no bytes, and the step that it is in."""
    record = events.record(MOVE, journal()[:1])
    assert (record.step, record.sent_bytes, record.marks) == ("precopy", {}, ())
    assert "frozen_s" not in record.facts


def test_a_list_has_no_journals() -> None:
    """They are long."""
    assert events.record(MOVE, journal(), with_journal=False).journal == ()


def test_a_row_with_an_error() -> None:
    """The message stands apart from the facts."""
    entry = Entry(seq=1, step="freeze", event=Event.FAILED, unix_ns=1, data={"error": {"message": "no"}, "n": 2})
    event = events.step_event(entry)
    assert (event.error, event.facts) == ("no", {"n": 2})
