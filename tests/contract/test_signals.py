"""SIGTERM to a program of ours at the worst instant: while its main thread enters the wait for just that."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

pytestmark = pytest.mark.contract

ROOT = Path(__file__).resolve().parents[2]

# Sends SIGTERM from within the call that waits, once: threading's Condition.wait(), whose lock is held then, or the
# select() of migrate/rpc/asked.py, before the kernel is reached.
PROGRAM = """
import os, signal, sys
sent = []
def profile(frame, event, what):
    waits = event == "call" and frame.f_code.co_name == "wait" and frame.f_code.co_filename.endswith("threading.py")
    waits = waits and "waiter" in frame.f_code.co_varnames
    selects = event == "c_call" and what.__name__ == "select" and frame.f_code.co_filename.endswith("asked.py")
    if (waits or selects) and "up" in sent and "killed" not in sent:
        sent.append("killed")
        os.kill(os.getpid(), signal.SIGTERM)
class Server:
    def __init__(self, configuration): pass
    def start(self):
        sent.append("up")
        sys.setprofile(profile)
    def stop(self):
        sys.setprofile(None)
        print("stopped", flush=True)
"""
COORDINATOR = """
import migrate.coordinator.server as server
server.Coordinator = Server
from migrate.coordinator.__main__ import serve
serve(None)
"""
AGENT = """
import agent.config, agent.server
agent.server.Agent, agent.config.load = Server, lambda path: None
from agent.__main__ import main
sys.argv = ["migrate-agent"]
main()
"""


@pytest.mark.parametrize("program", [COORDINATOR, AGENT], ids=["coordinator", "agent"])
def test_a_signal_while_the_wait_begins_ends_it(program: str) -> None:
    """The handler takes no lock that the main thread may hold: a threading.Event here hung for ever, now and then."""
    done = subprocess.run(
        [sys.executable, "-c", PROGRAM + program], cwd=ROOT, capture_output=True, text=True, timeout=60, check=False
    )
    assert done.stdout == "stopped\n", done.stderr
