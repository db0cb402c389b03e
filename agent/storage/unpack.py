"""Unpacks one OCI layer into a directory, exactly, and never outside it.

Members are untrusted. Every parent directory is resolved by the kernel with the new root as "/" (openat2), the last
component is never followed, and ".." is refused. Directories get their final mode and times at the very end.
"""

from __future__ import annotations

import errno
import os
import stat
import tarfile
from collections import OrderedDict
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

from agent.errors import StorageError
from agent.linux import remove
from agent.storage import rawfs, tarstream

_XATTR = "SCHILY.xattr."
_WHITEOUT = b".wh."
_OPAQUE = b".wh..wh..opq"
_AUFS = b".wh..wh."  # bookkeeping of aufs that old images carry
OVERLAY_PREFIX = "trusted.overlay."
OVERLAY_OPAQUE = "trusted.overlay.opaque"
_OPEN_DIRECTORIES = 128
_DIRECTORY = os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC
_CREATE = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC
_NAMELESS_ID = (1 << 32) - 1  # chown takes it for "leave as it is"


@dataclass(frozen=True, kw_only=True)
class Unpacked:
    """`size_bytes`: of all regular files, each once. `newest_ns`: the latest mtime in the archive, 0 if it is empty."""

    size_bytes: int
    newest_ns: int


@dataclass(frozen=True, kw_only=True)
class _Meta:
    mode: int
    uid: int
    gid: int
    mtime_ns: int
    xattrs: dict[str, bytes]


def layer(chunks: Iterator[bytes], root: Path, *, whiteouts: bool = True) -> Unpacked:
    """Unpack the plain tar `chunks` into the empty directory `root`. After an error the caller removes it.

    Without `whiteouts` the archive is no layer: names that begin with ".wh." are names.
    """
    fd = os.open(root, _DIRECTORY)
    try:
        unpacker = _Unpacker(fd, whiteouts=whiteouts)
        try:
            return unpacker.run(tarstream.Members(chunks))
        finally:
            unpacker.close()
    finally:
        os.close(fd)


