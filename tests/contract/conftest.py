"""The pairs of agents that the contract of an agent is tested on: `PAIRS`, and a lab with nothing faked."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from migrate.lab.layout import Lab
from tests.contract.move_by_hand import FakePair, FakePairOverGrpc, Pair
from tests.contract.real_pair import RealPair, real_lab

REAL = "real"
PAIRS: dict[str, Callable[[Path], Pair]] = {"fake": FakePair, "fake over gRPC": FakePairOverGrpc}


@pytest.fixture(scope="package")
def lab() -> Iterator[Lab]:
    with real_lab(f"tpair{os.getpid()}") as made:
        yield made


# Without a mark a test here is of the tier `contract`.
@pytest.fixture(params=[*PAIRS, pytest.param(REAL, marks=pytest.mark.criu)])
def migration_pair(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Pair]:
    if request.param == REAL:
        pair: Pair = RealPair(request.getfixturevalue("lab"))
    else:
        pair = PAIRS[request.param](tmp_path)
    yield pair
    pair.close()
