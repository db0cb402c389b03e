"""The real runner of evacuations over fake hosts: the coordinator loses its power at any write or call, twice, and goes on.

The hosts are tests/fakes/agent.py, which notices two copies running and the death of the only one. The plan is a fixed one: what is tried
here is what a restart makes of it. tests/contract/test_fleet_evacuations.py has the real planner.
"""

from __future__ import annotations

import dataclasses
import shutil
import tempfile
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from migrate.coordinator import allocate
from migrate.coordinator.containers import FleetContainers
from migrate.coordinator.evacuation.records import EVACUATE, Evacuation, Evacuations, Item, ItemState, Options, State
from migrate.coordinator.evacuation.runner import EvacuationRunner
from migrate.coordinator.moves import MoveRunner, Patience
from migrate.coordinator.store import Host, MoveState, Store
from migrate.saga.saga import Interrupted
from tests.fakes import agent as fakes
from tests.fakes.agent import World
from tests.fakes.wire import Wire

pytestmark = pytest.mark.faults

QUICK = Patience(undo_limit_s=0.02, first_s=0.001, longest_s=0.004, ask_s=0.0)
NAMES = ("a", "b", "c")
CUTS = range(1, 100, 4)  # a life without a cut has some 110 instants; test_the_cuts_reach_the_end says so


class PowerCut(Interrupted):
    """The coordinator dies: none of its threads does anything more."""


class Power:
    """Goes off at instant `cut` of a life, for all threads; 0 = never."""

    def __init__(self, cut: int) -> None:
        self.cut, self.instants, self.off = cut, 0, threading.Event()
        self._lock = threading.Lock()

    def instant(self) -> None:
        with self._lock:
            self.instants += 1
            if self.instants == self.cut:
                self.off.set()
        if self.off.is_set():
            raise PowerCut


class CutEvacuations(Evacuations):
    """Instants before and after each write."""

    def __init__(self, store: Store, power: Power) -> None:
        super().__init__(store)
        self._power = power

    def write_plan(self, *arguments: Any) -> None:
        self._power.instant()
        super().write_plan(*arguments)
        self._power.instant()

    def write_item(self, *arguments: Any) -> None:
        self._power.instant()
        super().write_item(*arguments)
        self._power.instant()

    def finish(self, *arguments: Any) -> None:
        self._power.instant()
        super().finish(*arguments)


class FixedPlanner:
    """a and c to host2, b to host3; elsewhere is the other one."""

    def __init__(self, store: Store) -> None:
        self._store = store

    def items(self, evacuation: Evacuation) -> tuple[list[Item], float]:
        return [
            Item(
                container_id=one.id,
                container=one.name,
                action="live",
                state=ItemState.PLANNED,
                source=one.owner,
                target="host3" if one.name == "b" else "host2",
            )
            for one in self._store.containers(evacuation.host)
        ], 0.0

    def elsewhere(self, evacuation: Evacuation, item: Item) -> Item:
        return dataclasses.replace(item, target={"host2": "host3", "host3": "host2"}[item.target])


class Fleet:
    """Three hosts, three containers on host1, and a coordinator that lives again and again."""

    def __init__(self, directory: Path, fault: tuple[int, str] | None = None) -> None:
        self.directory = Path(tempfile.mkdtemp(dir=directory))
        shutil.copy(directory / "template.db", self.directory / "fleet.db")
        self.store = Store(self.directory / "fleet.db")
        self.world = World("host1", "host2", "host3")
        for name in NAMES:
            self.world.run("host1", self.store.container(name).id, name=name)
        self.wire = Wire(self.world, fault)

    def live(self, cut: int = 0) -> Power:
        """Recover, begin the evacuation if that was not done, and run until it has ended or the power is off."""
        power = Power(cut)
        self.wire.on_instant = lambda _n: power.instant()
        moves = MoveRunner(self.store, self.wire, self.wire, QUICK)
        records = CutEvacuations(self.store, power)
        containers = FleetContainers(self.store, self.wire)  # type: ignore[arg-type]  # nothing is stopped or started
        runner = EvacuationRunner(self.store, records, FixedPlanner(self.store), moves, containers)
        moves.recover()
        runner.recover()
        runner.start(EVACUATE, "host1", Options(max_parallel=2), request_id="once")
        while not power.off.wait(0.005) and records.newest(active=True):
            pass
        runner.shutdown(60.0)
        moves.shutdown(60.0)
        self.wire.on_instant = lambda _n: None
        return power

    def check(self) -> None:
        """Every container is where the plan or its retry says, once, running; the record says the same."""
        (evacuation,) = Evacuations(self.store).newest()
        assert evacuation.state is State.SUCCEEDED
        assert not self.world.violations, self.world.violations
        for item in Evacuations(self.store).items(evacuation.id):
            assert item.state is ItemState.MOVED, (item.state, item.why, item.error)
            container = self.store.container(item.container_id)
            assert container.owner == item.target
            assert container.epoch == 2  # it has moved once
            assert self.world.states(container.id) == {item.target: "running"}
        assert sum(one.state is MoveState.SUCCEEDED for one in self.store.migrations()) == len(NAMES)
        cordon = self.store.host("host1").cordon
        assert cordon is not None

    def close(self) -> None:
        self.store.database.close()
        shutil.rmtree(self.directory)


@pytest.fixture(scope="module")
def directory() -> Iterator[Path]:
    """Memory, where there is some: many databases, each with its fsyncs."""
    shm = Path("/dev/shm")
    path = Path(tempfile.mkdtemp(prefix="hevac-", dir=shm if shm.is_dir() else None))
    store = Store(path / "template.db")
    for name in ("host1", "host2", "host3"):
        store.put_host(Host(name=name, address=fakes.address(name)))
    for name in NAMES:
        allocate.create(store, owner="host1", name=name, make_spec=lambda _allocation: "{}")
    store.database.close()
    yield path
    shutil.rmtree(path)


def test_the_cuts_reach_the_end(directory: Path) -> None:
    """Without a cut it succeeds, in at least as many instants as the last cut."""
    fleet = Fleet(directory)
    power = fleet.live()
    fleet.check()
    assert power.instants > CUTS[-1]
    fleet.close()


@pytest.mark.parametrize("cut", CUTS)
def test_a_coordinator_that_dies_twice_loses_nothing_and_moves_nothing_twice(directory: Path, cut: int) -> None:
    """The first life ends at `cut`, the second a little after it has begun, the third has all the time there is."""
    fleet = Fleet(directory)
    assert fleet.live(cut).off.is_set()
    fleet.live(1 + cut % 23)
    fleet.live()
    fleet.check()
    fleet.close()


@pytest.mark.parametrize("call", range(5, 65, 12))
@pytest.mark.parametrize("kind", ["refused", "reply lost"])
def test_a_call_that_fails_costs_a_try_and_no_container(directory: Path, call: int, kind: str) -> None:
    """Any call of any move, with a death in between."""
    fleet = Fleet(directory, fault=(call, kind))
    fleet.live(call)
    fleet.live()
    fleet.check()
    fleet.close()
