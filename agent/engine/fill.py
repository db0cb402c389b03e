"""An empty volume gets what the image has at its place: contents, ids, modes, links, times. Standard library only.

The copier acts as the container's root over descriptors, in the monitor's forked child. A marker beside the volume says that a copy has
begun: what a dead one left half done is removed and made again. Devices are left out.
"""

from __future__ import annotations

import contextlib
import ctypes
import fcntl
import os
import stat
from collections.abc import Callable
from pathlib import Path

from agent.linux import libc, remove

_DIRECTORY = os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC
_CHUNK_BYTES = 1 << 20
_UNCOPYABLE = ("trusted.", "security.selinux", "security.ima", "security.evm")
_syncfs = libc.declare("syncfs", ctypes.c_int)


def fill(place: int, volume: int, data: Path, marker: Path, in_child: Callable[[Callable[[], int]], int]) -> None:
    """Fill the volume's mount `volume` with what is at `place`, if it is empty. `data`: the same files as the host's root sees them.
    Two containers that start at once wait for each other. Raises OSError.
    """
    lock = os.open(marker.parent, _DIRECTORY)
    try:
        fcntl.flock(lock, fcntl.LOCK_EX)
        if marker.exists():
            for entry in data.iterdir():
                if entry.is_dir() and not entry.is_symlink():
                    remove.tree(entry)
                else:
                    entry.unlink()
        elif any(data.iterdir()):
            return
        marker.touch()
        os.close(in_child(lambda: _copy_tree(place, volume)))
        top = os.open(data, _DIRECTORY)
        try:
            _syncfs(top)
        finally:
            os.close(top)
        marker.unlink()
    finally:
        os.close(lock)


def _copy_tree(place: int, volume: int) -> int:
    """Returns a descriptor, for `in_child` wants one."""
    os.umask(0)
    source = os.open(f"/proc/self/fd/{place}", os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    target = os.open(".", _DIRECTORY, dir_fd=volume)
    links: dict[tuple[int, int], str] = {}
    # (source, target, names still to do, path below the top)
    stack = [(source, target, _names(source), "")]
    while stack:
        above, below, names, path = stack[-1]
        if not names:
            stack.pop()
            _describe(above, below)
            os.close(above)
            if below != target:
                os.close(below)
            continue
        name = names.pop()
        status = os.stat(name, dir_fd=above, follow_symlinks=False)
        here = f"{path}/{name}" if path else name
        key = (status.st_dev, status.st_ino)
        if stat.S_ISDIR(status.st_mode):
            os.mkdir(name, 0o700, dir_fd=below)
            inner = os.open(name, _DIRECTORY, dir_fd=above)
            stack.append((inner, os.open(name, _DIRECTORY, dir_fd=below), _names(inner), here))
        elif key in links:
            os.link(links[key], name, src_dir_fd=target, dst_dir_fd=below, follow_symlinks=False)
        else:
            if not _copy_entry(above, below, name, status):
                continue
            if status.st_nlink > 1:
                links[key] = here
    return target


def _names(directory: int) -> list[str]:
    with os.scandir(directory) as entries:
        return [entry.name for entry in entries]


def _copy_entry(above: int, below: int, name: str, status: os.stat_result) -> bool:
    """False for what is not copied."""
    if stat.S_ISLNK(status.st_mode):
        os.symlink(os.readlink(name, dir_fd=above), name, dir_fd=below)
    elif stat.S_ISFIFO(status.st_mode):
        os.mkfifo(name, stat.S_IMODE(status.st_mode), dir_fd=below)
    elif stat.S_ISREG(status.st_mode):
        source = os.open(name, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC, dir_fd=above)
        try:
            made = os.open(
                name, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC, 0o600, dir_fd=below
            )
            try:
                offset = 0
                while sent := os.sendfile(made, source, offset, _CHUNK_BYTES):
                    offset += sent
                _describe(source, made)
            finally:
                os.close(made)
        finally:
            os.close(source)
        return True
    else:
        return False
    os.chown(name, status.st_uid, status.st_gid, dir_fd=below, follow_symlinks=False)
    os.utime(name, ns=(status.st_atime_ns, status.st_mtime_ns), dir_fd=below, follow_symlinks=False)
    return True


def _describe(source: int, made: int) -> None:
    """Ids, mode, extended attributes and times of an open file or directory."""
    status = os.fstat(source)
    os.fchown(made, status.st_uid, status.st_gid)
    os.fchmod(made, stat.S_IMODE(status.st_mode))
    for name in os.listxattr(source):
        if not name.startswith(_UNCOPYABLE):
            with contextlib.suppress(OSError):  # a file system without them; what only another namespace may set
                os.setxattr(made, name, os.getxattr(source, name))
    os.utime(made, ns=(status.st_atime_ns, status.st_mtime_ns))
