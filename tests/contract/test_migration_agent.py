"""What every agent's Migration service must keep, whatever is behind it: "What an agent promises" in docs/migration.md.

`PAIRS` in conftest.py names the implementations: a function that makes two hosts, for each. The same tests run on all of
them. The real one is a lab with real containers, so its tests belong to the tier `criu`.
"""

from __future__ import annotations

import pytest

from protos import agent_pb2
from tests.contract.move_by_hand import MoveByHand, Pair, refused


@pytest.mark.parametrize("times", [1, 2])
def test_a_move_from_end_to_end(migration_pair: Pair, times: int) -> None:
    """Where says at each step what is there; each call made twice is the same move."""
    move = MoveByHand(migration_pair, migration_pair.run_container(), times=times)
    seen = [move.states()]
    for step in (*MoveByHand.STEPS, "commit"):
        getattr(move, step)()
        if (states := move.states()) != seen[-1]:
            seen.append(states)
    assert seen == [
        ("running@1", "absent"),
        ("running@1", "arriving@1"),
        ("frozen@1", "arriving@1"),
        ("frozen@1", "frozen@1"),
        ("absent", "running@2"),
    ]


def test_looking_begins_nothing(migration_pair: Pair) -> None:
    """Describe and Where change no state, and Where of what nobody knows is no error."""
    container_id = migration_pair.run_container()
    first = MoveByHand(migration_pair, container_id, move="1")
    first.describe()
    assert first.states() == ("running@1", "absent")
    second = MoveByHand(migration_pair, container_id, move="2")
    second.up_to("restore")
    second.commit()
    assert second.states() == ("absent", "running@2")


@pytest.mark.parametrize("last", MoveByHand.STEPS)
def test_an_undo_after_any_step(migration_pair: Pair, last: str) -> None:
    """The source runs as before, the target has nothing; undone twice is undone."""
    move = MoveByHand(migration_pair, migration_pair.run_container())
    move.up_to(last)
    move.undo()
    assert move.states() == ("running@1", "absent")
    move.undo()
    assert move.states() == ("running@1", "absent")


def test_an_undo_of_what_never_began(migration_pair: Pair) -> None:
    """It succeeds: the coordinator may have died before its first call arrived."""
    move = MoveByHand(migration_pair, migration_pair.run_container())
    move.undo()
    assert move.states() == ("running@1", "absent")


def test_a_move_after_an_undone_one(migration_pair: Pair) -> None:
    """Nothing of the first is in the way of the second."""
    container_id = migration_pair.run_container()
    first = MoveByHand(migration_pair, container_id, move="1")
    first.up_to("restore")
    first.undo()
    second = MoveByHand(migration_pair, container_id, move="2")
    second.up_to("restore")
    second.commit()
    assert second.states() == ("absent", "running@2")


@pytest.mark.parametrize(
    "late", ["accept_again", "prepare_tunnel", "open_tunnel", "layers", "precopy", "freeze", "restore"]
)
def test_a_call_that_arrives_after_the_undo_is_refused(migration_pair: Pair, late: str) -> None:
    """It was on its way when its coordinator gave up: it must neither reserve, nor freeze, nor restore anything."""
    move = MoveByHand(migration_pair, migration_pair.run_container())
    move.up_to("restore")
    move.undo()
    with refused():
        getattr(move, late)()
    assert move.states() == ("running@1", "absent")


@pytest.mark.parametrize("late", ["accept_again", "prepare_tunnel"])
def test_a_call_that_arrives_after_the_undo_of_nothing_is_refused(migration_pair: Pair, late: str) -> None:
    """The undo overtook the very first call: that call finds that the move is over, and another move is free to begin."""
    container_id = migration_pair.run_container()
    there = MoveByHand(migration_pair, container_id)
    there.describe()
    request = MoveByHand(migration_pair, container_id)
    request.accept()
    request.undo()
    there.accept_request = agent_pb2.AcceptRequest()
    there.accept_request.CopyFrom(request.accept_request)
    there.accept_request.migration_id = there.id
    there.undo()
    with refused():
        getattr(there, late)()
    assert there.states() == ("running@1", "absent")
    other = MoveByHand(migration_pair, container_id)
    other.accept()
    other.prepare_tunnel()
    other.undo()


@pytest.mark.parametrize("late", ["accept_again", "prepare_tunnel", "freeze", "restore"])
def test_a_call_that_arrives_after_the_commit_is_refused(migration_pair: Pair, late: str) -> None:
    """It was answered long ago and delivered twice: nothing is reserved, frozen or restored again."""
    move = MoveByHand(migration_pair, migration_pair.run_container())
    move.up_to("restore")
    move.commit()
    with refused():
        getattr(move, late)()
    assert move.states() == ("absent", "running@2")


def test_after_the_undo_nothing_is_committed(migration_pair: Pair) -> None:
    """On neither side, and the container runs on at the source."""
    move = MoveByHand(migration_pair, migration_pair.run_container())
    move.up_to("restore")
    move.undo()
    for role in ("source", "target"):
        with refused():
            move.finish(role, committed=True)
    assert move.states() == ("running@1", "absent")


