"""Reads a directory tree into plain data, so that two of them can be compared. Written without looking at agent.storage."""

from __future__ import annotations

import errno
import os
import stat
from collections import defaultdict
from typing import Any

OVERLAY_PRIVATE = {"trusted.overlay.origin", "trusted.overlay.uuid", "trusted.overlay.impure", "trusted.overlay.nlink"}


def read(root: os.PathLike[str] | str) -> dict[bytes, dict[str, Any]]:
    """Path -> everything that a program in the container could tell about it, but ctime, inode number and atime."""
    top = os.fsencode(root)
    tree: dict[bytes, dict[str, Any]] = {}
    names = defaultdict(list)

    def visit(path: bytes, relative: bytes) -> None:
        status = os.lstat(path)
        facts: dict[str, Any] = {
            "mode": oct(status.st_mode),
            "owner": (status.st_uid, status.st_gid),
            "mtime_ns": status.st_mtime_ns,
            "rdev": status.st_rdev,
            "xattrs": {
                name: os.getxattr(path, name, follow_symlinks=False)
                for name in os.listxattr(path, follow_symlinks=False)
                if name not in OVERLAY_PRIVATE
            },
        }
        if stat.S_ISREG(status.st_mode):
            with open(path, "rb") as file:
                facts["content"] = file.read()
                facts["data"] = extents(file.fileno())
        elif stat.S_ISLNK(status.st_mode):
            facts["link"] = os.readlink(path)  # noqa: PTH115  # bytes: names are odd here
        tree[relative] = facts
        if stat.S_ISDIR(status.st_mode):
            for name in sorted(os.listdir(path)):  # noqa: PTH208
                visit(path + b"/" + name, relative + b"/" + name)
        else:
            names[status.st_ino].append(relative)

    visit(top, b"")
    for group in names.values():
        for relative in group:
            tree[relative]["names"] = sorted(group)
    return tree


def extents(fd: int) -> list[tuple[int, int]]:
    """(start, end) of every stretch that is not a hole."""
    found, position = [], 0
    while True:
        try:
            start = os.lseek(fd, position, os.SEEK_DATA)
        except OSError as exc:
            if exc.errno != errno.ENXIO:
                raise
            return found
        position = os.lseek(fd, start, os.SEEK_HOLE)
        found.append((start, position))


def differences(left: dict[bytes, dict[str, Any]], right: dict[bytes, dict[str, Any]]) -> list[str]:
    """One line for each thing that differs; content is not printed."""
    lines = []
    for path in sorted(left.keys() | right.keys()):
        if path not in left or path not in right:
            lines.append(f"{path!r} only on the {'right' if path in right else 'left'}")
            continue
        for fact in sorted(left[path].keys() | right[path].keys()):
            one, other = left[path].get(fact), right[path].get(fact)
            if one != other:
                lines.append(f"{path!r} {fact}" + ("" if fact == "content" else f": {one!r} / {other!r}"))
    return lines
