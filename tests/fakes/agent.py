"""The Migration service of protos/agent.proto for a world of hosts in memory: no CRIU, no root, all of the contract.

`FakeAgent` is a servicer: give it to add_MigrationServicer_to_server, or call its methods with a request. What a real
agent must promise is what this one keeps: see "What an agent promises" in docs/migration.md and
tests/contract/test_migration_agent.py, which runs on both.

A container's memory is a number that grows while it runs. The world notices two copies running, a copy of the past
running, and the death of the only copy, whoever causes it; `World.violations` has the list.
"""
# ruff: noqa: N802  the names are those of the service

from __future__ import annotations

import itertools
import time
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any

from agent.errors import (
    AgentError,
    AlreadyExists,
    InvalidArgument,
    NotFound,
    StaleEpoch,
    TransferError,
    WrongState,
)
from migrate.rpc.version import OURS
from protos import agent_pb2, agent_pb2_grpc, types_pb2

RUNNING = types_pb2.CONTAINER_STATE_RUNNING
FROZEN = types_pb2.CONTAINER_STATE_FROZEN
ARRIVING = types_pb2.CONTAINER_STATE_ARRIVING
EXITED = types_pb2.CONTAINER_STATE_EXITED
HAS_TASKS = (RUNNING, FROZEN)

LAYERS = ("sha256:base", "sha256:app")
MEMORY_BYTES = 8 << 20

MISSING = agent_pb2.MissingMemory(
    task=7,
    bytes=3 << 20,
    program="redis-server",
    ranges=[agent_pb2.MissingRange(start=1 << 20, end=4 << 20, area="[heap]")],
    range_count=1,
)


@dataclass
class FakeContainer:
    """One host's copy. `memory`: how far it has run; None before there is any."""

    spec: types_pb2.ContainerSpec
    state: int
    epoch: int
    memory: int | None = None
    lacks: bool = False  # post-copy: it runs, and some of its memory is still on the source
    sealed: bool = False  # a rehearsal's: it runs where nobody hears of it
    migration_id: str = ""
    execs: list[str] = field(default_factory=list)  # command lines of what came in by exec


@dataclass
class FakeMove:
    """One host's record of a move; a finished one stays, so that a late call finds it."""

    role: str
    epoch: int
    container_id: str
    finished: bool = False
    committed: bool = False
    tunnel: bool = False
    bandwidth: int = 0
    switch: bool = False
    ended_exec: list[str] = field(default_factory=list)  # source
    received: dict[str, int] = field(default_factory=dict)  # target: digest -> memory
    kept_back: bool = False  # both: some memory comes after the resume
    rest_sent: bool = False  # source
    frozen: Any = None  # source, of a rehearsal: the result of its freeze, which is over
    brought: set[str] = field(default_factory=set)  # target, of a rehearsal: image layers that go with it
    expected_again: bool = False  # target: another tunnel
    rehearsal: bool = False  # both
    marks: list[types_pb2.Mark] = field(default_factory=list)


