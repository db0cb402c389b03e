"""Moves through the service Fleet and the client library: real gRPC all the way to agents in memory."""

from __future__ import annotations

import threading
from collections.abc import Iterator

import pytest

from agent import errors as agent_errors
from migrate.cli.main import main
from migrate.errors import (
    Cancelled,
    InvalidArgument,
    MigrateError,
    NeedsAttention,
    NotFound,
    PrecheckError,
    Unreachable,
    WrongState,
)
from migrate.records import Progress, Step
from protos import types_pb2
from tests.fakes.fleet import FakeFleet, eventually

pytestmark = pytest.mark.contract


class HeldPrecopy:
    """A precopy that goes on until `go` is set."""

    def __init__(self, fleet: FakeFleet) -> None:
        self.go = threading.Event()
        self.began = threading.Event()
        self._agent = fleet.world.agents["host1"]
        self._original = self._agent.Precopy
        self._agent.Precopy = self._hold

    def _hold(self, request, context=None):
        yield types_pb2.Progress(phase="precopy", text="round 1", done_bytes=1 << 20, total_bytes=2 << 20)
        self.began.set()
        while not self.go.wait(0.02):
            yield types_pb2.Progress(phase="precopy", text="round 1 again")
        yield from self._original(request, context)


def test_a_move_yields_its_journal_and_progress_and_ends_with_the_record(fleet: FakeFleet) -> None:
    """Every step is seen to start and to end, in order; the record says what it cost and the owner has changed."""
    container = fleet.run("web1")
    moving = fleet.client.move("web1", to="host2", reason="test")
    events = list(moving)
    steps = [event.step for event in events if isinstance(event, Step) and event.event == "done"]
    assert steps == [
        "precheck",
        "reserve",
        "tunnel",
        "layers",
        "precopy",
        "freeze",
        "restore",
        "resume",
        "rest",
        "release",
    ]
    assert any(isinstance(event, Progress) and event.text == "round 2" for event in events)
    record = moving.record
    assert record is not None
    assert (record.state, record.source, record.target, record.reason) == ("succeeded", "host1", "host2", "test")
    assert record.sent_bytes["memory"] > 0
    assert {mark.host for mark in record.marks} == {"host1", "host2"}
    assert fleet.store.container("web1").owner == "host2"
    assert fleet.world.states(container.id) == {"host2": "running"}
    assert fleet.world.violations == []


def test_result_follows_a_move_without_looking(fleet: FakeFleet) -> None:
    """`result()` is the record; `yield from` gives it too."""
    fleet.run("web1")
    assert fleet.client.move("web1", to="host2").result().state == "succeeded"


def test_a_failed_move_raises_why_and_the_container_runs_on(fleet: FakeFleet) -> None:
    """The step and the agent's error are told, and that everything was undone."""
    container = fleet.run("web1")
    agent = fleet.world.agents["host2"]

    def refuse(request, context=None):
        raise agent_errors.CriuError("cannot restore", hint="look at the log", detail="Error (criu/x.c:1): no")

    agent.Restore = refuse
    moving = fleet.client.move("web1", to="host2")
    with pytest.raises(MigrateError, match="restore failed: host2: cannot restore") as caught:
        moving.result()
    assert (caught.value.code, caught.value.touched) == ("criu", "undone")
    assert "criu/x.c" in caught.value.detail
    assert moving.record is not None
    assert moving.record.state == "failed"
    assert fleet.world.states(container.id) == {"host1": "running"}
    assert fleet.store.container("web1").owner == "host1"


def test_a_dry_run_changes_nothing_and_lists_every_reason(fleet: FakeFleet) -> None:
    """Nothing against it: a record in state checked. Something against it: PrecheckError, exit status 5."""
    container = fleet.run("web1")
    moving = fleet.client.move("web1", to="host2", dry_run=True)
    assert "nothing speaks against" in "".join(e.text for e in moving if isinstance(e, Progress))
    assert moving.record is not None
    assert moving.record.state == "checked"
    fleet.world.agents["host1"].containers[container.id].state = types_pb2.CONTAINER_STATE_EXITED
    with pytest.raises(PrecheckError, match="web1 cannot move to host2: host1: web1 is exited") as caught:
        fleet.client.move("web1", to="host2", dry_run=True).result()
    assert (caught.value.exit_status, caught.value.touched) == (5, "nothing")
    assert "exited" in caught.value.detail
    assert fleet.client.migrations() == []


