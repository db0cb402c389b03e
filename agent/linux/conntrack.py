"""What the kernel remembers of flows (connection tracking), by netlink: forget some of it. Standard library only."""

from __future__ import annotations

import errno
import os
import socket
import struct
from collections.abc import Callable, Iterator
from dataclasses import dataclass

from agent.linux import rtattr

# linux/netlink.h, linux/netfilter/nfnetlink.h, linux/netfilter/nfnetlink_conntrack.h
_NETLINK_NETFILTER = 12
_ERROR, _DONE = 2, 3
_REQUEST, _ACK, _DUMP = 0x1, 0x4, 0x300
_GET, _DELETE = 1 << 8 | 1, 1 << 8 | 2
_TUPLE_ORIG, _TUPLE_REPLY, _ID = 1, 2, 12
_TUPLE_IP, _TUPLE_PROTO = 1, 2
_IP_SOURCE, _IP_DESTINATION = 1, 2
_PROTO_NUMBER, _PROTO_DESTINATION_PORT = 1, 3
_NESTED = 0x8000
_HEADER = struct.Struct("=IHHII")
_FAMILY = struct.Struct("=BBH")  # struct nfgenmsg
_PROTOCOLS = {socket.IPPROTO_TCP: "tcp", socket.IPPROTO_UDP: "udp"}


@dataclass(frozen=True, kw_only=True)
class Flow:
    """Of IPv4. `to_address`, `to_port`: as the client sends it; `answers_from`: the address that answers, after any translation."""

    protocol: str  # "tcp", "udp" or a number
    to_address: str
    to_port: int
    answers_from: str


def forget(matches: Callable[[Flow], bool]) -> int:
    """Delete the IPv4 flows for which `matches`; returns how many. Raises OSError."""
    with socket.socket(socket.AF_NETLINK, socket.SOCK_RAW, _NETLINK_NETFILTER) as kernel:
        head = _FAMILY.pack(socket.AF_INET, 0, 0)
        wanted = [body for body in _ask(kernel, _GET, _DUMP, head) if (flow := _flow(body)) and matches(flow)]
        count = 0
        for body in wanted:
            got = rtattr.unpack(body[_FAMILY.size :])
            which = rtattr.pack(_TUPLE_ORIG | _NESTED, got[_TUPLE_ORIG]) + (
                rtattr.pack(_ID, got[_ID]) if _ID in got else b""
            )
            try:
                for _ in _ask(kernel, _DELETE, _ACK, head + which):
                    pass
                count += 1
            except OSError as exc:
                if exc.errno != errno.ENOENT:  # it has just ended by itself
                    raise
        return count


def _flow(body: bytes) -> Flow | None:
    got = rtattr.unpack(body[_FAMILY.size :])
    if _TUPLE_ORIG not in got or _TUPLE_REPLY not in got:
        return None
    original = rtattr.unpack(got[_TUPLE_ORIG])
    proto, asked = rtattr.unpack(original.get(_TUPLE_PROTO, b"")), rtattr.unpack(original.get(_TUPLE_IP, b""))
    answer = rtattr.unpack(rtattr.unpack(got[_TUPLE_REPLY]).get(_TUPLE_IP, b""))
    if _PROTO_NUMBER not in proto or _IP_SOURCE not in answer or _IP_DESTINATION not in asked:
        return None
    number = proto[_PROTO_NUMBER][0]
    return Flow(
        protocol=_PROTOCOLS.get(number, str(number)),
        to_address=socket.inet_ntoa(asked[_IP_DESTINATION]),
        to_port=int.from_bytes(proto.get(_PROTO_DESTINATION_PORT, b"\0\0"), "big"),
        answers_from=socket.inet_ntoa(answer[_IP_SOURCE]),
    )


def _ask(kernel: socket.socket, kind: int, flags: int, payload: bytes) -> Iterator[bytes]:
    kernel.send(_HEADER.pack(_HEADER.size + len(payload), kind, flags | _REQUEST, 1, 0) + payload)
    while True:
        data = kernel.recv(1 << 18)
        at = 0
        while at + _HEADER.size <= len(data):
            size, answer, _, _, _ = _HEADER.unpack_from(data, at)
            body = data[at + _HEADER.size : at + size]
            if answer == _DONE:
                return
            if answer == _ERROR:
                (code,) = struct.unpack_from("=i", body)
                if code:
                    raise OSError(-code, f"connection tracking: {os.strerror(-code)}")
                return
            yield body
            at += size + 3 & ~3
