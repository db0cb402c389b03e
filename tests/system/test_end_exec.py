"""What came in by exec is ended from outside: its whole session, nobody else."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from agent.handover import end_exec
from agent.handover.end_exec import Ended

pytestmark = pytest.mark.system

# "init" and its child, which stay; then programs whose parent is outside: one that ends, one that hears nothing but SIGKILL, with a child.
STUBBORN = """
import os, signal, time
for number in (1, 15): signal.signal(number, signal.SIG_IGN)
if os.fork(): print("up", flush=True)
time.sleep(99)
"""
INIT = "import os, time\nif os.fork(): print('up', flush=True)\ntime.sleep(99)"


@pytest.fixture
def started() -> Iterator[dict[str, subprocess.Popen[str]]]:
    """Each leads a session of its own, as `exec` makes them."""
    made = {
        name: subprocess.Popen([sys.executable, "-c", code], stdout=subprocess.PIPE, text=True, start_new_session=True)
        for name, code in (
            ("init", INIT),
            ("stubborn", STUBBORN),
            ("meek", "print('up', flush=True)\nimport time\ntime.sleep(99)"),
        )
    }
    try:
        for one in made.values():
            assert one.stdout is not None
            assert one.stdout.readline() == "up\n"
        yield made
    finally:
        for one in made.values():
            os.killpg(one.pid, signal.SIGKILL)
            one.communicate()


def children(pid: int) -> list[int]:
    deadline = time.monotonic() + 5
    while not (found := [int(word) for word in Path(f"/proc/{pid}/task/{pid}/children").read_text().split()]):
        assert time.monotonic() < deadline
    return found


def test_sessions_end_and_init_stays(started: dict[str, subprocess.Popen[str]]) -> None:
    """SIGTERM is enough for one, the other needs SIGKILL after the grace, its child too; all are noted before they get a signal."""
    init, stubborn, meek = (started[name].pid for name in ("init", "stubborn", "meek"))
    pids = [init, *children(init), stubborn, *children(stubborn), meek]
    noted: list[list[Ended]] = []

    def note(found: list[Ended]) -> None:
        if not noted:
            assert all(end_exec._task(pid) for pid in pids)  # nobody has got anything yet
        noted.append(found)

    ended = end_exec.end(init, lambda: pids, note, grace_s=0.3)
    assert {one.pid: one.signal for one in ended} == {stubborn: "SIGKILL", meek: "SIGTERM"}
    assert {one.command.split()[0] for one in ended} == {sys.executable}
    assert [pid for pid in pids if end_exec._task(pid)] == [init, *children(init)]
    assert {one.pid for one in noted[0]} == {stubborn, meek}
    assert end_exec.end(init, lambda: pids, note) == []
