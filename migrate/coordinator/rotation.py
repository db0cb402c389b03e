"""Another certificate authority for the fleet, without a moment in which a host trusts none of ours:

    make ca.next ─► every host trusts both ─► sign with the next one ─► each host lets it in ─► trusts it alone ─► forget the old

The files in the state directory say how far it came: with `ca.next` the old one still signs, with `ca.old` the new one does.
Whatever ends it in between, the same call goes on from there. A host that does not answer stops it before anything is lost: it
would be locked out for good.
"""

from __future__ import annotations

import logging
import threading
from collections.abc import Callable
from pathlib import Path

from migrate.coordinator.agents import Agent, AgentPool, Tunnel
from migrate.coordinator.hosts import ask_all
from migrate.coordinator.store import Host, Store
from migrate.errors import MigrateError, Unreachable, WrongState
from migrate.tunnel.pki import CertificateAuthority, ControlCredentials
from protos import agent_pb2

log = logging.getLogger(__name__)


class Rotation:
    """One at a time. `authority` is the one that everything signs with: its key is exchanged, it stays the same object."""

    def __init__(
        self,
        store: Store,
        pool: AgentPool,
        authority: CertificateAuthority,
        credentials: ControlCredentials,
        directory: Path,
        connect: Callable[[Host], Tunnel],
    ) -> None:
        self._store, self._pool, self._connect = store, pool, connect
        self._authority, self._credentials, self._directory = authority, credentials, directory
        self._turn = threading.Lock()

    def authorities(self) -> list[str]:
        """Whom a host has to trust now: in the middle of a rotation two."""
        found = [self._authority.public_openssh()]
        for name in ("ca.next", "ca.old"):
            if (self._directory / name).exists():
                found.append(CertificateAuthority.load_or_create(self._directory, name).public_openssh())
        return found

    def rotate(self) -> list[str]:
        """The hosts that trust the new one alone now. Raises Unreachable or WrongState: say it again then."""
        if not self._turn.acquire(blocking=False):
            raise WrongState("the keys are being rotated already")
        try:
            names = [host.name for host in self._store.hosts()]
            if (self._directory / "ca.next").exists() or not (self._directory / "ca.old").exists():
                following = CertificateAuthority.load_or_create(self._directory, "ca.next")
                both = [self._authority.public_openssh(), following.public_openssh()]
                self._tell(names, both, "nothing has changed: the old authority signs")
                self._authority.exchange(self._directory)
                log.info("the fleet's new authority signs")
            self._credentials.renew()
            self._knock()
            self._tell(names, [self._authority.public_openssh()], "both authorities are trusted where it was not heard")
            for name in ("ca.old", "ca.old.pub"):
                (self._directory / name).unlink(missing_ok=True)
            return names
        finally:
            self._turn.release()

    def _tell(self, names: list[str], authorities: list[str], so_far: str) -> None:
        request = agent_pb2.TrustRequest(authorities=authorities)
        answers = ask_all(self._pool, names, lambda agent: agent.call("Host", "Trust", request, timeout_s=20.0))
        if failed := [answer for answer in answers if answer.error is not None]:
            raise self._stopped({one.host: one.error for one in failed if one.error is not None}, so_far)

    def _knock(self) -> None:
        """A login of its own to each host, with a certificate of the new authority."""
        failed: dict[str, MigrateError] = {}
        for host in self._store.hosts():
            trial = Agent(host.name, self._connect(host))
            try:
                trial.call("Host", "Beat", agent_pb2.BeatRequest(), timeout_s=20.0)
            except MigrateError as exc:
                failed[host.name] = exc
            finally:
                trial.close()
        if failed:
            raise self._stopped(failed, "every host trusts the old authority as well")

    def _stopped(self, failed: dict[str, MigrateError], so_far: str) -> Unreachable:
        detail = "\n".join(f"{name}: {error.message}" for name, error in failed.items())
        return Unreachable(
            f"{', '.join(failed)} could not be told of the new authority; {so_far}",
            detail=detail,
            hint="bring them back, or remove them (migrate host rm), then give the command again",
            touched="something",
        )
