"""The shadow: what was sent against what is there, in this process's own memory."""

from __future__ import annotations

import mmap
import os
from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
import pytest
from numpy.typing import NDArray

from agent.memory.ranges import PAGE, intersect, ranges
from agent.memory.shadow import ShadowTracker

pytestmark = pytest.mark.unit

PAGES = 600


@dataclass
class Area:
    """Some memory of this process, all of it populated."""

    words: NDArray[np.uint64]
    tracker: ShadowTracker

    @property
    def start(self) -> int:
        return int(self.words.ctypes.data)

    def written(self) -> set[int]:
        """Numbers of the area's pages that the tracker calls written."""
        look = self.tracker.look()
        found = intersect(look.written, ranges([(self.start, self.start + PAGES * PAGE)])).tolist()
        return {(at - self.start) // PAGE for first, end in found for at in range(first, end, PAGE)}

    def send(self, *pages: int) -> None:
        for page in pages:
            at = np.array([self.start + page * PAGE], np.uint64)
            self.tracker.sent(at, self.words[page * 512 : (page + 1) * 512])

    def write(self, page: int, value: int) -> None:
        self.words[page * 512 + 100] = value


@pytest.fixture
def area() -> Iterator[Area]:
    memory = mmap.mmap(-1, PAGES * PAGE, flags=mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS)
    words = np.frombuffer(memory, np.uint64)
    words[::512] = 1
    tracker = ShadowTracker.watch(os.getpid())
    yield Area(words, tracker)
    tracker.close()


def test_first_all_then_nothing_then_what_differs(area: Area) -> None:
    """Every populated page is written until it is sent; then it is when its content is another one."""
    assert area.written() == set(range(PAGES))
    area.send(*range(PAGES))
    assert area.written() == set()
    area.write(7, 5)
    area.write(599, 5)
    assert area.written() == {7, 599}
    area.write(7, 0)
    assert area.written() == {599}


def test_a_page_is_compared_with_what_was_sent_not_with_what_was_seen(area: Area) -> None:
    """Written after the look, sent so, and then as it was at the look: the target has another version."""
    area.send(*range(PAGES))
    area.written()
    area.write(3, 8)
    area.send(3)
    area.write(3, 0)
    assert area.written() == {3}


def test_of_two_versions_the_later_counts(area: Area) -> None:
    """Also when both were sent between two looks."""
    area.send(*range(PAGES))
    area.write(5, 1)
    area.send(5)
    area.write(5, 2)
    area.send(5)
    assert area.written() == set()
    area.write(5, 1)
    assert area.written() == {5}