def test_wrong_orders_are_refused_before_a_move_exists(fleet: FakeFleet) -> None:
    """Unknown names, the host it is on, and a mode that does not exist."""
    fleet.run("web1")
    for kind, arguments in (
        (NotFound, {"container": "web9", "to": "host2"}),
        (NotFound, {"container": "web1", "to": "host9"}),
        (InvalidArgument, {"container": "web1", "to": "host1"}),
        (InvalidArgument, {"container": "web1", "to": "host2", "mode": "teleport"}),
    ):
        with pytest.raises(kind):
            fleet.client.move(**arguments).result()
    assert fleet.client.migrations() == []


def test_the_same_request_is_the_same_move(fleet: FakeFleet) -> None:
    """A client that asks again after a broken connection gets the move that it has begun."""
    fleet.run("web1")
    first = fleet.client.move("web1", to="host2", request_id="once").result()
    again = fleet.client.move("web1", to="host2", request_id="once").result()
    assert first.id == again.id
    assert len(fleet.client.migrations()) == 1


def test_a_move_goes_on_when_nobody_looks(fleet: FakeFleet) -> None:
    """Closing the stream does not stop the move; `watch` shows it from its beginning."""
    fleet.run("web1")
    held = HeldPrecopy(fleet)
    moving = fleet.client.move("web1", to="host2")
    next(moving)
    moving.close()
    assert held.began.wait(5)
    assert [one.state for one in fleet.client.migrations(active=True)] == ["running"]
    held.go.set()
    watching = fleet.client.watch(moving.migration_id[:6])
    steps = [e.step for e in watching if isinstance(e, Step)]
    assert steps[0] == "precheck"
    assert watching.record is not None
    assert watching.record.state == "succeeded"


def test_a_cancelled_move_is_undone(fleet: FakeFleet) -> None:
    """Cancelled is not failed: its own state, error and exit status; the container runs where it was."""
    container = fleet.run("web1")
    held = HeldPrecopy(fleet)
    moving = fleet.client.move("web1", to="host2")
    next(moving)
    assert held.began.wait(5)
    _, text = fleet.client.cancel(moving.migration_id)
    assert "host1" in text
    with pytest.raises(Cancelled) as caught:
        moving.result()
    assert caught.value.exit_status == 130
    assert moving.record is not None
    assert moving.record.state == "cancelled"
    assert fleet.world.states(container.id) == {"host1": "running"}


def test_a_freeze_that_sends_nothing_is_cancelled(fleet: FakeFleet) -> None:
    """A link that is cut in the freeze: no message comes, and it is ended all the same."""
    container = fleet.run("web1")
    agent, began, go = fleet.world.agents["host1"], threading.Event(), threading.Event()

    def silent(request, context=None):
        began.set()
        go.wait(60)
        yield from ()

    agent.Freeze = silent
    moving = fleet.client.move("web1", to="host2")
    next(moving)
    assert began.wait(10)
    fleet.client.cancel(moving.migration_id)
    try:
        with pytest.raises(Cancelled):
            moving.result()
    finally:
        go.set()
    assert fleet.world.states(container.id) == {"host1": "running"}


def test_a_resume_follows_and_says_where_nothing_goes_on(fleet: FakeFleet, capsys: pytest.CaptureFixture[str]) -> None:
    """Memory that is lost stays lost: a resume names it and decides nothing, a repair ends the move."""
    fleet.run("web1")
    agent, began, go = fleet.world.agents["host1"], threading.Event(), threading.Event()
    send = agent.SendRest

    def held(request, context=None):
        began.set()
        go.wait(60)
        yield from send(request, context)

    agent.SendRest = held
    moving = fleet.client.move("web1", to="host2", mode="postcopy")
    next(moving)
    assert began.wait(20)
    follower = fleet.client.resume(moving.migration_id)
    agent.reboot()
    go.set()
    with pytest.raises(NeedsAttention, match="redis-server"):
        follower.result()
    assert main(["resume", moving.migration_id[:8]]) == 7
    said = capsys.readouterr().err
    assert "nothing goes on by itself: rest: host1 has lost web1" in said
    assert "| rest: host1 has lost" in said
    assert "  | task 7 redis-server: 0x100000-0x400000, 768 pages [heap]" in said
    assert f"migrate repair {moving.migration_id}" in said
    assert fleet.client.repair(moving.migration_id).result().state == "succeeded"
    assert main(["resume", moving.migration_id[:8]]) == 0


