"""Unix sockets of a network namespace with their other ends: `python -I -S unix_diag.py PACKAGE_ROOT PID`, JSON on stdout.

/proc/net/unix does not say who is connected to whom; the kernel's socket diagnostics do, for the namespace that one is in. A process of
its own, for the agent has threads. Opens one netlink socket there and changes nothing. Standard library only.
"""

from __future__ import annotations

import sys

if __name__ == "__main__":
    sys.path.insert(0, sys.argv[1])

import json
import socket
import struct
from collections.abc import Iterator

from agent.linux import namespaces, rtattr

_SOCK_DIAG = 4  # NETLINK_SOCK_DIAG
_BY_FAMILY, _DONE, _ERROR = 20, 3, 2
_REQUEST_DUMP = 0x301
_SHOW_NAME, _SHOW_PEER = 1, 4
_ALL_STATES = 0xFFFFFFFF
_HEADER = struct.Struct("=IHHII")
_QUESTION = struct.Struct("=BBHIIIII")
_ANSWER = struct.Struct("=BBBBIII")
_NAME, _PEER = 0, 2  # attributes


def sockets() -> Iterator[dict[str, object]]:
    """Each of this namespace: inode, its peer's inode (0 = none, or not accepted yet), name. Raises OSError."""
    with socket.socket(socket.AF_NETLINK, socket.SOCK_RAW, _SOCK_DIAG) as asking:
        question = _QUESTION.pack(socket.AF_UNIX, 0, 0, _ALL_STATES, 0, _SHOW_NAME | _SHOW_PEER, 0, 0)
        asking.send(_HEADER.pack(_HEADER.size + len(question), _BY_FAMILY, _REQUEST_DUMP, 1, 0) + question)
        while True:
            data, at = asking.recv(1 << 18), 0
            while at + _HEADER.size <= len(data):
                size, kind, _, _, _ = _HEADER.unpack_from(data, at)
                body = data[at + _HEADER.size : at + size]
                if kind == _DONE:
                    return
                if kind == _ERROR:
                    (code,) = struct.unpack_from("=i", body)
                    raise OSError(-code, "socket diagnostics")
                inode = _ANSWER.unpack_from(body)[4]
                got = rtattr.unpack(body[_ANSWER.size :])
                peer = struct.unpack("=I", got[_PEER])[0] if _PEER in got else 0
                name = got.get(_NAME, b"").rstrip(b"\0").replace(b"\0", b"@").decode(errors="replace")
                yield {"inode": inode, "peer": peer, "name": name}
                at += size + 3 & ~3


if __name__ == "__main__":
    with namespaces.network_of(int(sys.argv[2])):
        found = list(sockets())
    sys.stdout.write(json.dumps(found))
