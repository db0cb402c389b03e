"""Published ports of this host: who has which, kept from everybody else, and led to their container.

A port is held by a socket that is bound and never listens, so that no other program gets it and a conflict shows at once; the
packets are led by the kernel (port_rules.py). What is in force follows from the containers that are here: it is made anew as a
whole at each change and at the agent's start, so an agent that is killed between two steps leaves nothing that stays wrong.
A container without ports costs nothing here: no process, no rule.
"""

from __future__ import annotations

import errno
import logging
import socket
import threading
import time
from collections.abc import Callable, Iterable, Sequence
from dataclasses import replace
from pathlib import Path

from agent.config import AgentConfig
from agent.engine import port_rules
from agent.engine.spec import ContainerSpec, Network, Port
from agent.errors import AgentError, Unsupported
from agent.linux import conntrack, interfaces, nft

ANY = "0.0.0.0"  # noqa: S104  what "" means; nothing listens here
ENDING_LIMIT_S = 5.0
_CONF = Path("/proc/sys/net/ipv4/conf")

log = logging.getLogger(__name__)


class PortError(AgentError):
    """A port of this host cannot be published; the message names it and who has it."""

    code = "network.port"


class Ports:
    """One a host. Thread-safe; every method is idempotent. `ending`: whether a container has ended and is being cleaned up after."""

    def __init__(self, config: AgentConfig, ending: Callable[[str], bool] = lambda _container_id: False) -> None:
        self._config = config
        self._ending = ending
        self._guard = threading.Lock()
        self._published: dict[str, ContainerSpec] = {}
        self._held: dict[str, list[socket.socket]] = {}
        self._ours = False  # the table is there and as this agent wrote it
        self._guarded: set[str] = set()  # interfaces that forward because we told them to

    def publish(self, spec: ContainerSpec) -> None:
        """Take the container's ports and lead them to it. Raises PortError, Unsupported; nothing is taken then."""
        if not spec.network.ports:
            return
        self._await_the_end(spec)
        with self._guard:
            if spec.id in self._published:
                return
            for port in spec.network.ports:
                self._refuse_taken(port, spec.id)
            sockets = _hold(spec.network.ports, self._config.host)
            try:
                self._published[spec.id] = spec
                self._apply()
                _forget_datagrams(spec)
            except BaseException:
                self._published.pop(spec.id, None)
                _close(sockets)
                raise
            self._held[spec.id] = sockets

    def renamed(self, spec: ContainerSpec) -> None:
        """Who is refused one of its ports hears the new name."""
        with self._guard:
            if spec.id in self._published:
                self._published[spec.id] = spec

    def withdraw(self, container_id: str) -> None:
        """The container is not here any more, or does not run. Connections that came through its ports go on."""
        with self._guard:
            if self._published.pop(container_id, None) is None:
                return
            _close(self._held.pop(container_id, []))
            try:
                self._apply()
            except AgentError as exc:  # its end must not fail for this; the next change says again what is to be
                log.error("container %s: its ports still lead to where it was: %s", container_id, exc.message)

    def recover(self, specs: Iterable[ContainerSpec]) -> None:
        """At the agent's start: exactly these are published, whatever an earlier agent left. Raises PortError, Unsupported."""
        with self._guard:
            for spec in specs:
                if not spec.network.ports or spec.id in self._published:  # a restart policy was faster
                    continue
                self._published[spec.id] = spec
                try:
                    self._held[spec.id] = _hold(spec.network.ports, self._config.host)
                except PortError as exc:  # somebody took it while no agent ran: the packets still go to the container
                    log.warning("container %s: %s", spec.name, exc.message)
            left = nft.table("ip", port_rules.TABLE)
            self._guarded |= port_rules.guarded_in(left)
            if left or self._published or self._config.way_out:
                self._ours = False
                self._apply()

    def close(self) -> None:
        """Let go of the ports at the agent's end; the packets still go to the containers."""
        with self._guard:
            for sockets in self._held.values():
                _close(sockets)
            self._held.clear()
            self._published.clear()

    def blockers(self, ports: Sequence[Port]) -> list[PortError]:
        """Why these could not be published here now."""
        found = []
        for port in ports:
            try:
                with self._guard:
                    self._refuse_taken(port, "")
                    _close(_hold([port], self._config.host))
            except PortError as exc:
                found.append(exc)
        return found

    def _await_the_end(self, spec: ContainerSpec) -> None:
        """Who was told that a container has exited may start the next one behind the same port at once."""
        deadline = time.monotonic() + ENDING_LIMIT_S
        while time.monotonic() < deadline:
            with self._guard:
                others = [
                    other.id
                    for other in self._published.values()
                    if other.id != spec.id
                    and any(_collide(port, wanted) for port in other.network.ports for wanted in spec.network.ports)
                ]
            if not any(self._ending(one) for one in others):
                return
            time.sleep(0.005)

    # ------------------------------------------------------------ parts; callers hold the guard

    def _refuse_taken(self, wanted: Port, container_id: str) -> None:
        for other in self._published.values():
            for port in other.network.ports:
                if other.id != container_id and _collide(port, wanted):
                    raise PortError(
                        f"port {_text(wanted)} of {self._config.host} is taken: container {other.name} publishes it",
                        hint=f"another port, or: migrate stop {other.name}",
                    )

    def _apply(self) -> None:
        """The kernel's table says what `_published` says."""
        networks = [spec.network for spec in self._published.values()]
        try:
            if self._ours and self._bridge_forwards():
                try:
                    nft.apply(port_rules.elements(networks))
                    return
                except OSError as exc:  # somebody has flushed the firewall: it comes back
                    log.warning("the table of published ports is made anew: %s", exc.strerror)
            self._make(networks)
        except FileNotFoundError as exc:
            raise Unsupported(
                f"nft is not installed on {self._config.host}: it publishes ports", hint="apt-get install nftables"
            ) from exc
        except OSError as exc:
            raise PortError(
                f"ports of {self._config.host} cannot be published: {exc.strerror}",
                hint="a kernel with nf_tables, nft_nat and nft_fib; see: migrate hosts",
            ) from exc

    def _bridge_forwards(self) -> bool:
        """Not any more if somebody has loaded the host's sysctl.conf again, which turns ip_forward off everywhere."""
        try:
            return (_CONF / self._config.bridge / "forwarding").read_text().strip() == "1"
        except OSError:
            return False

    def _make(self, networks: Sequence[Network]) -> None:
        """The whole table, then what the kernel must let through: in and out by the bridge, and 127.0.0.1:PORT. Raises PortError,
        and OSError from nft.
        """
        bridge, host = self._config.bridge, self._config.host
        way_out = interfaces.subnet_of(bridge) if self._config.way_out else ""
        try:
            still = {name for name in _ways_in(bridge) if (_CONF / name / "forwarding").read_text().strip() == "0"}
        except OSError as exc:
            raise PortError(f"bridge {bridge} of {host} is not there: {exc.strerror}") from exc
        # Before they forward: for published ports alone.
        nft.apply(port_rules.script(bridge, networks, guarded=self._guarded | still, way_out=way_out))
        self._ours = True
        self._guarded |= still
        try:
            (_CONF / bridge / "route_localnet").write_text("1")
            for name in ("all",) if way_out else still:
                (_CONF / name / "forwarding").write_text("1")
        except OSError as exc:
            raise PortError(f"bridge {bridge} of {host} cannot forward: {exc.strerror}") from exc


