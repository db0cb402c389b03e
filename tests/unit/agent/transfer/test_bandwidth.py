"""The token bucket, on a clock of its own."""

from __future__ import annotations

import threading

import pytest

from agent.transfer.bandwidth import PIECE_BYTES, Bandwidth

pytestmark = pytest.mark.unit


class Clock:
    """Time passes only while somebody waits."""

    def __init__(self) -> None:
        self.now = 0.0

    def __call__(self) -> float:
        return self.now


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> Clock:
    made = Clock()

    def wait(_condition: threading.Condition, timeout: float | None = None) -> bool:
        assert timeout is not None
        made.now += timeout
        return True

    monkeypatch.setattr(threading.Condition, "wait", wait)
    return made


@pytest.mark.parametrize("rate", [64 << 10, 1 << 20, 100 << 20])
def test_the_rate_is_kept(clock: Clock, rate: int) -> None:
    """Ten seconds' worth takes ten seconds, less one burst at the beginning."""
    bandwidth = Bandwidth(rate, clock=clock)
    for _ in range(10 * rate // PIECE_BYTES):
        bandwidth.take(PIECE_BYTES)
    assert 10 - max(PIECE_BYTES / rate, 0.06) <= clock.now <= 10.1


def test_it_changes_while_it_runs(clock: Clock) -> None:
    bandwidth = Bandwidth(1 << 20, clock=clock)
    for _ in range(16):
        bandwidth.take(PIECE_BYTES)
    slow = clock.now
    bandwidth.set(16 << 20)
    for _ in range(16):
        bandwidth.take(PIECE_BYTES)
    assert clock.now - slow < slow / 8


def test_no_limit_and_nothing_saved_up(clock: Clock) -> None:
    """0 never waits; an idle hour allows no more than a moment's burst."""
    bandwidth = Bandwidth(0, clock=clock)
    for _ in range(1000):
        bandwidth.take(PIECE_BYTES)
    assert clock.now == 0
    bandwidth.set(1 << 20)
    clock.now += 3600
    for _ in range(17):
        bandwidth.take(PIECE_BYTES)
    assert clock.now - 3600 >= 0.9


def test_who_waits_hears_of_a_change() -> None:
    """With the real clock: an hour of waiting ends when the limit goes."""
    bandwidth = Bandwidth(16)
    done = threading.Event()
    thread = threading.Thread(target=lambda: (bandwidth.take(PIECE_BYTES), done.set()), daemon=True)
    thread.start()
    assert not done.wait(0.1)
    bandwidth.set(0)
    assert done.wait(10)
