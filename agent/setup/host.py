"""Make this machine a host of a fleet: `python -m agent.setup.host --name host1 --authority ca.pub --uplink eth0`, as root.

sshd lets the fleet's certificates in, the containers' bridge is there, the agent runs as a service, again after a boot. Each part is
done only where it is missing, so it can be repeated, on a host with running containers too. At the end it prints what the
coordinator's configuration needs about this host. The project must be installed already (its own Python runs this) and CRIU
be there (`python -m agent.setup criu`). Standard library only.
"""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from agent import atomic, config
from agent.errors import AgentError, InvalidArgument
from agent.setup import bridge, criu, plain, release, sshd, systemd


@dataclass(frozen=True, kw_only=True)
class Plan:
    """`authority`: the public line of the fleet's certificate authority. `uplink` "": the bridge is somebody else's care."""

    name: str
    authority: str
    bridge: str
    uplink: str
    python: Path
    agent_toml: Path = config.DEFAULT_PATH
    cgroup: str = ""  # of the containers, below the root of each hierarchy; "" = where the service manager wants them


def set_up(plan: Plan) -> list[str]:
    """Do what is missing; returns a line for each thing that was done. Raises AgentError: what was done until then stays."""
    did: list[str] = []
    version = systemd.version() if systemd.runs() else 0
    found = criu.locate()  # before anything is touched: without it no container moves
    if plan.uplink:
        bridge.usable(plan.bridge, plan.uplink)  # a wrong name must not take the place of a right one in the unit
    did.append(f"CRIU {found.version_text} at {found.binary}")
    dial = sshd.install_dial()
    sshd.ensure_user(dial)
    sshd.install_drop_in(plan.authority)
    reloaded = systemd.reload_sshd() if version else plain.reload_sshd()
    did.append(f"{reloaded} lets in certificates of the fleet as user {sshd.USER}, for {dial} only")
    if plan.uplink and not version:
        did.append(bridge.ensure(plan.bridge, plan.uplink) or f"{plan.uplink} was a port of {plan.bridge} already")
        did.append("nothing makes the bridge at the next boot: this host is not run by systemd")
    elif plan.uplink:
        # By the link that upgrades move: this unit is not written anew by each, and what it names must not be pruned.
        by_link = release.ROOT / "app/bin/python"
        python = by_link if by_link.exists() else plan.python
        text = systemd.network_unit(python=python, bridge=plan.bridge, uplink=plan.uplink)
        changed = systemd.install(systemd.NETWORK, text)
        did.append(
            f"{systemd.NETWORK} {'installed' if changed else 'was there'}: {plan.uplink} is a port of {plan.bridge}"
        )
    changed = _configure(plan, plan.cgroup or (systemd.cgroup_parent(version) if version else "migrate"))
    if not version:
        started = plain.bring_up(plan.python, plan.agent_toml, again=changed)
        how = " ".join(plain.command(plan.python, plan.agent_toml))
        did.append(f"the agent {'was started' if started else 'runs'}, configured by {plan.agent_toml}")
        did.append(f"nothing starts it at the next boot: let this host's service manager run {how}")
        return did
    unit = systemd.agent_unit(python=plan.python, config=plan.agent_toml, systemd_version=version)
    installed = systemd.install(systemd.AGENT, unit)
    if changed and not installed:
        systemd.bring_up(systemd.AGENT, again=True)
    did.append(f"{systemd.AGENT} {'installed, ' if installed else ''}runs, configured by {plan.agent_toml}")
    return did


def agent_toml(plan: Plan, cgroup_parent: str) -> str:
    """The agent's configuration: JSON's strings are TOML's."""
    values = {"host": plan.name, "bridge": plan.bridge, "uplink": plan.uplink, "cgroup_parent": cgroup_parent}
    return "".join(f"{name} = {json.dumps(value)}\n" for name, value in values.items())


def inventory(name: str, address: str, host_keys: Sequence[str]) -> str:
    """The [[hosts]] table for coordinator.toml."""
    values = {"name": name, "address": address, "host_keys": list(host_keys)}
    return "[[hosts]]\n" + "".join(f"{key} = {json.dumps(value)}\n" for key, value in values.items())


def _configure(plan: Plan, cgroup_parent: str) -> bool:
    """Whether agent.toml changed. One that is there wins for all that it says: it may have been edited."""
    if plan.agent_toml.exists():
        there = config.load(plan.agent_toml)
        if there.host != plan.name:
            raise InvalidArgument(
                f"this machine is host {there.host!r} already, says {plan.agent_toml}",
                hint=f"use --name {there.host}, or remove that file",
            )
        return False
    plan.agent_toml.parent.mkdir(mode=0o755, parents=True, exist_ok=True)
    atomic.write(plan.agent_toml, agent_toml(plan, cgroup_parent))
    return True


def main(argv: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(
        prog="python3 -m agent.setup.host", description="make this machine a host of a fleet"
    )
    parser.add_argument("--name", required=True, help="of this host in the fleet")
    parser.add_argument("--address", required=True, help="at which coordinator and hosts reach this host's sshd")
    parser.add_argument(
        "--authority", required=True, type=Path, metavar="FILE", help="ca.pub of the coordinator; - is stdin"
    )
    parser.add_argument("--bridge", default=config.AgentConfig.bridge, help="of the containers (default: %(default)s)")
    parser.add_argument(
        "--uplink", default="", metavar="CARD", help="network card for the bridge; without it the bridge must be there"
    )
    parser.add_argument(
        "--cgroup", default="", metavar="PATH", help="of the containers, below the root of each cgroup hierarchy"
    )
    arguments = parser.parse_args(argv)
    try:
        plan = Plan(
            name=arguments.name,
            authority=sys.stdin.read() if str(arguments.authority) == "-" else arguments.authority.read_text(),
            bridge=arguments.bridge,
            uplink=arguments.uplink,
            python=Path(sys.executable),
            cgroup=arguments.cgroup,
        )
        for line in set_up(plan):
            sys.stderr.write(f"{line}\n")
    except AgentError as exc:
        detail = "".join(f"  | {line}\n" for line in exc.detail.splitlines())
        sys.stderr.write(f"error: {exc.message}\n{detail}" + (f"hint: {exc.hint}\n" if exc.hint else ""))
        return 1
    except OSError as exc:
        sys.stderr.write(f"error: {exc}\nhint: run it as root; --authority is a file\n")
        return 1
    sys.stdout.write(inventory(arguments.name, arguments.address, sshd.host_keys()))
    return 0


if __name__ == "__main__":
    sys.exit(main())
