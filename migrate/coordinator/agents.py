"""Channels to the agents: one warm control tunnel a host, deadlines, retries of calls that may be repeated, errors by host.

    reply = pool.agent("host1").call("Containers", "Inspect", agent_pb2.InspectRequest(id=...))

An error that the agent meant passes through unchanged; where only the transport can be blamed it is Unreachable and
names the host.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import AbstractContextManager
from typing import Any, Protocol

import grpc

from migrate.coordinator.move import HostAddress
from migrate.coordinator.store import Host
from migrate.errors import Unreachable
from protos import agent_pb2, agent_pb2_grpc

STUBS: Mapping[str, Any] = {
    "Host": agent_pb2_grpc.HostStub,
    "Containers": agent_pb2_grpc.ContainersStub,
    "Lifecycle": agent_pb2_grpc.LifecycleStub,
    "Images": agent_pb2_grpc.ImagesStub,
    "Builds": agent_pb2_grpc.BuildsStub,
    "Files": agent_pb2_grpc.FilesStub,
    "Volumes": agent_pb2_grpc.VolumesStub,
    "Migration": agent_pb2_grpc.MigrationStub,
}

# Seconds; None = as long as it takes. The steps of a move bring their own.
DEFAULT_DEADLINE_S = 30.0
DEADLINES_S: Mapping[str, float | None] = {
    "Host.Facts": 8.0,
    "Host.Beat": 5.0,
    "Containers.List": 5.0,
    "Containers.Usage": 5.0,
    "Containers.Inspect": 8.0,
    "Containers.Create": 120.0,
    "Containers.Start": 120.0,
    "Containers.Stop": None,  # its own timeout, which the caller knows
    "Containers.Remove": 120.0,
    "Containers.Wait": None,
    "Containers.Logs": None,
    "Containers.Exec": None,
    "Containers.Attach": None,
    "Lifecycle.Restart": None,  # its own timeout, which the caller knows
    "Lifecycle.Events": None,
    "Images.Import": None,
    "Builds.Build": None,
    "Images.Remove": 120.0,
    "Images.Prune": 600.0,
    "Images.Load": None,
    "Images.Save": None,
    "Images.Pull": None,
    "Images.Push": None,
    "Images.Login": 60.0,
    "Volumes.Remove": 600.0,
    "Volumes.Prune": 600.0,
    "Files.CopyOut": None,
    "Files.CopyIn": None,
    "Files.Export": None,
    "Files.Diff": 600.0,
    "Files.Commit": None,
}

# What may be repeated without harm when nobody knows whether it arrived. All of Migration is idempotent by contract; who removes
# a container takes "there is none" for done.
REPEATABLE = frozenset(
    {
        "Host.Facts", "Containers.List", "Containers.Inspect", "Containers.Update", "Containers.Usage", "Containers.Top",
        "Containers.Remove",
        "Images.List", "Images.Inspect", "Volumes.Create", "Volumes.List", "Volumes.Inspect",
    }
)  # fmt: skip
MIGRATION_STREAMS = frozenset({"SendLayers", "Precopy", "Freeze"})
RETRY_DELAYS_S = (0.1, 0.5, 1.5)
# Of a move. In all longer than an agent's restart takes (1.5 s, on a busy host 3 s and more): else a move is undone that could go on.
# Short pauses first, for the container may stand still meanwhile.
MOVE_RETRY_DELAYS_S = (0.1, 0.2, 0.3, 0.4, 0.5, 0.5, 0.5, 0.5, 1.0, 1.0)


class Tunnel(Protocol):
    """A way to one agent, which reconnects by itself: migrate.tunnel.control.ControlTunnel."""

    def channel(self) -> grpc.Channel: ...
    def native(self) -> AbstractContextManager[None]:
        """Around a call: RpcError leaves as a class of migrate.errors."""

    def close(self) -> None: ...


class Agent:
    """One host's agent. Thread-safe. `patience`: what every deadline is multiplied by."""

    def __init__(
        self, name: str, tunnel: Tunnel, *, patience: float = 1.0, sleep: Callable[[float], None] = time.sleep
    ) -> None:
        self.name = name
        self._tunnel = tunnel
        self._patience = patience
        self._sleep = sleep
        self._stubs = {service: stub(tunnel.channel()) for service, stub in STUBS.items()}

    def call(self, service: str, method: str, request: Any, *, timeout_s: float | None = None, retries: int = 3) -> Any:
        """One answer; `request` is an iterator where the method takes a stream. `timeout_s` replaces the table's.

        Repeated after Unreachable where that does no harm, within the deadline: a call of a move with MOVE_RETRY_DELAYS_S, others up to
        `retries` times.
        """
        name = f"{service}.{method}"
        deadline_s = self._deadline_s(service, method, timeout_s)
        started = time.monotonic()
        delays = iter(RETRY_DELAYS_S[:retries] if name in REPEATABLE else ())
        if service == "Migration":
            delays = iter([delay * self._patience for delay in MOVE_RETRY_DELAYS_S])
        while True:
            try:
                with self._tunnel.native():
                    return getattr(self._stubs[service], method)(request, timeout=deadline_s)
            except Unreachable:
                delay = next(delays, None)
                spent_s = time.monotonic() - started
                if delay is None or (deadline_s is not None and spent_s + delay >= deadline_s):
                    raise
                self._sleep(delay)

    def begin(self, service: str, method: str, request: Any) -> Pending:
        """One answer, later; for calls that last long and that the caller may give up."""
        deadline_s = self._deadline_s(service, method)
        return Pending(self._tunnel, getattr(self._stubs[service], method).future(request, timeout=deadline_s))

    def stream(self, service: str, method: str, request: Any, *, timeout_s: float | None = None) -> Stream:
        """Answers as they come. Never repeated by itself: only the caller knows how far it came."""
        deadline_s = self._deadline_s(service, method, timeout_s)
        return Stream(self._tunnel, getattr(self._stubs[service], method)(request, timeout=deadline_s))

    def _deadline_s(self, service: str, method: str, timeout_s: float | None = None) -> float | None:
        """None: as long as it takes."""
        wanted_s = timeout_s or DEADLINES_S.get(f"{service}.{method}", DEFAULT_DEADLINE_S)
        return None if wanted_s is None else wanted_s * self._patience

    def close(self) -> None:
        self._tunnel.close()


