"""When precopy ends."""

from __future__ import annotations

import pytest

from agent.memory.policy import Round, Verdict, judge

pytestmark = pytest.mark.unit

MB = 1_000_000


def play(
    memory: float, dirty_per_s: float, rate: float, max_downtime_s: float = 0.3, max_rounds: int = 10
) -> tuple[list[Round], Verdict]:
    """Rounds of a container that writes `dirty_per_s` bytes/s at random, over a link of `rate` bytes/s."""
    rounds: list[Round] = []
    to_send = memory
    while True:
        took = to_send / rate
        rounds.append(Round(sent_bytes=int(to_send), took_s=took))
        verdict = judge(rounds, max_downtime_s=max_downtime_s, max_rounds=max_rounds)
        if verdict.freeze:
            return rounds, verdict
        to_send = min(memory, dirty_per_s * took)


def test_an_idle_container_needs_two_rounds() -> None:
    """One that writes almost nothing is frozen after the second round."""
    rounds, verdict = play(200 * MB, 0.1 * MB, 400 * MB)
    assert len(rounds) == 2
    assert verdict.predicted_s < 0.3


def test_a_busy_one_converges() -> None:
    """Rounds shrink until the rest fits the downtime wanted."""
    rounds, verdict = play(1000 * MB, 100 * MB, 400 * MB)
    assert 2 < len(rounds) < 10
    assert "fits" in verdict.why


def test_one_that_writes_faster_than_the_link() -> None:
    """It is noticed that rounds gain nothing, long before the limit of rounds."""
    rounds, verdict = play(1000 * MB, 800 * MB, 400 * MB)
    assert len(rounds) <= 4
    assert "gain nothing" in verdict.why


def test_the_limit_of_rounds() -> None:
    """A slow but steady gain ends at the number of rounds allowed."""
    rounds, verdict = play(1000 * MB, 340 * MB, 400 * MB, max_downtime_s=0.21, max_rounds=5)
    assert len(rounds) == 5
    assert "5 rounds" in verdict.why


def test_one_round_is_never_enough() -> None:
    """After a first round nothing is known of the dirty rate, whatever the size."""
    assert not judge([Round(sent_bytes=10, took_s=0.001)], max_downtime_s=1.0, max_rounds=10).freeze
