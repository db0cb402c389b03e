"""One lab for all tests of real moves: two hosts, up for the whole tier."""

from __future__ import annotations

import os
from collections.abc import Iterator

import pytest

from tests.criu.moving_lab import MovingLab, moving_lab


@pytest.fixture(scope="package")
def fleet() -> Iterator[MovingLab]:
    with moving_lab(f"tmove{os.getpid()}") as made:
        yield made
        made.empty()
        assert made.left() == [], "left behind by the tests of this lab"
