"""Bytes both ways between an ssh session's pipes and a connection to the agent's gRPC socket, in one thread."""

from __future__ import annotations

import contextlib
import os
import select
import socket

CHUNK_BYTES = 256 << 10
_GONE = select.POLLERR | select.POLLHUP


def relay(rx_fd: int, tx_fd: int, agent: socket.socket, lifeline: socket.socket) -> None:
    """Return when `agent` has closed and all of its bytes are out, or ssh is gone, or `lifeline` has something to say.

    End of file on `rx_fd` is passed on as a half-closed `agent`. `lifeline` is the connection of dial, which sends
    nothing: it wakes when dial dies or when somebody shuts it down to end the session. Closes nothing.
    """
    try:
        _relay(rx_fd, tx_fd, agent, lifeline)
    except (BrokenPipeError, ConnectionResetError):
        pass  # either end went away: that is how sessions end


def _relay(rx_fd: int, tx_fd: int, agent: socket.socket, lifeline: socket.socket) -> None:
    agent_fd = agent.fileno()
    for fd in (rx_fd, tx_fd, agent_fd):
        os.set_blocking(fd, False)
    to_agent, to_ssh = bytearray(), bytearray()
    rx_open = agent_open = True
    while agent_open or to_ssh:
        poll = select.poll()
        poll.register(lifeline, select.POLLIN)
        poll.register(tx_fd, select.POLLOUT if to_ssh else 0)  # without events it still says that the reader left
        # Not registered without events: a closed end would report POLLHUP for ever while the other one is slow.
        if agent_events := (select.POLLIN if agent_open and not to_ssh else 0) | (select.POLLOUT if to_agent else 0):
            poll.register(agent_fd, agent_events)
        if rx_open and not to_agent:
            poll.register(rx_fd, select.POLLIN)
        ready = dict(poll.poll())
        if lifeline.fileno() in ready or ready.get(tx_fd, 0) & _GONE:
            return
        if rx_fd in ready:
            to_agent += (data := os.read(rx_fd, CHUNK_BYTES))
            if not data:
                rx_open = False
                with contextlib.suppress(OSError):  # the agent closed first
                    agent.shutdown(socket.SHUT_WR)
        if agent_fd in ready and agent_events & select.POLLIN:
            with contextlib.suppress(BlockingIOError):  # it may have been ready for writing only
                to_ssh += (data := os.read(agent_fd, CHUNK_BYTES))
                agent_open = bool(data)
        if to_agent:
            with contextlib.suppress(BlockingIOError):
                del to_agent[: os.write(agent_fd, to_agent)]
        if to_ssh:
            with contextlib.suppress(BlockingIOError):
                del to_ssh[: os.write(tx_fd, to_ssh)]
