"""The zygote: has Python started and everything imported, and forks a monitor for each one that the agent asks for.

    agent ── {"cmd": "fork"}, one end of a socket pair ──►  zygote ── fork ──►  monitor, idle, with that end as its first client
          ◄── {"pid"}, a pidfd of the monitor ─────────────

One thread, one fork at a time. It ends with the agent; so do monitors that have become nobody's. Killed, it is started again by the
agent (pool.py) and no monitor notices: whoever adopts it reaps it. Standard library only.
"""

from __future__ import annotations

import gc
import os
import signal
import socket
from collections.abc import Callable
from pathlib import Path

from agent.engine import sync
from agent.linux import process


def serve(channel: socket.socket, live: Callable[[socket.socket], None]) -> None:
    """Until the agent is gone. `live(connection)` is the life of a monitor, in its own process."""
    for number in (signal.SIGHUP, signal.SIGINT, signal.SIGTERM):
        signal.signal(number, signal.SIG_IGN)  # a monitor ends with its container, not before
    signal.signal(signal.SIGCHLD, signal.SIG_IGN)  # the kernel reaps monitors at once
    _protect_from_oom()
    gc.collect()
    gc.freeze()  # what is shared by fork stays shared
    while True:
        request, fds = sync.receive(channel)
        if request is None:
            return
        (theirs,) = fds
        pid = os.fork()
        if pid == 0:
            try:
                channel.close()
                os.setsid()
                live(socket.socket(fileno=theirs))
            finally:
                os._exit(0)  # whatever happened: a monitor never returns into the zygote's code
        os.close(theirs)
        try:
            pidfd = process.pidfd_open(pid)
        except ProcessLookupError:  # killed already; its connection says so
            sync.send(channel, {"pid": pid})
            continue
        sync.send(channel, {"pid": pid}, [pidfd])
        os.close(pidfd)


def _protect_from_oom() -> None:
    """A monitor is small and the container's fate: it goes last. Its children take their own value (init.py)."""
    for value in ("-999", "-500", "0"):
        try:
            Path("/proc/self/oom_score_adj").write_text(value)
        except OSError:
            continue  # lowering it needs CAP_SYS_RESOURCE
        return