class World:
    """All hosts, one clock. `on_instant` is called at each instant: tests let the power go there."""

    def __init__(self, *names: str) -> None:
        self.agents = {name: FakeAgent(self, name) for name in names or ("host1", "host2")}
        self.violations: list[str] = []
        self.newest: dict[str, int] = {}  # container -> memory of the copy that has run furthest
        self.now_ns = itertools.count(1_000_000_000, 1_000_000)

    def run(self, host: str, container_id: str, *, epoch: int = 1, name: str = "web1") -> types_pb2.ContainerSpec:
        """Start a container on `host`."""
        spec = types_pb2.ContainerSpec(id=container_id, name=name, layers=LAYERS)
        copy = FakeContainer(spec=spec, state=RUNNING, epoch=epoch, memory=0)
        agent = self.agents[host]
        agent.containers[container_id] = copy
        agent.epochs[container_id] = epoch
        agent.layers.update(LAYERS)
        return spec

    def pass_time(self) -> None:
        """Every running copy works a little; an instant for whoever looks for mistakes."""
        running: dict[str, list[FakeAgent]] = {}
        for agent in self.agents.values():
            for container_id, copy in agent.containers.items():
                if copy.state == RUNNING and not copy.sealed:
                    running.setdefault(container_id, []).append(agent)
        for container_id, agents in running.items():
            if len(agents) > 1:
                self.violations.append(f"two copies ran at once: {', '.join(a.host for a in agents)}")
            for agent in agents:
                copy = agent.containers[container_id]
                if (copy.memory or 0) < self.newest.get(container_id, 0):
                    self.violations.append(f"a copy of the past ran on {agent.host}")
                copy.memory = (copy.memory or 0) + 1
                self.newest[container_id] = max(self.newest.get(container_id, 0), copy.memory)

    def killing(self, host: str, container_id: str) -> None:
        """`host` is about to end its copy on purpose."""
        copy = self.agents[host].containers[container_id]
        if copy.lacks or copy.sealed:
            return  # no copy without the other one; a rehearsal's is none
        for other in self.agents.values():
            if other.host != host and (there := other.containers.get(container_id)) and there.lacks:
                self.violations.append(f"memory that {other.host} lacks was killed on {host}")
        if copy.memory is None or copy.memory < self.newest.get(container_id, 0):
            return
        for other in self.agents.values():
            there = other.containers.get(container_id)
            if other.host != host and there and there.state in HAS_TASKS and (there.memory or 0) >= copy.memory:
                return
        self.violations.append(f"the only copy was killed on {host}")

    def states(self, container_id: str) -> dict[str, str]:
        """By host: "running", "frozen", ...; hosts without it are left out."""
        return {
            name: types_pb2.ContainerState.Name(copy.state).removeprefix("CONTAINER_STATE_").lower()
            for name, agent in self.agents.items()
            if (copy := agent.containers.get(container_id))
        }


