"""Finding processes and ending exactly those."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from collections.abc import Iterator

import pytest

from migrate.lab import processes
from migrate.lab.layout import LabError
from migrate.lab.processes import Process

pytestmark = pytest.mark.unit


@pytest.fixture
def sleeper() -> Iterator[subprocess.Popen[bytes]]:
    process = subprocess.Popen([sys.executable, "-c", "import time; print(flush=True); time.sleep(60)"], stdout=-1)
    assert process.stdout is not None
    process.stdout.readline()  # past exec
    yield process
    process.kill()
    process.wait()
    process.stdout.close()


def test_process_is_read_as_it_is(sleeper: subprocess.Popen[bytes]) -> None:
    """Parent, command and start time come from /proc."""
    found = processes.read(sleeper.pid)
    assert found is not None
    assert found.parent == os.getpid()
    assert "time.sleep(60)" in found.command
    assert processes.alive(found.pid, found.start_ticks)
    assert not processes.alive(found.pid, found.start_ticks + 1)


def test_zombie_counts_as_gone(sleeper: subprocess.Popen[bytes]) -> None:
    """A process that only waits for its parent to look is not running."""
    sleeper.kill()
    os.waitid(os.P_PID, sleeper.pid, os.WEXITED | os.WNOWAIT)
    assert processes.read(sleeper.pid) is None


def test_pid_with_another_start_time_is_never_signalled(sleeper: subprocess.Popen[bytes]) -> None:
    """The pid of a process that ended may be another's by now: that one is left alone."""
    found = processes.read(sleeper.pid)
    assert found is not None
    earlier = Process(pid=found.pid, parent=found.parent, start_ticks=found.start_ticks - 1, command="")
    assert not processes.send(earlier, signal.SIGKILL)
    assert sleeper.poll() is None
    assert processes.send(found, signal.SIGKILL)
    assert sleeper.wait() == -signal.SIGKILL


def test_kill_goes_on_until_nothing_is_found(sleeper: subprocess.Popen[bytes]) -> None:
    """It returns only when the finder finds nothing, and says how many it ended."""

    def find() -> dict[int, Process]:
        found = processes.read(sleeper.pid)
        return {found.pid: found} if found else {}

    assert processes.kill_until_none(find, timeout_s=5) == 1
    assert sleeper.wait() == -signal.SIGKILL


def test_kill_names_what_survives() -> None:
    """What cannot be ended is an error with pid and command, not an endless wait."""
    ghost = Process(pid=2**22 + 1, parent=1, start_ticks=0, command="stuck in the kernel")
    with pytest.raises(LabError, match="stuck in the kernel"):
        processes.kill_until_none(lambda: {ghost.pid: ghost}, timeout_s=0.05)


def test_lab_that_does_not_exist_has_no_members() -> None:
    """No process of this machine, this one above all, belongs to a lab that never was."""
    assert processes.members("nosuchlab", "migrate-lab-nosuchlab") == {}


def test_members_include_descendants_but_never_the_caller(sleeper: subprocess.Popen[bytes]) -> None:
    """The children of a supervisor are found; the caller, even as a child of one, and its ancestors are not."""
    found = processes.members("nosuchlab", "migrate-lab-nosuchlab", [os.getpid()])
    assert sleeper.pid in found
    assert os.getpid() not in found
    assert os.getppid() not in processes.members("nosuchlab", "migrate-lab-nosuchlab", [os.getppid()])