class _Unpacker:
    def __init__(self, root_fd: int, *, whiteouts: bool) -> None:
        self._root = root_fd
        self._whiteouts = whiteouts
        self._open: OrderedDict[bytes, int] = (
            OrderedDict()
        )  # parents in use; emptied when a directory or a link goes away
        self._directories: dict[int, tuple[bytes, _Meta]] = {}  # inode -> how it shall be in the end
        self._stale: list[int] = []  # descriptors that no path may lead to any more, but a caller may still hold
        self._opaque: set[int] = set()
        self._size = 0
        self._newest = 0
        # What a new file belongs to without a chown.
        self._self = (os.geteuid(), os.getegid())

    def run(self, members: tarstream.Members) -> Unpacked:
        self._remember(b"", self._root, _implicit(self._self))
        for member in members:
            try:
                self._member(members, member)
            except OSError as exc:
                raise StorageError(f"cannot unpack {member.name!r}: {exc.strerror}", hint=_hint(exc)) from exc
            except OverflowError as exc:  # a time or a device number that the kernel cannot hold
                raise StorageError(f"cannot unpack {member.name!r}: {exc}") from exc
        for inode, (path, meta) in reversed(self._directories.items()):
            self._finish_directory(inode, path, meta)
        return Unpacked(size_bytes=self._size, newest_ns=self._newest)

    def close(self) -> None:
        for fd in (*self._open.values(), *self._stale):
            os.close(fd)
        self._open.clear()
        self._stale.clear()

    def _member(self, members: tarstream.Members, member: tarfile.TarInfo) -> None:
        while self._stale:
            os.close(self._stale.pop())
        parts = _parts(member.name)
        meta = _meta(member)
        self._newest = max(self._newest, meta.mtime_ns)
        if not parts:
            if not member.isdir():
                raise StorageError("the archive's root is not a directory")
            self._remember(b"", self._root, meta)
            return
        parent, name = self._parent(parts[:-1]), parts[-1]
        if self._whiteouts and name.startswith(_WHITEOUT):
            self._whiteout(parent, name)
        elif member.isdir():
            self._directory(parent, name, b"/".join(parts), meta)
        elif member.isreg():
            self._file(members, member, parent, name, meta)
        elif member.islnk():
            self._hard_link(parent, name, _parts(member.linkname))
        elif member.issym():
            target = os.fsencode(member.linkname)
            self._place(parent, name, lambda: os.symlink(target, name, dir_fd=parent))
            _finish_at(parent, name, meta, is_link=True)
        elif member.isdev():  # also fifos
            kind = stat.S_IFCHR if member.ischr() else stat.S_IFBLK if member.isblk() else stat.S_IFIFO
            device = 0 if member.isfifo() else os.makedev(member.devmajor, member.devminor)
            self._place(parent, name, lambda: os.mknod(name, kind | 0o600, device, dir_fd=parent))
            _finish_at(parent, name, meta, is_link=False)
        else:
            raise StorageError(f"{member.name!r} has the unknown type {member.type!r}")

    def _file(self, members: tarstream.Members, member: tarfile.TarInfo, parent: int, name: bytes, meta: _Meta) -> None:
        try:
            fd = os.open(name, _CREATE, 0o600, dir_fd=parent)
        except FileExistsError:
            self._remove(parent, name)
            fd = os.open(name, _CREATE, 0o600, dir_fd=parent)
        try:
            end = 0
            for offset, piece in members.data(member):
                if offset != end:
                    os.lseek(fd, offset, os.SEEK_SET)
                end = offset + len(piece)
                while piece:
                    piece = piece[os.write(fd, piece) :]
            if end != member.size:
                os.ftruncate(fd, member.size)
            if (meta.uid, meta.gid) != self._self:
                os.fchown(fd, meta.uid, meta.gid)
            os.fchmod(fd, meta.mode)
            _set_xattrs(fd, meta.xattrs)
            os.utime(fd, ns=(meta.mtime_ns, meta.mtime_ns))
        finally:
            os.close(fd)
        self._size += member.size

    def _directory(self, parent: int, name: bytes, path: bytes, meta: _Meta) -> None:
        whiteout = False
        try:
            os.mkdir(name, 0o700, dir_fd=parent)
            fresh = True
        except FileExistsError:
            existing = os.stat(name, dir_fd=parent, follow_symlinks=False)
            fresh = not stat.S_ISDIR(existing.st_mode)
            if fresh:
                whiteout = _is_whiteout(existing)
                self._remove(parent, name)
                os.mkdir(name, 0o700, dir_fd=parent)
        fd = os.open(name, _DIRECTORY, dir_fd=parent)
        self._keep(path, fd)
        inode = self._remember(path, fd, meta)
        if fresh:
            self._new_directory(inode, whiteout)

    def _hard_link(self, parent: int, name: bytes, target: list[bytes]) -> None:
        if not target:
            raise StorageError(f"{name!r} is a hard link to nothing")
        source, old = self._parent(target[:-1]), target[-1]
        self._place(
            parent, name, lambda: os.link(old, name, src_dir_fd=source, dst_dir_fd=parent, follow_symlinks=False)
        )

    def _whiteout(self, parent: int, name: bytes) -> None:
        if name == _OPAQUE:
            self._opaque.add(os.fstat(parent).st_ino)
        elif not name.startswith(_AUFS):
            hidden = name.removeprefix(_WHITEOUT)
            if hidden in (b"", b".", b".."):
                raise StorageError(f"{name!r} is no whiteout")
            try:
                os.mknod(hidden, stat.S_IFCHR, 0, dir_fd=parent)
            except FileExistsError:
                # A whiteout hides what is below, never what its own layer holds.
                existing = os.stat(hidden, dir_fd=parent, follow_symlinks=False)
                if stat.S_ISDIR(existing.st_mode):
                    self._opaque.add(existing.st_ino)

    def _place(self, parent: int, name: bytes, create: Callable[[], None]) -> None:
        try:
            create()
        except FileExistsError:
            self._remove(parent, name)
            create()

    def _remove(self, parent: int, name: bytes) -> None:
        """A later member replaces an earlier one."""
        existing = os.stat(name, dir_fd=parent, follow_symlinks=False)
        if stat.S_ISDIR(existing.st_mode):
            remove.tree(name, dir_fd=parent)
        else:
            os.unlink(name, dir_fd=parent)
        if stat.S_ISREG(existing.st_mode) and existing.st_nlink == 1:
            self._size -= existing.st_size
        if stat.S_ISDIR(existing.st_mode) or stat.S_ISLNK(existing.st_mode):
            self._stale.extend(self._open.values())
            self._open.clear()

    def _parent(self, parts: list[bytes]) -> int:
        """A descriptor of the directory, which is made if it is not there. Ours, and good until the next member."""
        if not parts:
            return self._root
        path = b"/".join(parts)
        fd = self._open.get(path)
        if fd is not None:
            self._open.move_to_end(path)
            return fd
        try:
            fd = rawfs.open_in_root(self._root, path, os.O_RDONLY | os.O_DIRECTORY)
        except (FileNotFoundError, NotADirectoryError):
            fd = self._make_parents(parts)
        self._keep(path, fd)
        return fd

    def _make_parents(self, parts: list[bytes]) -> int:
        above = os.dup(self._root)
        for depth, name in enumerate(parts, 1):
            path = b"/".join(parts[:depth])
            try:
                fd = self._open_or_make(above, name, path)
            finally:
                os.close(above)
            above = fd
        return above

    def _open_or_make(self, above: int, name: bytes, path: bytes) -> int:
        try:
            return rawfs.open_in_root(self._root, path, os.O_RDONLY | os.O_DIRECTORY)
        except FileNotFoundError:
            whiteout = False
        except NotADirectoryError:
            whiteout = _is_whiteout(os.stat(name, dir_fd=above, follow_symlinks=False))
            if not whiteout:
                raise
            self._remove(above, name)
        os.mkdir(name, 0o700, dir_fd=above)
        fd = os.open(name, _DIRECTORY, dir_fd=above)
        self._new_directory(self._remember(path, fd, _implicit(self._self)), whiteout)
        return fd

    def _new_directory(self, inode: int, whiteout: bool) -> None:
        """`whiteout`: this layer had one of its name, so nothing of the layers below shows through."""
        self._opaque.discard(inode)  # it may have been another directory's
        if whiteout:
            self._opaque.add(inode)

    def _keep(self, path: bytes, fd: int) -> None:
        old = self._open.pop(path, None)
        if old is not None:
            self._stale.append(old)
        self._open[path] = fd
        if len(self._open) > _OPEN_DIRECTORIES:
            self._stale.append(self._open.popitem(last=False)[1])

    def _remember(self, path: bytes, fd: int, meta: _Meta) -> int:
        inode = os.fstat(fd).st_ino
        self._directories.pop(inode, None)  # a reused number moves to the end: children before parents when we go back
        self._directories[inode] = (path, meta)
        return inode

    def _finish_directory(self, inode: int, path: bytes, meta: _Meta) -> None:
        try:
            fd = rawfs.open_in_root(self._root, path or b".", os.O_RDONLY | os.O_DIRECTORY)
        except (FileNotFoundError, NotADirectoryError):
            return  # replaced by a later member
        try:
            if os.fstat(fd).st_ino != inode:
                return
            os.fchown(fd, meta.uid, meta.gid)
            os.fchmod(fd, meta.mode)
            _set_xattrs(fd, meta.xattrs | ({OVERLAY_OPAQUE: b"y"} if inode in self._opaque else {}))
            os.utime(fd, ns=(meta.mtime_ns, meta.mtime_ns))
        finally:
            os.close(fd)


