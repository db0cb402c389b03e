"""The real steps and the real runner over two fake hosts: the coordinator killed at every instant, any call failing.

The agents are tests/fakes/agent.py, which notices two copies running, a copy of the past running, and the death of the
only copy. See tests/faults/test_saga_crashes.py for the saga by itself.
"""

from __future__ import annotations

import dataclasses
import re
import shutil
import tempfile
import threading
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from migrate.coordinator import migration, steps
from migrate.coordinator.moves import MoveRunner, Patience
from migrate.coordinator.orders import MoveOrder
from migrate.coordinator.store import Migration, MoveState, Store
from migrate.errors import MigrateError, NeedsAttention, NotFound
from migrate.saga.saga import Interrupted
from tests.fakes import agent as fakes
from tests.fakes.agent import World
from tests.fakes.wire import KINDS, LATER, Wire

pytestmark = pytest.mark.faults

QUICK = Patience(undo_limit_s=0.02, first_s=0.001, longest_s=0.004, ask_s=0.0)
ORDER = MoveOrder(container="web1", to="host2", request_id="once")
MODES = ("auto", steps.POSTCOPY)
REPEATED = ("twice", "again later")


class PowerCut(Interrupted):
    """The coordinator dies: its thread does nothing more, not even undo."""


class Fleet:
    """Two hosts, one container, and a coordinator that can be started again and again."""

    def __init__(self, directory: Path, fault: tuple[int, str] | None = None, *, mode: str = "auto") -> None:
        self.order = dataclasses.replace(ORDER, mode=mode)
        self.directory = Path(tempfile.mkdtemp(dir=directory))
        shutil.copy(directory / "template.db", self.directory / "fleet.db")
        self.store = Store(self.directory / "fleet.db")
        self.container = self.store.container("web1")
        self.world = World("host1", "host2")
        self.world.run("host1", self.container.id)
        self.wire = Wire(self.world, fault)
        self.runner = self.new_runner()

    def new_runner(self) -> MoveRunner:
        return MoveRunner(self.store, self.wire, self.wire, QUICK)

    def live(self, what: Callable[[MoveRunner], object], at: dict[int, Callable[[], None]] | None = None) -> None:
        """One life of the coordinator, to its end; `at`: what happens at which instant of it."""
        planned = at or {}
        base = self.wire.instants
        self.wire.on_instant = lambda n: planned.get(n - base, lambda: None)()
        self.runner = self.new_runner()
        what(self.runner)
        for thread in threading.enumerate():
            if thread.name.startswith("move-"):
                thread.join()
        self.wire.on_instant = lambda _n: None

    def start(self, at: dict[int, Callable[[], None]] | None = None) -> None:
        self.live(lambda runner: runner.start(self.order), at)

    def recover(self, at: dict[int, Callable[[], None]] | None = None) -> None:
        self.live(lambda runner: runner.recover(), at)

    def move(self) -> Migration:
        return self.store.migrations()[0]

    def late_calls_change_nothing(self) -> None:
        """Whatever is still on its way, or comes once more, finds that the move is over."""
        before = self.world.states(self.container.id)
        self.wire.deliver_late()
        assert self.world.states(self.container.id) == before
        self.wire.repeat_everything()
        assert self.world.states(self.container.id) == before

    def check(self) -> MoveState:
        """Exactly one host runs it: the owner; nobody else has anything of it."""
        move = self.move()
        owner = self.store.container("web1").owner
        assert not self.world.violations, self.world.violations
        assert move.state in (MoveState.SUCCEEDED, MoveState.FAILED, MoveState.CANCELLED), (move.state, move.error)
        assert owner == ("host2" if move.state is MoveState.SUCCEEDED else "host1")
        assert self.world.states(self.container.id) == {owner: "running"}, (move.state, move.error)
        assert (move.error is None) == (move.state is MoveState.SUCCEEDED)
        return move.state

    def close(self) -> None:
        self.store.database.close()
        shutil.rmtree(self.directory)


def power_cut() -> None:
    raise PowerCut


@pytest.fixture(scope="module", params=MODES)
def mode(request: pytest.FixtureRequest) -> str:
    return str(request.param)


@dataclass(frozen=True)
class Length:
    """Of a move without faults, in instants and in calls. Up to Freeze all modes do the same; that is tried once, in the first."""

    mode: str
    instants: int
    calls: int
    freeze_instant: int
    freeze_call: int

    @property
    def whens(self) -> range:
        """Instants at which something happens that is not tried in another mode."""
        return range(1 if self.mode == MODES[0] else self.freeze_instant, self.instants + 1)

    def tries(self, kind: str, call: int, crash: int) -> bool:
        """Whether this mode has that case: the modes share what goes wrong before a freeze and what is late from before it, and the two
        kinds of a repeated call that does no harm share what comes after it.
        """
        if call < self.freeze_call - LATER:
            shared = kind in REPEATED and crash // 2 % len(REPEATED) != REPEATED.index(kind)
            return self.mode == MODES[0] and not shared
        return crash >= self.freeze_instant or (call + crash) % len(MODES) == MODES.index(self.mode)


