"""The runner: threads, watchers, cancellation, shutdown, recovery, repair. tests/faults/test_saga_moves.py has the crashes."""

from __future__ import annotations

import sqlite3
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from agent.errors import TransferError
from migrate.coordinator import moves
from migrate.coordinator.events import Done, Progress, StepEvent
from migrate.coordinator.moves import MoveRunner, Patience
from migrate.coordinator.orders import MoveOrder
from migrate.coordinator.store import Host, MoveState, PrecopyOptions
from migrate.errors import InvalidArgument, NeedsAttention, NotFound, Unreachable, WrongState
from protos import agent_pb2, types_pb2
from tests.fakes import agent as fakes
from tests.fakes.coordinator import TwoHosts

pytestmark = pytest.mark.unit

ORDER = MoveOrder(container="web1", to="host2")
QUICK = Patience(undo_limit_s=0.05, first_s=0.005, longest_s=0.01, ask_s=0.0)


class Fleet(TwoHosts):
    """Two hosts, one container; `hold` stops the move in a step until the test lets it go."""

    def __init__(self, directory: Path) -> None:
        super().__init__(directory)
        self.runner = self.new_runner()

    def new_runner(self) -> MoveRunner:
        self.runner = MoveRunner(self.store, self.wire, self.wire, QUICK)
        return self.runner

    def hold(self, host: str, method: str) -> tuple[threading.Event, threading.Event]:
        """(reached, go)"""
        reached, go = threading.Event(), threading.Event()
        agent = self.world.agents[host]
        real = getattr(agent, method)

        def held(request: object, context: object = None) -> object:
            reached.set()
            assert go.wait(10)
            return real(request)

        setattr(agent, method, held)
        return reached, go

    def end(self, migration_id: str) -> moves.MigrationRecord:
        *_, done = self.runner.watch(migration_id)
        assert isinstance(done, Done)
        return done.record


@pytest.fixture
def fleet(tmp_path: Path) -> Iterator[Fleet]:
    fleet = Fleet(tmp_path)
    yield fleet
    fleet.runner.shutdown()


def eventually(fact: Callable[[], bool]) -> None:
    deadline = time.monotonic() + 60
    while not fact():
        assert time.monotonic() < deadline, "it did not happen"
        time.sleep(0.005)


def test_events_come_in_order_and_end_with_the_record(fleet: Fleet) -> None:
    """Each row of the journal once, whoever watches whenever."""
    migration_id = fleet.runner.start(ORDER)
    live = list(fleet.runner.watch(migration_id))
    later = list(fleet.runner.watch(migration_id))
    rows = [event for event in live if isinstance(event, StepEvent)]
    assert [row.seq for row in rows] == sorted({row.seq for row in rows})
    assert rows == [event for event in later if isinstance(event, StepEvent)]
    assert isinstance(live[-1], Done)
    assert live[-1].record.state is MoveState.SUCCEEDED
    assert live[-1].record.facts["total_s"] > 0


def test_progress_from_within_a_step_reaches_a_watcher(fleet: Fleet) -> None:
    """Between the row that starts the step and the one that ends it."""
    reached, go = fleet.hold("host1", "PrepareTunnel")
    migration_id = fleet.runner.start(ORDER)
    assert reached.wait(5)
    watching = fleet.runner.watch(migration_id)
    first = next(watching)
    go.set()
    events = [first, *watching]
    rounds = [event.text for event in events if isinstance(event, Progress) and event.phase == "precopy"]
    assert rounds == ["round 1", "round 2"]


def test_a_watcher_that_goes_away_changes_nothing(fleet: Fleet) -> None:
    """Its generator is closed; the move goes on."""
    reached, go = fleet.hold("host1", "PrepareTunnel")
    migration_id = fleet.runner.start(ORDER)
    assert reached.wait(5)
    watching = fleet.runner.watch(migration_id)
    next(watching)
    watching.close()
    go.set()
    assert fleet.end(migration_id).state is MoveState.SUCCEEDED


def test_stop_and_copy_has_no_precopy(fleet: Fleet) -> None:
    """All other steps are the same."""
    record = fleet.end(fleet.runner.start(MoveOrder(container="web1", to="host2", mode="stop-and-copy")))
    assert [row.step for row in record.journal if row.event == "done"] == [
        "precheck", "reserve", "tunnel", "layers", "freeze", "restore", "resume", "rest", "release",
    ]  # fmt: skip


