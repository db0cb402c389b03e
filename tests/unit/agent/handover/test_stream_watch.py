"""When a target gives up a restore that waits for memory from the source: by what it sees of its receiver and of its filler."""

from __future__ import annotations

import threading

import pytest

from agent.handover.stream_watch import STILL_S, StreamWatch

pytestmark = pytest.mark.unit


class Stream:
    """What the watch looks at."""

    def __init__(self) -> None:
        self.alive, self.count, self.lacks, self.now = True, 0, True, 100.0
        self.given_up = threading.Event()

    def watch(self) -> StreamWatch:
        return StreamWatch(
            receives=lambda: self.alive,
            received=self._received,
            missing=lambda: self.lacks,
            give_up=self.given_up.set,
            clock=lambda: self.now,
        )

    def _received(self) -> int:
        if self.count < 0:
            raise OSError("not counted")
        return self.count


def test_a_stream_that_ended_is_given_up_only_where_something_is_missing() -> None:
    """All may have come before it ended."""
    stream = Stream()
    watch = stream.watch()
    assert watch.look() == ""
    stream.alive = False
    assert watch.look() == "the stream has ended"
    stream.lacks = False
    assert watch.look() == ""


def test_a_stream_that_stands_still_is_given_up_after_a_while() -> None:
    """Not one that brings a little now and then, and not one that has brought all."""
    stream = Stream()
    watch = stream.watch()
    for _ in range(5):
        stream.now += STILL_S * 0.9
        stream.count += 1
        assert watch.look() == ""
    stream.now += STILL_S
    stream.lacks = False
    assert watch.look() == ""
    stream.lacks = True
    assert watch.look() == ""  # it begins anew
    stream.now += STILL_S
    assert watch.look() == f"the stream has stood still for {STILL_S:.0f} s"


def test_a_kernel_that_does_not_count_leaves_only_the_end_to_see() -> None:
    """Then a stream that stands still ends with ssh."""
    stream = Stream()
    watch = stream.watch()
    stream.count, stream.now = -1, stream.now + 10 * STILL_S
    assert watch.look() == ""
    stream.alive = False
    assert watch.look() == "the stream has ended"


def test_it_gives_up_once_and_says_why() -> None:
    """Beside the restore, which ends by that."""
    stream = Stream()
    stream.alive = False
    with stream.watch() as watch:
        assert stream.given_up.wait(10)
    assert watch.why == "the stream has ended"


def test_a_restore_that_ends_by_itself_is_not_given_up() -> None:
    """Whatever happens to the stream afterwards."""
    stream = Stream()
    with stream.watch() as watch:
        pass
    stream.alive = False
    assert not watch.why
    assert not stream.given_up.is_set()
