"""Puts files and directories of the host into a container's root before its init copies that root.

The target is found and made by a forked child that acts as the container's root, with the root directory as "/"
(openat2): a link in the image leads nowhere else. Only a single-threaded process may call this. Standard library only.
"""

from __future__ import annotations

import os
import stat
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

from agent.linux import mounts, openat2

_DIRECTORY = os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC


def attach(
    root: Path, binds: Sequence[Mapping[str, Any]], userns: int, in_child: Callable[[Callable[[], int]], int]
) -> None:
    """Mount each of the plan's `binds` in the mounted `root`. `in_child` runs a function as the container's root and
    returns a copy of its descriptor. Raises OSError; what is mounted then goes with the root.
    """
    for bind in binds:
        source = Path(bind["source"])
        directory = stat.S_ISDIR(source.lstat().st_mode)
        target = bind["target"]
        place = in_child(lambda target=target, directory=directory: _place(root, target, directory=directory))  # type: ignore[misc]  # mypy and defaults of a lambda
        try:
            clone = mounts.open_tree(source)
            try:
                flags = mounts.MOUNT_ATTR_RDONLY if bind["read_only"] else 0
                if bind["idmapped"]:
                    mounts.mount_setattr(clone, attr_set=flags | mounts.MOUNT_ATTR_IDMAP, userns=userns)
                elif flags:
                    mounts.mount_setattr(clone, attr_set=flags)
                mounts.move_mount_onto(clone, place)
            finally:
                os.close(clone)
        finally:
            os.close(place)


def _place(root: Path, target: str, *, directory: bool) -> int:
    """A descriptor of the path in the root, made as a directory or an empty file where it is not there."""
    top = os.open(root, _DIRECTORY)
    parts = [part for part in target.split("/") if part]
    for depth in range(1, len(parts) + 1):
        path = os.fsencode("/".join(parts[:depth]))
        try:
            os.close(openat2.open_in_root(top, path, os.O_PATH))
        except FileNotFoundError:
            above = openat2.open_in_root(top, path.rpartition(b"/")[0] or b".", os.O_RDONLY | os.O_DIRECTORY)
            if depth < len(parts) or directory:
                os.mkdir(parts[depth - 1], 0o755, dir_fd=above)
            else:
                os.close(os.open(parts[depth - 1], os.O_CREAT | os.O_EXCL | os.O_WRONLY, 0o644, dir_fd=above))
            os.close(above)
    return openat2.open_in_root(top, os.fsencode("/".join(parts)), os.O_PATH)