class Pending:
    """A call under way; errors leave as classes of migrate.errors."""

    def __init__(self, tunnel: Tunnel, call: Any) -> None:
        self._tunnel = tunnel
        self._call = call

    def result(self) -> Any:
        """Waits for the answer."""
        with self._tunnel.native():
            return self._call.result()

    def when_done(self, callback: Callable[[], None]) -> None:
        """`result` waits no more then. Called from a thread of gRPC's, or at once."""
        self._call.add_done_callback(lambda _: callback())

    def cancel(self) -> None:
        """Idempotent; from any thread."""
        self._call.cancel()


class Stream:
    """The answers of one streaming call; errors leave as classes of migrate.errors."""

    def __init__(self, tunnel: Tunnel, call: Any) -> None:
        self._tunnel = tunnel
        self._call = call

    def __iter__(self) -> Iterator[Any]:
        with self._tunnel.native():
            yield from self._call

    def cancel(self) -> None:
        """Idempotent; from any thread."""
        self._call.cancel()


class MigrationCalls:
    """The methods of MigrationStub for one host: method(request, timeout=seconds)."""

    def __init__(self, agent: Agent) -> None:
        self._agent = agent

    def __getattr__(self, method: str) -> Callable[..., Any]:
        send = self._agent.stream if method in MIGRATION_STREAMS else self._agent.call

        def call(request: Any, timeout: float | None = None) -> Any:
            return send("Migration", method, request, timeout_s=timeout)

        return call


class AgentPool:
    """All hosts' agents. `find` gives what is known of a host (NotFound for an unknown one), `connect` a tunnel to it.

    A tunnel is made when the host is first needed and kept; it is made anew when the host's address or keys have changed.
    """

    def __init__(
        self, find: Callable[[str], Host], connect: Callable[[Host], Tunnel], *, patience: float = 1.0
    ) -> None:
        self._find = find
        self._connect = connect
        self._patience = patience
        self._lock = threading.Lock()
        self._agents: dict[str, tuple[HostAddress, Agent]] = {}
        self._closed = False

    def agent(self, name: str) -> Agent:
        """Raises NotFound for a host that the fleet does not have."""
        host = self._find(name)
        way = _address(host)  # not the whole record: a new label must not cut off the calls under way
        with self._lock:
            if self._closed:
                raise Unreachable("the coordinator is going down")
            known = self._agents.get(name)
            if known is not None and known[0] == way:
                return known[1]
            agent = Agent(name, self._connect(host), patience=self._patience)
            self._agents[name] = (way, agent)
        if known is not None:
            known[1].close()
        return agent

    def forget(self, name: str) -> None:
        """End the tunnel to a host that has left. Idempotent."""
        with self._lock:
            known = self._agents.pop(name, None)
        if known is not None:
            known[1].close()

    def migration(self, host: str) -> MigrationCalls:
        return MigrationCalls(self.agent(host))

    def facts(self, host: str) -> agent_pb2.HostFacts:
        facts: agent_pb2.HostFacts = self.agent(host).call("Host", "Facts", agent_pb2.FactsRequest())
        return facts

    def address(self, host: str) -> HostAddress:
        """How other hosts reach this one's sshd."""
        return _address(self._find(host))

    def close(self) -> None:
        """Ends every tunnel, and with them all calls under way."""
        with self._lock:
            self._closed = True
            agents = [agent for _, agent in self._agents.values()]
            self._agents.clear()
        for agent in agents:
            agent.close()


def _address(host: Host) -> HostAddress:
    return HostAddress(address=host.address, port=host.port, user=host.user, host_keys=host.host_keys)
