"""The root of a container: an overlay over id-mapped layers, mounted in the host's mount namespace.

What is on disk keeps its own ids (0 = root), so that layers are shared between containers and a writable layer can
move to another host as it is. Each layer is cloned as an id-mapped mount and the overlay lies on the clones, which are nowhere
attached (Linux 6.15). For an older kernel they are, since it takes no others for layers, and leaving that namespace waits for an RCU
grace period, 7 ms on a busy host:

    in a mount namespace for the moment         in the host's again
      tmpfs on `target`, the id-mapped clones
      on it at 0, 1, ... and w; as the container's
      root, capabilities kept: mount overlay
      a detached copy of it  ------------------>  move_mount(descriptor, target)
      the staging mounts go with the namespace

Why the ids: overlayfs acts on the upper layer as whoever mounted it, and the host's root has no id in an id-mapped
upper layer: mounted by uid 0 the overlay silently becomes read-only. No fork on the way to a container's start: one of a Python costs
milliseconds. Only a single-threaded process may call this. Standard library only.
"""

from __future__ import annotations

import errno
import os
import socket
import stat
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any

from agent.engine import binds as bound
from agent.engine import sync
from agent.linux import mounts, namespaces, process

# xino would put the layer's number into inode numbers; the others would leave marks in the upper layer that are
# wrong on another host.
OPTIONS = (("xino", "off"), ("redirect_dir", "off"), ("metacopy", "off"), ("index", "off"))
MOUNT_POINTS = ("proc", "sys", "dev")
_WRITABLE = ("upper", "work")


def mount_root(
    *,
    layers: Sequence[Path],
    writable: Path,
    target: Path,
    ids_base: int,
    ids_count: int,
    binds: Sequence[Mapping[str, Any]] = (),
    userns: int = -1,
    staging: Path | None = None,
) -> ExitStack:
    """Mount at `target` the overlay of `layers` (base first) under `writable`, which has `upper/` and `work/` on one
    file system.

    Whatever an earlier attempt left mounted at `target` goes first. Missing mount points for /proc, /sys and /dev are
    made, as the container's root. `binds`: what of the host is put into it, see binds.py; with `staging` not into it but there, for
    CRIU. `userns`: a descriptor of a user namespace with these ids, where the caller has one; else one is made. Raises OSError;
    then nothing stays mounted in it.

    What is returned is to be closed when there is time, or left to the end of the process: to let go of a mount that is nowhere
    attached waits for an RCU grace period, milliseconds for each of the layers.
    """
    mounts.unmount_all(target)
    target.mkdir(parents=True, exist_ok=True)
    own = namespaces.userns_fd(ids_base, ids_count) if userns < 0 else os.dup(userns)
    try:
        try:
            overlay, left = _mount_detached(layers, writable, own, ids_base)
        except OSError as exc:
            if exc.errno not in (errno.EBADF, errno.EINVAL, errno.ENOSYS):
                raise
            # An older kernel; or it says what was wrong.
            overlay, left = _mount_staged(layers, writable, target, own, ids_base), ExitStack()
        try:
            mounts.move_mount(overlay, target)
        finally:
            os.close(overlay)
        try:
            if staging is None:
                bound.attach(target, binds, own, lambda work: _as_root(work, ids_base))
            elif binds:
                bound.stage(staging, binds, own, ids_base)
        except OSError:
            mounts.unmount_all(target)
            raise
        return left
    finally:
        os.close(own)


def show_binds(target: Path, binds: Sequence[Mapping[str, Any]], ids_base: int, ids_count: int) -> None:
    """Mount them in a root that was mounted without them, for the host to see what the container sees. Raises OSError."""
    userns = namespaces.userns_fd(ids_base, ids_count)
    try:
        bound.attach(target, binds, userns, lambda work: _as_root(work, ids_base))
    finally:
        os.close(userns)


def mount_read_only(
    *,
    layers: Sequence[Path],
    writable: Path,
    target: Path,
    ids_base: int,
    ids_count: int,
    binds: Sequence[Mapping[str, Any]] = (),
) -> None:
    """The same at `target` to look at only: `writable` is one more layer, and may be changed meanwhile. A bind whose place is not there
    is left out. For a process in a mount namespace of its own. Raises OSError.
    """
    userns = namespaces.userns_fd(ids_base, ids_count)
    names = _stage(layers, writable, target, userns)
    Path("empty").mkdir()
    # Two layers are the least that overlayfs takes without a writable one.
    fields = [("lowerdir", ":".join(["w/upper", *names, "empty"])), *OPTIONS]
    text = ",".join(f"{key}={value}" for key, value in fields)
    mounts.mount("overlay", Path("root"), "overlay", mounts.MS_RDONLY, text)
    overlay = mounts.open_tree(Path("root"))
    os.chdir("/")
    mounts.move_mount(overlay, target)
    for bind in binds:
        try:
            bound.attach(target, [bind], userns, lambda work: _as_root(work, ids_base))
        except OSError as exc:
            if exc.errno != errno.EROFS:
                raise
    for fd in (overlay, userns):
        os.close(fd)


