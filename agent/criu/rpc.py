"""CRIU's RPC as the monitor needs it: read a response or a notification, answer a notification. Standard library only.

Requests are built by `options.py` in the agent with pycriu's protobuf classes and arrive as bytes; what comes back needs seven fields
of criu_resp (images/rpc.proto), so that the monitor gets by with a few lines of protobuf's wire format and imports nothing.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

RESTORE, NOTIFY = 2, 6  # criu_req_type
_RESP_TYPE, _RESP_SUCCESS, _RESP_RESTORE, _RESP_NOTIFY, _RESP_ERRNO, _RESP_ERRMSG = 1, 2, 4, 5, 7, 9


@dataclass(frozen=True, kw_only=True)
class Response:
    """criu_resp. `script`: the name of a notification, "" in a final response; `pid`: init's, where CRIU says it."""

    kind: int
    success: bool
    script: str = ""
    pid: int = 0
    errno: int = 0
    message: str = ""


def parse(packet: bytes) -> Response:
    """Decode one packet. Raises ValueError when it is not a criu_resp."""
    kind = errno = pid = 0
    success = False
    script = message = ""
    for number, value in _fields(packet):
        if number == _RESP_TYPE and isinstance(value, int):
            kind = value
        elif number == _RESP_SUCCESS and isinstance(value, int):
            success = bool(value)
        elif number == _RESP_ERRNO and isinstance(value, int):
            errno = value
        elif number == _RESP_ERRMSG and isinstance(value, bytes):
            message = value.decode(errors="replace")
        elif number == _RESP_RESTORE and isinstance(value, bytes):
            pid = next((v for n, v in _fields(value) if n == 1 and isinstance(v, int)), 0)
        elif number == _RESP_NOTIFY and isinstance(value, bytes):
            for inner, v in _fields(value):
                if inner == 1 and isinstance(v, bytes):
                    script = v.decode(errors="replace")
                elif inner == 2 and isinstance(v, int):
                    pid = v
    if not kind:
        raise ValueError("not a response of CRIU: it has no type")
    return Response(kind=kind, success=success, script=script, pid=pid, errno=errno, message=message.strip())


def notification_answer(success: bool) -> bytes:
    """criu_req { type = NOTIFY; notify_success = `success` }"""
    return bytes((0x08, NOTIFY, 0x18, int(success)))


def _fields(packet: bytes) -> Iterator[tuple[int, int | bytes]]:
    """(field number, varint or bytes); fixed-width fields, which these messages lack, are skipped."""
    at = 0
    while at < len(packet):
        key, at = _varint(packet, at)
        number, wire = key >> 3, key & 7
        if wire == 0:
            value, at = _varint(packet, at)
            yield number, value
        elif wire == 2:
            length, at = _varint(packet, at)
            if at + length > len(packet):
                raise ValueError("truncated protobuf message")
            yield number, packet[at : at + length]
            at += length
        elif wire in (1, 5):
            at += 8 if wire == 1 else 4
        else:
            raise ValueError(f"protobuf wire type {wire} in a response of CRIU")


def _varint(packet: bytes, at: int) -> tuple[int, int]:
    value = shift = 0
    while True:
        if at >= len(packet) or shift > 63:
            raise ValueError("truncated protobuf number")
        byte = packet[at]
        value |= (byte & 0x7F) << shift
        at += 1
        if not byte & 0x80:
            return value, at
        shift += 7