def test_past_the_pivot_a_cancel_is_refused(fleet: FakeFleet) -> None:
    """Too late is an error, not a promise."""
    fleet.run("web1")
    record = fleet.client.move("web1", to="host2").result()
    with pytest.raises(WrongState, match="too late"):
        fleet.client.cancel(record.id)
    with pytest.raises(WrongState, match="nothing to repair"):
        fleet.client.repair(record.id).result()


def test_moves_are_listed_and_shown(fleet: FakeFleet) -> None:
    """Newest first without journals; one by the beginning of its id with its journal."""
    fleet.run("web1")
    there = fleet.client.move("web1", to="host2").result()
    back = fleet.client.move("web1", to="host1").result()
    listed = fleet.client.migrations(container="web1")
    assert [one.id for one in listed] == [back.id, there.id]
    assert listed[0].journal == ()
    assert (listed[1].epoch, listed[0].epoch) == (1, 2)
    shown = fleet.client.migration(there.id[:8])
    assert {row.event for row in shown.journal} == {"started", "done", "committed"}
    assert "frozen_at_most_s" in shown.facts
    with pytest.raises(NotFound):
        fleet.client.migration("ffff")


def test_only_one_move_of_a_container_at_a_time(fleet: FakeFleet) -> None:
    """A second one is refused and says which is under way."""
    fleet.run("web1")
    held = HeldPrecopy(fleet)
    moving = fleet.client.move("web1", to="host2")
    next(moving)
    assert held.began.wait(5)
    with pytest.raises(WrongState, match=moving.migration_id):
        fleet.client.move("web1", to="host2").result()
    held.go.set()
    assert moving.result().state == "succeeded"
    eventually(lambda: not fleet.client.migrations(active=True))


def test_the_doctor_says_why_a_move_failed(fleet: FakeFleet, capsys: pytest.CaptureFixture[str]) -> None:
    """The error has the cause and what to type; `doctor ID` reads the logs that the hosts have kept, and says who is silent."""
    fleet.run("web1")
    agent = fleet.world.agents["host1"]

    def fails(request, context=None):
        agent.logs[request.migration_id] = {
            "sender.log": b"nothing of interest\n",
            "dump.log": b"before\n(00.2) Error (criu/sk-inet.c:185): inet: In-flight connection (l) for 9a1fb\nbehind\n",
        }
        raise agent_errors.CriuError(
            "dump failed: inet: In-flight connection (l) for 9a1fb", detail="(00.2) Error: ..."
        )

    agent.Freeze = fails
    with pytest.raises(MigrateError) as caught:
        fleet.client.move("web1", to="host2").result()
    failed = fleet.client.migrations()[0]
    assert "a client was in the middle of connecting" in caught.value.message
    assert "move again" in caught.value.hint
    assert f"migrate doctor {failed.id}" in caught.value.hint
    logs, silent = fleet.client.migration_logs(failed.id)
    assert {(log.name, log.host) for log in logs} == {("sender.log", "host1"), ("dump.log", "host1")}
    assert silent == []
    assert main(["--coordinator", str(fleet.socket), "doctor", failed.id[:6]]) == 0
    out = capsys.readouterr().out
    for wanted in ("cause:  a client was in the middle of connecting", "dump.log of host1, line 2", "| behind"):
        assert wanted in out


def test_the_doctor_of_a_move_that_went_well(fleet: FakeFleet, capsys: pytest.CaptureFixture[str]) -> None:
    """Nothing failed: said, and exit status 0."""
    fleet.run("web1")
    record = fleet.client.move("web1", to="host2").result()
    assert main(["--coordinator", str(fleet.socket), "doctor", record.id]) == 0
    assert "no error in it" in capsys.readouterr().out


def held(fleet: FakeFleet, *, container: str = "web1") -> str:
    """The id of a move that holds."""
    moving = fleet.client.move(container, to="host2", hold=True)
    for event in moving:
        if isinstance(event, Step) and (event.step, event.event) == ("hold", "started"):
            break
    moving.close()
    return moving.migration_id


