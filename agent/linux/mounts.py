"""Mounts, one function a system call: the classic calls, and the newer ones that work on detached trees and
descriptors.
"""

from __future__ import annotations

import ctypes
import errno
import os
import struct
from collections.abc import Sequence
from pathlib import Path

from agent.linux import libc

# From the Linux kernel headers (mount.h, fcntl.h).
MS_RDONLY = 0x1
MS_NOSUID = 0x2
MS_NODEV = 0x4
MS_NOEXEC = 0x8
MS_REMOUNT = 0x20
MS_BIND = 0x1000
MS_REC = 0x4000
MS_PRIVATE = 0x40000
MS_SLAVE = 0x80000
MNT_DETACH = 0x2
AT_FDCWD = -100
AT_EMPTY_PATH = 0x1000
AT_RECURSIVE = 0x8000
MOUNT_ATTR_IDMAP = 0x00100000
MOUNT_ATTR_RDONLY = 0x1
MOUNT_ATTR_NOSUID = 0x2
MOUNT_ATTR_NODEV = 0x4
MOUNT_ATTR_NOEXEC = 0x8
MOUNT_ATTR_NOSYMFOLLOW = 0x00200000
FSOPEN_CLOEXEC = FSMOUNT_CLOEXEC = 1
FSCONFIG_SET_STRING, FSCONFIG_SET_FD, FSCONFIG_CMD_CREATE = 1, 5, 6
MOVE_MOUNT_F_EMPTY_PATH = 0x04
MOVE_MOUNT_T_EMPTY_PATH = 0x40
OPEN_TREE_CLOEXEC = os.O_CLOEXEC
OPEN_TREE_CLONE = 1

_mount = libc.declare(
    "mount", ctypes.c_char_p, ctypes.c_char_p, ctypes.c_char_p, ctypes.c_ulong, ctypes.c_char_p
)  # fmt: skip
_umount2 = libc.declare("umount2", ctypes.c_char_p, ctypes.c_int)
_pivot_root = libc.declare("pivot_root", ctypes.c_char_p, ctypes.c_char_p)
_open_tree = libc.declare_syscall("open_tree", 428, ctypes.c_int, ctypes.c_char_p, ctypes.c_uint)
_move_mount = libc.declare_syscall(
    "move_mount", 429, ctypes.c_int, ctypes.c_char_p, ctypes.c_int, ctypes.c_char_p, ctypes.c_uint
)
_fsopen = libc.declare_syscall("fsopen", 430, ctypes.c_char_p, ctypes.c_uint)
_fsconfig = libc.declare_syscall(
    "fsconfig", 431, ctypes.c_int, ctypes.c_uint, ctypes.c_char_p, ctypes.c_char_p, ctypes.c_int
)
_fsmount = libc.declare_syscall("fsmount", 432, ctypes.c_int, ctypes.c_uint, ctypes.c_uint)
_mount_setattr = libc.declare_syscall(
    "mount_setattr", 442, ctypes.c_int, ctypes.c_char_p, ctypes.c_uint, ctypes.c_char_p, ctypes.c_size_t
)


def mount(source: str | None, target: Path, fstype: str | None = None, flags: int = 0, data: str | None = None) -> None:
    """mount(2)."""
    _mount(_encode(source), os.fsencode(target), _encode(fstype), flags, _encode(data))


def umount(target: Path, flags: int = 0) -> None:
    """umount2(2): EINVAL where nothing is mounted."""
    _umount2(os.fsencode(target), flags)


def unmount_all(target: Path) -> None:
    """Unmount everything at `target`; nothing there, or no such directory, is fine. Raises OSError."""
    while True:
        try:
            umount(target)
        except OSError as exc:
            if exc.errno in (errno.EINVAL, errno.ENOENT):
                return
            if exc.errno != errno.EBUSY:
                raise
            umount(target, MNT_DETACH)  # a shell of an operator may stand in it


def bind(source: Path, target: Path, *, recursive: bool = True) -> None:
    """Make the tree at `source` visible at `target` too; a file goes on a file, a directory on a directory."""
    mount(str(source), target, None, MS_BIND | (MS_REC if recursive else 0))


def remount_bind(target: Path, flags: int) -> None:
    """Give the one mount at `target` the per-mount `flags` (MS_RDONLY, MS_NOSUID, ...); flags not named are taken
    away.
    """
    mount(None, target, None, MS_REMOUNT | MS_BIND | flags)


def make_slave(target: Path) -> None:
    """Receive mount events of other namespaces in the tree at `target`, send none."""
    mount(None, target, None, MS_REC | MS_SLAVE)


def make_private(target: Path) -> None:
    """Neither send mount events of the tree at `target` to other namespaces nor receive theirs."""
    mount(None, target, None, MS_REC | MS_PRIVATE)


def pivot_root(new_root: Path) -> None:
    """Make the mount `new_root` this process's root and let go of the old root and everything under it."""
    os.chdir(new_root)
    _pivot_root(b".", b".")  # the old root now lies on top of the new one: no directory to put it in is needed
    _umount2(b".", MNT_DETACH)
    os.chdir("/")