@pytest.mark.parametrize(
    ("order", "error"),
    [
        (MoveOrder(container="web9", to="host2"), NotFound),
        (MoveOrder(container="web1", to="host9"), NotFound),
        (MoveOrder(container="web1", to="host1"), InvalidArgument),
        (MoveOrder(container="web1", to="host2", mode="teleport"), InvalidArgument),
        (MoveOrder(container="web1", to="host2", max_downtime_s=-1.0), InvalidArgument),
    ],
)
def test_orders_that_make_no_sense(fleet: Fleet, order: MoveOrder, error: type[Exception]) -> None:
    """Are refused before there is a move."""
    with pytest.raises(error):
        fleet.runner.start(order)
    assert fleet.store.migrations() == []


def test_the_same_request_for_something_else_is_refused(fleet: Fleet) -> None:
    """The same request is the same move, also after it has ended; with another target it is a mistake."""
    fleet.store.put_host(Host(name="host3", address=fakes.address("host3")))
    order = MoveOrder(container="web1", to="host2", request_id="r")
    migration_id = fleet.runner.start(order)
    fleet.end(migration_id)
    assert fleet.runner.start(order) == migration_id
    with pytest.raises(InvalidArgument):
        fleet.runner.start(MoveOrder(container="web1", to="host3", request_id="r"))