@pytest.fixture(scope="module")
def length(directory: Path, mode: str) -> Length:
    return _length(directory, mode)


@pytest.fixture(scope="module")
def auto(directory: Path) -> Length:
    return _length(directory, "auto")


def _length(directory: Path, mode: str) -> Length:
    fleet = Fleet(directory, mode=mode)
    calls: dict[int, int] = {}
    fleet.start({n: lambda n=n: calls.setdefault(fleet.wire.calls, n) for n in range(1, 100)})  # type: ignore[misc]
    assert fleet.check() is MoveState.SUCCEEDED
    fleet.close()
    freeze = 1 + next(n for n, (_, method, _) in enumerate(fleet.wire.history) if method == "Freeze")
    return Length(mode, fleet.wire.instants, fleet.wire.calls, calls[freeze], freeze)


def test_a_move_without_faults_succeeds_and_late_calls_change_nothing(directory: Path) -> None:
    """host2 runs it, host1 has nothing, and every call repeated afterwards is refused or idempotent."""
    fleet = Fleet(directory)
    fleet.start()
    fleet.late_calls_change_nothing()
    assert fleet.check() is MoveState.SUCCEEDED
    fleet.close()


@pytest.mark.parametrize("kind", ["none", *KINDS])
def test_coordinator_killed_at_every_instant_while_any_call_fails(directory: Path, length: Length, kind: str) -> None:
    """Whatever dies and whatever gets lost, exactly one host ends up running the container: the owner."""
    assert MoveState.SUCCEEDED in killed(directory, length, kind)


def killed(directory: Path, length: Length, kind: str) -> set[MoveState]:
    """Killed at every instant that the life with this fault has, and not at all."""
    ends = set()
    for call in range(1, length.calls + 1) if kind != "none" else (0,):
        instants, ended = _killed(directory, length.mode, (call, kind) if call else None, None)
        ends.add(ended)
        for crash in range(1, instants + 1):
            if not call or length.tries(kind, call, crash):
                ends.add(_killed(directory, length.mode, (call, kind) if call else None, crash)[1])
    return ends


def _killed(directory: Path, mode: str, fault: tuple[int, str] | None, crash: int | None) -> tuple[int, MoveState]:
    """(instants of the first life, what became of the move)."""
    fleet = Fleet(directory, fault, mode=mode)
    fleet.start({crash: power_cut} if crash else None)
    instants = fleet.wire.instants
    fleet.recover()
    if fault and fault[1] in ("late", "again later"):
        fleet.late_calls_change_nothing()
    try:
        return instants, fleet.check()
    except AssertionError as exc:
        raise AssertionError(f"{mode}, {fault}, crash at {crash}: {exc}") from exc
    finally:
        fleet.close()