def is_mounted(target: Path) -> bool:
    """Whether something is mounted exactly at `target` (symbolic links resolved) in this mount namespace."""
    wanted = os.path.realpath(target)
    with open("/proc/self/mountinfo", encoding="utf-8", errors="surrogateescape") as lines:
        return any(unescape(line.split(" ", 5)[4]) == wanted for line in lines)


def options(path: Path) -> set[str]:
    """Of the file system that `path` is on, as it shows them: {"size=1024k", "huge=advise", ...}."""
    device = path.stat().st_dev
    wanted = f"{os.major(device)}:{os.minor(device)}"
    with open("/proc/self/mountinfo", encoding="utf-8", errors="surrogateescape") as lines:
        for line in lines:
            if line.split(" ", 3)[2] == wanted:
                return set(line.rstrip("\n").rsplit(" ", 1)[1].split(","))
    return set()


def open_tree(path: Path, flags: int = OPEN_TREE_CLONE) -> int:
    """A descriptor of a detached copy of the mount at `path` (a directory of a mount: a copy that begins there)."""
    return _open_tree(AT_FDCWD, os.fsencode(path), flags | OPEN_TREE_CLOEXEC)


def move_mount(fd: int, target: Path) -> None:
    """Attach the detached mount `fd` at `target`."""
    _move_mount(fd, b"", AT_FDCWD, os.fsencode(target), MOVE_MOUNT_F_EMPTY_PATH)


def move_mount_onto(fd: int, place: int) -> None:
    """Attach the detached mount `fd` on what the descriptor `place` stands for, whatever path leads there."""
    _move_mount(fd, b"", place, b"", MOVE_MOUNT_F_EMPTY_PATH | MOVE_MOUNT_T_EMPTY_PATH)


def mount_setattr(fd: int, *, attr_set: int, attr_clear: int = 0, propagation: int = 0, userns: int = 0) -> None:
    """Set MOUNT_ATTR_* of the mount `fd`; MOUNT_ATTR_IDMAP takes the ids from the user namespace descriptor `userns`.
    `propagation`: MS_PRIVATE or MS_SLAVE; 0 = as it is.
    """
    attributes = struct.pack("QQQQ", attr_set, attr_clear, propagation, userns)
    _mount_setattr(fd, b"", AT_EMPTY_PATH, attributes, len(attributes))


def idmapped_clone(path: Path, userns: int, *, read_only: bool = False) -> int:
    """A detached copy of the mount at `path` whose ids are seen through `userns`: 0 on disk is its first host id.

    The caller owns the descriptor; the mount dies with it unless it is attached or used by an overlay.
    """
    fd = open_tree(path)
    try:
        mount_setattr(fd, attr_set=MOUNT_ATTR_IDMAP | (MOUNT_ATTR_RDONLY if read_only else 0), userns=userns)
    except OSError:
        os.close(fd)
        raise
    return fd


def overlay(
    target: Path, *, lower: Sequence[str], upper: str, work: str, options: Sequence[tuple[str, str]] = ()
) -> None:
    """Mount an overlay at `target`; `lower` is top first. Relative names are looked up from the working directory.

    The options share one page: many layers want short names. overlayfs acts on `upper` with the ids of the caller, see
    `engine/rootfs.py`. A name with ":" or "," is refused with EINVAL: nothing here needs one.
    """
    names = [*lower, upper, work]
    if any(character in name for name in names for character in ":,\\"):
        raise OSError(errno.EINVAL, f"overlay: a name holds one of : , \\ in {names}", str(target))
    fields = [("lowerdir", ":".join(lower)), ("upperdir", upper), ("workdir", work), *options]
    mount("overlay", target, "overlay", 0, ",".join(f"{key}={value}" for key, value in fields))


def detached_overlay(*, lower: Sequence[int], upper: int, work: int, options: Sequence[tuple[str, str]] = ()) -> int:
    """As overlay(), of descriptors that need no place: a descriptor of the new mount, the caller's, which has none either. `lower` may
    be detached mounts, `upper` and `work` directories of one. Raises OSError; EBADF or EINVAL where the kernel is older than 6.15.
    """
    context = _fsopen(b"overlay", FSOPEN_CLOEXEC)
    try:
        for fd in lower:
            _fsconfig(context, FSCONFIG_SET_FD, b"lowerdir+", None, fd)
        _fsconfig(context, FSCONFIG_SET_FD, b"upperdir", None, upper)
        _fsconfig(context, FSCONFIG_SET_FD, b"workdir", None, work)
        for name, value in (("source", "overlay"), *options):
            _fsconfig(context, FSCONFIG_SET_STRING, name.encode(), value.encode(), 0)
        _fsconfig(context, FSCONFIG_CMD_CREATE, None, None, 0)
        return _fsmount(context, FSMOUNT_CLOEXEC, 0)
    finally:
        os.close(context)


def unescape(field: str) -> str:
    """A path as /proc/PID/mountinfo writes it."""
    for code, character in (("\\040", " "), ("\\011", "\t"), ("\\012", "\n"), ("\\134", "\\")):
        field = field.replace(code, character)
    return field


def _encode(text: str | None) -> bytes | None:
    return None if text is None else os.fsencode(text)
