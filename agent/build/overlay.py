"""The files of a stage as one tree: an overlay of its layers, as a descriptor of a mount that nobody else sees.

The overlay is mounted, copied as a detached mount and unmounted at once: what is left is held by the descriptor alone and
goes with it, whatever becomes of this process. Only the moment between can leave a mount, and `clear` takes that away.
Layers are named by descriptors (/proc/self/fd/7): all names together have one page.
"""

from __future__ import annotations

import os
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from pathlib import Path

from agent.linux import mounts, remove

# As the containers' (agent/engine/rootfs.py): what is left in the upper directory must mean the same elsewhere.
OPTIONS = (("xino", "off"), ("redirect_dir", "off"), ("metacopy", "off"), ("index", "off"))


@contextmanager
def merged(layers: Sequence[Path], work: Path, mount_point: Path, *, upper: Path | None = None) -> Iterator[int]:
    """A descriptor of the root directory of `layers`, base first. What is written goes to `upper` (made, 755 of root);
    without, the tree is read-only. `work`: an empty directory of ours on the same file system. Raises OSError.
    """
    with ExitStack() as stack:
        empty = work / "empty"
        empty.mkdir(exist_ok=True)
        lower = [_named(stack, path) for path in (*reversed(layers), empty)]
        if upper is None:
            # Two lower layers are the least that overlayfs takes without an upper one.
            second = work / "empty2"
            second.mkdir(exist_ok=True)
            lower.append(_named(stack, second))
            fd = _mounted(mount_point, f"lowerdir={':'.join(lower)}", mounts.MS_RDONLY)
        else:
            upper.mkdir(mode=0o755, exist_ok=True)
            upper.chmod(0o755)
            own = work / "work"
            own.mkdir(exist_ok=True)
            fd = _mounted(
                mount_point,
                f"lowerdir={':'.join(lower)},upperdir={_named(stack, upper)},workdir={_named(stack, own)}",
                0,
            )
        stack.callback(os.close, fd)
        root = os.open(f"/proc/self/fd/{fd}", os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
        stack.callback(os.close, root)
        yield root


def clear(directory: Path) -> None:
    """Unmount what a process that died in the wrong moment left on the directories in `directory`, and remove them with
    what is in them.
    """
    if not directory.is_dir():
        return
    for path in directory.iterdir():
        while mounts.is_mounted(path):
            mounts.umount(path, mounts.MNT_DETACH)
        remove.tree(path)


def _mounted(mount_point: Path, options: str, flags: int) -> int:
    more = "".join(f",{key}={value}" for key, value in OPTIONS)
    mount_point.mkdir(mode=0o700, parents=True, exist_ok=True)
    mounts.mount("build", mount_point, "overlay", flags, options + more)
    try:
        return mounts.open_tree(mount_point)
    finally:
        mounts.umount(mount_point, mounts.MNT_DETACH)
        mount_point.rmdir()


def _named(stack: ExitStack, path: Path) -> str:
    fd = os.open(path, os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC)
    stack.callback(os.close, fd)
    return f"/proc/self/fd/{fd}"
