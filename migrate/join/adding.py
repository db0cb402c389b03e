"""`migrate host add` and `upgrade`, from the first look at a machine to a member of the fleet."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Protocol

from migrate.errors import MigrateError, Unreachable
from migrate.join import artefact, install, machine
from migrate.join.install import Say, Wanted
from migrate.join.machine import Machine
from migrate.records import Host, Joined
from migrate.tunnel import transport
from migrate.tunnel.operator import Login
from migrate.tunnel.remote import Remote

ANSWER_S = 300.0  # of an agent that was started anew


class Fleet(Protocol):
    """What is asked of the coordinator: migrate.client.Client."""

    def authorities(self) -> list[str]: ...
    def inspect_host(self, name: str) -> Host: ...
    def join_host(
        self,
        name: str,
        address: str,
        *,
        host_keys: list[str],
        port: int,
        labels: Mapping[str, str],
        login: str,
    ) -> Joined: ...


class Door(Protocol):
    """The two ways of looking at a machine: migrate.tunnel.operator."""

    def show_host_key(self, login: Login) -> str: ...
    def log_in(self, login: Login, *, host_key: str, identity: Path | None) -> Remote: ...


@dataclass(frozen=True, kw_only=True)
class Adding:
    """What the operator typed. `address` "": that of the login. `known`: the fleet's record, None of a machine that is new."""

    name: str
    login: Login
    labels: Mapping[str, str] = field(default_factory=dict)
    identity: Path | None = None
    fingerprint: str = ""
    address: str = ""
    bridge: str = ""
    uplink: str = ""
    cgroup: str = ""
    known: Host | None = None


class HostKeyError(MigrateError):
    """The machine's host key is not the one that it should have, or nobody has looked at it."""

    code = "join.host_key"
    default_exit_status = 5


def host_key(door: Door, adding: Adding, confirm: Callable[[str], bool], say: Say) -> str:
    """The key that the machine shows, if it is the right one: the given fingerprint's, else the pinned one, else whatever
    `confirm` (asked with the fingerprint) agrees to. Raises HostKeyError.
    """
    shown = door.show_host_key(adding.login)
    fingerprint = transport.fingerprint(shown)
    what = f"{adding.login.address} shows the host key {shown.split()[0]} {fingerprint}"
    compare = "compare it with `ssh-keygen -lf /etc/ssh/ssh_host_ed25519_key.pub` on the machine's console"
    if adding.fingerprint:
        if adding.fingerprint.removeprefix("SHA256:") != fingerprint.removeprefix("SHA256:"):
            raise HostKeyError(
                f"{what}, not {adding.fingerprint}", hint=f"somebody is between, or it is another machine: {compare}"
            )
        say(f"{what}, as was said")
        return shown
    pinned = adding.known.host_keys if adding.known is not None else ()
    if pinned:
        if shown not in {" ".join(key.split()[:2]) for key in pinned}:
            known = ", ".join(transport.fingerprint(key) for key in pinned)
            raise HostKeyError(
                f"{what}; pinned is {known}",
                hint=f"if it was installed anew, {compare}, then give it with --fingerprint",
            )
        say(f"{what}, which is pinned")
        return shown
    if not confirm(what):
        raise HostKeyError(
            f"{what}, and nobody has confirmed it", hint=f"{compare}, then give it with --fingerprint {fingerprint}"
        )
    return shown


def examine(remote: Remote, adding: Adding) -> Machine:
    """Raises NotFit with all that speaks against it; changes nothing."""
    found = machine.look(remote, adding.login.address)
    if wrong := machine.problems(found, adding.name):
        raise machine.refuse(remote.where, wrong)
    return found


def plan(found: Machine, adding: Adding, fleet: Fleet) -> tuple[Wanted, list[str]]:
    """What the host is to be, and a line for each thing that would be done. Changes nothing."""
    bridge, uplink = install.network(found, bridge=adding.bridge, uplink=adding.uplink)
    wanted = Wanted(
        name=adding.name,
        address=adding.address or adding.login.address,
        authorities=tuple(fleet.authorities()),
        bridge=bridge,
        uplink=uplink,
        cgroup=adding.cgroup,
    )
    kind = "systemd" if found.systemd else "no systemd: the agent is started, and nothing starts it at a boot"
    lines = [
        f"kernel {found.kernel}, Python {found.python}, {found.machine}, {kind}",
        f"installations there: {' '.join(found.releases) or 'none'}"
        + (f"; broken ones, to be removed: {' '.join(found.halves)}" if found.halves else ""),
        f"user migrate whose shell is dial; sshd takes {len(wanted.authorities)} authority of the fleet for him alone",
        f"bridge {bridge}"
        + (f" with {uplink} as its port, which takes over its addresses" if uplink else ", which is there"),
        f"agent of host {adding.name}, configured by /etc/migrate/agent.toml"
        + (", which is there" if found.host else ""),
    ]
    return wanted, lines


def put(remote: Remote, found: Machine, wanted: Wanted, say: Say) -> str:
    """Install, examine, set up; returns the release that runs now. What is there already stays as it is."""
    made = artefact.make(found.python, say=say)
    carried = install.carry(remote, found, made, say)
    install.release(remote, made, carried=carried, say=say)
    install.doctor(remote, made, say)
    install.set_up(remote, made, wanted, say)
    return made.release


def join(fleet: Fleet, remote: Remote, adding: Adding, wanted: Wanted, say: Say) -> Joined:
    """The coordinator tries its tunnel to the host, and those to and from another one, and takes it in."""
    joined = fleet.join_host(
        adding.name,
        wanted.address,
        host_keys=[remote.host_key],
        port=adding.login.port,
        labels=adding.labels,
        login=str(adding.login),
    )
    say("the coordinator reaches its agent")
    for tunnel in joined.tunnels:
        say(f"memory can go from {tunnel.source} to {tunnel.target}: {tunnel.bytes_per_s / 1e6:.0f} MB/s")
    if not joined.tunnels:
        say("no other host answers: tunnels between hosts were not tried")
    return joined


def wait_for(fleet: Fleet, name: str, *, limit_s: float = ANSWER_S) -> None:
    """Until the host answers the coordinator. Raises Unreachable."""
    deadline = time.monotonic() + limit_s
    while not (host := fleet.inspect_host(name)).reachable:
        if time.monotonic() > deadline:
            raise Unreachable(
                f"{name} does not answer after {limit_s:.0f} s: {host.error}",
                hint="no further host was touched; its agent's log: journalctl -u migrate-agent",
                touched="something",
            )
        time.sleep(0.5)