@pytest.mark.parametrize("role", ["source", "target"])
def test_after_the_commit_it_cannot_be_undone_on_either_side(migration_pair: Pair, role: str) -> None:
    """Also long after: the word of each host stands."""
    move = MoveByHand(migration_pair, migration_pair.run_container())
    move.up_to("restore")
    move.commit()
    with refused():
        move.finish(role, committed=False)
    assert move.states() == ("absent", "running@2")


def test_a_finish_repeated_answers_as_before(migration_pair: Pair) -> None:
    """The marks are those of the first time: the coordinator measures with them."""
    move = MoveByHand(migration_pair, migration_pair.run_container())
    move.up_to("restore")
    for role in ("target", "source"):
        first = move.finish(role, committed=True)
        assert move.finish(role, committed=True) == first
    assert move.states() == ("absent", "running@2")


def test_after_the_commit_nothing_is_undone(migration_pair: Pair) -> None:
    """Between resume and release: the source is not thawed, the target not discarded. Nor after both."""
    move = MoveByHand(migration_pair, migration_pair.run_container())
    move.up_to("restore")
    move.finish("target", committed=True)
    with refused():
        move.finish("target", committed=False)
    assert move.states() == ("frozen@1", "running@2")
    move.finish("source", committed=True)
    assert move.states() == ("absent", "running@2")


def test_a_commit_repeated_after_the_move(migration_pair: Pair) -> None:
    """The answer was lost: the same call again is no error on the source, and changes nothing anywhere."""
    move = MoveByHand(migration_pair, migration_pair.run_container())
    move.up_to("restore")
    move.commit()
    move.finish("source", committed=True)
    assert move.states() == ("absent", "running@2")


@pytest.mark.parametrize("last", ["accept", "open_tunnel", "precopy"])
def test_a_source_that_runs_is_not_released(migration_pair: Pair, last: str) -> None:
    """A commit kills what is frozen for this move and nothing else."""
    move = MoveByHand(migration_pair, migration_pair.run_container())
    move.up_to(last)
    with refused():
        move.finish("source", committed=True)
    assert move.states()[0] == "running@1"


@pytest.mark.parametrize("last", ["accept", "freeze"])
def test_a_target_without_a_restored_container_is_not_resumed(migration_pair: Pair, last: str) -> None:
    """There is nothing to resume."""
    move = MoveByHand(migration_pair, migration_pair.run_container())
    move.up_to(last)
    with refused():
        move.finish("target", committed=True)
    assert move.states()[1] == "arriving@1"


def test_only_what_the_source_sent_is_restored(migration_pair: Pair) -> None:
    """Another digest is refused, nothing exists, and the right one still works."""
    move = MoveByHand(migration_pair, migration_pair.run_container())
    move.up_to("freeze")
    right, move.digest = move.digest, "0" * 64
    with refused():
        move.restore()
    assert move.states() == ("frozen@1", "arriving@1")
    move.digest = right
    move.restore()
    move.commit()
    assert move.states() == ("absent", "running@2")


def test_nothing_is_restored_before_it_has_arrived(migration_pair: Pair) -> None:
    """A reservation is no container."""
    move = MoveByHand(migration_pair, migration_pair.run_container())
    move.up_to("precopy")
    with refused():
        move.restore()
    assert move.states() == ("running@1", "arriving@1")


def test_calls_of_an_old_epoch_are_refused(migration_pair: Pair) -> None:
    """The container has been away and is back at epoch 3: a call with epoch 1 is from a coordinator of the past."""
    container_id = migration_pair.run_container()
    there = MoveByHand(migration_pair, container_id, move="1")
    there.up_to("restore")
    there.commit()
    back = MoveByHand(migration_pair, container_id, move="2", epoch=2, back=True)
    back.up_to("restore")
    back.commit()
    assert back.states() == ("running@3", "absent")
    stale = MoveByHand(migration_pair, container_id, move="3", epoch=1)
    with refused("migration.stale_epoch"):
        stale.describe()
    with refused("migration.stale_epoch"):
        stale.prepare_tunnel()
    with refused():
        there.finish("source", committed=False)
    with refused("migration.stale_epoch"):
        stale.finish("source", committed=True)
    assert back.states() == ("running@3", "absent")


def test_a_container_takes_part_in_one_move_at_a_time(migration_pair: Pair) -> None:
    """A second move is refused on both sides and the first goes on."""
    container_id = migration_pair.run_container()
    first = MoveByHand(migration_pair, container_id, move="1")
    first.up_to("precopy")
    second = MoveByHand(migration_pair, container_id, move="2")
    with refused():
        second.accept()
    with refused():
        second.prepare_tunnel()
    first.freeze()
    first.restore()
    first.commit()
    assert first.states() == ("absent", "running@2")


def test_a_container_that_is_there_is_not_overwritten(migration_pair: Pair) -> None:
    """Accept where the container runs is refused and leaves it alone."""
    move = MoveByHand(migration_pair, migration_pair.run_container())
    move.accept()
    move.target = move.source
    with refused():
        move.accept_again()
    assert move.states() == ("running@1", "arriving@1")


@pytest.mark.parametrize("method", ["Describe", "PrepareTunnel"])
def test_what_is_not_here_is_not_found(migration_pair: Pair, method: str) -> None:
    """With a code that says so."""
    move = MoveByHand(migration_pair, "f" * 32)
    with refused("container.not_found"):
        move.describe() if method == "Describe" else move.prepare_tunnel()
