"""System calls made in another process: each is really made, whatever signals the process gets meanwhile."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import IO

import pytest

from agent.linux import ptrace

pytestmark = pytest.mark.system

NR_GETPID, NR_DUP, NR_CLOSE = 39, 32, 3  # asm/unistd_64.h
SIGNALS_A_SECOND = 5000
COUNTER = f"""
import signal, time
signal.signal(signal.SIGALRM, lambda *_: None)
signal.setitimer(signal.ITIMER_REAL, {1 / SIGNALS_A_SECOND}, {1 / SIGNALS_A_SECOND})
print("ready", flush=True)
while True:
    time.sleep(1)
"""
LISTENER = """
import signal, time
signal.signal(signal.SIGUSR1, lambda *_: print("got it", flush=True))
print("ready", flush=True)
while True:
    time.sleep(1)
"""


@contextmanager
def running(script: str) -> Iterator[tuple[int, IO[bytes]]]:
    """A Python program that has said "ready": its pid and its output."""
    with subprocess.Popen([sys.executable, "-c", script], stdout=subprocess.PIPE) as process:
        assert process.stdout is not None
        assert process.stdout.readline() == b"ready\n"
        try:
            yield process.pid, process.stdout
            assert process.poll() is None
        finally:
            process.kill()


def descriptors(pid: int) -> list[str]:
    return sorted(path.name for path in Path(f"/proc/{pid}/fd").iterdir())


def test_calls_are_made_in_a_process_that_is_full_of_signals() -> None:
    """A signal that arrives before the injected instruction does not stand for the call: each has its own result, no
    descriptor is left, and the process runs on.
    """
    with running(COUNTER) as (pid, _):
        before = descriptors(pid)
        for _ in range(400):
            with ptrace.stopped(pid) as stopped:
                assert stopped.call(NR_GETPID, []) == pid
                number = stopped.call(NR_DUP, [1])
                assert number == len(before)
                assert stopped.call(NR_CLOSE, [number]) == 0
        assert descriptors(pid) == before


def test_a_signal_that_came_while_it_stood_is_not_lost() -> None:
    """It is delivered when the process runs on."""
    with running(LISTENER) as (pid, output):
        with ptrace.stopped(pid) as stopped:
            os.kill(pid, signal.SIGUSR1)
            assert stopped.call(NR_GETPID, []) == pid
        assert output.readline() == b"got it\n"
