"""When rounds end, and what then."""

from __future__ import annotations

import pytest

from agent.memory.policy import SMALL_S, THROTTLE_SHARES, Action, Goal, Round, Verdict, judge, memory_left_s

pytestmark = pytest.mark.unit

MB = 1_000_000


def play(
    memory: float, dirty_per_s: float, speed: float, goal: Goal, *, hungry: bool = True
) -> tuple[list[Round], Verdict]:
    """Rounds of a container that writes `dirty_per_s` bytes/s at random, over a link of `speed` bytes/s. `hungry`: it writes in
    proportion to the processor time that it gets.
    """
    rounds: list[Round] = []
    to_send, interval_s, elapsed_s, share = memory, 0.0, 0.0, 1.0
    while True:
        took_s = to_send / speed + 0.01
        rounds.append(Round(page_bytes=int(to_send), took_s=took_s, interval_s=interval_s, share=share))
        elapsed_s += took_s
        verdict = judge(rounds, goal, elapsed_s=elapsed_s)
        assert len(rounds) <= 200, "it never ends"
        if verdict.action not in (Action.GO_ON, Action.THROTTLE):
            return rounds, verdict
        to_send, interval_s = min(memory, dirty_per_s * took_s * (share if hungry else 1.0)), took_s
        share = verdict.share if verdict.action is Action.THROTTLE else share


def test_an_idle_container_needs_two_rounds() -> None:
    """One that writes almost nothing is frozen after the second round."""
    rounds, verdict = play(200 * MB, 0.1 * MB, 400 * MB, Goal())
    assert len(rounds) == 2
    assert (verdict.action, verdict.predicted_s < 0.3) == (Action.FREEZE, True)


def test_a_busy_one_converges() -> None:
    """Rounds shrink until the rest fits the downtime wanted."""
    rounds, verdict = play(1000 * MB, 100 * MB, 400 * MB, Goal(binding=True))
    assert 2 < len(rounds) < 10
    assert "fits 300 ms" in verdict.why


def test_one_round_is_never_enough() -> None:
    """After a first round nothing is known of the dirty rate, whatever the size."""
    assert judge([Round(page_bytes=10, took_s=0.001)], Goal(max_downtime_s=1.0), elapsed_s=0.1).action is Action.GO_ON


@pytest.mark.parametrize(
    ("goal", "action"),
    [
        (Goal(), Action.FREEZE),
        (Goal(binding=True), Action.ABORT),
        (Goal(binding=True, pause=True), Action.FREEZE),
        (Goal(pause=True), Action.FREEZE),
    ],
)
def test_one_that_writes_faster_than_the_link(goal: Goal, action: Action) -> None:
    """It is noticed in a few rounds; a wish gives way, a limit does not unless its user wants it to."""
    rounds, verdict = play(1000 * MB, 800 * MB, 400 * MB, goal)
    assert len(rounds) <= 6
    assert (verdict.action, "gain nothing" in verdict.why) == (action, True)


def test_a_limit_below_what_a_freeze_costs_without_memory() -> None:
    """No round can meet it, so it is not what decides: with almost nothing left there is nothing to wait for."""
    rounds, verdict = play(200 * MB, 0.1 * MB, 400 * MB, Goal(binding=True, max_downtime_s=0.1, fixed_s=0.4))
    assert len(rounds) == 2
    assert verdict.action is Action.FREEZE
    assert "0.4 s whatever the memory" in verdict.why
    assert play(1000 * MB, 800 * MB, 400 * MB, Goal(binding=True, max_downtime_s=0.1, fixed_s=0.4))[1].action is (
        Action.ABORT
    )


@pytest.mark.parametrize(("pause", "action"), [(False, Action.ABORT), (True, Action.FREEZE)])
def test_the_time_is_up(pause: bool, action: Action) -> None:
    """With time given it is used, in the hope of a lull; then a wish too ends as its user wants."""
    goal = Goal(timeout_s=30.0, binding=True, pause=pause)
    rounds, verdict = play(1000 * MB, 800 * MB, 400 * MB, goal)
    assert sum(each.took_s for each in rounds) >= 30
    assert verdict.action is action
    assert "the time is up after 3" in verdict.why
    assert judge(rounds[:1], Goal(timeout_s=1.0), elapsed_s=2.5).action is Action.ABORT


