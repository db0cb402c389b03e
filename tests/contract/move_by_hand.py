"""Two agents to move between, and the calls of one move made by hand: what the contract of an agent is tested with."""

from __future__ import annotations

import itertools
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any, Protocol

import grpc

from migrate.coordinator.move import HostAddress
from migrate.errors import MigrateError
from migrate.rpc import channels
from migrate.rpc import errors as rpc_errors
from protos import agent_pb2, agent_pb2_grpc, types_pb2
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


class MoveByHand:
    """The calls of one move in the order of docs/migration.md; each is a method, so that a test can stop anywhere."""

    STEPS = ("accept", "prepare_tunnel", "open_tunnel", "layers", "precopy", "freeze", "restore")

    def __init__(
        self,
        pair: Pair,
        container_id: str,
        *,
        move: str = "1",
        epoch: int = 1,
        back: bool = False,
        times: int = 1,
        rehearsal: bool = False,
    ) -> None:
        """`back`: from target to source. `times`: how often each call is made."""
        self.rehearsal = rehearsal
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
            rehearsal=self.rehearsal,
        )
        self.accept_again()

    def accept_again(self) -> None:
        self.missing = list(self.call(self.target, "Accept", self.accept_request).missing_layers)

    def prepare_tunnel(self) -> None:
        request = agent_pb2.PrepareTunnelRequest(
            migration_id=self.id, epoch=self.epoch, container_id=self.container_id, rehearsal=self.rehearsal
        )
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

    def try_out(self) -> agent_pb2.TryResponse:
        return self.call(self.target, "Try", agent_pb2.TryRequest(migration_id=self.id, epoch=self.epoch))

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
