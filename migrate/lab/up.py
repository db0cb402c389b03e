"""`migrate lab up`: build a lab and wait until every agent answers through the coordinator."""

from __future__ import annotations

import os
import shutil
import time
from collections.abc import Callable

from migrate.errors import InvalidArgument, MigrateError
from migrate.lab import cgroups, down, layout, network, nodes, provision
from migrate.lab.layout import MAX_HOSTS, Lab, LabError, Role
from migrate.lab.lock import lock

TIMEOUT_S = 60.0
_TOOLS = {
    "ip": "iproute2",
    "nsenter": "util-linux",
    "unshare": "util-linux",
    "ssh-keygen": "openssh-client",
    "ssh": "openssh-client",
}

Say = Callable[[str], None]


def up(
    prefix: str, *, hosts: int | None, criu: str, say: Say, bare: int | None = None, timeout_s: float = TIMEOUT_S
) -> Lab:
    """Build the lab; one that is up already is left alone. `bare`: that many machines more, with nothing of ours on them.

    `hosts` None: as many as it had, or two. What is left of a dead lab, after a crash of the machine for instance, is
    cleared away first and its directory used again. Raises LabError or InvalidArgument; what was built by then stays,
    to be looked at.
    """
    least = 0 if bare else 1
    if hosts is not None and not least <= hosts <= MAX_HOSTS:
        raise InvalidArgument(f"--hosts takes {least} to {MAX_HOSTS}, not {hosts}")
    if bare is not None and not 0 <= bare <= MAX_HOSTS - (hosts or 0):
        raise InvalidArgument(f"--bare takes 0 to {MAX_HOSTS - (hosts or 0)}, not {bare}")
    _check_machine()
    with lock(prefix):
        old = layout.load(prefix)
        if old is not None and nodes.supervisors(old.state_dir):
            if hosts not in (None, old.hosts) or bare not in (None, old.bare):
                raise LabError(
                    f"the lab is up with {old.hosts} hosts and {old.bare} bare ones",
                    hint="take it down first: migrate lab down",
                )
            wait_until_ready(old, timeout_s=timeout_s)
            say(f"the lab is up already, with {old.hosts} hosts")
            return old
        wanted = hosts if hosts is not None else old.hosts if old else layout.DEFAULT_HOSTS
        more = bare if bare is not None else old.bare if old else 0
        lab = Lab(prefix=prefix, hosts=wanted, bare=more, criu=criu or (old.criu if old else ""))
        down.clear(prefix)
        provision.write(lab)
        for warning in cgroups.create(lab):
            say(f"warning: {warning}")
        network.up(lab)
        say(f"network: {len(lab.nodes)} namespaces {lab.netns('*')}, {layout.SUBNET}")
        for node in lab.nodes:
            if node.supervised:
                nodes.start(lab, node)
        say(f"started: {' '.join(node.name for node in lab.nodes if node.supervised)}")
        wait_until_ready(lab, timeout_s=timeout_s)
        say(f"the lab is up, with {lab.hosts} hosts" + (f" and {lab.bare} bare machines" if lab.bare else ""))
        return lab


def wait_until_ready(lab: Lab, *, timeout_s: float) -> None:
    """Until the coordinator says that it reaches every host. Raises LabError with the log of what does not answer."""
    from migrate.client import Client  # brings gRPC: not needed for anything else here

    deadline = time.monotonic() + timeout_s
    while True:
        try:
            with Client(lab.socket) as client:  # a new one each time: a channel that failed waits ever longer
                waiting = {host.name: host.error for host in client.hosts(facts=True) if not host.reachable}
        except MigrateError as exc:
            waiting = {"controller": exc.message}
        if not waiting:
            return
        if time.monotonic() > deadline:
            raise _not_ready(lab, waiting, timeout_s)
        time.sleep(0.1)


def _not_ready(lab: Lab, waiting: dict[str, str], timeout_s: float) -> LabError:
    logs: list[str] = []
    for name in waiting:
        programs = ["coordinator"] if lab.node(name).role is Role.CONTROLLER else ["sshd", "agent"]
        logs += [nodes.tail(lab.log_dir(name) / f"{program}.log") for program in programs]
    what = "; ".join(error if error.startswith(f"{name}:") else f"{name}: {error}" for name, error in waiting.items())
    return LabError(
        f"not ready after {timeout_s:.0f} s: {what}",
        detail="\n".join(logs),
        hint=f"the whole logs: migrate lab logs {next(iter(waiting))}; end it: migrate lab down",
        touched="something",
    )


def _check_machine() -> None:
    if os.geteuid() != 0:
        raise LabError("the lab makes namespaces and mounts, and so needs root", hint="run it with sudo")
    for tool, package in _TOOLS.items():
        if shutil.which(tool) is None:
            raise LabError(f"{tool} is not installed", hint=f"install the package {package}")
