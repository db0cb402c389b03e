"""What earlier moves say of the next freeze."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import pytest

from migrate.coordinator.learned import LEAST_S, bytes_per_s, fixed_s, steps_s

pytestmark = pytest.mark.unit


def record(downtime_s: float, memory_pages: int, rounds: list[dict[str, float]] | None = None) -> Any:
    """Of a move; `rounds` None: it sent none ahead."""
    done = {
        "freeze": {"memory_pages": memory_pages},
        **({"precopy": {"each_round": rounds}} if rounds is not None else {}),
    }
    journal = tuple(SimpleNamespace(step=step, event="done", facts=facts) for step, facts in done.items())
    return SimpleNamespace(facts={"downtime_s": downtime_s}, journal=journal)


ROUNDS = [{"pages": 50_000.0, "took_s": 1.0}, {"pages": 10.0, "took_s": 0.1}]


def test_without_what_its_memory_took() -> None:
    """At the speed of the largest round; the median of several."""
    assert fixed_s([record(0.5, 10_000, ROUNDS)]) == pytest.approx(0.3)
    three = [record(0.5, 10_000, ROUNDS), record(0.25, 0, ROUNDS), record(9.0, 0, ROUNDS)]
    assert fixed_s(three) == pytest.approx(0.3)


def test_those_that_say_nothing() -> None:
    """Stop-and-copy, clocks that disagree, none at all: not known; and never nothing where it is."""
    assert fixed_s([]) == 0.0
    assert fixed_s([record(0.5, 10_000), record(0.0, 0, ROUNDS)]) == 0.0
    assert fixed_s([record(0.1, 10_000, ROUNDS)]) == LEAST_S


def test_the_speed_of_their_rounds() -> None:
    """Of the largest round of each; the median."""
    assert bytes_per_s([record(0.5, 10_000, ROUNDS)]) == 50_000 * 4096
    slow = record(0.5, 10_000, [{"pages": 1000.0, "took_s": 1.0}])
    assert bytes_per_s([slow, slow, record(0.5, 0, ROUNDS)]) == 1000 * 4096
    assert bytes_per_s([record(0.5, 10_000)]) == 0.0


def test_what_takes_time_and_sends_nothing() -> None:
    """All of a move but its layers and its rounds."""
    at_s = {"layers": (1, 4), "precopy": (4, 9), "freeze": (9, 10)}
    journal = tuple(
        SimpleNamespace(step=step, event=event, facts={}, unix_ns=int(seconds * 1e9))
        for step, span in at_s.items()
        for event, seconds in zip(("started", "done"), span, strict=True)
    )
    assert steps_s([SimpleNamespace(facts={"total_s": 12.0}, journal=journal)]) == pytest.approx(4.0)  # type: ignore[list-item]
    assert steps_s([SimpleNamespace(facts={}, journal=journal)]) == 0.0  # type: ignore[list-item]
