"""When to stop sending ahead and freeze: a pure function of what the rounds were like."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

FIXED_S = 0.2  # what a freeze costs whatever the memory: CRIU's dump and restore of a small container
NO_GAIN = 0.9  # a round that leaves more than this share of the one before gains nothing worth its time
SMALL_BYTES = 1 << 20  # less than this is not worth another round


@dataclass(frozen=True, kw_only=True)
class Round:
    """`sent_bytes` of memory in `took_s`; the first round is everything."""

    sent_bytes: int
    took_s: float


@dataclass(frozen=True, kw_only=True)
class Verdict:
    """`predicted_s`: of the freeze, if it came now."""

    freeze: bool
    why: str
    predicted_s: float


def judge(rounds: Sequence[Round], *, max_downtime_s: float, max_rounds: int) -> Verdict:
    """After each round. `rounds` is not empty.

    What was written during a round is what the next one has to send; before that is known, the best guess is the last
    round's own size scaled by how much longer or shorter the next would take.
    """
    last = rounds[-1]
    rate = sum(r.sent_bytes for r in rounds) / max(sum(r.took_s for r in rounds), 1e-6)
    left = _left(rounds)
    predicted_s = FIXED_S + (left / rate if rate else 0.0)
    if len(rounds) > 1 and last.sent_bytes <= SMALL_BYTES:
        return Verdict(freeze=True, why="almost nothing is left", predicted_s=predicted_s)
    if len(rounds) > 1 and predicted_s <= max_downtime_s:
        return Verdict(freeze=True, why=f"the rest fits {max_downtime_s * 1000:.0f} ms", predicted_s=predicted_s)
    if len(rounds) > 2 and last.sent_bytes > NO_GAIN * rounds[-2].sent_bytes:
        return Verdict(freeze=True, why="rounds gain nothing any more", predicted_s=predicted_s)
    if len(rounds) >= max_rounds:
        return Verdict(freeze=True, why=f"{max_rounds} rounds", predicted_s=predicted_s)
    return Verdict(freeze=False, why="", predicted_s=predicted_s)


def _left(rounds: Sequence[Round]) -> float:
    """Bytes written while the last round was sent."""
    if len(rounds) == 1:
        return float(rounds[0].sent_bytes)  # nothing is known yet
    before, last = rounds[-2], rounds[-1]
    dirty_rate = last.sent_bytes / max(
        before.took_s, 1e-6
    )  # the last round sent what was written during the one before
    return dirty_rate * last.took_s