def _mount_detached(layers: Sequence[Path], writable: Path, userns: int, ids_base: int) -> tuple[int, ExitStack]:
    """A descriptor of the overlay, detached, and the layers' to be closed. Raises OSError as mounts.detached_overlay()."""
    with ExitStack() as stack:

        def kept(fd: int) -> int:
            stack.callback(os.close, fd)
            return fd

        lower = [kept(mounts.idmapped_clone(layer, userns)) for layer in reversed(layers)]
        top = kept(mounts.idmapped_clone(writable, userns))
        upper, work = (kept(os.open(name, os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC, dir_fd=top)) for name in _WRITABLE)
        with _mounter(ids_base):
            overlay = mounts.detached_overlay(lower=lower, upper=upper, work=work, options=OPTIONS)
            try:
                _make_mount_points(overlay)
            except OSError:
                os.close(overlay)
                raise
        return overlay, stack.pop_all()


def _mount_staged(layers: Sequence[Path], writable: Path, target: Path, userns: int, ids_base: int) -> int:
    """A descriptor of the overlay, detached."""
    with namespaces.mounts_of_its_own():
        mounts.make_private(Path("/"))
        top_first = _stage(layers, writable, target, userns)
        with _mounter(ids_base):
            upper, work = (f"w/{name}" for name in _WRITABLE)
            mounts.overlay(Path("root"), lower=top_first, upper=upper, work=work, options=OPTIONS)
            root = mounts.open_tree(Path("root"))
            try:
                _make_mount_points(root)
            except OSError:
                os.close(root)
                raise
            return root


def _stage(layers: Sequence[Path], writable: Path, target: Path, userns: int) -> list[str]:
    """A tmpfs at `target`, the working directory from now on, with id-mapped clones of the layers, of `writable` at "w", and an empty
    directory "root". Returns the layers' names, the top one first.
    """
    mounts.mount("staging", target, "tmpfs", 0, "mode=755")
    os.chdir(target)
    top_first = [str(number) for number in range(len(layers))]
    for name, layer in zip(top_first, reversed(layers), strict=True):
        _attach_clone(layer, Path(name), userns)
    _attach_clone(writable, Path("w"), userns)
    Path("root").mkdir()
    return top_first


def _attach_clone(source: Path, name: Path, userns: int) -> None:
    name.mkdir()
    clone = mounts.idmapped_clone(source, userns)
    try:
        mounts.move_mount(clone, name)
    finally:
        os.close(clone)


def _make_mount_points(root: int) -> None:
    for name in MOUNT_POINTS:
        try:
            there = os.stat(name, dir_fd=root, follow_symlinks=False)
        except FileNotFoundError:
            os.mkdir(name, mode=0o755, dir_fd=root)
            continue
        if not stat.S_ISDIR(there.st_mode):
            raise OSError(errno.ENOTDIR, f"the image has /{name} as something else than a directory", name)


@contextmanager
def _mounter(ids_base: int) -> Iterator[None]:
    """With the ids of the container's root, but every capability over the host, for the length of the block."""
    groups = os.getgroups()
    process.set_securebits(process.SECBIT_NO_SETUID_FIXUP)
    try:
        os.setgroups([])
        os.setegid(ids_base)
        os.seteuid(ids_base)
        yield
    finally:
        os.seteuid(0)
        os.setegid(0)
        os.setgroups(groups)
        process.set_securebits(0)
        process.set_dumpable(True)  # the change of ids has taken it away


def _become_mounter(ids_base: int) -> None:
    """Take the ids of the container's root but keep every capability over the host."""
    process.set_securebits(process.SECBIT_NO_SETUID_FIXUP)
    os.setgroups([])
    os.setresgid(ids_base, ids_base, ids_base)
    os.setresuid(ids_base, ids_base, ids_base)


def _as_root(work: Callable[[], int], ids_base: int) -> int:
    def as_mounter() -> int:
        _become_mounter(ids_base)
        return work()

    return _in_child(as_mounter)


def _in_child(work: Callable[[], int]) -> int:
    """Run `work` in a forked child and return a copy of the descriptor that it returns; its OSError is raised here."""
    ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    with ours, theirs:
        pid = os.fork()
        if pid == 0:
            try:
                sync.send(theirs, {"type": "done"}, [work()])
            except OSError as exc:
                sync.send_error(theirs, "root", exc)
            finally:
                os._exit(0)
        theirs.close()
        message, fds = sync.receive(ours)
        os.waitpid(pid, 0)
    if message is None:
        raise OSError(errno.EIO, "the mounting child died")
    if message["type"] == "error":
        raise OSError(message["errno"], message["text"])
    return fds[0]
