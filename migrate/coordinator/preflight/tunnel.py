"""The bulk tunnel from source to target, opened as a move opens it, and measured."""

from __future__ import annotations

from typing import Any, Protocol

from migrate.coordinator.move import Agents, Move, Signer
from migrate.coordinator.preflight.finding import Finding
from migrate.errors import MigrateError
from protos import agent_pb2

CHECK = "tunnel"
QUICK_S = 20.0
RUN_S = 40.0  # ssh's own limits are shorter


class Between(Protocol):
    """Two hosts, as a Move has them."""

    @property
    def id(self) -> str: ...
    @property
    def source(self) -> str: ...
    @property
    def target(self) -> str: ...
    @property
    def agents(self) -> Agents: ...
    @property
    def signer(self) -> Signer: ...
    def call(self, host: str, method: str, request: Any, *, timeout_s: float) -> Any: ...


def measure(move: Between) -> agent_pb2.RunProbeResponse:
    """Sends for half a second at most. Raises what stands in the way: Unreachable, or an agent's own error."""
    asked = agent_pb2.ProbeRequest(probe_id=move.id)
    move.call(move.target, "ExpectProbe", asked, timeout_s=QUICK_S)
    key = move.call(move.source, "PrepareProbe", asked, timeout_s=QUICK_S).public_key
    target = move.agents.address(move.target)
    request = agent_pb2.RunProbeRequest(
        probe_id=move.id,
        tunnel=agent_pb2.OpenTunnelRequest(
            certificate=move.signer.sign_bulk(key, move.id, move.agents.address(move.source).address),
            address=target.address,
            port=target.port,
            user=target.user,
            host_keys=target.host_keys,
        ),
    )
    speed: agent_pb2.RunProbeResponse = move.call(move.source, "RunProbe", request, timeout_s=RUN_S)
    return speed


def why_not(move: Move, error: MigrateError) -> Finding:
    """What keeps the tunnel from being opened would keep the move from it, too."""
    return Finding(
        check=CHECK, what=f"has no tunnel to {move.target}: {error.message}", where=move.source, remedy=error.hint
    )
