"""Messages between a monitor and the processes that it starts. One JSON object a packet on a SOCK_SEQPACKET socket.

    monitor                                   stage                               init
      fork, ahead of need ------------------>   unshare(user, pid, net, ...)
      <----------------------------- waiting

      the container is known: uid_map and gid_map of the stage
      fork {cgroup} ------------------------>   fork into the cgroup ------------>  setsid
      <----------------------- created {pid}    exits
      plan, root, stdio -------------------------------------------------------->  becomes 0:0, unshare(mnt), mounts,
      <------------------------------------------------------------------- ready   pivot_root, hostname, cgroups of version 1
      the agent meanwhile: state.json, its network
      start, which may come earlier -------------------------------------------->  unshare(cgroup), user, limits, ...
      <------------------------------------------------- end of file: execve worked
      <------------------------------ error {step, errno, text}: from the stage or from init, instead of any of these

An init whose monitor goes away before it has a plan ends. The monitor must close its own copy of the
child's end right after the fork, or the end of file never comes. Standard library only.
"""

from __future__ import annotations

import json
import os
import socket
from collections.abc import Sequence
from typing import Any

from agent.linux import descriptors

MAX_MESSAGE_BYTES = 65536
MAX_FDS = 8


class ProtocolError(Exception):
    """The other side sent something that its part of the conversation does not have."""


def send(channel: socket.socket, message: dict[str, Any], fds: Sequence[int] = ()) -> None:
    """Send one message and copies of `fds`. Raises OSError (EPIPE: the other side is gone)."""
    socket.send_fds(channel, [json.dumps(message).encode()], list(fds), socket.MSG_NOSIGNAL)


def receive(channel: socket.socket) -> tuple[dict[str, Any] | None, list[int]]:
    """Wait for one message; None at end of file. The caller owns the descriptors (CLOEXEC)."""
    data, fds, flags = descriptors.receive(channel, MAX_MESSAGE_BYTES, MAX_FDS)
    if flags & (socket.MSG_TRUNC | socket.MSG_CTRUNC):
        _close_all(fds)
        raise ProtocolError(f"a message of more than {MAX_MESSAGE_BYTES} bytes or {MAX_FDS} descriptors")
    if not data:
        return None, fds
    try:
        message = json.loads(data)
    except ValueError as exc:
        _close_all(fds)
        raise ProtocolError(f"not JSON: {data[:80]!r}") from exc
    if not isinstance(message, dict):
        _close_all(fds)
        raise ProtocolError(f"not an object: {data[:80]!r}")
    return message, fds


def expect(channel: socket.socket, kind: str) -> dict[str, Any]:
    """Wait for the message of type `kind`. Anything else, end of file too, is a ProtocolError."""
    message, fds = receive(channel)
    _close_all(fds)
    if message is None:
        raise ProtocolError(f"end of file instead of {kind!r}")
    if message.get("type") != kind:
        raise ProtocolError(f"{message!r} instead of {kind!r}")
    return message


def send_error(channel: socket.socket, step: str, exc: OSError) -> None:
    """Tell the other side which step failed with which errno."""
    text = f"{exc.strerror or exc}" + (f": {exc.filename}" if exc.filename else "")
    send(channel, {"type": "error", "step": step, "errno": exc.errno or 0, "text": text})


def _close_all(fds: Sequence[int]) -> None:
    for fd in fds:
        os.close(fd)
