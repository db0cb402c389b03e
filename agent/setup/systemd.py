"""The agent as a service of systemd: unit files, and where its containers' cgroups go. Standard library only.

The containers' cgroups lie in the service's own part of the tree (Delegate=), beside the agent's leaf:

    system.slice/migrate-agent.service/agent              the agent and its transfer processes (DelegateSubgroup=)
    system.slice/migrate-agent.service/containers/ID      a container;  .../monitors: their monitors

KillMode=process: stopping or restarting the agent ends the agent and nothing else.
"""

from __future__ import annotations

import re
import subprocess
from pathlib import Path

from agent import atomic
from agent.errors import AgentError, Unsupported

UNIT_DIR = Path("/etc/systemd/system")
AGENT = "migrate-agent.service"
NETWORK = "migrate-network.service"
_SUBGROUP_SINCE = 254  # DelegateSubgroup=
_LIMIT_S = 900.0  # of one systemctl: a start waits until the agent answers


class SystemdError(AgentError):
    """systemctl refused; the message carries its words, `detail` the end of the unit's journal."""

    code = "setup.systemd"


def runs() -> bool:
    """Whether systemd runs this host."""
    return Path("/run/systemd/system").is_dir()


def version() -> int:
    """Such as 257. Raises Unsupported where systemd does not run this host."""
    if not runs():
        raise Unsupported(
            "this host is not run by systemd",
            hint="start `migrate-agent` with the service manager that you have; it must end nothing but the agent itself",
        )
    match = re.match(r"systemd (\d+)", _run(["systemctl", "--version"]))
    if match is None:
        raise Unsupported("systemctl --version does not name a version")
    return int(match.group(1))


def cgroup_parent(systemd_version: int) -> str:
    """AgentConfig.cgroup_parent. Older than 254, systemd cannot start a service again into a cgroup that has children with
    controllers: there the containers get a cgroup of their own at the root, as those of other engines do.
    """
    return f"system.slice/{AGENT}/containers" if systemd_version >= _SUBGROUP_SINCE else "migrate"


def agent_unit(*, python: Path, config: Path, systemd_version: int) -> str:
    """migrate-agent.service. `python`: that of the installation."""
    subgroup = "DelegateSubgroup=agent\n" if systemd_version >= _SUBGROUP_SINCE else ""
    return f"""\
# Written by migrate: the agent of this host.
[Unit]
Description=Agent of migrate: runs containers and moves them
Wants={NETWORK}
After={NETWORK} network.target
# A restart under load may take a few tries: never give up.
StartLimitIntervalSec=0

[Service]
Type=notify
ExecStart={python} -m agent --config {config}
Restart=always
RestartSec=1
TimeoutStartSec=900
# Containers and their monitors outlive the agent.
KillMode=process
Delegate=yes
{subgroup}# The limits of a service would be limits of all its containers together.
TasksMax=infinity
OOMPolicy=continue

[Install]
WantedBy=multi-user.target
"""


def network_unit(*, python: Path, bridge: str, uplink: str) -> str:
    """migrate-network.service: the bridge, again at every boot."""
    return f"""\
# Written by migrate: the bridge of this host's containers.
[Unit]
Description=Bridge of the containers of migrate
Wants=network-online.target
After=network-online.target

[Service]
Type=oneshot
RemainAfterExit=yes
ExecStart={python} -m agent.setup.bridge --bridge {bridge} --uplink {uplink}

[Install]
WantedBy=multi-user.target
"""


def install(name: str, text: str, *, directory: Path = UNIT_DIR) -> bool:
    """Write the unit, enable it and bring it up; a running one is started anew only if its text has changed.

    Returns whether it changed. Raises SystemdError with the end of its journal when it does not come up.
    """
    path = directory / name
    changed = not path.exists() or path.read_text() != text
    if changed:
        atomic.write(path, text, mode=0o644)
        _run(["systemctl", "daemon-reload"])
    _run(["systemctl", "--quiet", "enable", name])
    bring_up(name, again=changed)
    return changed


def bring_up(name: str, *, again: bool) -> None:
    """Start, or with `again` restart. Raises SystemdError."""
    try:
        _run(["systemctl", "restart" if again else "start", name])
    except SystemdError as exc:
        detail = _journal(name)
        raise SystemdError(exc.message, hint=f"the whole log: journalctl -u {name}", detail=detail) from exc


def remove(name: str) -> bool:
    """Stop it, disable it, and remove its unit; returns whether it was there. Raises SystemdError."""
    path = UNIT_DIR / name
    if not path.exists():
        return False
    _run(["systemctl", "--quiet", "disable", "--now", name])
    path.unlink()
    _run(["systemctl", "daemon-reload"])
    return True


def reload_sshd() -> str:
    """Let the system's sshd read its configuration again; returns its unit's name. Raises SystemdError where none runs."""
    for name in ("ssh.service", "sshd.service"):  # Debian's name, and everybody else's
        if subprocess.run(["systemctl", "--quiet", "is-active", name], timeout=_LIMIT_S, check=False).returncode == 0:
            _run(["systemctl", "reload", name])
            return name
    raise SystemdError("no sshd runs here", hint="systemctl enable --now ssh")


def _journal(name: str) -> str:
    done = subprocess.run(
        ["journalctl", "--no-pager", "-n", "20", "-u", name],
        capture_output=True,
        text=True,
        timeout=_LIMIT_S,
        check=False,
    )
    return done.stdout


def _run(argv: list[str]) -> str:
    try:
        done = subprocess.run(
            argv, stdin=subprocess.DEVNULL, capture_output=True, text=True, timeout=_LIMIT_S, check=False
        )
    except FileNotFoundError as exc:
        raise Unsupported(f"{argv[0]} is missing", hint="this step needs systemd") from exc
    except subprocess.TimeoutExpired as exc:
        raise SystemdError(f"{' '.join(argv)} did not end in {_LIMIT_S:g} s") from exc
    if done.returncode:
        raise SystemdError(f"{' '.join(argv)}: {done.stderr.strip() or f'exit status {done.returncode}'}")
    return done.stdout