def test_coordinator_killed_twice(directory: Path, mode: str, length: Length) -> None:
    """The second life may die too, at any third instant, going forward or undoing."""
    for first in length.whens:
        for second in range(1 + first % 3, length.instants + 6, 3):
            fleet = Fleet(directory, (length.instants // 4 + first % 5, "reply lost"), mode=mode)
            fleet.start({first: power_cut})
            due = fleet.wire.instants + second
            fleet.recover({second: power_cut})
            lived = fleet.wire.instants
            fleet.recover()
            fleet.check()
            fleet.close()
            if lived < due:
                break  # the second life has ended before


def test_cancelled_at_every_instant(directory: Path, mode: str, length: Length) -> None:
    """A cancellation that was accepted ends in "cancelled" on the source; one that came too late says so."""
    ends = set()
    for when in length.whens:
        for crash in (None, when + 1, when + 4):
            fleet = Fleet(directory, mode=mode)
            answers = []

            def cancel(fleet: Fleet = fleet, answers: list[str] = answers) -> None:
                answers.append(fleet.runner.cancel(fleet.move().id).text)

            fleet.start({when: cancel, **({crash: power_cut} if crash else {})})
            fleet.recover()
            end = fleet.check()
            assert end is (MoveState.SUCCEEDED if "too late" in answers[0] else MoveState.CANCELLED), answers
            ends.add(end)
            fleet.close()
    assert ends == {MoveState.SUCCEEDED, MoveState.CANCELLED}


@pytest.mark.parametrize("host", ["host1", "host2"])
@pytest.mark.parametrize("besides", ["nothing", "power cut at once", "power cut later", "cancelled"])
def test_a_host_reboots_at_any_instant(directory: Path, length: Length, host: str, besides: str) -> None:
    """Never two copies, never a copy of the past, never the only copy killed; what was lost is said, with a remedy."""
    rebooted(directory, length, host, besides)


def rebooted(directory: Path, length: Length, host: str, besides: str) -> None:
    for when in length.whens:
        fleet = Fleet(directory, mode=length.mode)

        def reboot(fleet: Fleet = fleet) -> None:
            fleet.world.agents[host].reboot()
            if besides == "cancelled":
                fleet.runner.cancel(fleet.move().id)
            if besides == "power cut at once":
                power_cut()

        plan: dict[int, Callable[[], None]] = {when: reboot}
        if besides == "power cut later":
            plan[when + 3] = power_cut
        fleet.start(plan)
        fleet.recover()
        check_after_a_reboot(fleet, host, when)
        move = fleet.move()
        if move.error and (told := re.search(r"--keep (source|target)", move.error.hint)):
            fleet.live(lambda runner, move=move, told=told: runner.repair(move.id, keep=told[1]))
            check_after_a_reboot(fleet, host, when)
            assert fleet.move().state in (MoveState.SUCCEEDED, MoveState.FAILED), (when, fleet.move())
            assert "running" in fleet.world.states(fleet.container.id).values(), (when, fleet.move())
        fleet.close()


def check_after_a_reboot(fleet: Fleet, host: str, when: int) -> None:
    assert not fleet.world.violations, (when, fleet.world.violations)
    states = fleet.world.states(fleet.container.id)
    move, owner = fleet.move(), fleet.store.container("web1").owner
    if "running" in states.values():
        assert states[owner] == "running", (when, states, move)
    else:
        said = move.state is MoveState.NEEDS_ATTENTION and move.error is not None and move.error.hint
        assert said or (states.get(owner) == "exited" and owner == host), (when, states, move)


def test_calls_of_an_old_move_find_the_container_back_home(directory: Path) -> None:
    """Moved there and back; every call of both moves arrives once more and changes nothing."""
    fleet = Fleet(directory)
    fleet.start()
    fleet.live(lambda runner: runner.start(MoveOrder(container="web1", to="host1")))
    fleet.late_calls_change_nothing()
    assert not fleet.world.violations
    assert fleet.world.states(fleet.container.id) == {"host1": "running"}
    assert fleet.store.container("web1").epoch == 3
    fleet.close()


def test_a_host_that_is_gone_for_a_while_is_waited_for(directory: Path, mode: str, length: Length) -> None:
    """Cut off at any instant and back later: past the pivot the move waits, before it `repair` finishes the undo."""
    for when in length.whens:
        for host in ("host1", "host2"):
            fleet = Fleet(directory, mode=mode)
            states: list[MoveState] = []

            def back(fleet: Fleet = fleet, states: list[MoveState] = states) -> None:
                states.append(fleet.move().state)
                fleet.wire.unreachable.clear()

            timer = threading.Timer(0.06, back)

            def cut(fleet: Fleet = fleet, host: str = host, timer: threading.Timer = timer) -> None:
                fleet.wire.unreachable.add(host)
                timer.start()  # now: on a busy machine the move may be slow to come here

            fleet.start({when: cut})
            timer.join()
            if fleet.move().state is MoveState.NEEDS_ATTENTION:
                fleet.live(lambda runner, fleet=fleet: runner.repair(fleet.move().id))
            fleet.check()
            fleet.close()


def test_a_coordinator_that_comes_back_with_an_old_database(directory: Path, mode: str, length: Length) -> None:
    """Killed at any instant, and its database is the one from before the move: `migrate repair web1` takes up what the hosts know."""
    taken_up = set()
    for when in length.whens:
        fleet = Fleet(directory, mode=mode)
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
            assert runner.known("web1") == migration_id  # it is taken up once
            for _ in runner.repair(migration_id):
                pass

        fleet.live(repair)
        if fleet.store.migrations():
            taken_up.add(fleet.check())
            fleet.late_calls_change_nothing()
        fleet.close()
    assert taken_up == {MoveState.SUCCEEDED, MoveState.FAILED}


def test_a_target_that_runs_it_and_cannot_write_that_down_is_told_again(
    directory: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Its disk is full: that is no container that was lost before it ran (seen with a real disk, docs/fault-matrix.md)."""
    whole, full = fakes.FakeAgent._finish_target, [3]

    def finish(self: fakes.FakeAgent, request: Any, move: fakes.FakeMove) -> None:
        copy = self.containers[request.container_id]
        if full[0]:
            full[0] -= 1
            copy.state = fakes.RUNNING
            raise MigrateError("cannot remember the end of the move: No space left on device", code="storage")
        copy.state = fakes.FROZEN  # for the fake, which thaws and writes at once
        whole(self, request, move)

    monkeypatch.setattr(fakes.FakeAgent, "_finish_target", finish)
    fleet = Fleet(directory)
    fleet.start()
    assert fleet.check() is MoveState.SUCCEEDED
    assert not full[0]
    fleet.close()


def test_the_only_copy_is_kept_for_an_operator(directory: Path) -> None:
    """The source reboots after the restore and the move is cancelled: the frozen copy is kept until someone decides."""
    for keep, end in (("target", {"host1": "exited", "host2": "running"}), ("source", {"host1": "exited"})):
        fleet = Fleet(directory)

        def lose_the_source(fleet: Fleet = fleet) -> None:
            if fleet.world.states(fleet.container.id).get("host2") == "frozen":
                fleet.world.agents["host1"].reboot()
                fleet.runner.cancel(fleet.move().id)

        fleet.start(dict.fromkeys(range(1, 60), lose_the_source))
        move = fleet.move()
        assert move.state is MoveState.NEEDS_ATTENTION
        assert move.error is not None
        assert "--keep target" in move.error.hint
        assert fleet.world.states(fleet.container.id) == {"host1": "exited", "host2": "frozen"}
        with pytest.raises(NeedsAttention):
            fleet.runner.repair(move.id)
        fleet.live(lambda runner, keep=keep, move=move: runner.repair(move.id, keep=keep))
        states = fleet.world.states(fleet.container.id)
        assert states.get("host2") == end.get("host2")
        assert fleet.store.container("web1").owner == ("host2" if keep == "target" else "host1")
        fleet.close()


# ---------------------------------------------------------------- mutants


def test_an_agent_that_forgets_finished_moves_is_found(
    directory: Path, auto: Length, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A late call that arrives after the undo does harm where no record of the move is kept."""
    finish = fakes.FakeAgent.Finish

    def forgetful(self: fakes.FakeAgent, request: object, context: object = None) -> object:
        reply = finish(self, request)
        self.moves.pop(request.migration_id)  # type: ignore[attr-defined]
        return reply

    monkeypatch.setattr(fakes.FakeAgent, "Finish", forgetful)
    with pytest.raises(AssertionError):
        killed(directory, auto, "late")


def test_a_rollback_that_does_not_look_at_the_source_is_found(
    directory: Path, auto: Length, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Discarding the target's copy without asking the source kills the only copy."""
    monkeypatch.setattr(steps, "_refuse_without_a_copy_at_source", lambda _move: None)
    with pytest.raises(AssertionError, match="only copy was killed"):
        rebooted(directory, auto, "host1", "cancelled")


def test_a_release_before_the_resume_is_found(directory: Path, auto: Length, monkeypatch: pytest.MonkeyPatch) -> None:
    """While the target's copy has not run, the source's may be the one that is needed."""
    monkeypatch.setattr(migration, "AFTER", migration.AFTER[::-1])
    with pytest.raises(AssertionError):
        rebooted(directory, auto, "host2", "nothing")


def test_an_agent_without_epochs_is_found(directory: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """After a reboot the records of old moves are gone; then only the epoch keeps their calls away."""
    monkeypatch.setattr(fakes.FakeAgent, "_fence", lambda *_args: None)
    monkeypatch.setattr(fakes.FakeAgent, "reboot", lambda self: self.moves.clear())
    fleet = Fleet(directory)
    fleet.start()
    fleet.live(lambda runner: runner.start(MoveOrder(container="web1", to="host1")))
    for agent in fleet.world.agents.values():
        agent.reboot()
    with pytest.raises(AssertionError):
        fleet.late_calls_change_nothing()
    fleet.close()


def test_a_source_that_goes_before_all_memory_has_followed_is_found(
    directory: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Post-copy: until the target has said that it lacks nothing, the frozen tasks are the only place of some pages."""
    length = _length(directory, steps.POSTCOPY)
    monkeypatch.setattr(migration, "AFTER", (migration.AFTER[0], migration.AFTER[2]))
    finish = fakes.FakeAgent._finish_source

    def hasty(self: fakes.FakeAgent, request: object, move: fakes.FakeMove) -> None:
        move.rest_sent = True
        finish(self, request, move)

    monkeypatch.setattr(fakes.FakeAgent, "_finish_source", hasty)
    with pytest.raises(AssertionError, match="memory that host2 lacks"):
        killed(directory, length, "none")
