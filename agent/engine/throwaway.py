"""A directory or file of the host as a rehearsal's container sees it: what it writes there is in memory, and gone with the mount.

    in a mount namespace for the moment            what is returned
      a tmpfs; the id-mapped clone at "lower";
      an overlay of it with "upper" at "root"  ──►  a detached copy of that overlay

The tmpfs has no other holder than the overlay: nothing has to be cleaned up, whoever dies. For a single-threaded process.
Standard library only.
"""

from __future__ import annotations

import errno
import os
import shutil
import stat
from pathlib import Path

from agent.linux import mounts, namespaces

SIZE = "25%"  # of the host's memory, for what one of them writes
# As of the container's root (rootfs.py).
_OPTIONS = (("xino", "off"), ("redirect_dir", "off"), ("metacopy", "off"), ("index", "off"))


def clone(source: Path, place: Path, userns: int) -> int:
    """A detached mount of what is at `source`, with the ids that `userns` gives them. `place`: a directory that is there, where things
    are put together unseen. The caller owns the descriptor. Raises OSError.
    """
    lower = mounts.idmapped_clone(source, userns)
    try:
        kind = os.fstat(lower).st_mode
        if not stat.S_ISDIR(kind) and not stat.S_ISREG(kind):
            raise OSError(
                errno.EOPNOTSUPP, "neither a directory nor a file: what is done to it cannot be undone", str(source)
            )
        with namespaces.mounts_of_its_own():
            mounts.make_private(Path("/"))
            mounts.mount("throwaway", place, "tmpfs", 0, f"mode=755,size={SIZE}")
            os.chdir(place)
            return _overlaid(lower) if stat.S_ISDIR(kind) else _copied(lower)
    finally:
        os.close(lower)


def _overlaid(lower: int) -> int:
    for name in ("lower", "upper", "work", "root"):
        Path(name).mkdir()
    mounts.move_mount(lower, Path("lower"))
    top = Path("lower").stat()
    os.chown("upper", top.st_uid, top.st_gid)  # the merged directory shows the upper one's owner and mode
    Path("upper").chmod(stat.S_IMODE(top.st_mode))
    mounts.overlay(Path("root"), lower=["lower"], upper="upper", work="work", options=_OPTIONS)
    return mounts.open_tree(Path("root"))


def _copied(lower: int) -> int:
    """Overlayfs takes no files."""
    for name in ("lower", "copy"):
        Path(name).touch()
    mounts.move_mount(lower, Path("lower"))
    shutil.copyfile("lower", "copy")
    there = Path("lower").stat()
    os.chown("copy", there.st_uid, there.st_gid)
    Path("copy").chmod(stat.S_IMODE(there.st_mode))
    os.utime("copy", ns=(there.st_atime_ns, there.st_mtime_ns))
    return mounts.open_tree(Path("copy"))
