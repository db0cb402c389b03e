"""Nodes from outside: start one, find those that live, run a command in one."""

from __future__ import annotations

import os
import subprocess
import sys
import time
from collections.abc import Sequence
from pathlib import Path
from typing import NoReturn

from migrate.lab import processes
from migrate.lab.layout import Lab, LabError, Node
from migrate.lab.plan import NodePlan, NodeState, plan_file, state_file

_START_TIMEOUT_S = 60.0  # a second, but for a busy machine


def states(state_dir: Path) -> dict[str, NodeState]:
    """What each node's supervisor last said, by the node's name; found by directory: works without lab.json."""
    found: dict[str, NodeState] = {}
    if state_dir.is_dir():
        for directory in sorted(path for path in state_dir.iterdir() if path.is_dir()):
            if (state := NodeState.load(directory)) is not None:
                found[directory.name] = state
    return found


def running(state: NodeState) -> bool:
    """Whether that supervisor lives: same boot, same start time."""
    return state.boot_id == processes.BOOT_ID.read_text().strip() and processes.alive(state.pid, state.start_ticks)


def supervisors(state_dir: Path) -> dict[str, int]:
    """The pids of the supervisors that live, by the node's name."""
    return {name: state.pid for name, state in states(state_dir).items() if running(state)}


def start(lab: Lab, node: Node) -> None:
    """Start the node's supervisor in its namespaces; returns when its mounts are set up. LabError with its log."""
    directory = lab.node_dir(node.name)
    state_file(directory).unlink(missing_ok=True)
    plan = NodePlan.load(plan_file(directory))
    command = [
        "nsenter", f"--net={lab.netns_path(node.name)}",
        "unshare", "--mount", "--uts", "--propagation", "private",
        sys.executable, "-m", "migrate.lab.node", str(plan_file(directory)),
    ]  # fmt: skip
    outside = os.open("/proc/self/ns/net", os.O_RDONLY)
    with os.fdopen(outside), (directory / "log/node.log").open("ab") as log:
        process = subprocess.Popen(
            [*command, str(outside)],
            pass_fds=(outside,),
            stdin=subprocess.DEVNULL,
            stdout=log,
            stderr=log,
            env=plan.environment,
            cwd="/",
            start_new_session=True,
        )
    deadline = time.monotonic() + _START_TIMEOUT_S
    while True:
        state = NodeState.load(directory)
        if state is not None and running(state):
            # It outlives this command on purpose; without this Popen would warn when it is collected.
            process.returncode = 0
            return
        if (status := process.poll()) is not None:
            raise LabError(
                f"the supervisor of {node.name} ended with status {status}",
                detail=tail(directory / "log/node.log"),
                hint="take the rest down and try again: migrate lab down",
            )
        if time.monotonic() > deadline:
            raise LabError(
                f"the supervisor of {node.name} is not up after {_START_TIMEOUT_S:.0f} s",
                detail=tail(directory / "log/node.log"),
                hint="take the rest down and try again: migrate lab down",
            )
        time.sleep(0.02)


def tail(path: Path, lines: int = 15) -> str:
    """The last lines of a log; says so when there is none."""
    try:
        text = path.read_text(errors="replace").splitlines()[-lines:]
    except FileNotFoundError:
        text = ["(no such file)"]
    return "\n".join([f"{path}:", *(f"  {line}" for line in text)])


def command(lab: Lab, name: str, argv: Sequence[str]) -> list[str]:
    """The command line that runs `argv` inside a node. Raises LabError where the node does not live."""
    node = lab.node(name)
    if not node.supervised:
        if not lab.netns_path(name).exists():
            raise LabError(f"{name} is not up", hint="migrate lab up")
        return ["nsenter", f"--net={lab.netns_path(name)}", *argv]
    pid = supervisors(lab.state_dir).get(name)
    if pid is None:
        raise LabError(f"{name} is not up", hint="migrate lab status")
    return ["nsenter", f"--target={pid}", "--mount", "--uts", "--net", *argv]


def enter(lab: Lab, name: str, argv: Sequence[str]) -> NoReturn:
    """Become `argv`, or a shell, inside a node."""
    line = command(lab, name, argv or [os.environ.get("SHELL", "/bin/sh")])
    os.execvp(line[0], line)  # noqa: S606  no shell is the point
