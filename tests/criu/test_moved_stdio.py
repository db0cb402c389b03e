"""The stdio of a container that has moved belongs to its user there too."""

from __future__ import annotations

import os
import time
from collections.abc import Iterator

import pytest

from migrate.lab.layout import Lab
from tests.contract.move_by_hand import MoveByHand
from tests.contract.real_pair import RealPair, real_lab

pytestmark = pytest.mark.criu


@pytest.fixture(scope="module")
def lab() -> Iterator[Lab]:
    with real_lab(f"tstdio{os.getpid()}") as made:
        yield made


@pytest.mark.parametrize("tty", [False, True], ids=["pipes", "terminal"])
def test_a_program_without_privileges_opens_its_stdout_again_after_the_move(lab: Lab, tty: bool) -> None:
    """It does so for each line, so its log grows only if that is allowed."""
    pair = RealPair(lab)
    try:
        move = MoveByHand(pair, pair.run_container(user="1000:1000", tty=tty))
        time.sleep(0.3)
        assert b"tick" in pair.logs(0, move.container_id)
        move.up_to("restore")
        move.commit()
        before = pair.logs(1, move.container_id)
        deadline = time.monotonic() + 10
        while (after := pair.logs(1, move.container_id)).count(b"tick") <= before.count(b"tick") + 3:
            assert time.monotonic() < deadline, after[-200:]
            time.sleep(0.1)
        assert b"ermission" not in after
    finally:
        pair.close()