class FakeAgent(agent_pb2_grpc.MigrationServicer):
    """One host. Errors are those of agent/errors.py."""

    def __init__(self, world: World, host: str) -> None:
        self.world = world
        self.host = host
        self.containers: dict[str, FakeContainer] = {}
        self.moves: dict[str, FakeMove] = {}
        self.epochs: dict[str, int] = {}  # outlives the container: a late call must still be refused
        self.layers: set[str] = set()
        self.probes: set[str] = set()
        self.sick = ""  # what is wrong with a copy that is tried here
        self.logs: dict[str, dict[str, bytes]] = {}  # by move and name: what was kept when it was undone

    def facts(self) -> agent_pb2.HostFacts:
        return agent_pb2.HostFacts(
            host=self.host,
            protocol=OURS.major,
            protocol_minor=OURS.minor,
            architecture="x86_64",
            criu_version="4.2.1",
            memory_total_bytes=8 << 30,
            memory_available_bytes=4 << 30,
            disk_available_bytes=100 << 30,
        )

    def reboot(self) -> None:
        """Every task dies, /run is empty, and with it the records of moves; what was on disk is still there."""
        for copy in self.containers.values():
            if copy.state in HAS_TASKS:
                copy.state, copy.memory, copy.lacks = EXITED, None, False
        self.moves.clear()

    # ------------------------------------------------------------ both

    def Where(self, request: Any, context: Any = None) -> agent_pb2.WhereResponse:
        missing = [layer for layer in request.layers if layer not in self.layers]
        copy = self.containers.get(request.container_id)
        if copy is None:
            return agent_pb2.WhereResponse(epoch=self.epochs.get(request.container_id, 0), missing_layers=missing)
        move = self.moves.get(copy.migration_id)
        return agent_pb2.WhereResponse(
            present=True,
            missing_layers=missing,
            state=copy.state,
            epoch=copy.epoch,
            migration_id=copy.migration_id,
            role=move.role if move else "",
            committed=bool(move and move.committed),
            rehearsal=bool(move and move.rehearsal and not move.finished),
            missing=[MISSING] if copy.lacks else [],
        )

    def Logs(self, request: Any, context: Any = None) -> agent_pb2.MoveLogs:
        logs = self.logs.get(request.migration_id, {})
        return agent_pb2.MoveLogs(logs=[agent_pb2.MoveLog(name=name, tail=tail) for name, tail in logs.items()])

    def Finish(self, request: Any, context: Any = None) -> agent_pb2.FinishResponse:
        if request.role not in ("source", "target"):
            raise InvalidArgument(f"role is source or target, not {request.role!r}")
        move = self.moves.get(request.migration_id)
        if move is not None and move.finished:
            if move.committed != request.committed:
                raise WrongState(f"move {request.migration_id} was finished the other way here")
            return agent_pb2.FinishResponse(marks=move.marks)
        self._fence(request.container_id, request.epoch)
        if move is None:
            # Also where nothing has begun: a call that is still on its way must find that the move is over.
            move = FakeMove(role=request.role, epoch=request.epoch, container_id=request.container_id)
        if move.role != request.role:
            raise InvalidArgument(f"this host is the {move.role} of move {request.migration_id}")
        if move.rehearsal and request.committed:
            raise WrongState(f"move {request.migration_id} is a rehearsal")
        finish = self._finish_source if request.role == "source" else self._finish_target
        finish(request, move)
        self.moves[request.migration_id] = move
        move.finished, move.committed = True, request.committed
        return agent_pb2.FinishResponse(marks=move.marks)

    def _finish_source(self, request: Any, move: FakeMove) -> None:
        copy = self.containers.get(request.container_id)
        if copy is None:
            return
        if not request.committed:
            if copy.migration_id == request.migration_id and copy.state == FROZEN:
                copy.state = RUNNING
            copy.migration_id = ""
            return
        if move.kept_back and not move.rest_sent:
            raise WrongState(f"memory of {copy.spec.name} is only here")
        if copy.state == RUNNING:
            raise WrongState(f"{copy.spec.name} runs here: a commit releases a frozen container only")
        if copy.state == FROZEN:
            self.world.killing(self.host, request.container_id)
        del self.containers[request.container_id]
        self.epochs[request.container_id] = request.epoch + 1

    def _finish_target(self, request: Any, move: FakeMove) -> None:
        copy = self.containers.get(request.container_id)
        ours = copy is not None and copy.migration_id == request.migration_id
        if not request.committed:
            if ours:
                if copy.state == FROZEN and not move.rehearsal:
                    self.world.killing(self.host, request.container_id)
                del self.containers[request.container_id]
                self.layers -= move.brought
            return
        if not ours or copy.state != FROZEN:
            raise WrongState(f"there is no restored container of move {request.migration_id} here")
        copy.state, copy.epoch, copy.migration_id = RUNNING, request.epoch + 1, ""
        self.epochs[request.container_id] = copy.epoch
        move.marks = [self._mark(name) for name in ("linked", "running", "announced")]

    # ------------------------------------------------------------ source

    def Describe(self, request: Any, context: Any = None) -> agent_pb2.Description:
        copy = self._copy(request.container_id)
        self._fence(request.container_id, request.epoch)
        return agent_pb2.Description(
            spec=copy.spec,
            state=copy.state,
            memory_bytes=MEMORY_BYTES,
            layer_bytes=1 << 20,
            tasks=3,
            image=types_pb2.Image(name="image", digest="sha256:image", layers=LAYERS, size_bytes=64 << 20),
            blockers=[
                agent_pb2.Blocker(check="exec", what=f"`{one}` came in by exec", remedy="--end-exec", pid=70 + n)
                for n, one in enumerate(copy.execs)
            ],
        )

    def PrepareTunnel(self, request: Any, context: Any = None) -> agent_pb2.PrepareTunnelResponse:
        copy = self._copy(request.container_id)
        move = self._begin(request.migration_id, "source", request.container_id, request.epoch)
        copy.migration_id, move.rehearsal = request.migration_id, request.rehearsal
        return agent_pb2.PrepareTunnelResponse(public_key=f"ssh-ed25519 AAAA{request.migration_id}")

    def OpenTunnel(self, request: Any, context: Any = None) -> agent_pb2.OpenTunnelResponse:
        move = self._source(request)
        if request.certificate != f"certificate of ssh-ed25519 AAAA{request.migration_id}":
            raise TransferError("the target's sshd refused the certificate")
        target = next((a for a in self.world.agents.values() if address(a.host) == request.address), None)
        if target is None or not target.awaits(request.migration_id):
            raise TransferError(f"nobody at {request.address} waits for move {request.migration_id}")
        move.tunnel, move.bandwidth = True, request.transfer.bandwidth
        return agent_pb2.OpenTunnelResponse(connect_s=0.1, round_trip_s=0.001, cipher="aes128-gcm@openssh.com")

    def ExpectProbe(self, request: Any, context: Any = None) -> agent_pb2.ExpectProbeResponse:
        self.probes.add(request.probe_id)
        return agent_pb2.ExpectProbeResponse()

    def PrepareProbe(self, request: Any, context: Any = None) -> agent_pb2.PrepareTunnelResponse:
        return agent_pb2.PrepareTunnelResponse(public_key=f"ssh-ed25519 AAAA{request.probe_id}")

    def RunProbe(self, request: Any, context: Any = None) -> agent_pb2.RunProbeResponse:
        if request.tunnel.certificate != f"certificate of ssh-ed25519 AAAA{request.probe_id}":
            raise TransferError("the target's sshd refused the certificate")
        target = next(each for each in self.world.agents.values() if address(each.host) == request.tunnel.address)
        if request.probe_id not in target.probes:
            raise TransferError(f"no migration {request.probe_id} waits for a tunnel here")
        target.probes.remove(request.probe_id)
        return agent_pb2.RunProbeResponse(connect_s=0.1, round_trip_s=0.001, bytes_per_s=500e6)

    def SetBandwidth(self, request: Any, context: Any = None) -> agent_pb2.SetBandwidthResponse:
        move = self._source(request)
        if not move.tunnel:
            raise WrongState(f"migration {request.migration_id} has no tunnel here yet")
        move.bandwidth = request.bandwidth
        return agent_pb2.SetBandwidthResponse()

    def SendLayers(self, request: Any, context: Any = None) -> Iterator[types_pb2.Progress]:
        move = self._source(request)
        target = self._other_end(move, request.migration_id)
        for number, layer in enumerate(request.layers, start=1):
            if layer not in self.layers:
                raise NotFound(f"no layer {layer} here")
            target.layers.add(layer)
            yield types_pb2.Progress(phase="layers", done_bytes=number << 20, total_bytes=len(request.layers) << 20)

    def Precopy(self, request: Any, context: Any = None) -> Iterator[types_pb2.Progress]:
        move = self._source(request)
        self._other_end(move, request.migration_id)
        copy = self._copy(move.container_id)
        if copy.state != RUNNING:
            raise WrongState(f"{copy.spec.name} does not run")
        for number in (1, 2):
            yield types_pb2.Progress(phase="precopy", text=f"round {number}", facts={"round": number})

    def Hold(self, request: Any, context: Any = None) -> Iterator[types_pb2.Progress]:
        move = self._source(request)
        while True:
            self._other_end(move, request.migration_id)
            yield types_pb2.Progress(phase="hold", text="ready", facts={"held_s": 1.0})
            self._source(request)
            if move.switch:
                return
            time.sleep(0.001)

    def Switch(self, request: Any, context: Any = None) -> agent_pb2.SwitchResponse:
        self._source(request).switch = True
        return agent_pb2.SwitchResponse()

    def EndExec(self, request: Any, context: Any = None) -> agent_pb2.EndExecResponse:
        move = self._source(request)
        copy = self._copy(move.container_id)
        ended, copy.execs = [*move.ended_exec, *copy.execs], []
        move.ended_exec = ended
        return agent_pb2.EndExecResponse(
            ended=[agent_pb2.EndedExec(pid=7 + n, command=one, signal="SIGTERM") for n, one in enumerate(ended)]
        )

    def Freeze(self, request: Any, context: Any = None) -> Iterator[agent_pb2.FreezeEvent]:
        move = self._source(request)
        target = self._other_end(move, request.migration_id)
        copy = self._copy(move.container_id)
        if copy.state not in HAS_TASKS:
            raise WrongState(f"{copy.spec.name} does not run")
        if move.frozen is not None:  # a rehearsal's, repeated
            yield agent_pb2.FreezeEvent(result=move.frozen)
            return
        if copy.state == RUNNING:
            copy.state = FROZEN
            move.marks = [self._mark(name) for name in ("dump", "frozen", "dumped", "held")]
        yield agent_pb2.FreezeEvent(progress=types_pb2.Progress(phase="freeze", text="frozen"))
        if copy.state != FROZEN or move.finished:
            raise WrongState(f"move {request.migration_id} is over")
        digest = f"{move.container_id} at {copy.memory}"
        move.kept_back = request.postcopy
        target.receive(request.migration_id, digest, copy.memory or 0, kept_back=request.postcopy)
        marks = list(move.marks)
        if move.rehearsal:
            copy.state = RUNNING
            marks += [self._mark("thawed")]
        result = agent_pb2.FreezeResult(
            marks=marks,
            sent_bytes={"memory": MEMORY_BYTES, "images": 4096},
            memory_pages=2048,
            digest=digest,
            later_bytes=MEMORY_BYTES if request.postcopy else 0,
        )
        if move.rehearsal:
            move.frozen = result
        yield agent_pb2.FreezeEvent(result=result)

    def SendRest(self, request: Any, context: Any = None) -> Iterator[types_pb2.Progress]:
        move = self._source(request)
        copy = self._copy(move.container_id)
        if copy.state != FROZEN:
            raise WrongState(f"{copy.spec.name} is not frozen here")
        if not move.rest_sent:
            target = None if request.complete else self._other_end(move, request.migration_id)
            if target:
                target.fill(request.migration_id)
            move.rest_sent = True
        yield types_pb2.Progress(phase="rest", text="all is there")

    # ------------------------------------------------------------ target

    def Accept(self, request: Any, context: Any = None) -> agent_pb2.AcceptResponse:
        present = self.containers.get(request.spec.id)
        if present is not None and present.migration_id != request.migration_id:
            raise AlreadyExists(f"container {request.spec.id} is here already")
        move = self._begin(request.migration_id, "target", request.spec.id, request.epoch)
        move.rehearsal = request.rehearsal
        if present is None:
            self.containers[request.spec.id] = FakeContainer(
                spec=request.spec, state=ARRIVING, epoch=request.epoch, migration_id=request.migration_id
            )
        missing = [layer for layer in request.image.layers if layer not in self.layers]
        if move.rehearsal and not move.brought:
            move.brought = set(missing)
        return agent_pb2.AcceptResponse(missing_layers=missing, restore_mode="lazy")

    def Restore(self, request: Any, context: Any = None) -> agent_pb2.RestoreResponse:
        move = self._open(request.migration_id, "target")
        self._fence(move.container_id, request.epoch)
        copy = self._copy(move.container_id)
        if request.digest not in move.received:
            raise TransferError(f"what arrived is not {request.digest}")
        if missing := [layer for layer in copy.spec.layers if layer not in self.layers]:
            raise NotFound(f"no layer {missing[0]} here")
        if copy.state == ARRIVING:
            copy.state, copy.memory, copy.lacks = FROZEN, move.received[request.digest], move.kept_back
        return agent_pb2.RestoreResponse(pid=4711, marks=[self._mark("restored")], mode="lazy")

    def Try(self, request: Any, context: Any = None) -> agent_pb2.TryResponse:
        move = self._open(request.migration_id, "target")
        self._fence(move.container_id, request.epoch)
        copy = self._copy(move.container_id)
        if not move.rehearsal:
            raise WrongState(f"move {request.migration_id} is no rehearsal")
        if copy.state not in HAS_TASKS:
            raise WrongState(f"{copy.spec.name} was not restored here")
        copy.state, copy.sealed = RUNNING, True
        if not move.marks:
            move.marks = [self._mark("running")]
        if self.sick:
            return agent_pb2.TryResponse(text=self.sick, health="unhealthy", tasks=1, marks=move.marks)
        return agent_pb2.TryResponse(passed=True, text="it is well", health="healthy", tasks=3, marks=move.marks)

    def Reopen(self, request: Any, context: Any = None) -> agent_pb2.ReopenResponse:
        move = self.moves.get(request.migration_id)
        copy = self.containers.get(request.container_id)
        needed = move is not None and move.role == "target" and move.committed and copy is not None and copy.lacks
        if move is not None and needed:
            move.expected_again = True
        return agent_pb2.ReopenResponse(needed=needed)

    def awaits(self, migration_id: str) -> bool:
        move = self.moves.get(migration_id)
        return move is not None and move.role == "target" and (not move.finished or self._lacks(move))

    def _lacks(self, move: FakeMove) -> bool:
        copy = self.containers.get(move.container_id)
        return copy is not None and copy.lacks

    def fill(self, migration_id: str) -> None:
        """The rest of the memory is here."""
        self.containers[self.moves[migration_id].container_id].lacks = False

    def receive(self, migration_id: str, digest: str, memory: int, *, kept_back: bool = False) -> None:
        if not self.awaits(migration_id):
            raise TransferError(f"{self.host} closed the stream of move {migration_id}")
        self.moves[migration_id].received[digest] = memory
        self.moves[migration_id].kept_back = kept_back

    # ------------------------------------------------------------ inside

    def _copy(self, container_id: str) -> FakeContainer:
        if container_id not in self.containers:
            raise NotFound(f"no container {container_id} here", code="container.not_found")
        return self.containers[container_id]

    def _fence(self, container_id: str, epoch: int) -> None:
        known = self.epochs.get(container_id, 0)
        if epoch < known:
            raise StaleEpoch(f"epoch {epoch} of container {container_id} is over, it is {known} now")

    def _begin(self, migration_id: str, role: str, container_id: str, epoch: int) -> FakeMove:
        self._fence(container_id, epoch)
        if migration_id in self.moves:
            return self._open(migration_id, role)
        for other_id, other in self.moves.items():
            if other.container_id == container_id and not other.finished:
                raise WrongState(f"container {container_id} takes part in move {other_id}")
        move = FakeMove(role=role, epoch=epoch, container_id=container_id)
        self.moves[migration_id] = move
        return move

    def _open(self, migration_id: str, role: str) -> FakeMove:
        move = self.moves.get(migration_id)
        if move is None or move.role != role:
            raise NotFound(f"this host is not the {role} of a move {migration_id}", code="migration.not_found")
        if move.finished:
            raise WrongState(f"move {migration_id} is over here")
        return move

    def _source(self, request: Any) -> FakeMove:
        move = self._open(request.migration_id, "source")
        self._fence(move.container_id, request.epoch)
        return move

    def _other_end(self, move: FakeMove, migration_id: str) -> FakeAgent:
        for agent in self.world.agents.values():
            if move.tunnel and agent.host != self.host and agent.awaits(migration_id):
                return agent
        raise TransferError(f"the tunnel of move {migration_id} is not open")

    def _mark(self, name: str) -> types_pb2.Mark:
        return types_pb2.Mark(name=name, unix_ns=next(self.world.now_ns))


def address(host: str) -> str:
    """ "10.0.0.1" of "host1"."""
    return f"10.0.0.{host.removeprefix('host')}"


def certificate(public_key: str) -> str:
    """What the fake fleet's authority signs."""
    return f"certificate of {public_key}"


__all__ = ["AgentError", "FakeAgent", "FakeContainer", "World", "address", "certificate"]
