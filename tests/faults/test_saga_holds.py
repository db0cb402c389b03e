"""Moves that hold until somebody commits them, and undo: the coordinator killed at every instant, any call failing."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from pathlib import Path

import pytest

from migrate.coordinator.store import MoveState, PrecopyOptions
from migrate.errors import MigrateError, NotFound, Unreachable, WrongState
from migrate.saga.journal import SAGA, Event, Journal
from tests.fakes.wire import KINDS
from tests.faults.test_saga_moves import ORDER, Fleet, power_cut

pytestmark = pytest.mark.faults

HELD = dataclasses.replace(ORDER, precopy=PrecopyOptions(hold=True))
LONG = 200  # an instant at which it would still hold, if nobody said a word


class HoldingFleet(Fleet):
    """Its move holds. `commit` and `cancel` are what people say meanwhile; what is refused is in `refusals`."""

    def __init__(self, directory: Path, fault: tuple[int, str] | None = None) -> None:
        super().__init__(directory, fault)
        self.refusals: list[str] = []
        self.cancelled = ""

    def start(self, at: dict[int, Callable[[], None]] | None = None) -> None:
        self.live(lambda runner: runner.start(HELD), at)

    def commit(self) -> None:
        try:
            self.runner.commit(self.move().id)
        except MigrateError as exc:
            self.refusals.append(exc.message)

    def cancel(self) -> None:
        self.cancelled = self.runner.cancel(self.move().id).text

    def journal(self) -> Journal:
        return Journal(self.store.database, self.move().id)

    @property
    def holds(self) -> bool:
        journal = self.journal()
        return journal.has("hold", Event.STARTED) and not journal.has("hold", Event.DONE)


@pytest.fixture(scope="module")
def ready_at(directory: Path) -> int:
    """The instant at which the move of a fleet without faults begins to hold."""
    fleet = HoldingFleet(directory)
    found: list[int] = []

    def look() -> None:
        if not found and fleet.holds:
            found.append(fleet.wire.instants)
            fleet.commit()

    fleet.start(dict.fromkeys(range(1, LONG), look))
    assert fleet.check() is MoveState.SUCCEEDED
    fleet.close()
    return found[0]


def test_it_holds_with_everything_ready_and_the_container_running(directory: Path, ready_at: int) -> None:
    """Nothing is frozen, however long it takes, until somebody commits it; then it switches over."""
    fleet = HoldingFleet(directory)
    seen: list[dict[str, str]] = []

    def look() -> None:
        seen.append(fleet.world.states(fleet.container.id))

    fleet.start({**dict.fromkeys(range(ready_at, LONG), look), LONG: fleet.commit})
    assert len(seen) == LONG - ready_at
    assert all(states == {"host1": "running", "host2": "arriving"} for states in seen)
    assert fleet.check() is MoveState.SUCCEEDED
    assert fleet.refusals == []
    fleet.close()


@pytest.mark.parametrize("when", ["long before", "just before", "while it holds"])
def test_coordinator_killed_at_every_instant(directory: Path, ready_at: int, when: str) -> None:
    """What was committed before the crash needs no second word; what was not waits for one. Always the target ends up running it."""
    commit_at = {"long before": 3, "just before": ready_at - 1, "while it holds": ready_at + 4}[when]
    for crash in range(1, ready_at + 30):
        fleet = HoldingFleet(directory)
        plan: dict[int, Callable[[], None]] = {commit_at: fleet.commit}

        def both(fleet: HoldingFleet = fleet) -> None:
            fleet.commit()
            power_cut()

        plan[crash] = both if crash == commit_at else power_cut
        fleet.start(plan)
        told = fleet.journal().has(SAGA, Event.COMMIT_REQUESTED)
        assert told == (crash >= commit_at) or fleet.move().state is MoveState.SUCCEEDED
        fleet.recover({} if told else {20: fleet.commit})
        assert fleet.check() is MoveState.SUCCEEDED, (crash, fleet.move())
        fleet.late_calls_change_nothing()
        fleet.close()


@pytest.mark.parametrize("kind", KINDS)
def test_any_call_fails_while_it_holds(directory: Path, ready_at: int, kind: str) -> None:
    """Also the one that tells the source to switch over: a word that did not arrive is told again."""
    fleet = HoldingFleet(directory)
    fleet.start({ready_at + 2: fleet.commit})
    calls = fleet.wire.calls
    fleet.close()
    ends = set()
    for call in range(1, calls + 1):
        fleet = HoldingFleet(directory, (call, kind))
        fleet.start({ready_at + 2: fleet.commit, ready_at + 40: fleet.commit})
        ends.add(fleet.check())
        fleet.late_calls_change_nothing()
        fleet.close()
    assert MoveState.SUCCEEDED in ends


def test_cancelled_at_every_instant_while_it_holds(directory: Path, ready_at: int) -> None:
    """Before or after it was committed: accepted, and it ends on the source; or too late, and it said so."""
    ends = set()
    for first in (None, ready_at + 1):
        for when in range(1, ready_at + 22):
            fleet = HoldingFleet(directory)
            plan = {when: fleet.cancel}
            if first and first != when:
                plan[first] = fleet.commit
            fleet.start({**plan, LONG: fleet.commit})
            end = fleet.check()
            too_late = not fleet.cancelled or "too late" in fleet.cancelled  # or it had ended by then
            assert end is (MoveState.SUCCEEDED if too_late else MoveState.CANCELLED), (first, when)
            ends.add(end)
            fleet.close()
    assert ends == {MoveState.SUCCEEDED, MoveState.CANCELLED}


def test_only_a_move_that_holds_can_be_committed(directory: Path) -> None:
    """One that does not, and one that is over, say so."""
    fleet = HoldingFleet(directory)
    refused: list[str] = []

    def commit() -> None:
        with pytest.raises(WrongState) as caught:
            fleet.runner.commit(fleet.move().id)
        refused.append(caught.value.message)

    fleet.live(lambda runner: runner.start(ORDER), {5: commit})
    assert "does not hold" in refused[0]
    with pytest.raises(WrongState, match="has ended, succeeded"):
        fleet.runner.commit(fleet.move().id)
    fleet.close()


# ---------------------------------------------------------------- undo


def test_undo_brings_it_back(directory: Path) -> None:
    """A move of its own, which says what it is; said once more there is nothing left to undo."""
    fleet = HoldingFleet(directory)
    fleet.live(lambda runner: runner.start(ORDER))
    first = fleet.move()
    fleet.live(lambda runner: runner.undo(first.id))
    assert fleet.world.states(fleet.container.id) == {"host1": "running"}
    assert not fleet.world.violations
    back = next(move for move in fleet.store.migrations() if move.id != first.id)
    assert (back.source, back.target, back.reason) == ("host2", "host1", f"undo of {first.id}")
    with pytest.raises(WrongState, match="has moved since"):
        fleet.runner.undo(first.id)
    fleet.close()


def test_undo_of_what_did_not_happen_is_refused(directory: Path) -> None:
    """A cancelled move, one under way, one whose container is gone."""
    fleet = HoldingFleet(directory)
    under_way: list[str] = []

    def undo() -> None:
        with pytest.raises(WrongState) as caught:
            fleet.runner.undo(fleet.move().id)
        under_way.append(f"{caught.value.message} {caught.value.hint}")

    fleet.start({6: undo, 8: fleet.cancel})
    assert "is not over" in under_way[0]
    assert "migrate cancel" in under_way[0]
    with pytest.raises(WrongState, match="stayed on host1"):
        fleet.runner.undo(fleet.move().id)
    fleet.live(lambda runner: runner.start(dataclasses.replace(ORDER, request_id="again")))
    moved = next(move for move in fleet.store.migrations() if move.state is MoveState.SUCCEEDED)
    fleet.store.remove_container(fleet.container.id)
    with pytest.raises(NotFound, match="removed"):
        fleet.runner.undo(moved.id)
    fleet.close()


def test_undo_without_the_target_is_refused(directory: Path) -> None:
    """What ran there is nowhere else, and nothing is touched; when the host is back, it goes."""
    fleet = HoldingFleet(directory)
    fleet.live(lambda runner: runner.start(ORDER))
    moved = fleet.move()
    fleet.wire.unreachable.add("host2")
    with pytest.raises(Unreachable, match="no images that could run"):
        fleet.runner.undo(moved.id)
    assert len(fleet.store.migrations()) == 1
    fleet.wire.unreachable.clear()
    fleet.live(lambda runner: runner.undo(moved.id))
    assert fleet.world.states(fleet.container.id) == {"host1": "running"}
    fleet.close()
