"""The three file system calls that Python 3.11 lacks and storage needs. They raise OSError and decide nothing."""

from __future__ import annotations

import ctypes
import errno
import os

from agent.linux.openat2 import open_in_root as open_in_root  # one module for the callers

_libc = ctypes.CDLL(None, use_errno=True)
_fallocate = _libc.fallocate
_fallocate.restype = ctypes.c_int
_fallocate.argtypes = (ctypes.c_int, ctypes.c_int, ctypes.c_int64, ctypes.c_int64)
_syncfs = _libc.syncfs
_syncfs.restype = ctypes.c_int
_syncfs.argtypes = (ctypes.c_int,)

# from the Linux kernel headers
FALLOC_FL_KEEP_SIZE = 0x01
FALLOC_FL_PUNCH_HOLE = 0x02


def punch_hole(fd: int, offset: int, length: int) -> None:
    """Turn [offset, offset + length) into a hole, or into zeros where the file system has no holes; the size stays."""
    if _fallocate(fd, FALLOC_FL_KEEP_SIZE | FALLOC_FL_PUNCH_HOLE, offset, length) == 0:
        return
    code = ctypes.get_errno()
    if code != errno.EOPNOTSUPP:
        raise OSError(code, f"fallocate({fd}, PUNCH_HOLE, {offset}, {length}): {os.strerror(code)}")
    zeros = bytes(min(length, 1 << 16))
    end = min(offset + length, os.fstat(fd).st_size)
    while offset < end:
        offset += os.pwrite(fd, zeros[: end - offset], offset)


def sync_filesystem(fd: int) -> None:
    """Write everything that the file system of `fd` holds in memory to its disk."""
    if _syncfs(fd) != 0:
        code = ctypes.get_errno()
        raise OSError(code, f"syncfs({fd}): {os.strerror(code)}")
