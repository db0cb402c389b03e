"""Attributes in netlink messages: struct nlattr (linux/netlink.h). Pure."""

from __future__ import annotations

import struct

_KIND = 0x3FFF  # without the flags for nested and for network byte order


def unpack(data: bytes) -> dict[int, bytes]:
    """By kind; of several of one kind the last."""
    found: dict[int, bytes] = {}
    at = 0
    while at + 4 <= len(data):
        size, kind = struct.unpack_from("=HH", data, at)
        if size < 4:
            break
        found[kind & _KIND] = data[at + 4 : at + size]
        at += size + 3 & ~3
    return found


def pack(kind: int, value: bytes) -> bytes:
    return struct.pack("=HH", 4 + len(value), kind) + value + bytes(-len(value) % 4)
