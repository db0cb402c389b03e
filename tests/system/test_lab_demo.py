"""The demo as a whole: the one command that a newcomer types."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from migrate.lab import down, observe, provision

pytestmark = pytest.mark.criu

PREFIX = "tdemo"
TIMEOUT_S = 240


def start(**environment: str) -> subprocess.Popen[str]:
    command = [sys.executable, "-u", "-m", "migrate.lab.demo"]
    return subprocess.Popen(
        command,
        env={**os.environ, "DEMO_LAB": PREFIX, **environment},
        cwd=provision.SOURCE,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        start_new_session=True,
    )


def until(process: subprocess.Popen[str], text: str) -> None:
    """Read the demo's output up to a line with `text`."""
    assert process.stdout is not None
    seen: list[str] = []
    for line in process.stdout:
        seen.append(line)
        if text in line:
            return
    pytest.fail(f"the demo ended before {text!r}:\n{''.join(seen[-40:])}")


def test_demo_moves_there_and_back() -> None:
    """It ends with status 0, has moved twice under a client that missed nothing, and leaves nothing behind."""
    process = start(DEMO_SIZE_MB="20")
    out, _ = process.communicate(timeout=TIMEOUT_S)
    assert process.returncode == 0, out[-6000:]
    for line in (
        "all checks passed",
        "no answer was lost, repeated or out of order",
        "it runs on host2 and nowhere else",
        "it runs on host1 and nowhere else",
        "nothing of the container is left on any host",
    ):
        assert line in out
    assert observe.snapshot(PREFIX).clean


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_interrupted_demo_clears_away(number: signal.Signals) -> None:
    """Ctrl-C or SIGTERM in the middle of a move: status 130, and nothing of the lab is left."""
    process = start(DEMO_SIZE_MB="20")
    until(process, "$ migrate move")
    time.sleep(0.5)
    os.killpg(process.pid, number) if number is signal.SIGINT else process.send_signal(number)
    out, _ = process.communicate(timeout=TIMEOUT_S)
    assert process.returncode == 130, out[-3000:]
    left = observe.snapshot(PREFIX).describe()
    down.down(PREFIX, force=True)
    assert left == []


def test_failed_demo_keeps_the_logs() -> None:
    """When a host's agent cannot work, the demo says what happened, keeps all logs, ends with 1 and leaves nothing else."""
    process = start(DEMO_SIZE_MB="20")
    until(process, "$ migrate run")
    # The lab is killed under its feet.
    down.down(PREFIX, force=True, keep=True)
    out, _ = process.communicate(timeout=TIMEOUT_S)
    assert process.returncode == 1, out[-3000:]
    assert "FAILED: " in out
    kept = Path(out.split("the logs of all nodes: ")[1].splitlines()[0])
    assert (kept / "host1/agent.log").exists()
    for path in sorted(kept.rglob("*"), reverse=True):
        path.unlink() if path.is_file() else path.rmdir()
    kept.rmdir()
    assert observe.snapshot(PREFIX).clean
