"""When to stop sending ahead, and what then: a pure function of what the rounds were like. docs/precopy.md says it in words."""

from __future__ import annotations

import dataclasses
import enum
from collections.abc import Sequence
from dataclasses import dataclass

FIXED_S = 0.2  # what a freeze costs whatever the memory, where no earlier move has shown it
GAIN = 0.9  # a round that predicts more than this share of the best one so far has gained nothing
STALLED_ROUNDS = 2  # without a gain, until rounds are said to gain nothing
LULL_ROUNDS = 4  # more, in which one is waited for that is as good as the best
SMALL_S = 0.05  # of memory left: another round would not shorten the freeze by anything that matters
SENT_ENOUGH_BYTES = 4 << 20  # a round below this says little about how fast the link is
THROTTLE_SHARES = (0.8, 0.7, 0.6, 0.5, 0.4, 0.3, 0.2, 0.1)  # of the processor time that it used: QEMU's auto-converge


class Action(enum.StrEnum):
    GO_ON = "go on"
    THROTTLE = "throttle"
    FREEZE = "freeze"
    ABORT = "abort"


@dataclass(frozen=True, kw_only=True)
class Goal:
    """`binding`: who moves it has set the limit, and without it nothing is frozen; else 0.3 s is a wish. `timeout_s`: 0 = none.
    `pause`: at the end, freeze all the same instead of giving up; `postcopy`: the same, and let the rest follow when it runs on the
    target. `fixed_s`: of a freeze without memory.
    """

    max_downtime_s: float = 0.3
    binding: bool = False
    max_rounds: int = 30
    timeout_s: float = 0.0
    pause: bool = False
    postcopy: bool = False
    throttle: bool = False
    fixed_s: float = FIXED_S


@dataclass(frozen=True, kw_only=True)
class Round:
    """`page_bytes` of memory that were sent in `took_s` from the look on; they and the rest of `written_bytes`, which did not need to be
    sent, were written in the `interval_s` before the look. The first round is everything and has no interval. `unsent_bytes`: what the
    time did not suffice for. `still_s`: what of the look a freeze has to wait for. `share`: of its processor time the container had.
    """

    page_bytes: int
    took_s: float
    written_bytes: int = 0
    unsent_bytes: int = 0
    interval_s: float = 0.0
    still_s: float = 0.0
    share: float = 1.0

    @property
    def dirty_rate(self) -> float:
        """Bytes per second; 0 where it is not known."""
        return (
            max(self.written_bytes, self.page_bytes + self.unsent_bytes) / self.interval_s if self.interval_s else 0.0
        )


@dataclass(frozen=True, kw_only=True)
class Verdict:
    """`predicted_s`: of the downtime, if the freeze came now. `share`: of the next round, with THROTTLE. `rest_later`, with FREEZE: what is
    left would take too long, it follows when the container runs on the target.
    """

    action: Action
    why: str
    predicted_s: float
    share: float = 1.0
    rest_later: bool = False

    def __str__(self) -> str:
        return f"{self.action}: {self.why}" if self.why else str(self.action)


def judge(rounds: Sequence[Round], goal: Goal, *, elapsed_s: float) -> Verdict:
    """After each round; `rounds` is not empty. `elapsed_s`: since the first one began."""
    left_s = memory_left_s(rounds)
    predicted_s = goal.fixed_s + left_s
    limit_ms = f"{goal.max_downtime_s * 1000:.0f} ms"

    def say(action: Action, why: str = "", share: float = 1.0) -> Verdict:
        return Verdict(action=action, why=why, predicted_s=predicted_s, share=share)

    known = len(rounds) > 1
    if known and predicted_s <= goal.max_downtime_s:
        return say(Action.FREEZE, f"the rest fits {limit_ms}")
    if known and left_s <= SMALL_S:
        return say(Action.FREEZE, f"almost nothing is left; a freeze takes {goal.fixed_s:.2g} s whatever the memory")
    ended = _ended(rounds, goal, elapsed_s)
    if not ended:
        return say(Action.GO_ON)
    share = next((each for each in THROTTLE_SHARES if each < rounds[-1].share), 0.0)
    if goal.throttle and ended.startswith(_STALLED) and share:
        return say(Action.THROTTLE, f"{ended}; it gets {share:.0%} of its processor time", share)
    if not goal.binding and not ended.startswith(_TIMEOUT):
        return say(Action.FREEZE, ended)
    missed = f"{ended}, and what is left would stop it for {predicted_s:.2g} s, not {limit_ms}"
    if goal.postcopy:
        return dataclasses.replace(say(Action.FREEZE, f"{missed}: it follows later"), rest_later=True)
    return say(Action.FREEZE, ended) if goal.pause else say(Action.ABORT, missed)


def memory_left_s(rounds: Sequence[Round]) -> float:
    """How long a freeze would wait for memory: for what was written while the last round was sent. By bytes at the speed that was seen, or
    by the time that the last round needed for as much, whichever is more: pages that need not be sent after all are read, too.
    """
    last = rounds[-1]
    speed = _speed(rounds)
    if not speed:
        return last.still_s
    if len(rounds) == 1:
        return (last.page_bytes + last.unsent_bytes) / speed + last.still_s
    to_send = (last.page_bytes + last.unsent_bytes) / last.interval_s * last.took_s
    by_bytes_s = (to_send + last.unsent_bytes) / speed
    many = last.written_bytes >= SENT_ENOUGH_BYTES  # else the time is that of an empty round
    by_time_s = last.took_s * last.took_s / last.interval_s if many else 0.0
    return max(by_bytes_s, by_time_s) + last.still_s


_STALLED = "rounds gain nothing"
_TIMEOUT = "the time is up"


def _ended(rounds: Sequence[Round], goal: Goal, elapsed_s: float) -> str:
    """Why no further round is sent; "" while there is hope."""
    if goal.timeout_s and elapsed_s >= goal.timeout_s:
        return f"{_TIMEOUT} after {elapsed_s:.1f} s"
    if len(rounds) >= goal.max_rounds:
        return f"{len(rounds)} rounds"
    # Only since the container was throttled last: before, it was another one.
    begin = next((at for at in range(len(rounds), 0, -1) if rounds[at - 1].share != rounds[-1].share), 0)
    left = [memory_left_s(rounds[: at + 1]) for at in range(max(begin, 1), len(rounds))]
    best, since = float("inf"), 0
    for each in left:
        if each < GAIN * best:
            best, since = each, 0
        else:
            since += 1
    if (
        goal.throttle and rounds[-1].share > THROTTLE_SHARES[-1]
    ):  # once throttled, each step has one round to show a gain
        return _STALLED if since >= (STALLED_ROUNDS if rounds[-1].share == 1.0 else 1) else ""
    if since < STALLED_ROUNDS:
        return ""
    if goal.binding and goal.timeout_s:
        return ""  # there is time: it may become quieter
    if left[-1] * GAIN <= best:
        return f"{_STALLED} any more, and this one is about as good as the best"
    return f"{_STALLED} any more" if since >= STALLED_ROUNDS + LULL_ROUNDS else ""


def _speed(rounds: Sequence[Round]) -> float:
    """Bytes of pages per second, of the best of the last rounds that sent enough to tell, else of the largest."""
    telling = [each for each in rounds[-3:] if each.page_bytes >= SENT_ENOUGH_BYTES]
    telling = telling or [max(rounds, key=lambda each: each.page_bytes)]
    return max(each.page_bytes / max(each.took_s, 1e-6) for each in telling)
