"""Puts files and directories of the host into a container's root before its init copies that root.

The target is found and made by a forked child that acts as the container's root, with the root directory as "/"
(openat2): a link in the image leads nowhere else. Only a single-threaded process may call this. Standard library only.
"""

from __future__ import annotations

import errno
import os
import stat
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

from agent.engine import fill, throwaway
from agent.linux import mounts, openat2

_DIRECTORY = os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC
_MAX_LINKS = 40  # as the kernel
_PROPAGATION = {"private": mounts.MS_PRIVATE, "slave": mounts.MS_SLAVE, "shared": mounts.MS_SLAVE}
InChild = Callable[[Callable[[], int]], int]


def attach(root: Path, binds: Sequence[Mapping[str, Any]], userns: int, in_child: InChild) -> None:
    """Mount each of the plan's `binds` in the mounted `root`. `in_child` runs a function as the container's root and
    returns a copy of its descriptor. Raises OSError; what is mounted then goes with the root.
    """
    for bind in binds:
        clone = _clone(bind, userns, read_only=bind["read_only"] and not bind.get("fill"))
        try:
            directory = stat.S_ISDIR(os.fstat(clone).st_mode)
            target = bind["target"]
            place = in_child(lambda target=target, directory=directory: _place(root, target, directory=directory))  # type: ignore[misc]  # mypy and defaults of a lambda
            try:
                if bind.get("fill") and directory:
                    fill.fill(place, clone, Path(bind["source"]), Path(bind["fill"]), in_child)
                    if bind["read_only"]:
                        mounts.mount_setattr(clone, attr_set=mounts.MOUNT_ATTR_RDONLY)
                mounts.move_mount_onto(clone, place)
            finally:
                os.close(place)
        finally:
            os.close(clone)


def stage(directory: Path, binds: Sequence[Mapping[str, Any]], userns: int, owner: int) -> None:
    """Mount each of them at `directory`/NUMBER, where the id `owner`, a container's root, may go and no other user: CRIU takes them
    from there into the container that it restores. Raises OSError.
    """
    unstage(directory)
    directory.parent.mkdir(mode=0o711, parents=True, exist_ok=True)
    directory.mkdir(mode=0o700)
    os.chown(directory, owner, owner)
    for number, bind in enumerate(binds):
        if bind.get("throw_away"):
            clone = throwaway.clone(Path(bind["source"]), directory, userns)
        else:
            clone = _clone(bind, userns, read_only=bind["read_only"])
        try:
            place = directory / str(number)
            if stat.S_ISDIR(os.fstat(clone).st_mode):
                place.mkdir()
            else:
                place.touch()
            mounts.move_mount(clone, place)
        finally:
            os.close(clone)


def unstage(directory: Path) -> None:
    """Idempotent. Raises OSError."""
    if not directory.exists():
        return
    for place in directory.iterdir():
        mounts.unmount_all(place)
        if place.is_dir():
            place.rmdir()
        else:
            place.unlink()
    directory.rmdir()


def _clone(bind: Mapping[str, Any], userns: int, *, read_only: bool) -> int:
    """A detached mount of its source as the container is to see it. The caller owns the descriptor."""
    source = Path(bind["source"])
    clone = mounts.open_tree(source)
    try:
        propagation = _PROPAGATION[bind.get("propagation", "private")]
        flags = mounts.MOUNT_ATTR_RDONLY if read_only else 0
        mounts.mount_setattr(clone, attr_set=flags, propagation=propagation)
        if bind["idmapped"]:
            try:
                mounts.mount_setattr(clone, attr_set=mounts.MOUNT_ATTR_IDMAP, userns=userns)
            except OSError as exc:
                if exc.errno not in (errno.EINVAL, errno.EPERM):
                    raise
                raise OSError(
                    exc.errno,
                    f"the file system of {source} cannot be mounted with a container's ids (id-mapped mounts)",
                    str(source),
                ) from exc
    except OSError:
        os.close(clone)
        raise
    return clone


def _place(root: Path, target: str, *, directory: bool) -> int:
    """A descriptor of the path in the root, made as a directory or an empty file where it is not there, also behind links."""
    top = os.open(root, _DIRECTORY)
    real: list[str] = []  # a path without links
    rest = target.split("/")
    links = 0
    while rest:
        part = rest.pop(0)
        if part in ("", "."):
            continue
        if part == "..":
            real = real[:-1]
            continue
        above = openat2.open_in_root(top, _path(real), os.O_RDONLY | os.O_DIRECTORY)
        try:
            if not stat.S_ISLNK(os.stat(part, dir_fd=above, follow_symlinks=False).st_mode):
                real.append(part)
                continue
            links += 1
            if links > _MAX_LINKS:
                raise OSError(errno.ELOOP, os.strerror(errno.ELOOP), target)
            leads_to = os.readlink(part, dir_fd=above)
            rest = leads_to.split("/") + rest
            if leads_to.startswith("/"):
                real = []
        except FileNotFoundError:
            if directory or any(one not in ("", ".") for one in rest):
                os.mkdir(part, 0o755, dir_fd=above)
            else:
                os.close(os.open(part, os.O_CREAT | os.O_EXCL | os.O_WRONLY, 0o644, dir_fd=above))
            real.append(part)
        finally:
            os.close(above)
    return openat2.open_in_root(top, _path(real), os.O_PATH)


def _path(parts: Sequence[str]) -> bytes:
    return os.fsencode("/".join(parts) or ".")
