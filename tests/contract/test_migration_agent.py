"""What every agent's Migration service must keep, whatever is behind it: "What an agent promises" in docs/migration.md.

`PAIRS` names the implementations: a function that makes two hosts, for each. The same tests run on all of them. The real one is a lab
with real containers, so its tests belong to the tier `criu`.
"""

from __future__ import annotations

import itertools
import os
import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any, Protocol

import grpc
import pytest

from migrate.coordinator.move import HostAddress
from migrate.errors import MigrateError
from migrate.lab.layout import Lab
from migrate.rpc import channels
from migrate.rpc import errors as rpc_errors
from protos import agent_pb2, agent_pb2_grpc, types_pb2
from tests.contract.real_pair import RealPair, real_lab
from tests.fakes import agent as fakes
from tests.fakes.agent import World
from tests.fakes.wire import Wire

DEADLINE_S = 60.0
_moves = itertools.count(1)


class Pair(Protocol):
    """Two hosts, `source` and `target`, each by what a coordinator has of it: a stub."""

    source: Any
    target: Any

    def run_container(self) -> str:
        """A container that runs on the source at epoch 1; returns its id."""

    def address(self, role: str) -> HostAddress: ...

    def certificate(self, public_key: str, migration_id: str, sender: str) -> str:
        """For the host that sends, "source" or "target" of the pair."""

    def close(self) -> None: ...


class FakePair:
    """Two fake agents, called directly."""

    def __init__(self, directory: Path) -> None:
        self.world = World("host1", "host2")
        wire = Wire(self.world)
        self.source, self.target = wire.migration("host1"), wire.migration("host2")
        self._ids = itertools.count(1)

    def run_container(self) -> str:
        container_id = f"{next(self._ids):032x}"
        self.world.run("host1", container_id)
        return container_id

    def address(self, role: str) -> HostAddress:
        host = {"source": "host1", "target": "host2"}[role]
        return HostAddress(address=fakes.address(host), port=22, user="migrate", host_keys=("ssh-ed25519 AAAA",))

    def certificate(self, public_key: str, migration_id: str, sender: str) -> str:
        return fakes.certificate(public_key)

    def close(self) -> None:
        assert self.world.violations == []


class FakePairOverGrpc(FakePair):
    """The same two behind real servers and channels on unix sockets."""

    def __init__(self, directory: Path) -> None:
        super().__init__(directory)
        self._servers, self._channels = [], []
        stubs = []
        for name, agent in self.world.agents.items():
            interceptors = [rpc_errors.ErrorInterceptor()]
            server = grpc.server(ThreadPoolExecutor(4), interceptors=interceptors, options=channels.SERVER_OPTIONS)
            agent_pb2_grpc.add_MigrationServicer_to_server(agent, server)
            server.add_insecure_port(channels.unix_target(directory / name))
            server.start()
            channel = channels.unix_channel(directory / name)
            self._servers.append(server)
            self._channels.append(channel)
            stubs.append(agent_pb2_grpc.MigrationStub(channel))
        self.source, self.target = stubs

    def close(self) -> None:
        for channel in self._channels:
            channel.close()
        for server in self._servers:
            server.stop(0).wait()
        super().close()


REAL = "real"
PAIRS: dict[str, Callable[[Path], Pair]] = {"fake": FakePair, "fake over gRPC": FakePairOverGrpc}


@pytest.fixture(scope="module")
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


