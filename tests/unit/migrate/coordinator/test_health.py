"""What silence makes of a host, by a clock that only the test moves."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from migrate.coordinator import host_records
from migrate.coordinator.health import Heartbeats, Limits, judge
from migrate.coordinator.host_records import Health, Pulse
from migrate.coordinator.store import Host, Store
from migrate.errors import MigrateError, Unreachable
from protos import agent_pb2

pytestmark = pytest.mark.unit

LIMITS = Limits(interval_s=2.0, suspect_s=6.0, down_s=30.0)


class Pending:
    """An answer that the test gives."""

    def __init__(self) -> None:
        self.outcome: Any = None
        self._then: Callable[[], None] = lambda: None

    def when_done(self, callback: Callable[[], None]) -> None:
        self._then = callback

    def finish(self, outcome: Any) -> None:
        self.outcome = outcome
        self._then()

    def result(self) -> Any:
        if isinstance(self.outcome, Exception):
            raise self.outcome
        return self.outcome

    def cancel(self) -> None:
        pass


class Pool:
    """Every host's agent at once."""

    def __init__(self) -> None:
        self.asked: list[Pending] = []

    def agent(self, name: str) -> Pool:
        return self

    def begin(self, service: str, method: str, request: Any) -> Pending:
        assert (service, method) == ("Host", "Beat")
        self.asked.append(Pending())
        return self.asked[-1]


class Watch:
    def __init__(self, directory: Path) -> None:
        self.store = Store(directory / "db")
        self.store.put_host(Host(name="host1", address="10.0.0.1"))
        self.pool, self.now = Pool(), 1000.0
        self.beats = self.begin()

    def begin(self) -> Heartbeats:
        """A coordinator that starts."""
        self.pool.asked.clear()
        return Heartbeats(self.store, self.pool, LIMITS, clock=lambda: self.now)  # type: ignore[arg-type]

    def after(self, seconds: float) -> Pulse:
        """Look every two seconds, as the thread would."""
        end = self.now + seconds
        while self.now < end:
            self.now = min(self.now + LIMITS.interval_s, end)
            self.beats.look()
        return self.store.host("host1").pulse

    def answer(self, outcome: Any = None) -> Pulse:
        if not self.pool.asked or self.pool.asked[-1].outcome is not None:
            self.beats.look()
        self.pool.asked[-1].finish(agent_pb2.BeatResponse(boot_id="one") if outcome is None else outcome)
        self.beats.hear(0)
        return self.store.host("host1").pulse

    @property
    def told(self) -> list[str]:
        return [event.action for event in host_records.events(self.store.database)]


@pytest.fixture
def watch(tmp_path: Path) -> Iterator[Watch]:
    watch = Watch(tmp_path)
    yield watch
    watch.store.database.close()


@pytest.mark.parametrize(
    ("before", "silent_s", "after"),
    [
        (Health.UNKNOWN, 5.9, Health.UNKNOWN),
        (Health.UP, 5.9, Health.UP),
        (Health.UP, 6.0, Health.SUSPECT),
        (Health.SUSPECT, 1.0, Health.SUSPECT),
        (Health.SUSPECT, 30.0, Health.DOWN),
        (Health.DOWN, 0.0, Health.DOWN),
    ],
)
def test_silence_never_makes_a_host_better(before: Health, silent_s: float, after: Health) -> None:
    """Only an answer does."""
    assert judge(before, silent_s, LIMITS) is after


def test_up_suspect_down_and_up_again_with_times(watch: Watch) -> None:
    """Each change is in the store with its time and is an event; the reason is that of the last beat."""
    assert watch.store.host("host1").pulse.health is Health.UNKNOWN
    up = watch.answer()
    assert (up.health, up.seen_unix_ns, up.boot_id) == (Health.UP, 0, "one")
    assert up.since_unix_ns > 0
    watch.answer(Unreachable("no route"))
    assert watch.after(5).health is Health.UP
    suspect = watch.after(2)
    assert suspect.health is Health.SUSPECT
    assert suspect.error == "no route"
    assert up.since_unix_ns <= suspect.seen_unix_ns <= suspect.since_unix_ns
    assert watch.after(22).health is Health.SUSPECT
    down = watch.after(4)
    assert (down.health, down.seen_unix_ns) == (Health.DOWN, suspect.seen_unix_ns)
    assert watch.answer().health is Health.UP
    assert watch.told == ["up", "suspect", "down", "up"]


def test_one_question_at_a_time(watch: Watch) -> None:
    """A host that hangs is not asked again until that question is over."""
    watch.after(20)
    assert len(watch.pool.asked) == 1


def test_an_agent_that_does_not_know_heartbeats_is_up(watch: Watch) -> None:
    """It has answered."""
    assert watch.answer(MigrateError("unknown call", code="unsupported")).health is Health.UP


def test_another_boot_is_told(watch: Watch) -> None:
    """Even where it was quicker than the silence that is noticed."""
    watch.answer()
    watch.answer(agent_pb2.BeatResponse(boot_id="two"))
    assert watch.told == ["up", "rebooted"]


def test_what_a_coordinator_missed_is_no_silence(watch: Watch) -> None:
    """Neither while it did not run, nor while it stood still; and what it knew, the next one knows."""
    first = watch.answer()
    watch.now += 3600
    watch.beats.look()
    assert watch.store.host("host1").pulse == first
    watch.now += 3600
    watch.beats = watch.begin()
    watch.beats.look()
    assert watch.after(4).since_unix_ns == first.since_unix_ns
    assert watch.after(30).health is Health.DOWN
    watch.beats = watch.begin()
    assert watch.after(4).health is Health.DOWN
    assert watch.told == ["up", "suspect", "down"]


def test_a_host_that_has_left_is_forgotten(watch: Watch) -> None:
    """Its late answer changes nothing."""
    watch.beats.look()
    watch.store.remove_host("host1")
    watch.beats.look()
    watch.pool.asked[-1].finish(agent_pb2.BeatResponse())
    watch.beats.hear(0)
    assert watch.told == ["left"]


def test_patience_is_for_silence_too() -> None:
    """A slow host is given more of it."""
    assert LIMITS.times(10) == Limits(interval_s=2.0, suspect_s=60.0, down_s=300.0)
