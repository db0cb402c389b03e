"""The three file system calls that Python 3.11 lacks and storage needs. They raise OSError and decide nothing."""

from __future__ import annotations

import ctypes
import errno
import os
import struct

_libc = ctypes.CDLL(None, use_errno=True)
_syscall = _libc.syscall
_syscall.restype = ctypes.c_long
_syscall.argtypes = (ctypes.c_long, ctypes.c_int, ctypes.c_char_p, ctypes.c_char_p, ctypes.c_size_t)
_fallocate = _libc.fallocate
_fallocate.restype = ctypes.c_int
_fallocate.argtypes = (ctypes.c_int, ctypes.c_int, ctypes.c_int64, ctypes.c_int64)
_syncfs = _libc.syncfs
_syncfs.restype = ctypes.c_int
_syncfs.argtypes = (ctypes.c_int,)

# from the Linux kernel headers
FALLOC_FL_KEEP_SIZE = 0x01
FALLOC_FL_PUNCH_HOLE = 0x02
RESOLVE_NO_MAGICLINKS = 0x02
RESOLVE_IN_ROOT = 0x10
SYS_OPENAT2 = 437  # the same on every architecture: it is younger than the common numbering

_RACES = 16  # openat2 says EAGAIN when a rename elsewhere on the machine raced with the resolution of ".."


def open_in_root(root_fd: int, path: bytes, flags: int) -> int:
    """Open `path` as if `root_fd` were "/": symbolic links and ".." stay inside. The caller owns the descriptor."""
    how = struct.pack("=QQQ", flags | os.O_CLOEXEC, 0, RESOLVE_IN_ROOT | RESOLVE_NO_MAGICLINKS)
    for _ in range(_RACES):
        fd = int(_syscall(SYS_OPENAT2, root_fd, path, how, len(how)))
        if fd >= 0:
            return fd
        if ctypes.get_errno() != errno.EAGAIN:
            break
    code = ctypes.get_errno()
    raise OSError(code, os.strerror(code), path)


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
