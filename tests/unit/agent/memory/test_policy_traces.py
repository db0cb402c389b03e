"""The policy over what real programs wrote, as `python -m bench.dirty_trace` recorded it: what was foretold is what would have come."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pytest
from numpy.typing import NDArray

from agent.memory.policy import Action, Goal, Round, Verdict, judge

pytestmark = pytest.mark.unit

TRACES = sorted((Path(__file__).parent / "traces").glob("*.npz"))
ROUND_S = 0.01  # of a round without a page
MB = 1_000_000


@dataclass
class Trace:
    """`written`: shape (ticks, granules). It goes on from its beginning at its end."""

    written: NDArray[np.bool_]
    tick_s: float
    granule_bytes: int

    @classmethod
    def load(cls, path: Path) -> Trace:
        with np.load(path) as file:
            written = np.unpackbits(file["written"], axis=1, count=int(file["granules"])).astype(np.bool_)
            return cls(written, float(file["tick_s"]), int(file["granule_bytes"]))

    def dirty_bytes(self, begin_s: float, end_s: float) -> int:
        """Distinct memory that is written from `begin_s` to `end_s`."""
        first, last = int(begin_s / self.tick_s), max(int(end_s / self.tick_s), int(begin_s / self.tick_s) + 1)
        ticks = np.arange(first, min(last, first + len(self.written))) % len(self.written)
        return int(self.written[ticks].any(axis=0).sum()) * self.granule_bytes

    @property
    def memory_bytes(self) -> int:
        return self.written.shape[1] * self.granule_bytes


@dataclass
class Played:
    rounds: list[Round]
    verdict: Verdict
    downtime_s: float  # that the freeze would have had


def play(trace: Trace, speed: float, goal: Goal) -> Played:
    """`speed`: bytes per second. Throttled, the program's own clock goes slower."""
    rounds: list[Round] = []
    to_send, interval_s, share = trace.memory_bytes, 0.0, 1.0
    now_s = own_s = 0.0
    while True:
        took_s = to_send / speed + ROUND_S
        rounds.append(Round(page_bytes=to_send, took_s=took_s, interval_s=interval_s, share=share))
        now_s += took_s
        to_send = trace.dirty_bytes(own_s, own_s + took_s * share)
        own_s, interval_s = own_s + took_s * share, took_s
        verdict = judge(rounds, goal, elapsed_s=now_s)
        assert len(rounds) <= goal.max_rounds
        if verdict.action not in (Action.GO_ON, Action.THROTTLE):
            return Played(rounds, verdict, goal.fixed_s + to_send / speed)
        share = verdict.share if verdict.action is Action.THROTTLE else share


@pytest.mark.parametrize("path", TRACES, ids=lambda path: path.stem)
@pytest.mark.parametrize("speed_mb_s", [20, 60, 250, 1000])
@pytest.mark.parametrize("fixed_s", [0.05, 0.2, 0.4])
def test_within_the_limit_or_not_at_all(path: Path, speed_mb_s: int, fixed_s: float) -> None:
    """A limit is kept but for what one tick of the recording holds, or the move is given up; the limit is the freeze's own cost where
    that is more.
    """
    trace = Trace.load(path)
    speed = speed_mb_s * 1e6
    goal = Goal(binding=True, fixed_s=fixed_s)
    played = play(trace, speed, goal)
    tick_s = (
        max(trace.dirty_bytes(at * trace.tick_s, (at + 1) * trace.tick_s) for at in range(len(trace.written))) / speed
    )
    if played.verdict.action is Action.FREEZE:
        assert played.downtime_s <= max(goal.max_downtime_s, fixed_s + 0.05) + tick_s
    else:
        assert played.verdict.action is Action.ABORT
        assert played.verdict.predicted_s > goal.max_downtime_s


@pytest.mark.parametrize("path", TRACES, ids=lambda path: path.stem)
@pytest.mark.parametrize("speed_mb_s", [20, 60, 250, 1000])
def test_a_wish_ends_near_the_best_that_was_to_be_had(path: Path, speed_mb_s: int) -> None:
    """Frozen always, after few rounds, and not much later than a freeze after any earlier round would have been."""
    trace = Trace.load(path)
    speed = speed_mb_s * 1e6
    played = play(trace, speed, Goal())
    assert played.verdict.action is Action.FREEZE
    assert len(played.rounds) <= 12
    stop_and_copy_s = Goal().fixed_s + trace.memory_bytes / speed
    assert played.downtime_s <= stop_and_copy_s + 1e-6
    sizes = [each.page_bytes for each in played.rounds[1:]]
    assert played.downtime_s <= max(Goal().max_downtime_s, 0.25 + 1.5 * max(sizes) / speed) + trace.tick_s


@pytest.mark.parametrize("path", TRACES, ids=lambda path: path.stem)
def test_a_throttle_never_does_harm(path: Path) -> None:
    """Given up without, it may be frozen within the limit with it; never the other way round."""
    trace = Trace.load(path)
    for speed in (20e6, 60e6, 250e6):
        without = play(trace, speed, Goal(binding=True))
        throttled = play(trace, speed, Goal(binding=True, throttle=True, max_rounds=99))
        if without.verdict.action is Action.FREEZE:
            assert throttled.verdict.action is Action.FREEZE


def test_the_traces_tell_different_stories() -> None:
    """Some fit, some do not, some only when throttled: else the tests above would prove little."""
    goals = {"plain": Goal(binding=True), "throttled": Goal(binding=True, throttle=True, max_rounds=99)}
    ends = {
        (path.stem, name, speed): play(Trace.load(path), speed, goal).verdict.action
        for path in TRACES
        for name, goal in goals.items()
        for speed in (20e6, 60e6, 250e6)
    }
    assert len(TRACES) == 5
    assert set(ends.values()) == {Action.FREEZE, Action.ABORT}
    saved = [key for key, end in ends.items() if key[1] == "plain" and end is Action.ABORT
             and ends[key[0], "throttled", key[2]] is Action.FREEZE]  # fmt: skip
    assert saved
