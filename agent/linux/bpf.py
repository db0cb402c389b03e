"""bpf(2), as far as a cgroup of version 2 needs it to know which devices its tasks may use: one small program, attached. Standard
library only.
"""

from __future__ import annotations

import ctypes
import errno
import os
import platform
import struct
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cache
from pathlib import Path

from agent.linux import libc

# linux/bpf.h
_PROG_LOAD, _PROG_ATTACH, _PROG_QUERY = 5, 8, 16
_PROG_TYPE_CGROUP_DEVICE, _ATTACH_CGROUP_DEVICE, _F_ALLOW_MULTI = 15, 6, 2
_DEVICE_TYPES = {"b": 1, "c": 2}
_ACCESS = {"m": 1, "r": 2, "w": 4}
_NUMBERS = {
    "x86_64": 321,
    "aarch64": 280,
    "riscv64": 280,
    "s390x": 351,
    "ppc64le": 361,
}  # of bpf(2): older than the common numbers

_bpf = libc.declare("syscall", ctypes.c_long, ctypes.c_int, libc.Buffer, ctypes.c_uint, restype=ctypes.c_long)


@dataclass(frozen=True, kw_only=True)
class DeviceRule:
    """Tasks may do `access` (of "rwm": read, write, make a node) to devices of `kind` "b" or "c" with these numbers; None = any."""

    kind: str
    major: int | None
    minor: int | None
    access: str


def allow_devices(cgroup: Path, rules: Sequence[DeviceRule], *, keep: bool = False) -> None:
    """Tasks below this directory of the version 2 hierarchy may use these devices and no others; once for each directory.

    `keep`: the program is loaded once and kept for the next cgroup with the same rules. Whatever is attached above it has its say as
    well. Raises OSError: EPERM without privilege, ENOSYS or EINVAL on a kernel without.
    """
    directory = os.open(cgroup, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        if _attached(directory):
            return
        program = _kept(tuple(rules)) if keep else _load(instructions(rules))
        try:
            # struct: target_fd, attach_bpf_fd, attach_type, attach_flags
            _call(_PROG_ATTACH, struct.pack("=IIII", directory, program, _ATTACH_CGROUP_DEVICE, _F_ALLOW_MULTI))
        finally:
            if not keep:
                os.close(program)
    finally:
        os.close(directory)


def instructions(rules: Sequence[DeviceRule]) -> bytes:
    """The program: 1 where a rule covers all of the access that is asked for, else 0."""
    load, and_, shift, copy = 0x61, 0x54, 0x74, 0xBC  # LDX|MEM|W, ALU|AND|K, ALU|RSH|K, ALU|MOV|X
    set_, exit_, unless_equal, if_any = 0xB4, 0x95, 0x55, 0x45  # ALU|MOV|K, EXIT, JMP|JNE|K, JMP|JSET|K

    def one(code: int, target: int, source: int = 0, offset: int = 0, value: int = 0) -> bytes:
        return struct.pack("=BBhi", code, target | source << 4, offset, value)

    kind, access, major, minor = 2, 3, 4, 5  # registers; 1 is the context: access << 16 | kind, major, minor
    parts = [
        one(load, kind, 1, 0), one(copy, access, kind), one(and_, kind, value=0xFFFF), one(shift, access, value=16),
        one(load, major, 1, 4), one(load, minor, 1, 8),
    ]  # fmt: skip
    for rule in rules:
        refused = 7 & ~sum(_ACCESS[letter] for letter in set(rule.access))
        tests = [(unless_equal, kind, _DEVICE_TYPES[rule.kind])]
        tests += [(if_any, access, refused)] if refused else []
        tests += [
            (unless_equal, register, number)
            for register, number in ((major, rule.major), (minor, rule.minor))
            if number is not None
        ]
        for at, (code, register, value) in enumerate(tests):
            parts.append(one(code, register, offset=len(tests) - at + 1, value=value))  # past "return 1"
        parts += [one(set_, 0, value=1), one(exit_, 0)]
    parts += [one(set_, 0), one(exit_, 0)]
    return b"".join(parts)


@cache
def _kept(rules: tuple[DeviceRule, ...]) -> int:
    return _load(instructions(rules))


def _load(program: bytes) -> int:
    text, license_ = ctypes.create_string_buffer(program, len(program)), ctypes.create_string_buffer(b"GPL")
    # struct: prog_type, insn_cnt, insns, license, log_level, log_size, log_buf, kern_version, prog_flags, name, ifindex, attach type
    attributes = struct.pack(
        "=IIQQIIQII16sII",
        _PROG_TYPE_CGROUP_DEVICE,
        len(program) // 8,
        ctypes.addressof(text),
        ctypes.addressof(license_),
        0,
        0,
        0,
        0,
        0,
        b"migrate_devices",
        0,
        _ATTACH_CGROUP_DEVICE,
    )
    return _call(_PROG_LOAD, attributes)


def _attached(directory: int) -> int:
    """How many device programs this very cgroup has."""
    # struct: target_fd, attach_type, query_flags, attach_flags, prog_ids, prog_cnt (rounded up to 8 bytes)
    attributes = bytearray(struct.pack("=IIIIQII", directory, _ATTACH_CGROUP_DEVICE, 0, 0, 0, 0, 0))
    _call(_PROG_QUERY, attributes)
    return int(struct.unpack_from("=I", attributes, 24)[0])


def _call(command: int, attributes: bytes | bytearray) -> int:
    number = _NUMBERS.get(platform.machine())
    if number is None:
        raise OSError(errno.ENOSYS, f"bpf(2) has no known number on {platform.machine()}")
    buffer = ctypes.create_string_buffer(bytes(attributes), len(attributes))
    result = _bpf(number, command, ctypes.addressof(buffer), len(attributes))
    if isinstance(attributes, bytearray):
        attributes[:] = buffer.raw
    return result
