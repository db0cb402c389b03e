"""A fleet of fake hosts; the pairs of agents that the contract of an agent is tested on, `PAIRS`; a lab with nothing faked."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from migrate.lab.layout import Lab
from tests.contract.move_by_hand import FakePair, FakePairOverGrpc, Pair
from tests.contract.real_pair import RealPair, real_lab
from tests.contract.terminals import Terminal
from tests.fakes.fleet import FakeFleet

REAL = "real"
PAIRS: dict[str, Callable[[Path], Pair]] = {"fake": FakePair, "fake over gRPC": FakePairOverGrpc}


@pytest.fixture
def fleet(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[FakeFleet]:
    """Its hosts have the image `base`; the command line finds its coordinator."""
    yield from _fleet(FakeFleet(tmp_path), monkeypatch)


@pytest.fixture
def three(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[FakeFleet]:
    """The same, with three hosts."""
    yield from _fleet(FakeFleet(tmp_path, "host1", "host2", "host3"), monkeypatch)


def _fleet(made: FakeFleet, monkeypatch: pytest.MonkeyPatch) -> Iterator[FakeFleet]:
    for host in made.hosts.values():
        host.add_image("base", cmd=["serve"])
    monkeypatch.setenv("MIGRATE_COORDINATOR", str(made.socket))
    yield made
    made.close()


@pytest.fixture
def terminals() -> Iterator[list[Terminal]]:
    opened: list[Terminal] = []
    yield opened
    for terminal in opened:
        terminal.close()


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
