"""Hosts come and go: what the coordinator does when one joins, once its agent is there (migrate/join puts it there), or leaves."""

from __future__ import annotations

import logging
import secrets
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

from migrate.coordinator import host_records, hosts
from migrate.coordinator.agents import Agent, AgentPool, Tunnel
from migrate.coordinator.config import HOST_NAME
from migrate.coordinator.host_records import Health
from migrate.coordinator.move import Signer
from migrate.coordinator.preflight import tunnel
from migrate.coordinator.store import Host, Store
from migrate.errors import InvalidArgument, MigrateError, WrongState
from migrate.rpc.version import OURS
from protos import agent_pb2

ANSWER_S = 60.0  # of the first call through a new tunnel: the agent may still be probing its host

log = logging.getLogger(__name__)


@dataclass(frozen=True, kw_only=True)
class TunnelTest:
    """Memory can go from `source` to `target`, this fast."""

    source: str
    target: str
    bytes_per_s: float


@dataclass(frozen=True, kw_only=True)
class _Probe:
    """Two hosts for tunnel.measure."""

    id: str
    source: str
    target: str
    agents: AgentPool
    signer: Signer

    def call(self, host: str, method: str, request: Any, *, timeout_s: float) -> Any:
        return self.agents.agent(host).call("Migration", method, request, timeout_s=timeout_s)


class Membership:
    """Thread-safe, as its parts are. `connect`: a tunnel to a host that is not the fleet's yet."""

    def __init__(
        self,
        store: Store,
        pool: AgentPool,
        signer: Signer,
        connect: Callable[[Host], Tunnel],
        *,
        patience: float = 1.0,
    ) -> None:
        self._store, self._pool, self._signer, self._connect, self._patience = store, pool, signer, connect, patience

    def join(self, host: Host, labels: Mapping[str, str], *, untested: bool = False) -> tuple[bool, list[TunnelTest]]:
        """Whether it was there already, and the tunnels that were tried. A new host that fails a test is not taken in; nothing is
        changed of one that was there. `untested`: its agent is not asked.
        """
        known = self._check(host)
        for key in labels:
            if not hosts.LABEL_KEY.fullmatch(key):
                raise InvalidArgument(f"{key!r} is no key of a label", hint="letters, digits and ._/- such as disk")
        if not untested:
            self._ask(host)
        configured = known is not None and not known.joined
        if not configured:
            self._store.put_host(host)
        if labels:
            self._store.set_labels(host.name, labels)
        try:
            tested = [] if untested else self._tunnels(host.name)
        except MigrateError:
            if known is None:
                self._store.remove_host(host.name)
                self._pool.forget(host.name)
            elif not configured:
                self._store.put_host(known)
            raise
        if known is None:
            with self._store.database.transaction() as db:
                host_records.add_event(db, host.name, "joined", time.time_ns(), {"address": host.address})
            log.info("%s has joined", host.name)
        return known is not None, tested

    def leave(self, name: str, *, force: bool) -> tuple[list[str], str]:
        """Names of the containers that were forgotten with it, and why it could not be told to trust the fleet no more, "" if it was."""
        host = self._store.host(name)
        if not host.joined:
            raise WrongState(
                f"{name} is in the coordinator's configuration, which would bring it back",
                hint="remove its [[hosts]] table from coordinator.toml, and start the coordinator again",
            )
        owned = self._store.containers(name)
        if owned and not force:
            raise WrongState(
                f"{name} still has {', '.join(one.name for one in owned)}",
                hint=f"migrate evacuate {name}; or with --force: they are forgotten, and run on there unseen",
            )
        if moving := [one for one in self._store.migrations(active=True) if name in (one.source, one.target)]:
            raise WrongState(
                f"{name} takes part in move {moving[0].id}", hint=f"migrate migrations show {moving[0].id}"
            )
        silence = ""
        try:
            self._pool.agent(name).call("Host", "Trust", agent_pb2.TrustRequest(), timeout_s=10.0)
        except MigrateError as exc:
            silence = exc.message
        forgotten = self._store.remove_host(name, force=force)
        self._pool.forget(name)
        log.info("%s has left", name)
        return forgotten, silence

    def _check(self, host: Host) -> Host | None:
        """What is known of it already. Raises for a name or an address that cannot be."""
        if not HOST_NAME.fullmatch(host.name):
            raise InvalidArgument(f"{host.name!r} cannot name a host", hint="a letter or digit, then also _ . -")
        if not host.host_keys:
            raise InvalidArgument(f"no host key is known for {host.name}")
        others = self._store.hosts()
        for other in others:
            if other.name != host.name and (other.address, other.port) == (host.address, host.port):
                raise WrongState(f"{host.address} is {other.name} already", hint=f"migrate host inspect {other.name}")
        known = next((one for one in others if one.name == host.name), None)
        if known is not None and not known.joined and _way(known) != _way(host):
            raise WrongState(
                f"{host.name} is in the coordinator's configuration, with another address or key",
                hint="change its [[hosts]] table in coordinator.toml, and start the coordinator again",
            )
        return known

    def _ask(self, host: Host) -> None:
        """Its agent answers through a tunnel of its own, is who it should be, and speaks our protocol."""
        trial = Agent(host.name, self._connect(host), patience=self._patience)
        try:
            facts = trial.call("Host", "Facts", agent_pb2.FactsRequest(), timeout_s=ANSWER_S)
        finally:
            trial.close()
        if facts.host != host.name:
            raise WrongState(f"the agent at {host.address} is that of host {facts.host!r}", hint="give it that name")
        if facts.protocol != OURS.major:  # an agent of today's refuses by itself
            raise WrongState(
                f"the agent of {host.name} speaks protocol {facts.protocol}, this coordinator {OURS.major}",
                hint=f"migrate host upgrade {host.name}",
            )

    def _tunnels(self, name: str) -> list[TunnelTest]:
        """To and from one other host, as moves open them; none where there is no other that answers."""
        others = [one.name for one in self._store.hosts() if one.name != name and one.pulse.health is Health.UP]
        found = []
        for source, target in ((name, others[0]), (others[0], name)) if others else ():
            probe = _Probe(
                id=secrets.token_hex(8), source=source, target=target, agents=self._pool, signer=self._signer
            )
            try:
                speed = tunnel.measure(probe)
            except MigrateError as exc:
                raise type(exc)(
                    f"{source} has no tunnel to {target}: {exc.message}",
                    hint=exc.hint or "each host must reach each other's sshd",
                    detail=exc.detail,
                    code=exc.code,
                    touched="undone",
                ) from exc
            found.append(TunnelTest(source=source, target=target, bytes_per_s=speed.bytes_per_s))
        return found


def _way(host: Host) -> tuple[str, int, str, frozenset[str]]:
    return host.address, host.port, host.user, frozenset(" ".join(key.split()[:2]) for key in host.host_keys)
