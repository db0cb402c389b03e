"""What was found on a machine that is to be a host, and what speaks against it. Pure but for `look`."""

from __future__ import annotations

import json
import platform
import re
import shlex
import time
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from migrate.errors import MigrateError
from migrate.tunnel.remote import Remote

OLDEST_KERNEL = (5, 19)
OLDEST_PYTHON = (3, 11)
NEEDED_BYTES = 600 << 20  # the installation, its archive, and a CRIU
CLOCK_S = 50.0  # a certificate begins a minute in the past (migrate/tunnel/pki.py)
_PROBE = Path(__file__).with_name("probe.py")
_PACKAGES = {
    "sshd": "openssh-server", "ssh": "openssh-client", "ssh-keygen": "openssh-client", "ip": "iproute2", "nft": "nftables",
    "useradd": "passwd", "groupadd": "passwd", "usermod": "passwd",
}  # fmt: skip


class NotFit(MigrateError):
    """The machine cannot be a host as it is."""

    code = "join.not_fit"
    default_exit_status = 5


@dataclass(frozen=True, kw_only=True)
class Machine:
    """`clock_s`: how far its clock is ahead of ours. `host`: the name that an agent's configuration gives it, "" without one.
    `releases`: whole installations; `halves`: what broken ones left; `current`: the folder that /opt/migrate/app leads to.
    `card`: "name" and "bridge" of the interface with its address.
    """

    uid: int
    python: str
    kernel: str
    machine: str
    systemd: bool
    free_bytes: int
    missing: tuple[str, ...]
    host: str
    releases: tuple[str, ...]
    halves: tuple[str, ...]
    current: str
    card: Mapping[str, Any] = field(default_factory=dict)
    clock_s: float = 0.0


def look(remote: Remote, address: str) -> Machine:
    """Changes nothing there. Raises NotFit where it has no python3 to look with."""
    if remote.run("command -v python3").status:
        raise NotFit(f"{remote.where} has no python3", hint="there: apt-get install python3 (3.11 or newer)")
    before = time.time()
    ran = remote.run(f"python3 - {shlex.quote(address)}", stdin=_PROBE.read_bytes())
    try:
        raw = json.loads(ran.out.splitlines()[-1])
    except (IndexError, ValueError):
        raise NotFit(
            f"{remote.where}: its python3 failed with status {ran.status}",
            detail=ran.err.strip()[-1500:],
            hint="Python 3.11 or newer is needed there",
        ) from None
    raw["clock_s"] = raw.pop("unix_s") - (before + time.time()) / 2
    fields: dict[str, Any] = {name: tuple(one) if isinstance(one, list) else one for name, one in raw.items()}
    return Machine(**fields)


def problems(found: Machine, name: str) -> list[tuple[str, str]]:
    """Every reason why it cannot be the host `name`, with what to do about it; none = it can."""
    wrong: list[tuple[str, str]] = []
    if found.uid:
        wrong.append(
            (f"it lets us in as user {found.uid}, and only root can set up a host", "log in as root: root@ADDRESS")
        )
    if _numbers(found.python) < OLDEST_PYTHON:
        wrong.append(
            (f"its python3 is {found.python}, and 3.11 is needed", "install a newer python3, such as Debian 12's")
        )
    if _numbers(found.kernel) < OLDEST_KERNEL:
        wrong.append((f"its kernel is {found.kernel}, and 5.19 is needed", "boot a newer kernel"))
    if found.machine != platform.machine():
        wrong.append(
            (f"its processor is {found.machine}, and this machine's {platform.machine()}", "all hosts must be alike")
        )
    if found.missing:
        packages = " ".join(sorted({_PACKAGES[one] for one in found.missing}))
        wrong.append((f"it lacks {', '.join(found.missing)}", f"there: apt-get install {packages}"))
    if found.free_bytes < NEEDED_BYTES:
        wrong.append(
            (f"it has {found.free_bytes >> 20} MiB free below /opt, and {NEEDED_BYTES >> 20} are needed", "make room")
        )
    if abs(found.clock_s) > CLOCK_S:
        way = "ahead of" if found.clock_s > 0 else "behind"
        wrong.append((f"its clock is {abs(found.clock_s):.0f} s {way} this machine's", "set it, and run an NTP client"))
    if found.host and found.host != name:
        remedy = "use that name; or, if it has left that fleet, remove /etc/migrate/agent.toml there"
        wrong.append((f"it is host {found.host} already", remedy))
    return wrong


def refuse(where: str, wrong: list[tuple[str, str]]) -> NotFit:
    """The error that lists them all."""
    first, remedy = wrong[0]
    more = f", and {len(wrong) - 1} more" if len(wrong) > 1 else ""
    detail = "\n".join(f"{what}: {how}" for what, how in wrong)
    return NotFit(f"{where} cannot be a host: {first}{more}", hint=remedy, detail=detail if more else "")


def _numbers(text: str) -> tuple[int, ...]:
    """(6, 12) of "6.12.48+deb13"."""
    return tuple(int(part) for part in re.findall(r"\d+", text)[:2])
