"""Pipes: look into one without taking anything out, put pages into one without a copy."""

from __future__ import annotations

import ctypes
import fcntl
import os
import struct
import termios

from agent.linux import libc

F_GETPIPE_SZ = 1032
_SPLICE_F_NONBLOCK = 2
_PAGE = 4096


class _Iovec(ctypes.Structure):
    _fields_ = (("base", ctypes.c_void_p), ("length", ctypes.c_size_t))


_tee = libc.declare("tee", ctypes.c_int, ctypes.c_int, ctypes.c_size_t, ctypes.c_uint, restype=ctypes.c_ssize_t)
_vmsplice = libc.declare(
    "vmsplice", ctypes.c_int, ctypes.c_void_p, ctypes.c_ulong, ctypes.c_uint, restype=ctypes.c_ssize_t
)


def peek(fd: int) -> bytes:
    """A copy of everything that waits in the pipe `fd` reads from. Raises OSError."""
    (waiting,) = struct.unpack("i", fcntl.ioctl(fd, termios.FIONREAD, bytes(4)))
    if not waiting:
        return b""
    read, write = os.pipe2(os.O_CLOEXEC)
    try:
        fcntl.fcntl(write, fcntl.F_SETPIPE_SZ, fcntl.fcntl(fd, F_GETPIPE_SZ))
        copied = _tee(fd, write, waiting, _SPLICE_F_NONBLOCK)
        data = b""
        while len(data) < copied:
            data += os.read(read, copied - len(data))
        return data
    finally:
        os.close(read)
        os.close(write)


def pages(fd: int) -> int:
    """How many pages, or parts of one, a pipe holds at most; 0 for what is no pipe."""
    try:
        return fcntl.fcntl(fd, F_GETPIPE_SZ) // _PAGE
    except OSError:
        return 0


def vmsplice(fd: int, address: int, size: int) -> None:
    """Put `size` bytes at our `address` into a pipe, waiting for room. The reader sees what is in these pages when it reads: they must
    not change before it has. Raises OSError; BrokenPipeError when nobody reads any more.
    """
    while size:
        area = _Iovec(address, size)  # a name: it must live through the call
        done = _vmsplice(fd, ctypes.addressof(area), 1, 0)
        address, size = address + done, size - done
