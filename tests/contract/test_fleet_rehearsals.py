"""`rehearse` through the service Fleet, the client library and the command line, between hosts in memory."""

from __future__ import annotations

import json
import threading
from typing import Any

import pytest

from migrate.cli.main import main
from migrate.coordinator.orders import MoveOrder
from migrate.coordinator.store import PrecopyOptions
from migrate.errors import InvalidArgument, PrecheckError, StepError, WrongState
from migrate.records import Migration
from protos import agent_pb2
from tests.fakes.agent import LAYERS
from tests.fakes.fleet import FakeFleet, eventually

pytestmark = pytest.mark.contract


def untouched(fleet: FakeFleet, container_id: str) -> None:
    """It runs where it was, nothing is on the other host, and no world saw two of it."""
    assert fleet.world.states(container_id) == {"host1": "running"}
    assert (fleet.store.container(container_id).owner, fleet.store.container(container_id).epoch) == ("host1", 1)
    assert not fleet.world.agents["host2"].layers
    assert all(move.finished and not move.committed for a in fleet.world.agents.values() for move in a.moves.values())
    assert fleet.world.violations == []


def test_it_would_move(fleet: FakeFleet, capsys: pytest.CaptureFixture[str]) -> None:
    """Exit status 0; what was seen and measured is in the record, beside what `check` predicts."""
    container = fleet.run("web1")
    assert main(["rehearse", "web1", "--to", "host2", "--reason", "before Friday"]) == 0
    said = capsys.readouterr().out
    assert "web1 could move to host2: it is well" in said
    assert "-- no pivot: this was a rehearsal" in said
    assert "undoing" not in said
    untouched(fleet, container.id)
    (record,) = fleet.client.migrations()
    assert (record.state, record.rehearsal, record.reason, record.failure) == ("rehearsed", True, "before Friday", None)
    assert record.facts["predicted_downtime_s"] == fleet.client.check("web1", to="host2").prediction.downtime_s
    for name in ("dump_s", "transfer_s", "source_frozen_s"):  # the fakes' clock is none that the coordinator believes
        assert record.facts[name] >= 0, name
    assert "downtime_s" not in record.facts  # nobody learns from it what a move takes
    assert main(["rehearse", "web1", "--to", "host2", "--format", "json"]) == 0
    lines = [json.loads(line) for line in capsys.readouterr().out.splitlines()]
    assert (lines[-1]["type"], lines[-1]["state"]) == ("record", "rehearsed")
    record = fleet.client.move("web1", to="host2").result()
    assert record.state == "succeeded"


def test_a_copy_that_is_not_well(fleet: FakeFleet, capsys: pytest.CaptureFixture[str]) -> None:
    """Exit status 6: what was seen, that everything was put back, what to type next."""
    container = fleet.run("web1")
    fleet.world.agents["host2"].sick = "its health check exits with 1, 3 of 3 times: no database"
    assert main(["rehearse", "web1", "--to", "host2"]) == 6
    said = capsys.readouterr().err
    assert "try failed: the copy of web1 on host2 is not well: its health check exits with 1" in said
    assert "put back" in said
    untouched(fleet, container.id)
    (record,) = fleet.client.migrations()
    (failed,) = (row for row in record_of(fleet, record).journal if (row.step, row.event) == ("try", "failed"))
    assert failed.facts["health"] == "unhealthy"


def record_of(fleet: FakeFleet, record: Migration) -> Migration:
    return fleet.client.migration(record.id)


def test_what_check_refuses_is_refused(fleet: FakeFleet) -> None:
    """Before anything is touched, with the same lines."""
    container = fleet.run("web1")
    fleet.hosts["host2"].facts.update(criu_version="3.19")
    with pytest.raises(PrecheckError, match="CRIU"):
        fleet.client.rehearse("web1", to="host2").result()
    untouched(fleet, container.id)
    assert fleet.client.rehearse("web1", to="host2", skip=["criu"]).result().state == "rehearsed"


def test_a_restore_that_fails(fleet: FakeFleet, monkeypatch: pytest.MonkeyPatch) -> None:
    """The doctor's cause and remedy, and the command is that of a rehearsal."""
    from agent.errors import AgentError

    container = fleet.run("web1")

    def refuse(request: Any, context: Any = None) -> agent_pb2.RestoreResponse:
        raise AgentError("CRIU: Unknown shit 600 (anon_inode:[io_uring])", code="criu")

    monkeypatch.setattr(fleet.world.agents["host2"], "Restore", refuse)
    with pytest.raises(StepError) as failed:
        fleet.client.rehearse("web1", to="host2").result()
    assert "io_uring" in failed.value.hint
    assert "migrate rehearse web1 --to host2" in failed.value.hint
    untouched(fleet, container.id)


def test_the_coordinator_dies_in_the_middle(fleet: FakeFleet, monkeypatch: pytest.MonkeyPatch) -> None:
    """The container runs meanwhile; the next coordinator throws the copy away and says what to do."""
    container = fleet.run("web1")
    agent = fleet.world.agents["host2"]
    reached, on = threading.Event(), threading.Event()
    real = agent.Try

    def slow(request: Any, context: Any = None) -> agent_pb2.TryResponse:
        answer = real(request)
        reached.set()
        on.wait(20)
        return answer

    monkeypatch.setattr(agent, "Try", slow)
    moving = fleet.client.rehearse("web1", to="host2")
    next(moving)
    assert reached.wait(20)
    assert fleet.world.states(container.id) == {"host1": "running", "host2": "running"}
    fleet.go_away()
    fleet.come_back()
    eventually(lambda: fleet.client.migrations()[0].state == "failed")
    on.set()
    record = fleet.client.migrations()[0]
    assert record.failure is not None
    assert "coordinator ended" in record.failure.message
    assert "migrate rehearse web1 --to host2" in record.failure.hint
    untouched(fleet, container.id)


def test_what_a_rehearsal_cannot_do(fleet: FakeFleet) -> None:
    """It holds no memory back; and there is nothing to undo or to commit."""
    fleet.run("web1")
    with pytest.raises(InvalidArgument):
        fleet.client.rehearse("web1", to="host2", mode="postcopy").result()
    for option in ("hold", "end_exec"):
        order = MoveOrder(container="web1", to="host2", rehearsal=True, precopy=PrecopyOptions(**{option: True}))
        with pytest.raises(InvalidArgument):
            fleet.runner.start(order)
    record = fleet.client.rehearse("web1", to="host2").result()
    with pytest.raises(WrongState, match="rehearsal"):
        fleet.client.undo_move(record.id).result()
    with pytest.raises(WrongState):
        fleet.client.commit_move(record.id)
    assert set(LAYERS) == fleet.world.agents["host1"].layers