def test_many_requests_at_once_begin_one_move(fleet: Fleet) -> None:
    """The database decides which; the others get the same id."""
    ids: list[str] = []
    order = MoveOrder(container="web1", to="host2", request_id="r")
    threads = [threading.Thread(target=lambda: ids.append(fleet.runner.start(order))) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(ids) == 8
    assert len(set(ids)) == 1
    assert fleet.end(ids[0]).state is MoveState.SUCCEEDED


def test_the_error_of_a_move_says_where_and_what_now(fleet: Fleet) -> None:
    """The step, the host, the agent's code, and that it was put back."""
    fleet.wire.fault = (4, "refused")  # Describe, Where, Describe, Accept
    record = fleet.end(fleet.runner.start(ORDER))
    assert record.state is MoveState.FAILED
    assert record.error is not None
    assert (record.error.message, record.error.code) == ("reserve failed: host2: no room left", "storage")
    assert record.error.touched == "undone"


def test_a_cancelled_move_interrupts_a_long_stream(fleet: Fleet) -> None:
    """Between two messages, not only between two steps."""
    agent = fleet.world.agents["host1"]
    closed = threading.Event()

    def endless(request: object, context: object = None) -> Iterator[types_pb2.Progress]:
        try:
            while True:
                time.sleep(0.005)
                yield types_pb2.Progress(phase="precopy", text="round")
        finally:
            closed.set()

    agent.Precopy = endless  # type: ignore[method-assign]
    migration_id = fleet.runner.start(ORDER)
    eventually(lambda: fleet.runner.record(migration_id).step == "precopy")
    answer = fleet.runner.cancel(migration_id)
    assert "host1" in answer.text
    record = fleet.end(migration_id)
    assert record.state is MoveState.CANCELLED
    assert record.error is not None
    assert (record.error.code, record.error.touched) == ("cancelled", "undone")
    assert closed.is_set()
    assert "too late" in fleet.runner.cancel(migration_id).text


def test_a_cancellation_before_anything_was_touched_says_so(fleet: Fleet) -> None:
    """touched: nothing."""
    reached, go = fleet.hold("host2", "Where")
    migration_id = fleet.runner.start(ORDER)
    assert reached.wait(5)
    fleet.runner.cancel(migration_id)
    go.set()
    record = fleet.end(migration_id)
    assert record.error is not None
    assert (record.state, record.error.touched) == (MoveState.CANCELLED, "nothing")


def test_past_the_pivot_a_move_waits_for_its_source(fleet: Fleet) -> None:
    """State "waiting" with the reason, while the container runs on the target; then it ends well."""
    target = fleet.world.agents["host2"]
    finish = target.Finish

    def then_lose_the_source(request: object, context: object = None) -> object:
        fleet.wire.unreachable.add("host1")
        return finish(request)

    target.Finish = then_lose_the_source  # type: ignore[method-assign]
    migration_id = fleet.runner.start(ORDER)
    eventually(lambda: fleet.store.migration(migration_id).state is MoveState.WAITING)
    waiting = fleet.runner.record(migration_id)
    assert waiting.error is not None
    assert "host1" in waiting.error.message
    assert fleet.world.states(fleet.container.id) == {"host1": "frozen", "host2": "running"}
    assert "too late" in fleet.runner.cancel(migration_id).text
    with pytest.raises(WrongState, match="under way"):
        fleet.runner.repair(migration_id)
    fleet.wire.unreachable.clear()
    record = fleet.end(migration_id)
    assert (record.state, record.error) == (MoveState.SUCCEEDED, None)
    assert fleet.world.states(fleet.container.id) == {"host2": "running"}


def test_a_shutdown_leaves_the_move_and_tells_the_watchers(fleet: Fleet) -> None:
    """Nothing is undone; the next coordinator goes on."""
    reached, go = fleet.hold("host1", "PrepareTunnel")
    migration_id = fleet.runner.start(ORDER)
    assert reached.wait(5)
    failures: list[Unreachable] = []

    def watch() -> None:
        try:
            list(fleet.runner.watch(migration_id))
        except Unreachable as exc:
            failures.append(exc)

    watcher = threading.Thread(target=watch)
    watcher.start()
    stopper = threading.Thread(target=fleet.runner.shutdown)
    stopper.start()
    time.sleep(0.02)
    go.set()
    stopper.join()
    watcher.join()
    assert len(failures) == 1
    assert fleet.store.migration(migration_id).state is MoveState.RUNNING
    with pytest.raises(Unreachable):
        list(fleet.runner.watch(migration_id))
    with pytest.raises(Unreachable):
        fleet.runner.start(MoveOrder(container="web1", to="host2", request_id="new"))
    fleet.new_runner().recover()
    assert fleet.end(migration_id).state is MoveState.SUCCEEDED


def test_going_down_with_closing_channels_undoes_nothing(fleet: Fleet) -> None:
    """The pool may be closed while a call is under way: its error is not the step's."""
    reached, go = fleet.hold("host1", "PrepareTunnel")
    migration_id = fleet.runner.start(ORDER)
    assert reached.wait(5)
    fleet.wire.unreachable = {"host1", "host2"}
    stopper = threading.Thread(target=fleet.runner.shutdown)
    stopper.start()
    time.sleep(0.02)
    go.set()
    stopper.join()
    assert {row.event for row in fleet.runner.record(migration_id).journal} == {"started", "done"}


def test_a_database_that_fails_for_a_moment_costs_no_container(fleet: Fleet, monkeypatch: pytest.MonkeyPatch) -> None:
    """The disk is full while the container is frozen: as soon as it is not, the move goes on or is undone."""
    monkeypatch.setattr(moves, "DATABASE_RETRY_S", 0.01)
    source = fleet.world.agents["host1"]
    database = fleet.store.database
    transaction = type(database).transaction
    full = threading.Event()

    def failing(self: object) -> object:
        if full.is_set() and threading.current_thread().name.startswith("move-"):
            raise sqlite3.OperationalError("database or disk is full")
        return transaction(database)

    monkeypatch.setattr(type(database), "transaction", failing)
    freeze = source.Freeze

    def then_full(request: object, context: object = None) -> Iterator[object]:
        source.Freeze = freeze  # type: ignore[method-assign]
        yield from freeze(request)
        full.set()
        threading.Timer(0.1, full.clear).start()

    source.Freeze = then_full  # type: ignore[method-assign]
    migration_id = fleet.runner.start(ORDER)
    record = fleet.end(migration_id)
    assert record.state in (MoveState.SUCCEEDED, MoveState.FAILED)
    assert list(fleet.world.states(fleet.container.id).values()) == ["running"]
    assert not fleet.world.violations


def test_a_contradiction_is_left_for_an_operator(fleet: Fleet) -> None:
    """It runs on the target though no pivot was journalled: nothing is touched, and the error says what to type."""
    reached, go = fleet.hold("host1", "PrepareTunnel")
    migration_id = fleet.runner.start(ORDER)
    assert reached.wait(5)
    stopper = threading.Thread(target=fleet.runner.shutdown)
    stopper.start()
    time.sleep(0.02)
    go.set()
    stopper.join()
    copy = fleet.world.agents["host2"].containers[fleet.container.id]
    copy.state = types_pb2.CONTAINER_STATE_RUNNING
    fleet.world.agents["host1"].containers[fleet.container.id].state = types_pb2.CONTAINER_STATE_FROZEN
    fleet.new_runner().recover()
    record = fleet.end(migration_id)
    assert record.state is MoveState.NEEDS_ATTENTION
    assert record.error is not None
    assert f"migrate repair {migration_id} --keep source" in record.error.hint
    assert fleet.world.states(fleet.container.id) == {"host1": "frozen", "host2": "running"}
    with pytest.raises(NeedsAttention):
        fleet.runner.repair(migration_id)
    with pytest.raises(WrongState, match="needs-attention"):
        fleet.runner.start(MoveOrder(container="web1", to="host2"))


def fail_and_lose_the_target(fleet: Fleet) -> str:
    """The tunnel fails and the target is gone: the source runs on, the reservation cannot be undone."""

    def fail(request: object, context: object = None) -> object:
        fleet.wire.unreachable.add("host2")
        raise TransferError("no key")

    fleet.world.agents["host1"].PrepareTunnel = fail  # type: ignore[method-assign]
    return fleet.runner.start(ORDER)


def test_a_recovery_waits_for_nobodys_word_to_leave_attention(fleet: Fleet) -> None:
    """What needs an operator is not started again by a restart."""
    migration_id = fail_and_lose_the_target(fleet)
    assert fleet.end(migration_id).state is MoveState.NEEDS_ATTENTION
    calls = fleet.wire.calls
    fleet.new_runner().recover()
    assert fleet.wire.calls == calls
    assert fleet.end(migration_id).state is MoveState.NEEDS_ATTENTION


def test_repair_undoes_what_was_left(fleet: Fleet) -> None:
    """A dry run says so and does nothing; then it is done, seen by whoever repairs."""
    migration_id = fail_and_lose_the_target(fleet)
    record = fleet.end(migration_id)
    assert record.state is MoveState.NEEDS_ATTENTION
    assert record.error is not None
    assert record.error.hint == f"migrate repair {migration_id}"
    assert fleet.world.states(fleet.container.id) == {"host1": "running", "host2": "arriving"}
    fleet.wire.unreachable.clear()
    said, done = fleet.runner.repair(migration_id, dry_run=True)
    assert isinstance(said, Progress)
    assert "undo what is left" in said.text
    assert isinstance(done, Done)
    assert done.record.state is MoveState.NEEDS_ATTENTION
    *_, done = fleet.runner.repair(migration_id)
    assert isinstance(done, Done)
    assert done.record.state is MoveState.FAILED
    assert done.record.error is not None
    assert "tunnel failed" in done.record.error.message, "the reason is still the first one"
    assert fleet.world.states(fleet.container.id) == {"host1": "running"}
    with pytest.raises(WrongState, match="nothing to repair"):
        fleet.runner.repair(migration_id)
    with pytest.raises(InvalidArgument):
        fleet.runner.repair(migration_id, keep="both")


def test_a_pivot_is_taken_back_when_the_target_never_ran_it(fleet: Fleet) -> None:
    """The target reboots between pivot and resume; an operator keeps the source, which has stayed frozen."""
    target = fleet.world.agents["host2"]
    finish = target.Finish

    def reboot_first(request: object, context: object = None) -> object:
        target.reboot()
        return finish(request)

    target.Finish = reboot_first  # type: ignore[method-assign]
    migration_id = fleet.runner.start(ORDER)
    record = fleet.end(migration_id)
    assert record.state is MoveState.NEEDS_ATTENTION
    assert record.error is not None
    assert f"migrate repair {migration_id} --keep source" in record.error.hint
    assert fleet.store.container("web1").owner == "host2"
    target.Finish = finish  # type: ignore[method-assign]
    with pytest.raises(WrongState):
        fleet.runner.repair(migration_id, keep="target")
    *_, done = fleet.runner.repair(migration_id, keep="source")
    assert isinstance(done, Done)
    assert done.record.state is MoveState.FAILED
    container = fleet.store.container("web1")
    assert (container.owner, container.epoch) == ("host1", 3)
    assert fleet.world.states(fleet.container.id) == {"host1": "running"}
    assert not fleet.world.violations
    assert fleet.end(fleet.runner.start(MoveOrder(container="web1", to="host2"))).state is MoveState.SUCCEEDED


def test_a_mistake_in_the_runner_leaves_a_state_that_is_seen(fleet: Fleet, monkeypatch: pytest.MonkeyPatch) -> None:
    """Not a dead thread and a move that says "running" for ever."""

    def broken(_mode: str) -> object:
        if threading.current_thread().name.startswith("move-"):
            raise ZeroDivisionError("oops")
        return None

    monkeypatch.setattr(moves.migration, "saga", broken)
    record = fleet.end(fleet.runner.start(ORDER))
    assert record.state is MoveState.NEEDS_ATTENTION
    assert record.error is not None
    assert record.error.code == "internal"
    assert "repair" in record.error.hint


def test_moves_of_a_removed_container_can_still_be_listed(fleet: Fleet) -> None:
    """By its id, and by any name while it exists."""
    migration_id = fleet.runner.start(ORDER)
    fleet.end(migration_id)
    assert [r.migration.id for r in fleet.runner.records(container="web1")] == [migration_id]
    fleet.store.remove_container(fleet.container.id)
    assert [r.migration.id for r in fleet.runner.records(container=fleet.container.id)] == [migration_id]
    assert fleet.runner.records(container="web1") == []


def test_what_is_lost_with_the_source_is_said_once_and_ends_with_a_repair(fleet: Fleet) -> None:
    """Post-copy: its tasks are gone while memory follows. Every range is named; a repair then ends the move, and says so again."""
    reached, go = fleet.hold("host1", "SendRest")
    migration_id = fleet.runner.start(MoveOrder(container="web1", to="host2", mode="postcopy"))
    assert reached.wait(10)
    fleet.world.agents["host1"].reboot()
    go.set()
    record = fleet.end(migration_id)
    assert (record.state, record.step) == (MoveState.NEEDS_ATTENTION, "rest")
    assert record.error is not None
    assert "lost: 3.1 MB of task 7 redis-server (768 pages in 1 ranges: 3.1 MB [heap])" in record.error.message
    assert "task 7 redis-server: 0x100000-0x400000, 768 pages [heap]" in record.error.detail
    assert f"migrate repair {migration_id}" in record.error.hint
    failed = next(row for row in record.journal if (row.step, row.event) == ("rest", "failed"))
    assert failed.facts["lost"][0]["ranges"] == [[1 << 20, 4 << 20, "[heap]"]]
    assert fleet.runner.repair(migration_id)
    assert fleet.end(migration_id).state is MoveState.SUCCEEDED


def test_memory_that_waits_for_its_source_is_named(fleet: Fleet) -> None:
    """The source does not answer: the move waits, and goes on when it is back."""
    reached, go = fleet.hold("host2", "Finish")
    migration_id = fleet.runner.start(MoveOrder(container="web1", to="host2", mode="postcopy"))
    assert reached.wait(10)
    fleet.runner.set_bandwidth(migration_id, 4 << 20)  # it sends yet
    fleet.wire.unreachable.add("host1")
    go.set()
    eventually(lambda: fleet.store.migration(migration_id).state is MoveState.WAITING)
    error = next(
        row.error for row in fleet.runner.record(migration_id).journal if (row.step, row.event) == ("rest", "failed")
    )
    assert "waits where it needs what is only on host1: 3.1 MB of task 7" in error
    with pytest.raises(Unreachable):
        fleet.runner.set_bandwidth(migration_id, 0)
    assert fleet.store.migration(migration_id).transfer.bandwidth == 0
    fleet.wire.unreachable.clear()
    assert fleet.end(migration_id).state is MoveState.SUCCEEDED


def test_post_copy_as_the_end_of_precopy(fleet: Fleet) -> None:
    """Only where the source says that what is left would take too long."""
    asked = []
    freeze, precopy = fleet.world.agents["host1"].Freeze, fleet.world.agents["host1"].Precopy

    def noted(request: agent_pb2.FreezeRequest, context: object = None) -> object:
        asked.append(request.postcopy)
        return freeze(request)

    def too_much(request: object, context: object = None) -> Iterator[types_pb2.Progress]:
        yield from precopy(request)
        yield types_pb2.Progress(phase="precopy", text="too much is left", facts={"rest_later": 1.0})

    fleet.world.agents["host1"].Freeze = noted  # type: ignore[method-assign,assignment]
    options = PrecopyOptions(timeout_s=1.0, on_timeout="post-copy")
    fleet.end(fleet.runner.start(MoveOrder(container="web1", to="host2", precopy=options)))
    fleet.end(fleet.runner.start(MoveOrder(container="web1", to="host1")))
    fleet.world.agents["host1"].Precopy = too_much  # type: ignore[method-assign]
    record = fleet.end(fleet.runner.start(MoveOrder(container="web1", to="host2", precopy=options)))
    assert record.state is MoveState.SUCCEEDED
    assert asked == [False, True]