def _ways_in(bridge: str) -> list[str]:
    """Where clients may come in: the bridge, and every other interface with an address."""
    names = [path.name for path in _CONF.iterdir()]
    return [bridge, *(name for name in names if name not in (bridge, "lo") and interfaces.address_of(name))]


def _hold(ports: Sequence[Port], host: str) -> list[socket.socket]:
    """Sockets that keep the ports from everybody else. Raises PortError; none is held then."""
    held: list[socket.socket] = []
    try:
        for port in ports:
            kind = socket.SOCK_DGRAM if port.protocol == "udp" else socket.SOCK_STREAM
            one = socket.socket(socket.AF_INET, kind)
            held.append(one)
            if kind == socket.SOCK_STREAM:
                # Past connections of a server that has ended (TIME_WAIT) do not matter, a listener does. Whoever comes later
                # finds no reuse here.
                one.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            one.bind((port.host_address or ANY, port.host_port))
            one.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 0)
    except OSError as exc:
        _close(held)
        raise _refusal(port, host, exc) from exc
    return held


def _forget_datagrams(spec: ContainerSpec) -> None:
    """A client that sends datagrams to a port before something is there, or to what was there before, keeps the kernel's memory of
    it alive: they would never come to the container.
    """
    address = port_rules.container_address(spec.network)
    numbers = {port.host_port for port in spec.network.ports if port.protocol == "udp"}

    def stale(flow: conntrack.Flow) -> bool:
        ours = flow.protocol == "udp" and flow.to_port in numbers and flow.answers_from != address
        return ours and _is_local(flow.to_address)

    if numbers:
        try:
            conntrack.forget(stale)
        except OSError as exc:
            log.warning("container %s: old clients of its datagrams may not reach it: %s", spec.name, exc.strerror)


def _is_local(address: str) -> bool:
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as one:
        try:
            one.bind((address, 0))
        except OSError:
            return False
    return True


def _refusal(port: Port, host: str, exc: OSError) -> PortError:
    if exc.errno == errno.EADDRINUSE:
        return PortError(
            f"port {_text(port)} of {host} is taken by a program of the host",
            hint=f"another port, or end that program: ss -lnp 'sport = :{port.host_port}' on {host}",
        )
    if exc.errno == errno.EADDRNOTAVAIL:
        return PortError(
            f"{port.host_address} is no address of {host}: port {_text(port)} cannot be published there",
            hint="publish on every address (-p PORT:PORT), or on one that each host has, such as 127.0.0.1",
        )
    return PortError(f"port {_text(port)} of {host} cannot be taken: {exc.strerror}")


def _collide(one: Port, other: Port) -> bool:
    same = replace(one, host_address="", container_port=0) == replace(other, host_address="", container_port=0)
    return same and (
        ANY in (one.host_address or ANY, other.host_address or ANY) or one.host_address == other.host_address
    )


def _text(port: Port) -> str:
    return f"{port.host_address + ':' if port.host_address else ''}{port.host_port}/{port.protocol}"


def _close(sockets: Iterable[socket.socket]) -> None:
    for one in sockets:
        one.close()
