"""The steps on the machine: carry the installation there, unpack it, set the host up, ask its doctor. Each does what is missing."""

from __future__ import annotations

import json
import shlex
from collections.abc import Callable
from dataclasses import dataclass

from migrate.errors import MigrateError
from migrate.join.artefact import Artefact
from migrate.join.machine import Machine
from migrate.tunnel.remote import Ran, Remote

RELEASES = "/opt/migrate/releases"
CARRY_LIMIT_S = 1800.0
SETUP_LIMIT_S = 1800.0  # emulated machines take minutes; systemd's own limit for the agent's start is 900

Say = Callable[[str], None]


class JoinError(MigrateError):
    """A step on the machine failed; giving the command again goes on from there."""

    code = "join.step"
    touched = "something"


@dataclass(frozen=True, kw_only=True)
class Wanted:
    """A host as it is to be. `uplink` "": of the bridge that is there. `cgroup` "": where its service manager wants containers."""

    name: str
    address: str
    authorities: tuple[str, ...]
    bridge: str
    uplink: str
    cgroup: str = ""


def network(found: Machine, *, bridge: str, uplink: str) -> tuple[str, str]:
    """Which bridge, and which card is to be its port: what the operator said, else what the host's own address is on."""
    if bridge and uplink:
        return bridge, uplink
    card = found.card
    if not uplink and card.get("bridge"):
        return bridge or str(card["name"]), ""
    if not uplink and not card:
        raise JoinError(
            "no network card of the machine has the address that it was reached by",
            hint="name the card that leads to the other hosts with --uplink CARD, or a bridge that has it with --bridge NAME",
            touched="nothing",
        )
    return bridge or "migrate0", uplink or str(card["name"])


def python_of(release: str) -> str:
    return f"{RELEASES}/{release}/bin/python"


def carry(remote: Remote, found: Machine, artefact: Artefact, say: Say) -> bool:
    """The installation is there, whole, under its name; returns whether it had to be brought."""
    for half in found.halves:
        say(f"removing what a broken installation left: {RELEASES}/{half}")
        _check(remote, remote.run(f"rm -rf -- {shlex.quote(f'{RELEASES}/{half}')}"), "clear")
    if artefact.release in found.releases:
        say(f"{artefact.release} is installed already")
        return False
    size = artefact.path.stat().st_size
    say(f"carrying {artefact.release} there, {size / 1e6:.0f} MB")
    incoming = f"{RELEASES}/.{artefact.release}"
    unpack = f"umask 022; rm -rf {incoming} && mkdir -p {incoming} && tar -xzf - -C {incoming}"
    _check(remote, remote.run(unpack, stdin=artefact.path, timeout_s=CARRY_LIMIT_S), "unpack")
    return True


def release(remote: Remote, artefact: Artefact, *, carried: bool, say: Say) -> None:
    """Make what was carried the release in use, with a CRIU that works there."""
    incoming = f"{RELEASES}/.{artefact.release}"
    source = f"{incoming}/site" if carried else f"{RELEASES}/{artefact.release}/lib/python3*/site-packages"
    words = f"--id {artefact.release} {incoming}"
    script = (
        f"umask 022; cd /; PYTHONDONTWRITEBYTECODE=1 PYTHONPATH=$(echo {source}) python3 -m agent.setup.release {words}"
    )
    for line in _check(remote, remote.run(script, timeout_s=SETUP_LIMIT_S), "install").out.splitlines():
        say(line)


def doctor(remote: Remote, artefact: Artefact, say: Say) -> None:
    """Raises JoinError, naming all that is missing, where containers would not run or move there."""
    ran = remote.run(
        f"cd /; {python_of(artefact.release)} -m agent.setup.doctor --format json", timeout_s=SETUP_LIMIT_S
    )
    try:
        report = json.loads(ran.out)
    except ValueError:
        raise _failed(remote, ran, "doctor") from None
    lacking = [one for one in report["capabilities"] if one["required"] and not one["ok"]]
    warned = [one for one in report["capabilities"] if one["verdict"] == "warn"]
    if lacking:
        raise JoinError(
            f"{remote.where} lacks {', '.join(one['name'] for one in lacking)}",
            hint=f"{lacking[0]['name']}: {lacking[0]['remedy']}",
            detail="\n".join(f"{one['name']}: {one['value']}: {one['remedy']}" for one in lacking),
            code="join.not_fit",
            touched="something",
        )
    say("the doctor is content" + (f"; it warns of {', '.join(one['name'] for one in warned)}" if warned else ""))


def set_up(remote: Remote, artefact: Artefact, wanted: Wanted, say: Say) -> None:
    """Way in, network, agent: agent/setup/host.py, which says what it did."""
    words = ["--name", wanted.name, "--address", wanted.address, "--authority", "-", "--bridge", wanted.bridge]
    words += ["--uplink", wanted.uplink] if wanted.uplink else []
    words += ["--cgroup", wanted.cgroup] if wanted.cgroup else []
    script = f"cd /; {python_of(artefact.release)} -m agent.setup.host {shlex.join(words)}"
    authority = "".join(f"{line}\n" for line in wanted.authorities).encode()
    ran = _check(remote, remote.run(script, stdin=authority, timeout_s=SETUP_LIMIT_S), "set up")
    for line in ran.err.splitlines():
        say(line)


def purge(remote: Remote, say: Say) -> None:
    """Take everything of ours from the machine again. Its containers must be gone."""
    script = f"cd /; python=$(ls -d {RELEASES}/*/bin/python | head -n 1); $python -m agent.setup.purge"
    for line in _check(remote, remote.run(script, timeout_s=SETUP_LIMIT_S), "purge").out.splitlines():
        say(line)


def _check(remote: Remote, ran: Ran, step: str) -> Ran:
    if ran.status:
        raise _failed(remote, ran, step)
    return ran


def _failed(remote: Remote, ran: Ran, step: str) -> JoinError:
    """Programs of ours say `error: ...` and `hint: ...`; others whatever they say."""
    lines = (ran.err or ran.out).strip().splitlines()
    said = next(
        (line.removeprefix("error: ") for line in lines if line.startswith("error: ")), lines[-1] if lines else ""
    )
    hint = next((line.removeprefix("hint: ") for line in lines if line.startswith("hint: ")), "")
    return JoinError(
        f"{remote.where}: {step}: {said or f'ended with status {ran.status}'}",
        hint=hint or "give the command again: it goes on from what is there",
        detail="\n".join(lines[-20:]) if len(lines) > 2 else "",
    )