def test_a_move_that_holds_switches_over_when_it_is_committed(
    fleet: FakeFleet, capsys: pytest.CaptureFixture[str]
) -> None:
    """`migrate commit ID` and `migrate migrations commit ID`; the list says that it holds; `commit NAME` is still Docker's."""
    fleet.run("web1")
    move = held(fleet)
    socket = str(fleet.socket)
    assert main(["--coordinator", socket, "migrations", "--active"]) == 0
    assert "running: hold" in capsys.readouterr().out
    assert fleet.world.states(fleet.store.container("web1").id)["host1"] == "running"
    assert main(["--coordinator", socket, "commit", move[:6]]) == 0
    assert "web1 switches over to host2" in capsys.readouterr().out
    assert fleet.client.watch(move).result().state == "succeeded"
    fleet.run("web2")
    second = held(fleet, container="web2")
    assert main(["--coordinator", socket, "migrations", "commit", second]) == 0
    assert fleet.client.watch(second).result().precopy.hold


def test_a_move_that_holds_is_cancelled_at_once_although_it_says_nothing(fleet: FakeFleet) -> None:
    """The stream that the coordinator waits on ends; the container never stood still."""
    fleet.run("web1")
    silent = threading.Event()
    agent = fleet.world.agents["host1"]

    def hold(request, context=None):
        yield types_pb2.Progress(phase="hold", text="ready")
        silent.wait(30)

    agent.Hold = hold
    move = held(fleet)
    try:
        assert fleet.client.cancel(move)[1]
        with pytest.raises(Cancelled):
            fleet.client.watch(move).result()
    finally:
        silent.set()
    assert fleet.world.states(fleet.store.container("web1").id) == {"host1": "running"}


def test_undo_moves_back(fleet: FakeFleet, capsys: pytest.CaptureFixture[str]) -> None:
    """`migrate undo ID` follows the move back; said again, it is refused with where the container is."""
    container = fleet.run("web1")
    record = fleet.client.move("web1", to="host2").result()
    assert main(["--coordinator", str(fleet.socket), "undo", record.id[:6]]) == 0
    assert "web1 runs on host1" in capsys.readouterr().out
    assert fleet.world.states(container.id) == {"host1": "running"}
    assert main(["--coordinator", str(fleet.socket), "undo", record.id]) == 1
    assert "has moved since" in capsys.readouterr().err


def test_repair_takes_up_a_move_that_the_database_has_lost(
    fleet: FakeFleet, capsys: pytest.CaptureFixture[str]
) -> None:
    """The coordinator has an older database: the container is said to be where it was; by its name it is found where it is."""
    container = fleet.run("web1")
    before = fleet.store.container("web1")
    fleet.client.move("web1", to="host2").result()
    with fleet.store.database.transaction() as db:
        db.execute("delete from journal")
        db.execute("delete from migrations")
        db.execute("update containers set owner=?, epoch=?", (before.owner, before.epoch))
    command = ["--coordinator", str(fleet.socket), "repair", "web1"]
    assert main([*command, "--dry-run"]) == 7
    assert "set web1 running on host2" in capsys.readouterr().err
    assert fleet.store.migrations() == []
    assert main(command) == 0
    assert fleet.store.container("web1").owner == "host2"
    assert fleet.world.states(container.id) == {"host2": "running"}
    assert main(command) == 3
    assert "no move" in capsys.readouterr().err


def test_repair_without_an_id_is_of_every_move_that_needs_attention(
    fleet: FakeFleet, capsys: pytest.CaptureFixture[str]
) -> None:
    """None: that is said. One: what both hosts have and what would be done; then it is done."""
    fleet.run("web1")
    command = ["--coordinator", str(fleet.socket), "repair"]
    assert main(command) == 0
    assert "no move needs attention" in capsys.readouterr().err
    assert main([*command, "--keep", "source"]) == 2
    record = fleet.client.move("web1", to="host2").result()
    with fleet.store.database.transaction() as db:  # as a stuck undo would leave it
        db.execute("update migrations set state='needs-attention', finished_unix_ns=0 where id=?", (record.id,))
    capsys.readouterr()
    assert main([*command, "--dry-run"]) == 0
    assert fleet.client.migration(record.id).state == "needs-attention"
    out = capsys.readouterr().out
    assert f"move {record.id}: web1 from host1 to host2" in out
    assert "set web1 running on host2 and release host1; host1: absent, host2: running at epoch 2" in out
    assert main(command) == 0
    assert fleet.client.migration(record.id).state == "succeeded"


