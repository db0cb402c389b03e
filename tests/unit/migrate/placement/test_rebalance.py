"""Which containers change places so that hosts are evenly full."""

from __future__ import annotations

import pytest

from migrate.placement.model import HostState, Need
from migrate.placement.rebalance import plan

pytestmark = pytest.mark.unit

GIB = 1 << 30


def host(name: str, free_gib: int, **more: object) -> HostState:
    usual = {"memory_bytes": 100 * GIB, "memory_free_bytes": free_gib * GIB, "disk_free_bytes": 1000 * GIB}
    return HostState(name=name, **{**usual, **more})  # type: ignore[arg-type]


def need(name: str, gib: int, source: str = "full", **more: object) -> Need:
    return Need(container_id=name, name=name, source=source, memory_bytes=gib * GIB, **more)  # type: ignore[arg-type]


def test_the_move_that_helps_most_comes_first_and_it_ends_within_the_threshold() -> None:
    """A container that only swaps which host is full stays."""
    found = plan(
        [need("huge", 85), need("right", 35), need("small", 5)],
        [host("full", 10), host("empty", 90)],
        threshold=0.05,
        most=10,
    )
    assert [(one.need.name, one.target) for one in found.shifts] == [("right", "empty"), ("small", "empty")]
    assert found.before == pytest.approx({"full": 0.9, "empty": 0.1})
    assert found.after == pytest.approx({"full": 0.5, "empty": 0.5})


def test_even_hosts_are_left_alone() -> None:
    """Within the threshold nothing moves; nor past the limit of moves."""
    hosts = [host("full", 40), host("empty", 55)]
    assert plan([need("a", 5)], hosts, threshold=0.2, most=10).shifts == ()
    many = [need(f"c{n}", 5) for n in range(10)]
    assert len(plan(many, [host("full", 10), host("empty", 90)], threshold=0.1, most=3).shifts) == 3


def test_hosts_that_take_nothing_take_nothing() -> None:
    """Neither cordoned nor silent nor blocked ones, and they do not count as empty."""
    hosts = [
        host("full", 10),
        host("cordoned", 90, cordon=""),
        host("silent", 90, silence="no answer"),
        host("other", 80),
    ]
    found = plan([need("a", 30, blockers={"other": ("no CRIU",)})], hosts, threshold=0.2, most=10)
    assert found.shifts == () and set(found.before) == {"full", "other"}
    assert plan([], [], threshold=0.2, most=10).shifts == ()
