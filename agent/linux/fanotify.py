"""fanotify(7) of a whole file system, in the mode that names directory and file by handle; and handles, opened again."""

from __future__ import annotations

import ctypes
import os
import struct
from collections.abc import Iterator
from dataclasses import dataclass

from agent.linux import libc

# From the Linux kernel headers (fanotify.h).
_FAN_CLOEXEC, _FAN_NONBLOCK = 0x1, 0x2
_FAN_REPORT_FID, _FAN_REPORT_DIR_FID, _FAN_REPORT_NAME = 0x200, 0x400, 0x800
_FAN_MARK_ADD, _FAN_MARK_FILESYSTEM = 0x1, 0x100
_INFO_FID, _INFO_DFID_NAME = 1, 2
_AT_FDCWD = -100
MODIFY, ATTRIB, CLOSE_WRITE = 0x2, 0x4, 0x8
MOVED_FROM, MOVED_TO, CREATE, DELETE, DELETE_SELF = 0x40, 0x80, 0x100, 0x200, 0x400
OVERFLOW, ONDIR = 0x4000, 0x40000000

_METADATA = struct.Struct("<IBBHQii")  # length version reserved metadata-length mask fd pid
_INFO = struct.Struct("<BBH8s")  # type padding length fsid; a struct file_handle follows
_HANDLE = struct.Struct("<Ii")  # bytes type
_VERSION = 3

_fanotify_init = libc.declare("fanotify_init", ctypes.c_uint, ctypes.c_uint)
_fanotify_mark = libc.declare(
    "fanotify_mark", ctypes.c_int, ctypes.c_uint, ctypes.c_uint64, ctypes.c_int, ctypes.c_char_p
)
_open_by_handle_at = libc.declare("open_by_handle_at", ctypes.c_int, ctypes.c_char_p, ctypes.c_int)


@dataclass(frozen=True, slots=True)
class Event:
    """`file`, `directory`: struct file_handle, b"" where the kernel names none. `name`: in `directory`; "." is itself."""

    mask: int
    file: bytes
    directory: bytes
    name: bytes


def group() -> int:
    """A descriptor that does not block, for events with handles and names. Linux 5.9; needs CAP_SYS_ADMIN of the host."""
    flags = _FAN_CLOEXEC | _FAN_NONBLOCK | _FAN_REPORT_FID | _FAN_REPORT_DIR_FID | _FAN_REPORT_NAME
    return _fanotify_init(flags, os.O_RDONLY | os.O_CLOEXEC)


def watch_file_system(fd: int, mask: int, path: str) -> None:
    """Events of all that happens on the file system that `path` is on, through whatever mount."""
    _fanotify_mark(fd, _FAN_MARK_ADD | _FAN_MARK_FILESYSTEM, mask, _AT_FDCWD, os.fsencode(path))


def events(buffer: bytes) -> Iterator[Event]:
    """Of what was read from a group. Raises OSError for a kernel that speaks another version."""
    position = 0
    while position + _METADATA.size <= len(buffer):
        length, version, _, head, mask, _, _ = _METADATA.unpack_from(buffer, position)
        if version != _VERSION:
            raise OSError(f"fanotify speaks version {version}, not {_VERSION}")
        end, at = position + length, position + head
        file = directory = name = b""
        while at < end:
            kind, _, size, _ = _INFO.unpack_from(buffer, at)
            start = at + _INFO.size
            count, _ = _HANDLE.unpack_from(buffer, start)
            stop = start + _HANDLE.size + count
            if kind == _INFO_FID:
                file = buffer[start:stop]
            elif kind == _INFO_DFID_NAME:
                directory, name = buffer[start:stop], buffer[stop : at + size].split(b"\0", 1)[0]
            at += size
        yield Event(mask, file, directory, name)
        position = end


def open_handle(mount_fd: int, handle: bytes, flags: int) -> int:
    """A descriptor of what `handle` names on the file system of `mount_fd`. ESTALE: it is gone. Needs CAP_DAC_READ_SEARCH."""
    return _open_by_handle_at(mount_fd, handle, flags)
