"""One move as its steps see it, and how a step talks to an agent."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any, Protocol

from migrate.coordinator.events import Progress
from migrate.coordinator.store import ContainerId, MigrationId, PrecopyOptions, TransferOptions
from migrate.errors import MigrateError
from migrate.rpc import errors as rpc_errors
from migrate.saga.journal import Journal
from protos import agent_pb2, types_pb2


@dataclass(frozen=True, kw_only=True)
class HostAddress:
    """How one host reaches another's sshd. `host_keys`: pinned public keys, "ssh-ed25519 AAAA..."."""

    address: str
    port: int
    user: str
    host_keys: tuple[str, ...] = ()


class Agents(Protocol):
    """Every host's agent, by the host's name. Unreachable from any of these means that nobody answered in time."""

    def migration(self, host: str) -> Any:
        """The methods of agent_pb2_grpc.MigrationStub: method(request, timeout=seconds) -> message or iterator.

        They may raise grpc.RpcError or what rpc.errors.to_native makes of it.
        """

    def facts(self, host: str) -> agent_pb2.HostFacts: ...

    def address(self, host: str) -> HostAddress: ...


class Signer(Protocol):
    """The fleet's SSH certificate authority."""

    def sign_bulk(self, public_key: str, migration_id: str, source_address: str) -> str:
        """A certificate for `public_key`: forced command "bulk MIGRATION_ID", minutes of life."""


@dataclass(frozen=True, kw_only=True)
class Move:
    """The context of every step. `epoch`: the container's before the pivot.

    `transfer` reads the options of the move as they are now: its bandwidth may be changed. `poll` is called between the
    messages of a stream; it raises Cancelled, or Interrupted when the process goes down. `reading` is told which stream is being read:
    a cancellation ends that at once. `skip`: names of checks that are not to stop it. `rehearsal`: the container stays on the source.
    """

    id: MigrationId
    container_id: ContainerId
    container: str
    source: str
    target: str
    epoch: int
    max_downtime_s: float
    precopy: PrecopyOptions
    skip: tuple[str, ...] = ()
    rehearsal: bool = False
    transfer: Callable[[], TransferOptions] = field(repr=False)
    mode: str
    agents: Agents
    signer: Signer
    journal: Journal
    report: Callable[[Progress], None] = field(repr=False)
    poll: Callable[[], None] = field(repr=False)
    reading: Callable[[Any], None] = field(repr=False, default=lambda _replies: None)

    def call(self, host: str, method: str, request: Any, *, timeout_s: float) -> Any:
        """One unary call to the Migration service of `host`."""
        with naming(host):
            return getattr(self.agents.migration(host), method)(request, timeout=timeout_s)

    def stream(self, host: str, method: str, request: Any, *, timeout_s: float) -> Iterator[Any]:
        """The messages of one streaming call; leaving the loop early cancels the call."""
        with naming(host):
            replies = getattr(self.agents.migration(host), method)(request, timeout=timeout_s)
            self.reading(replies)
            try:
                for reply in replies:
                    yield reply
                    self.poll()
            finally:
                self.reading(None)
                if hasattr(replies, "cancel"):
                    replies.cancel()

    def pass_on(self, progress: types_pb2.Progress) -> None:
        """To whoever watches."""
        self.report(
            Progress(
                phase=progress.phase,
                text=progress.text,
                done_bytes=progress.done_bytes,
                total_bytes=progress.total_bytes,
                facts=dict(progress.facts),
                unix_ns=progress.unix_ns,
            )
        )


@contextmanager
def naming(host: str) -> Iterator[None]:
    """An agent does not say whose agent it is: its errors leave with the name of the host."""
    try:
        with rpc_errors.native(host):
            yield
    except MigrateError as exc:
        if host in exc.message:
            raise
        raise type(exc)(
            f"{host}: {exc.message}", hint=exc.hint, detail=exc.detail, code=exc.code, touched=exc.touched
        ) from exc
