"""The agent on a host that systemd does not run: a process of its own session, its pid in a file. Standard library only.

Nothing starts it again after a boot or a crash: that is for the host's own service manager, which is told how by `command`.
"""

from __future__ import annotations

import os
import signal
import socket
import subprocess
import time
from collections.abc import Sequence
from pathlib import Path

from agent import atomic, config
from agent.errors import AgentError

PID_FILE = "agent.pid"
LOG_FILE = "agent.log"
_START_S = 120.0
_STOP_S = 30.0


class PlainError(AgentError):
    """The agent did not start or end, or there is no sshd to tell; `detail`: the end of the agent's log."""

    code = "setup.plain"


def command(python: Path, agent_toml: Path) -> list[str]:
    """What a service manager has to run; it must end nothing but this one process."""
    return [str(python), "-m", "agent", "--config", str(agent_toml)]


def bring_up(python: Path, agent_toml: Path, *, again: bool) -> bool:
    """Start it where it does not run as `command`, or with `again` anew; returns whether it was started. Raises PlainError."""
    loaded = config.load(agent_toml)
    argv = command(python, agent_toml)
    pid = running(loaded.run_dir)
    if pid and not again and _argv(pid) == argv:
        return False
    if pid:
        stop(loaded.run_dir)
    loaded.run_dir.mkdir(mode=0o755, parents=True, exist_ok=True)
    log = loaded.run_dir / LOG_FILE
    with log.open("ab") as output:
        process = subprocess.Popen(
            argv, stdin=subprocess.DEVNULL, stdout=output, stderr=output, cwd="/", start_new_session=True
        )
    atomic.write(loaded.run_dir / PID_FILE, f"{process.pid}\n")
    deadline = time.monotonic() + _START_S
    while not _answers(loaded.door):
        if process.poll() is not None or time.monotonic() > deadline:
            raise PlainError(
                f"the agent did not come up: {' '.join(argv)}",
                hint=f"its whole log: {log}",
                detail="\n".join(log.read_text(errors="replace").splitlines()[-20:]),
            )
        time.sleep(0.05)
    process.returncode = 0  # it outlives this program on purpose
    return True


def stop(run_dir: Path) -> bool:
    """End the agent, and nothing else; returns whether one ran. Raises PlainError."""
    pid = running(run_dir)
    if not pid:
        return False
    os.kill(pid, signal.SIGTERM)
    deadline = time.monotonic() + _STOP_S
    while running(run_dir):
        if time.monotonic() > deadline:
            raise PlainError(f"the agent, process {pid}, did not end in {_STOP_S:g} s of SIGTERM")
        time.sleep(0.05)
    (run_dir / PID_FILE).unlink(missing_ok=True)
    return True


def running(run_dir: Path) -> int:
    """Its pid, 0 where it does not run: a pid alone may be another's by now."""
    try:
        pid = int((run_dir / PID_FILE).read_text())
    except (OSError, ValueError):
        return 0
    argv = _argv(pid)
    return pid if argv[1:4] == ["-m", "agent", "--config"] else 0


def reload_sshd() -> str:
    """Let the sshd that we came in by read its configuration again, or else the one of /run/sshd.pid. Raises PlainError."""
    pid = _sshd_above(os.getpid()) or _sshd_of(Path("/run/sshd.pid"))
    if not pid:
        raise PlainError("no sshd was found to be told", hint="run this in an ssh session, or start sshd first")
    os.kill(pid, signal.SIGHUP)
    return f"sshd, process {pid},"


def _sshd_above(pid: int) -> int:
    """The topmost of our ancestors that is an sshd: the one that listens. 0 where there is none."""
    found = 0
    while pid > 1:
        status = dict(line.split(":\t", 1) for line in _status(pid) if ":\t" in line)
        if not status:
            break
        if status["Name"].startswith("sshd"):
            found = pid
        pid = int(status["PPid"])
    return found


def _sshd_of(pid_file: Path) -> int:
    try:
        pid = int(pid_file.read_text())
    except (OSError, ValueError):
        return 0
    return pid if any(line == "Name:\tsshd" for line in _status(pid)) else 0


def _status(pid: int) -> Sequence[str]:
    try:
        return Path(f"/proc/{pid}/status").read_text().splitlines()
    except OSError:
        return ()


def _argv(pid: int) -> list[str]:
    try:
        return Path(f"/proc/{pid}/cmdline").read_bytes().decode(errors="replace").split("\0")[:-1]
    except OSError:
        return []


def _answers(door: Path) -> bool:
    with socket.socket(socket.AF_UNIX) as knocking:
        try:
            knocking.connect(str(door))
        except OSError:
            return False
        return True