def test_the_doctor_of_a_move_that_was_refused_or_cancelled(
    fleet: FakeFleet, capsys: pytest.CaptureFixture[str]
) -> None:
    """A refusal has its reasons and its remedy; whoever cancelled a move knows why."""
    fleet.run("web1")
    command = ["--coordinator", str(fleet.socket), "doctor"]
    fleet.world.agents["host2"].containers[fleet.store.container("web1").id] = fleet.world.agents["host1"].containers[
        fleet.store.container("web1").id
    ]
    with pytest.raises(PrecheckError) as refused:
        fleet.client.move("web1", to="host2").result()
    assert main([*command, fleet.client.migrations()[0].id]) == 0
    out = capsys.readouterr().out
    assert "a check before the move said no" in out
    assert f"remedy: {refused.value.hint}" in out
    fleet.world.agents["host2"].containers.clear()
    move = held(fleet)
    fleet.client.cancel(move)
    with pytest.raises(Cancelled):
        fleet.client.watch(move).result()
    assert main([*command, move]) == 0
    assert "no error in it" in capsys.readouterr().out


def test_a_host_that_does_not_answer_is_not_taken_for_the_coordinator(
    fleet: FakeFleet, capsys: pytest.CaptureFixture[str]
) -> None:
    """The move has ended with that error, which is shown at once; nobody waits for a coordinator that is there."""
    fleet.run("web1")

    def silent(request, context=None):
        raise Unreachable("host2 did not answer in time")

    fleet.world.agents["host2"].Where = silent
    assert main(["--coordinator", str(fleet.socket), "move", "web1", "--to", "host2"]) == 4
    said = capsys.readouterr().err
    assert "error: host2 did not answer in time" in said
    assert "the coordinator does not answer" not in said


def test_what_came_in_by_exec_keeps_a_container_or_is_ended(
    fleet: FakeFleet, capsys: pytest.CaptureFixture[str]
) -> None:
    """Without --end-exec the move is refused and its hint says the flag; with it the session is ended once, which the journal keeps."""
    fleet.run("web1")
    container = fleet.store.container("web1").id
    copy = fleet.world.agents["host1"].containers[container]
    copy.execs = ["sleep 1000"]
    socket = str(fleet.socket)
    assert main(["--coordinator", socket, "move", "web1", "--to", "host2"]) == 5
    assert "hint: --end-exec" in capsys.readouterr().err
    assert copy.execs == ["sleep 1000"]
    assert main(["--coordinator", socket, "check", "web1", "--to", "host2", "--end-exec"]) == 0
    assert "it is ended right before the freeze" in capsys.readouterr().out
    assert main(["--coordinator", socket, "move", "web1", "--to", "host2", "--end-exec"]) == 0
    assert "ended what came in by exec: `sleep 1000`" in capsys.readouterr().out
    record = fleet.client.migration(fleet.client.migrations()[0].id)
    (done,) = [row for row in record.journal if (row.step, row.event) == ("end-exec", "done")]
    assert done.facts["ended"] == ["`sleep 1000` (pid 7 inside, SIGTERM)"]
    assert record.precopy.end_exec


def test_a_move_that_fails_says_what_it_has_ended(fleet: FakeFleet, capsys: pytest.CaptureFixture[str]) -> None:
    """It runs on where it was; its exec session does not come back, and the error does not hide it."""
    fleet.run("web1")
    agent = fleet.world.agents["host1"]
    copy = agent.containers[fleet.store.container("web1").id]
    copy.execs = ["sleep 1000"]

    def fails(_request: object, _context: object = None) -> Iterator[object]:
        raise agent_errors.TransferError("the stream broke")
        yield

    agent.Freeze = fails
    assert main(["--coordinator", str(fleet.socket), "move", "web1", "--to", "host2", "--end-exec"]) != 0
    said = capsys.readouterr().err
    assert "ended for this move, and not started again: `sleep 1000` (pid 7 inside, SIGTERM)" in said
    assert copy.execs == []