def _parts(name: str) -> list[bytes]:
    parts = [part for part in os.fsencode(name).split(b"/") if part not in (b"", b".")]
    if b".." in parts or any(b"\0" in part for part in parts):
        raise StorageError(f"{name!r} would leave the layer", hint="the archive is hostile or broken: do not use it")
    return parts


def _is_whiteout(status: os.stat_result) -> bool:
    return stat.S_ISCHR(status.st_mode) and status.st_rdev == 0


def _meta(member: tarfile.TarInfo) -> _Meta:
    for number in (member.uid, member.gid):
        if not 0 <= number < _NAMELESS_ID:
            raise StorageError(f"{member.name!r} belongs to {member.uid}:{member.gid}, which no file can")
    xattrs = {
        key.removeprefix(_XATTR): value.encode("utf-8", "surrogateescape")
        for key, value in member.pax_headers.items()
        if key.startswith(_XATTR)
    }
    # The others mean something only in the overlay they come from, and a redirect would point at other people's files.
    kept = {key: value for key, value in xattrs.items() if key == OVERLAY_OPAQUE or not key.startswith(OVERLAY_PREFIX)}
    return _Meta(mode=member.mode & 0o7777, uid=member.uid, gid=member.gid, mtime_ns=_mtime_ns(member), xattrs=kept)


def _mtime_ns(member: tarfile.TarInfo) -> int:
    text = member.pax_headers.get("mtime")
    if text is None:
        return int(member.mtime) * 10**9
    seconds, _, fraction = text.partition(".")
    try:
        part = int((fraction + "000000000")[:9])
        return int(seconds) * 10**9 + (-part if seconds.startswith("-") else part)
    except ValueError as exc:
        raise StorageError(f"{member.name!r} has the time {text!r}") from exc


def _implicit(owner: tuple[int, int]) -> _Meta:
    """Directories that the archive does not describe: the same on every host, so with a fixed time."""
    return _Meta(mode=0o755, uid=owner[0], gid=owner[1], mtime_ns=0, xattrs={})


def _finish_at(parent: int, name: bytes, meta: _Meta, *, is_link: bool) -> None:
    os.chown(name, meta.uid, meta.gid, dir_fd=parent, follow_symlinks=False)
    if not is_link:
        os.chmod(name, meta.mode, dir_fd=parent)
    if meta.xattrs:
        # There is no setxattrat(2) before Linux 6.13; this path names the same file and is not followed at its end.
        path = b"/proc/self/fd/%d/%b" % (parent, name)
        for key, value in meta.xattrs.items():
            os.setxattr(path, key, value, follow_symlinks=False)
    os.utime(name, ns=(meta.mtime_ns, meta.mtime_ns), dir_fd=parent, follow_symlinks=False)


def _set_xattrs(fd: int, xattrs: dict[str, bytes]) -> None:
    for key, value in xattrs.items():
        try:
            os.setxattr(fd, key, value)
        except OSError as exc:
            raise OSError(exc.errno, f"setxattr {key}: {exc.strerror}") from exc


def _hint(exc: OSError) -> str:
    if exc.errno == errno.ENOSPC:
        return "make room on the file system of the images"
    return "the agent unpacks as root" if exc.errno == errno.EPERM else ""