class MoveByHand:
    """The calls of one move in the order of docs/migration.md; each is a method, so that a test can stop anywhere."""

    STEPS = ("accept", "prepare_tunnel", "open_tunnel", "layers", "precopy", "freeze", "restore")

    def __init__(
        self, pair: Pair, container_id: str, *, move: str = "1", epoch: int = 1, back: bool = False, times: int = 1
    ) -> None:
        """`back`: from target to source. `times`: how often each call is made."""
        self.pair, self.container_id, self.epoch = pair, container_id, epoch
        self.id = f"{move}{next(_moves):015x}"  # an agent remembers the moves of earlier tests
        self.source, self.target = (pair.target, pair.source) if back else (pair.source, pair.target)
        self.sender, self.to = ("target", "source") if back else ("source", "target")
        self.times = times
        self.public_key = self.digest = ""
        self.missing: list[str] = []

    def call(self, stub: Any, method: str, request: Any) -> Any:
        for _ in range(self.times):
            with rpc_errors.native():
                answer = getattr(stub, method)(request, timeout=DEADLINE_S)
                if method in ("SendLayers", "Precopy", "Freeze"):
                    answer = list(answer)
        return answer

    def up_to(self, last: str) -> None:
        """Every step, `last` included."""
        for step in self.STEPS[: self.STEPS.index(last) + 1]:
            getattr(self, step)()

    def describe(self) -> agent_pb2.Description:
        request = agent_pb2.DescribeRequest(migration_id=self.id, epoch=self.epoch, container_id=self.container_id)
        return self.call(self.source, "Describe", request)

    def accept(self) -> None:
        seen = self.describe()
        self.accept_request = agent_pb2.AcceptRequest(
            migration_id=self.id,
            epoch=self.epoch,
            spec=seen.spec,
            image=seen.image,
            memory_bytes=seen.memory_bytes,
            layer_bytes=seen.layer_bytes,
            source_host="host1",
        )
        self.accept_again()

    def accept_again(self) -> None:
        self.missing = list(self.call(self.target, "Accept", self.accept_request).missing_layers)

    def prepare_tunnel(self) -> None:
        request = agent_pb2.PrepareTunnelRequest(migration_id=self.id, epoch=self.epoch, container_id=self.container_id)
        self.public_key = self.call(self.source, "PrepareTunnel", request).public_key

    def open_tunnel(self) -> None:
        there = self.pair.address(self.to)
        request = agent_pb2.OpenTunnelRequest(
            migration_id=self.id,
            epoch=self.epoch,
            container_id=self.container_id,
            certificate=self.pair.certificate(self.public_key, self.id, self.sender),
            address=there.address,
            port=there.port,
            user=there.user,
            host_keys=there.host_keys,
        )
        self.call(self.source, "OpenTunnel", request)

    def layers(self) -> None:
        request = agent_pb2.SendLayersRequest(migration_id=self.id, epoch=self.epoch, layers=self.missing)
        self.call(self.source, "SendLayers", request)

    def precopy(self) -> None:
        request = agent_pb2.PrecopyRequest(migration_id=self.id, epoch=self.epoch, max_downtime_s=0.3, max_rounds=2)
        self.call(self.source, "Precopy", request)

    def freeze(self) -> None:
        events = self.call(self.source, "Freeze", agent_pb2.FreezeRequest(migration_id=self.id, epoch=self.epoch))
        assert [event.HasField("result") for event in events].count(True) == 1
        assert events[-1].HasField("result")
        self.digest = events[-1].result.digest

    def restore(self) -> None:
        request = agent_pb2.RestoreRequest(migration_id=self.id, epoch=self.epoch, digest=self.digest)
        self.call(self.target, "Restore", request)

    def finish(self, role: str, *, committed: bool) -> agent_pb2.FinishResponse:
        request = agent_pb2.FinishRequest(
            migration_id=self.id, epoch=self.epoch, container_id=self.container_id, committed=committed, role=role
        )
        return self.call(self.source if role == "source" else self.target, "Finish", request)

    def commit(self) -> None:
        self.finish("target", committed=True)
        self.finish("source", committed=True)

    def undo(self) -> None:
        self.finish("target", committed=False)
        self.finish("source", committed=False)

    def where(self, stub: Any) -> str:
        request = agent_pb2.WhereRequest(container_id=self.container_id)
        with rpc_errors.native():
            answer = stub.Where(request, timeout=DEADLINE_S)
        if not answer.present:
            return "absent"
        name = types_pb2.ContainerState.Name(answer.state).removeprefix("CONTAINER_STATE_").lower()
        return f"{name}@{answer.epoch}"

    def states(self) -> tuple[str, str]:
        """Of the pair's source and target, whichever way this move goes."""
        return self.where(self.pair.source), self.where(self.pair.target)


def refused(code: str = "") -> Any:
    """The call must fail with an error that the agent chose, not with a broken connection or a mistake of its own."""

    class Refused:
        def __enter__(self) -> None:
            pass

        def __exit__(self, _kind: object, exc: BaseException | None, _trace: object) -> bool:
            assert isinstance(exc, MigrateError), f"not refused: {exc!r}"
            assert exc.code not in ("internal", "unreachable"), exc.message
            assert not code or exc.code == code, f"{exc.code}: {exc.message}"
            assert exc.message
            return True

    return Refused()


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
