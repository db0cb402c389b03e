"""What stat(2) does not say: whether something is mounted exactly there, and what kind of file system it is on."""

from __future__ import annotations

import ctypes
import struct

from agent.linux import libc

# From the Linux kernel headers (stat.h, fcntl.h, magic.h).
AT_SYMLINK_NOFOLLOW = 0x100
STATX_ATTR_MOUNT_ROOT = 0x2000
PROC, SYSFS, DEVPTS, MQUEUE, CGROUP, CGROUP2 = 0x9FA0, 0x62656572, 0x1CD1, 0x19800202, 0x27E0EB, 0x63677270
KERNEL_FILE_SYSTEMS = frozenset({PROC, SYSFS, DEVPTS, MQUEUE, CGROUP, CGROUP2})
_ROOM = 256  # struct statx; struct statfs is smaller

_statx = libc.declare("statx", ctypes.c_int, ctypes.c_char_p, ctypes.c_int, ctypes.c_uint, libc.Buffer)
_fstatfs = libc.declare("fstatfs", ctypes.c_int, libc.Buffer)


def is_mount_root(directory: int, name: bytes) -> bool:
    """Whether a mount, in whatever mount namespace `directory` belongs to, begins at `name` in it. Linux 5.8; before, False."""
    buffer = ctypes.create_string_buffer(_ROOM)
    _statx(directory, name, AT_SYMLINK_NOFOLLOW, 0, buffer)
    (attributes,) = struct.unpack_from("=Q", buffer, 8)
    return bool(attributes & STATX_ATTR_MOUNT_ROOT)


def file_system(fd: int) -> int:
    """The magic number of the file system that `fd` is on."""
    buffer = ctypes.create_string_buffer(_ROOM)
    _fstatfs(fd, buffer)
    number: int = struct.unpack_from("@l", buffer)[0]
    return number & 0xFFFFFFFF
