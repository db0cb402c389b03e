"""Take migrate from this machine: `python -m agent.setup.purge`, as root. The opposite of agent/setup/host.py and release.py.

Refused while containers are here. The bridge stays, with the host's address on it, until the next boot: taking it down would
cut the connection by which this was asked for. Standard library only.
"""

from __future__ import annotations

import shutil
import subprocess
import sys
from pathlib import Path

from agent import config
from agent.errors import AgentError, WrongState
from agent.setup import plain, release, sshd, systemd


def purge() -> list[str]:
    """Returns a line for each thing that was done. Raises AgentError."""
    did: list[str] = []
    path = config.DEFAULT_PATH
    loaded = config.load(path) if path.exists() else None
    if loaded is not None and (loaded.state_dir / "coordinator.db").exists():
        raise WrongState(
            f"the coordinator's own database is in {loaded.state_dir}",
            hint="this machine can leave, but cannot be purged",
        )
    if loaded is not None:
        held = sorted(one.name for one in loaded.containers_dir.iterdir()) if loaded.containers_dir.is_dir() else []
        if held:
            raise WrongState(
                f"{len(held)} containers are here: {' '.join(one[:12] for one in held)}", hint="migrate rm them"
            )
    if systemd.runs():
        did += [f"{name} is gone" for name in (systemd.AGENT, systemd.NETWORK) if systemd.remove(name)]
    elif loaded is not None and plain.stop(loaded.run_dir):
        did.append("the agent was ended")
    if sshd.DROP_IN.exists():
        sshd.DROP_IN.unlink()
        did.append(f"{systemd.reload_sshd() if systemd.runs() else plain.reload_sshd()} lets the fleet in no more")
    if sshd.remove_user():
        did.append(f"the user {sshd.USER} is gone")
    folders = [sshd.CA_PUBLIC.parent, sshd.DIAL_DIR, release.ROOT]
    folders += [loaded.state_dir, loaded.run_dir] if loaded is not None else []
    for folder in folders:
        if folder.exists() and _clear(folder):
            did.append(f"{folder} was removed")
    if release.COMMAND.is_symlink() and release.COMMAND.readlink().is_relative_to(release.ROOT):
        release.COMMAND.unlink()
    return did or ["nothing of migrate was here"]


def _clear(folder: Path) -> bool:
    """A folder that something is mounted on is emptied and stays."""
    shutil.rmtree(folder, ignore_errors=True)
    return not folder.exists() or not any(folder.iterdir())


def main() -> int:
    try:
        for line in purge():
            sys.stdout.write(f"{line}\n")
    except (AgentError, OSError, subprocess.SubprocessError) as exc:
        message, hint = (exc.message, exc.hint) if isinstance(exc, AgentError) else (str(exc), "run it as root")
        sys.stderr.write(f"error: {message}\n" + (f"hint: {hint}\n" if hint else ""))
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
