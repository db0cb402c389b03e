"""Descriptors over a unix socket."""

from __future__ import annotations

import array
import socket

_BYTES = array.array("i").itemsize


def receive(channel: socket.socket, most_bytes: int, most_fds: int) -> tuple[bytes, list[int], int]:
    """One recvmsg: (data, descriptors, flags). The descriptors are the caller's, close-on-exec from their first moment.

    socket.recv_fds() of Python 3.11 drops its flags argument: what it returns survives an execve. MSG_TRUNC and
    MSG_CTRUNC in the flags: there was more. Raises OSError.
    """
    room = socket.CMSG_LEN(most_fds * _BYTES)
    data, ancillary, flags, _ = channel.recvmsg(most_bytes, room, socket.MSG_CMSG_CLOEXEC)
    fds: list[int] = []
    for level, kind, content in ancillary:
        if (level, kind) == (socket.SOL_SOCKET, socket.SCM_RIGHTS):
            fds += array.array("i", content[: len(content) // _BYTES * _BYTES])
    return data, fds, flags