def test_the_rest_follows_later_only_where_it_would_take_too_long() -> None:
    """Post-copy at the end: of time, of hope; not where the limit is met."""
    goal = Goal(timeout_s=30.0, binding=True, postcopy=True)
    _, verdict = play(1000 * MB, 800 * MB, 400 * MB, goal)
    assert (verdict.action, verdict.rest_later) == (Action.FREEZE, True)
    assert verdict.why.endswith("it follows later")
    _, verdict = play(1000 * MB, 20 * MB, 400 * MB, goal)
    assert (verdict.action, verdict.rest_later) == (Action.FREEZE, False)
    assert not play(1000 * MB, 800 * MB, 400 * MB, Goal(postcopy=True))[1].rest_later  # 0.3 s are only a wish


def test_the_limit_of_rounds() -> None:
    """A slow but steady gain ends at the number of rounds allowed."""
    rounds, verdict = play(1000 * MB, 340 * MB, 400 * MB, Goal(max_downtime_s=0.21, max_rounds=5))
    assert (len(rounds), verdict.why) == (5, "5 rounds")


def test_throttled_until_it_fits() -> None:
    """Where rounds gain nothing the container gets less in steps, each a tenth, and only then it is frozen within its limit."""
    rounds, verdict = play(1000 * MB, 600 * MB, 400 * MB, Goal(binding=True, throttle=True))
    shares = list(dict.fromkeys(each.share for each in rounds))
    assert shares[:3] == [1.0, *THROTTLE_SHARES[:2]]
    assert shares == sorted(shares, reverse=True)
    assert (verdict.action, "fits" in verdict.why) == (Action.FREEZE, True)


def test_throttled_in_vain() -> None:
    """One that does not need the processor to write: after the last step it ends as without."""
    rounds, verdict = play(
        1000 * MB, 800 * MB, 400 * MB, Goal(binding=True, throttle=True, max_rounds=99), hungry=False
    )
    assert rounds[-1].share == THROTTLE_SHARES[-1]
    assert verdict.action is Action.ABORT


def test_a_round_that_is_much_worse_than_the_best_is_not_the_last() -> None:
    """Near a local minimum: after a burst it waits for rounds as before, but not for ever."""
    calm = [Round(page_bytes=400 * MB, took_s=1.0), Round(page_bytes=60 * MB, took_s=0.2, interval_s=0.2)]
    bursts = [Round(page_bytes=300 * MB, took_s=0.8, interval_s=0.2)] * 3
    assert judge([*calm, *bursts[:2]], Goal(), elapsed_s=3.0).action is Action.GO_ON
    quiet = Round(page_bytes=61 * MB, took_s=0.2, interval_s=0.2)
    verdict = judge([*calm, *bursts[:2], quiet], Goal(), elapsed_s=3.0)
    assert (verdict.action, "as good as the best" in verdict.why) == (Action.FREEZE, True)
    assert judge([*calm, *bursts * 3], Goal(), elapsed_s=9.0).action is Action.FREEZE


def test_pages_that_need_not_be_sent_take_their_time() -> None:
    """Written with what was there: read all the same. Of a round without them the time says nothing."""
    first = Round(page_bytes=400 * MB, took_s=1.0)
    read = Round(page_bytes=0, written_bytes=100 * MB, took_s=0.2, interval_s=0.4)
    assert memory_left_s([first, read]) == pytest.approx(0.1)
    assert memory_left_s([first, Round(page_bytes=0, took_s=0.2, interval_s=0.2)]) == 0.0


def test_what_a_freeze_waits_for() -> None:
    """What was written since the last look, what the time did not suffice for, and the look itself."""
    first = Round(page_bytes=400 * MB, took_s=1.0)
    last = Round(page_bytes=40 * MB, unsent_bytes=8 * MB, took_s=0.2, interval_s=1.0, still_s=0.03)
    assert memory_left_s([first, last]) == pytest.approx((48 * 0.2 + 8) / 400 + 0.03)
    assert memory_left_s([first]) == pytest.approx(1.0)
    assert memory_left_s([Round(page_bytes=0, took_s=0.0)]) <= SMALL_S
