"""Rehearsals: the coordinator killed at every instant, any call failing; the container stays what and where it is."""

from __future__ import annotations

import dataclasses
import shutil
from pathlib import Path

import pytest

from migrate.coordinator.moves import MoveRunner
from migrate.coordinator.store import MoveState, Store
from migrate.errors import NotFound
from tests.fakes.wire import KINDS
from tests.faults.test_saga_moves import ORDER, QUICK, Fleet, power_cut

pytestmark = pytest.mark.faults


class RehearsingFleet(Fleet):
    """Its move is a rehearsal."""

    def __init__(self, directory: Path, fault: tuple[int, str] | None = None) -> None:
        super().__init__(directory, fault)
        self.order = dataclasses.replace(ORDER, rehearsal=True)

    def new_runner(self) -> MoveRunner:
        """One call fails, and eight steps are undone before it is tried again: on a busy machine that takes a while."""
        return MoveRunner(self.store, self.wire, self.wire, dataclasses.replace(QUICK, undo_limit_s=5.0))

    def check(self) -> MoveState:
        """The source runs it, at its old epoch; the target has nothing of it, nor of its image."""
        move, container = self.move(), self.store.container("web1")
        assert not self.world.violations, self.world.violations
        assert move.state in (MoveState.REHEARSED, MoveState.FAILED, MoveState.CANCELLED), (move.state, move.error)
        assert (container.owner, container.epoch) == ("host1", 1)
        assert self.world.states(container.id) == {"host1": "running"}, (move.state, move.error)
        assert not self.world.agents["host2"].layers
        assert (move.error is None) == (move.state is MoveState.REHEARSED)
        return move.state


def test_a_rehearsal_without_faults_and_late_calls(directory: Path) -> None:
    """Every call repeated afterwards is refused, or answers as before."""
    fleet = RehearsingFleet(directory)
    fleet.start()
    fleet.late_calls_change_nothing()
    assert fleet.check() is MoveState.REHEARSED
    fleet.close()


@pytest.mark.parametrize("kind", ["none", *KINDS])
def test_coordinator_killed_at_every_instant_while_any_call_fails(directory: Path, kind: str) -> None:
    """Two or three instants of each fault's life, others for each call; every one where nothing fails."""
    fleet = RehearsingFleet(directory)
    fleet.start()
    calls = fleet.wire.calls
    fleet.close()
    ends = set()
    for call in range(1, calls + 1) if kind != "none" else (0,):
        fault = (call, kind) if call else None
        instants, ended = _killed(directory, fault, None)
        ends.add(ended)
        for crash in range(1 + call % 25, instants + 1, 25 if call else 1):
            ends.add(_killed(directory, fault, crash)[1])
    assert {MoveState.REHEARSED, MoveState.FAILED} <= ends


def _killed(directory: Path, fault: tuple[int, str] | None, crash: int | None) -> tuple[int, MoveState]:
    """(instants of the first life, what became of it)."""
    fleet = RehearsingFleet(directory, fault)
    fleet.start({crash: power_cut} if crash else None)
    instants = fleet.wire.instants
    fleet.recover()
    if fault and fault[1] in ("late", "again later"):
        fleet.late_calls_change_nothing()
    try:
        return instants, fleet.check()
    except AssertionError as exc:
        raise AssertionError(f"{fault}, crash at {crash}: {exc}") from exc
    finally:
        fleet.close()


def test_a_coordinator_that_comes_back_with_an_old_database(directory: Path) -> None:
    """What runs on the target is not taken for the container: `migrate repair web1` throws it away."""
    fleet = RehearsingFleet(directory)
    fleet.start()
    length = fleet.wire.instants
    fleet.close()
    taken_up = 0
    for when in range(1, length + 1):
        fleet = RehearsingFleet(directory)
        fleet.start({when: power_cut})
        fleet.store.database.close()
        shutil.copy(directory / "template.db", fleet.directory / "old.db")
        fleet.store = Store(fleet.directory / "old.db")

        def repair(runner: MoveRunner, fleet: Fleet = fleet) -> None:
            try:
                migration_id = runner.known("web1")
            except NotFound:  # no host has heard of it
                assert fleet.world.states(fleet.container.id) == {"host1": "running"}
                return
            for _ in runner.repair(migration_id):
                pass

        fleet.live(repair)
        if fleet.store.migrations():
            assert fleet.check() is MoveState.FAILED
            taken_up += 1
        fleet.close()
    assert taken_up > length // 2


def test_hosts_that_reboot_at_every_instant(directory: Path) -> None:
    """The target's: the container does not notice. The source's: it dies with its host, and its copy is thrown away all the same."""
    fleet = RehearsingFleet(directory)
    fleet.start()
    length = fleet.wire.instants
    fleet.close()
    for host in ("host1", "host2"):
        for when in range(1, length + 1):
            fleet = RehearsingFleet(directory)
            fleet.start({when: fleet.world.agents[host].reboot})
            fleet.recover()
            states = fleet.world.states(fleet.container.id)
            assert not fleet.world.violations, (host, when, fleet.world.violations)
            assert states == {"host1": "running" if host == "host2" else "exited"}, (host, when, states, fleet.move())
            fleet.close()
