"""The benchmark's table: what a median is taken of, and what a figure that nobody has looks like."""

from __future__ import annotations

import pytest

from bench import table
from bench.table import HAND, Sample

pytestmark = pytest.mark.unit

OURS = "auto"


def test_spread_is_of_those_that_have_the_figure() -> None:
    """A sample without the figure does not count, neither as zero nor as a number of its own."""
    samples = [Sample(gap_s=0.3, cpu_s=5.0), Sample(gap_s=0.1), Sample(gap_s=0.2, cpu_s=7.0)]
    assert table.spread(samples, "gap_s") == table.Spread(median=0.2, low=0.1, high=0.3)
    assert table.spread(samples, "cpu_s") == table.Spread(median=6.0, low=5.0, high=7.0)
    assert table.spread(samples, "frozen_s") is None


def test_ratio_is_ours_over_by_hand() -> None:
    """Below 1: better than by hand, whatever a third column says."""
    samples = {OURS: [Sample(gap_s=0.1)], HAND: [Sample(gap_s=0.4)], table.PEER: [Sample(gap_s=9.0)]}
    assert table.ratio(samples, "gap_s") == pytest.approx(0.25)


@pytest.mark.parametrize("hand", [[], [Sample(gap_s=1.0)], [Sample(gap_s=1.0, cpu_s=0.0)]])
def test_no_ratio_of_what_is_not_known(hand: list[Sample]) -> None:
    """Nothing measured, the figure missing, or nothing to divide by."""
    assert table.ratio({OURS: [Sample(gap_s=1.0, cpu_s=1.0)], HAND: hand}, "cpu_s") is None


def test_table_shows_units_and_missing_figures() -> None:
    """Seconds become the row's unit; a figure that is not known is a dash, not a zero."""
    samples = {OURS: [Sample(gap_s=0.25, wire_bytes=2e6)], HAND: [Sample(gap_s=0.5)]}
    rows = {line.split("  ")[0]: line.split() for line in table.lines("10 MB", samples)}
    assert rows["client's longest gap"][-6:] == ["ms", "250", "(250-250)", "500", "(500-500)", "0.50"]
    assert rows["on the wire"][-5:] == ["MB", "2.0", "(2.0-2.0)", "-", "-"]
    assert "frozen" not in rows  # a row that nobody has


def test_what_failed_is_below_the_table_and_not_in_it() -> None:
    """A failed move counts for no median; why precopy ended is said once."""
    samples = {OURS: [Sample(gap_s=0.2, note="it fits"), Sample(gap_s=0.4, note="it fits"), Sample(error="no room")]}
    lines = table.lines("10 MB", samples)
    assert "auto (2)" in lines[0]
    assert lines[-2:] == ["auto: it fits", "auto FAILED: no room"]
    assert "300 (200-400)" in lines[1]
