"""Another process's memory: many ranges in one call."""

from __future__ import annotations

import ctypes

from agent.linux import libc

IOV_MAX = 1024  # ranges a call


class _Iovec(ctypes.Structure):
    _fields_ = (("base", ctypes.c_void_p), ("length", ctypes.c_size_t))


_process_vm_readv = libc.declare(
    "process_vm_readv",
    ctypes.c_int, ctypes.c_void_p, ctypes.c_ulong, ctypes.c_void_p, ctypes.c_ulong, ctypes.c_ulong,
    restype=ctypes.c_ssize_t,
)  # fmt: skip


def read(pid: int, into: int, size: int, remote: int, count: int) -> int:
    """Read `count` ranges, at most IOV_MAX, into the `size` bytes at our address `into`, one after the other; returns bytes.

    `remote`: our address of an array of (address, length), two u64 each. It stops short before the first page that cannot be read.
    Raises OSError when the first one cannot, or the process is gone. Unlike /proc/PID/mem it respects PROT_NONE.
    """
    local = _Iovec(into, size)
    return _process_vm_readv(pid, ctypes.addressof(local), 1, remote, count, 0)
