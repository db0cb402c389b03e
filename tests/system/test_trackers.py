"""Dirty trackers on a real program whose memory does all that memory can do, while rounds run: no page is ever missed."""

from __future__ import annotations

import os

import pytest

from bench import trackers

pytestmark = pytest.mark.system

CASES = 8


@pytest.mark.timeout(180)
@pytest.mark.parametrize(
    "way",
    [
        pytest.param("userfaultfd", marks=pytest.mark.needs("userfaultfd-wp")),
        pytest.param("soft-dirty", marks=pytest.mark.needs("soft-dirty")),
        "shadow",
    ],
)
def test_every_page_is_as_the_frozen_task_has_it(way: str, capsys: pytest.CaptureFixture[str]) -> None:
    """And some had been sent ahead, or the trackers would only say that all is dirty."""
    seed = int.from_bytes(os.urandom(4), "little")
    statistics = trackers.Statistics()
    for number in range(CASES):
        trackers.case(way, seed + number, statistics)
    with capsys.disabled():
        print(f"\n{way}, seed {seed}: {statistics}")
    assert statistics.wrong == []
    assert statistics.pages > 0
    assert statistics.ahead > 0
    assert statistics.withheld > 0
