"""Calls that meet their own undo, or another move of the same container: the promises 3 and 7 of docs/migration.md under way."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from typing import Any

import pytest

from migrate.errors import MigrateError
from protos import agent_pb2
from tests.contract.move_by_hand import DEADLINE_S, MoveByHand, Pair, refused


class Meanwhile:
    """A call in a thread of its own; `error` is what it raised."""

    def __init__(self, call: Callable[[], Any]) -> None:
        self.error: BaseException | None = None
        self._call = call
        self._thread = threading.Thread(target=self._run, daemon=True)
        self._thread.start()

    def _run(self) -> None:
        try:
            self._call()
        except MigrateError as exc:
            self.error = exc

    def join(self) -> None:
        self._thread.join(DEADLINE_S)
        assert not self._thread.is_alive()


# From before its first act to about its end on a machine like ours; each is a move of its own.
@pytest.mark.parametrize(
    ("step", "delay_s"), [("precopy", 0.02), ("freeze", 0.0), ("freeze", 0.05), ("freeze", 0.15), ("freeze", 0.3)]
)
def test_an_undo_that_meets_a_call_at_the_source(migration_pair: Pair, step: str, delay_s: float) -> None:
    """Finish does not wait for the call to be done, and once it has answered the container runs and is never frozen again."""
    move = MoveByHand(migration_pair, migration_pair.run_container())
    move.up_to(MoveByHand.STEPS[MoveByHand.STEPS.index(step) - 1])
    call = Meanwhile(getattr(move, step))
    time.sleep(delay_s)
    move.finish("source", committed=False)
    assert move.states()[0] == "running@1"
    call.join()
    assert move.states()[0] == "running@1"
    with refused():
        getattr(move, step)()
    move.finish("target", committed=False)
    assert move.states() == ("running@1", "absent")
    again = MoveByHand(migration_pair, move.container_id)
    again.up_to("restore")
    again.commit()
    assert again.states() == ("absent", "running@2")


@pytest.mark.parametrize(
    ("step", "delay_s"), [("accept_again", 0.0), ("accept_again", 0.05), ("restore", 0.0), ("restore", 0.1)]
)
def test_an_undo_that_meets_a_call_at_the_target(migration_pair: Pair, step: str, delay_s: float) -> None:
    """Once Finish has answered nothing of the container is there, nor comes into being; the source runs on."""
    container_id = migration_pair.run_container()
    move = MoveByHand(migration_pair, container_id)
    if step == "restore":
        move.up_to("freeze")
    else:
        seen = MoveByHand(migration_pair, container_id)
        seen.accept()
        seen.undo()
        move.accept_request = seen.accept_request
        move.accept_request.migration_id = move.id
    call = Meanwhile(getattr(move, step))
    time.sleep(delay_s)
    move.finish("target", committed=False)
    assert move.states()[1] == "absent"
    call.join()
    assert move.states()[1] == "absent"
    move.finish("source", committed=False)
    assert move.states() == ("running@1", "absent")
    again = MoveByHand(migration_pair, container_id)
    again.up_to("restore")
    again.commit()
    assert again.states() == ("absent", "running@2")


@pytest.mark.parametrize("step", ["accept_again", "prepare_tunnel"])
def test_two_moves_of_a_container_at_the_same_instant(migration_pair: Pair, step: str) -> None:
    """One of them begins, the other is refused; the one that began goes through."""
    container_id = migration_pair.run_container()
    template = MoveByHand(migration_pair, container_id)
    template.accept()
    template.undo()
    moves = [MoveByHand(migration_pair, container_id) for _ in range(2)]
    for move in moves:
        move.accept_request = agent_pb2.AcceptRequest()
        move.accept_request.CopyFrom(template.accept_request)
        move.accept_request.migration_id = move.id
    calls = [Meanwhile(getattr(move, step)) for move in moves]
    for call in calls:
        call.join()
    assert [call.error is None for call in calls].count(True) == 1
    winner, loser = moves if calls[0].error is None else moves[::-1]
    loser.undo()
    winner.up_to("restore")
    winner.commit()
    assert winner.states() == ("absent", "running@2")
