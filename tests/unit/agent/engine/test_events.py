"""A host's events: numbered, remembered beyond a restart, followed."""

from __future__ import annotations

import threading
from pathlib import Path

import pytest

from agent.engine import events
from agent.engine.events import EventLog

pytestmark = pytest.mark.unit


def test_a_restarted_agent_remembers_and_counts_on(tmp_path: Path) -> None:
    """Also after a line that a crash has cut: only that one is lost."""
    path = tmp_path / "events.jsonl"
    log = EventLog(path)
    for action in ("create", "start"):
        log.publish("container", action, "a" * 32, "web1", {"image": "base"})
    with path.open("a") as file:
        file.write('{"type": "contai')
    again = EventLog(path)
    again.publish("container", "die", "a" * 32, "web1", {"exitCode": "3"})
    assert [(one.sequence, one.action) for one in EventLog(path).read()] == [(1, "create"), (2, "start"), (3, "die")]


def test_the_file_is_bounded(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """It never has more than twice as many lines as are kept, and the newest are kept."""
    monkeypatch.setattr(events, "KEPT", 10)
    path = tmp_path / "events.jsonl"
    log = EventLog(path)
    log._events = events.deque(maxlen=10)
    for number in range(55):
        log.publish("container", str(number), "", "")
        assert len(path.read_text().splitlines()) <= 20
    assert [one.action for one in log.read()] == [str(number) for number in range(45, 55)]


def test_following_sees_what_comes(tmp_path: Path) -> None:
    """From a number on, until nobody wants more."""
    log = EventLog(tmp_path / "events.jsonl")
    log.publish("container", "create", "", "web1")
    wanted = threading.Event()
    wanted.set()
    seen: list[str] = []

    def follow() -> None:
        for event in log.read(after=1, follow=True, wanted=wanted.is_set):
            seen.append(event.action)
            wanted.clear()

    reader = threading.Thread(target=follow)
    reader.start()
    log.publish("container", "start", "", "web1")
    reader.join(10)
    assert seen == ["start"]


def test_what_happened_while_nobody_watched(tmp_path: Path) -> None:
    """`lacks` only says so where the log reaches back that far."""
    log = EventLog(tmp_path / "events.jsonl")
    assert not log.lacks("x", "die", 1)
    log.publish("container", "start", "x", "web1")
    (start,) = log.read()
    assert log.lacks("x", "die", start.unix_ns)
    log.publish("container", "die", "x", "web1")
    assert not log.lacks("x", "die", start.unix_ns)
