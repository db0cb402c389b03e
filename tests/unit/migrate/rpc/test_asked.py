"""A server's main thread hears SIGTERM whichever thread the kernel gives it to."""

from __future__ import annotations

import subprocess
import sys

import pytest

pytestmark = pytest.mark.unit

# The main thread waits; another one gets the signal, by tgkill, when it does or before it does (argv: seconds).
_PROGRAM = """
import signal, sys, threading, time
from migrate.rpc.asked import AskedToEnd

asked = AskedToEnd()
sent = threading.Event()

def itself():
    time.sleep(float(sys.argv[1]))
    signal.pthread_kill(threading.get_ident(), signal.SIGTERM)
    sent.set()
    time.sleep(60)

threading.Thread(target=itself, daemon=True).start()
if float(sys.argv[1]) == 0:
    sent.wait()
asked.wait()
print("asked", flush=True)
"""


@pytest.mark.parametrize("after_s", ["0", "0.3"])
def test_another_thread_gets_the_signal(after_s: str) -> None:
    done = subprocess.run(
        [sys.executable, "-c", _PROGRAM, after_s], capture_output=True, text=True, timeout=30, check=False
    )
    assert (done.returncode, done.stdout) == (0, "asked\n"), done.stderr
