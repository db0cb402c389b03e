"""The coordinator's way to the agents of a `World`, in which calls get lost, come twice or come late.

`Wire` is an `Agents` and a `Signer` of migrate/coordinator/move.py. Every call passes instants: before it leaves and
after its effect; `on_instant(n)` may raise, and stands for whatever happens then.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator
from typing import Any

from agent.errors import AgentError, StorageError
from migrate.coordinator.move import HostAddress
from migrate.errors import Unreachable
from migrate.rpc import errors as rpc_errors
from protos import agent_pb2
from tests.fakes import agent as fakes
from tests.fakes.agent import World

# What can happen to one call.
KINDS = ("refused", "lost", "reply lost", "twice", "late", "again later")
LATER = 2  # calls that overtake a late one


class Wire:
    """`fault`: (number of the call, kind). Calls of Migration are numbered from 1 over the life of the world."""

    def __init__(self, world: World, fault: tuple[int, str] | None = None) -> None:
        self.world = world
        self.fault = fault
        self.on_instant: Callable[[int], None] = lambda _n: None
        self.instants = 0
        self.calls = 0
        self.history: list[tuple[str, str, Any]] = []
        self.unreachable: set[str] = set()
        self._late: list[tuple[int, str, str, Any]] = []
        self._lock = threading.RLock()  # the world has one clock

    def instant(self) -> None:
        self.instants += 1
        self.world.pass_time()
        self.on_instant(self.instants)

    # ------------------------------------------------------------ Agents, Signer

    def facts(self, host: str) -> agent_pb2.HostFacts:
        self.instant()
        self._reach(host)
        return self.world.agents[host].facts()

    def address(self, host: str) -> HostAddress:
        return HostAddress(address=fakes.address(host), port=22, user="migrate", host_keys=("ssh-ed25519 AAAAhost",))

    def migration(self, host: str) -> Any:
        return _Stub(self, host)

    def sign_bulk(self, public_key: str, migration_id: str, source_address: str) -> str:
        assert migration_id in public_key
        assert source_address.startswith("10.0.0.")
        return fakes.certificate(public_key)

    # ------------------------------------------------------------ calls

    def unary(self, host: str, method: str, request: Any) -> Any:
        kind = self._next(host, method, request)
        self.instant()
        self._before(host, kind)
        if kind == "late":
            self._postpone(host, method, request)
            raise Unreachable(f"{host} did not answer in time")
        reply = self._deliver(host, method, request)
        if kind == "twice":
            reply = self._deliver(host, method, request)
        self._after(host, method, request, kind)
        return reply

    def stream(self, host: str, method: str, request: Any) -> Iterator[Any]:
        kind = self._next(host, method, request)
        self.instant()
        self._before(host, kind)
        if kind == "late":
            self._postpone(host, method, request)
            raise Unreachable(f"{host} did not answer in time")
        if kind == "twice":
            list(self._deliver(host, method, request))
        try:
            for reply in getattr(self.world.agents[host], method)(request):
                self.instant()
                self._reach(host)
                yield reply
        except AgentError as exc:
            raise rpc_errors.from_detail(rpc_errors.to_detail(exc)) from exc
        self._after(host, method, request, kind)

    def deliver_late(self) -> None:
        """Everything that is still on its way arrives."""
        late, self._late = self._late, []
        for _, host, method, request in late:
            self._unheard(host, method, request)

    def repeat_everything(self) -> None:
        """Every call that was ever made arrives once more."""
        for host, method, request in self.history:
            self._unheard(host, method, request)
            self.world.pass_time()

    # ------------------------------------------------------------ inside

    def _next(self, host: str, method: str, request: Any) -> str:
        self.calls += 1
        self.history.append((host, method, request))
        due = [call for call in self._late if call[0] <= self.calls]
        self._late = [call for call in self._late if call[0] > self.calls]
        for _, late_host, late_method, late_request in due:
            self._unheard(late_host, late_method, late_request)
        return self.fault[1] if self.fault and self.fault[0] == self.calls else ""

    def _before(self, host: str, kind: str) -> None:
        self._reach(host)
        if kind == "lost":
            raise Unreachable(f"{host} cannot be reached")
        if kind == "refused":
            raise rpc_errors.from_detail(rpc_errors.to_detail(StorageError("no room left")))

    def _after(self, host: str, method: str, request: Any, kind: str) -> None:
        self.instant()
        self._reach(host)
        if kind == "again later":
            self._postpone(host, method, request)
        if kind == "reply lost":
            raise Unreachable(f"{host} did not answer in time")

    def _reach(self, host: str) -> None:
        if host in self.unreachable:
            raise Unreachable(f"{host} cannot be reached")

    def _postpone(self, host: str, method: str, request: Any) -> None:
        self._late.append((self.calls + LATER + 1, host, method, request))

    def _unheard(self, host: str, method: str, request: Any) -> None:
        """It arrives, and nobody hears the answer, which may well be no."""
        try:
            self._deliver(host, method, request)
        except Exception as exc:  # noqa: BLE001  only the agent's own refusals and the mapping of them are expected
            assert hasattr(exc, "code"), exc

    def _deliver(self, host: str, method: str, request: Any) -> Any:
        try:
            answer = getattr(self.world.agents[host], method)(request)
            if method == "Hold":  # it would go on as long as the first one
                return [next(answer)]
            return list(answer) if method in STREAMS else answer
        except AgentError as exc:
            raise rpc_errors.from_detail(rpc_errors.to_detail(exc)) from exc


STREAMS = ("SendLayers", "Precopy", "Hold", "Freeze", "SendRest")


class _Stub:
    """Looks like agent_pb2_grpc.MigrationStub; every call must have a deadline."""

    def __init__(self, wire: Wire, host: str) -> None:
        self._wire = wire
        self._host = host

    def __getattr__(self, method: str) -> Callable[..., Any]:
        def call(request: Any, *, timeout: float) -> Any:
            assert timeout > 0
            kind = self._wire.stream if method in STREAMS else self._wire.unary
            return kind(self._host, method, request)

        return call
