"""The calls of one move take turns, and Finish interrupts what is being worked on."""

from __future__ import annotations

import threading
import time

import pytest

from agent.errors import WrongState
from agent.handover.turns import Turns

pytestmark = pytest.mark.unit


class Working:
    """A call that works until it is interrupted, in a thread of its own."""

    def __init__(self, turns: Turns, move: str, name: str = "Precopy") -> None:
        self.began, self.interrupted = threading.Event(), threading.Event()
        self.returned = False
        self._thread = threading.Thread(target=self._run, args=(turns, move, name), daemon=True)
        self._thread.start()
        assert self.began.wait(5)

    def _run(self, turns: Turns, move: str, name: str) -> None:
        with turns.call(move, name):
            self.began.set()
            self.interrupted.wait(5)
            time.sleep(0.1)
            self.returned = True

    def join(self) -> None:
        self.interrupted.set()
        self._thread.join(5)


def test_finish_interrupts_and_acts_after_the_call_has_returned() -> None:
    """It is told which call it meets, and has the move to itself once that call is over."""
    turns = Turns()
    working = Working(turns, "m1")
    met: list[str] = []

    def interrupt(call: str) -> None:
        met.append(call)
        working.interrupted.set()

    with turns.finish("m1"), turns.quiet("m1", interrupt):
        assert working.returned
    assert set(met) == {"Precopy"}


def test_a_call_that_does_not_end_is_not_waited_for_without_end() -> None:
    """Then Finish fails, naming it, and may be tried again."""
    turns = Turns()
    working = Working(turns, "m1")
    with pytest.raises(WrongState, match="Precopy"), turns.finish("m1"), turns.quiet("m1", limit_s=0.1):
        pass
    working.join()
    with turns.finish("m1"), turns.quiet("m1", limit_s=0.1):
        pass


def test_another_move_is_not_held_up() -> None:
    """One lock a move."""
    turns = Turns()
    working = Working(turns, "m1")
    with turns.call("m2", "Precopy"), turns.finish("m2x"), turns.quiet("m2x"):
        pass
    working.join()


def test_a_repeated_finish_waits_for_the_first() -> None:
    """So that it finds what the first has done."""
    turns = Turns()
    order: list[str] = []

    def second() -> None:
        with turns.finish("m1"):
            order.append("second")

    with turns.finish("m1"):
        thread = threading.Thread(target=second, daemon=True)
        thread.start()
        time.sleep(0.05)
        order.append("first")
    thread.join(5)
    assert order == ["first", "second"]


def test_nothing_is_kept_of_moves_that_nobody_works_on() -> None:
    """An agent that runs for years meets many."""
    turns = Turns()
    for number in range(3):
        with turns.call(f"m{number}", "Accept"), turns.finish(f"m{number}"):
            pass
    assert turns._turns == {}
