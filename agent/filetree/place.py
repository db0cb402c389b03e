"""Writes the members of a tar below a directory. Both may be hostile: the tar, and whoever else writes to the directory.

What is there already is replaced, file by file; a directory stays as it is and gets more in it; a directory in place of a file, or the
other way round, is refused, as Docker does. A file of which only a part came is removed again.
"""

from __future__ import annotations

import contextlib
import errno
import os
import stat
import tarfile
from collections.abc import Iterator
from dataclasses import dataclass, field
from enum import StrEnum

from agent.filetree import reading
from agent.filetree.paths import PATH_DIRECTORY, Destination, Misfit
from agent.linux import openat2, statx

_CHUNK_BYTES = 1 << 20
_CREATE = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC
_XATTR = "SCHILY.xattr."
_NAMELESS_ID = (1 << 32) - 1  # chown takes it for "leave as it is"
_SHOWN = 10  # of what was left out
_NOT_HERE = (errno.ENOTSUP, errno.EPERM, errno.EINVAL)  # of an extended attribute


class Owner(StrEnum):
    """Whose the files become. MINE: of whoever runs this, so no privilege comes with them. TAR: ids as in the tar."""

    MINE = "mine"
    ROOT = "root"
    TAR = "tar"


@dataclass(kw_only=True)
class Placed:
    """`skipped`: names of the first devices that were left out, for nobody may make one here."""

    files: int = 0
    bytes: int = 0
    skipped: list[str] = field(default_factory=list)
    skipped_count: int = 0


def members(tar: reading.Stream, where: Destination, owner: Owner, *, root: int = -1) -> Placed:
    """Read `tar` (plain, gzip, bzip2 or xz) to its end and place what is in it in `where`.

    With `root`, links on the way to a member are followed, with that open directory as "/"; without, they are refused.
    Raises Misfit, OSError.
    """
    placer = _Placer(where, owner, root)
    try:
        for archive, member in reading.members(tar):
            try:
                placer.add(archive, member)
            except OSError as exc:
                raise OSError(exc.errno, exc.strerror, member.name) from exc
            except reading.DAMAGED as exc:  # also a time or a device number that the kernel cannot hold
                raise Misfit(f"cannot place {member.name!r}: {exc}") from exc
        placer.finish()
    finally:
        placer.close()
    return placer.placed


class _Placer:
    def __init__(self, where: Destination, owner: Owner, root: int) -> None:
        self.placed = Placed()
        self._where, self._owner, self._root = where, owner, root
        self._made: dict[tuple[bytes, ...], tarfile.TarInfo] = {}  # directories, to be dressed when all is in them
        self._parent = (None, -1)  # type: tuple[tuple[bytes, ...] | None, int]  # the last one, open

    def add(self, archive: tarfile.TarFile, member: tarfile.TarInfo) -> None:
        parts = self._where.place(_parts(member.name))
        if not parts:
            if not member.isdir():
                raise Misfit("the tar's first member is no directory")
            return  # the destination itself, which stays as it is
        parent, name = self._open(tuple(parts[:-1])), parts[-1]
        if member.isdir():
            self._directory(parent, tuple(parts), member)
            return
        self._refuse_directory(parent, name, member)
        if member.isreg():
            self._file(archive, member, parent, name)
        elif member.islnk():
            target = self._where.place(_parts(member.linkname))
            if not target:
                raise Misfit(f"{member.name!r} is a hard link to nothing")
            source = os.dup(self._open(tuple(target[:-1])))
            try:
                parent = self._open(tuple(parts[:-1]))
                self._clear(parent, name)
                os.link(target[-1], name, src_dir_fd=source, dst_dir_fd=parent, follow_symlinks=False)
            finally:
                os.close(source)
        elif member.issym():
            self._clear(parent, name)
            os.symlink(os.fsencode(member.linkname), name, dir_fd=parent)
            self._dress_at(parent, name, member, link=True)
            self._forget_parent()  # it may be what the way led through
        elif member.isfifo():
            self._clear(parent, name)
            os.mkfifo(name, 0o600, dir_fd=parent)
            self._dress_at(parent, name, member, link=False)
        elif member.isdev():
            self.placed.skipped_count += 1
            if len(self.placed.skipped) < _SHOWN:
                self.placed.skipped.append(member.name)
            return
        else:
            raise Misfit(f"{member.name!r} has the unknown type {member.type!r}")
        self.placed.files += 1

    def finish(self) -> None:
        for parts, member in reversed(self._made.items()):
            with contextlib.suppress(FileNotFoundError, NotADirectoryError):  # somebody was faster
                directory = self._open(parts[:-1])
                fd = os.open(parts[-1], os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC, dir_fd=directory)
                try:
                    self._dress(fd, member)
                finally:
                    os.close(fd)

    def close(self) -> None:
        self._forget_parent()

    # ------------------------------------------------------------ kinds

    def _directory(self, parent: int, parts: tuple[bytes, ...], member: tarfile.TarInfo) -> None:
        try:
            os.mkdir(parts[-1], 0o700, dir_fd=parent)
        except FileExistsError:
            there = os.stat(parts[-1], dir_fd=parent, follow_symlinks=False)
            if not stat.S_ISDIR(there.st_mode):
                raise Misfit(f"cannot overwrite the file {_shown(parts)} with a directory") from None
            if parts not in self._made:
                return
        self._made.pop(parts, None)  # one that comes again moves to the end: what is in it is dressed before it
        self._made[parts] = member

    def _file(self, archive: tarfile.TarFile, member: tarfile.TarInfo, parent: int, name: bytes) -> None:
        mounted = self._clear(parent, name)
        if mounted:
            fd = os.open(name, os.O_WRONLY | os.O_TRUNC | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC, dir_fd=parent)
        else:
            fd = os.open(name, _CREATE, 0o600, dir_fd=parent)
        try:
            if not stat.S_ISREG(os.fstat(fd).st_mode):
                raise Misfit(f"{member.name!r}: no regular file is mounted there")
            source = archive.extractfile(member)
            assert source is not None, "it is a regular one"
            left = member.size
            while left:
                data = source.read(min(_CHUNK_BYTES, left))
                if not data:
                    raise Misfit(f"the tar stops in the middle of {member.name!r}")
                left -= len(data)
                self.placed.bytes += len(data)
                rest = memoryview(data)
                while rest:
                    rest = rest[os.write(fd, rest) :]
            self._dress(fd, member)
        except BaseException:
            if not mounted:
                with contextlib.suppress(OSError):
                    os.unlink(name, dir_fd=parent)
            raise
        finally:
            os.close(fd)

    def _refuse_directory(self, parent: int, name: bytes, member: tarfile.TarInfo) -> None:
        with contextlib.suppress(FileNotFoundError):
            there = os.stat(name, dir_fd=parent, follow_symlinks=False)
            if stat.S_ISDIR(there.st_mode):
                raise Misfit(f"cannot overwrite the directory {os.fsdecode(name)} with {member.name!r}, which is none")

    def _clear(self, parent: int, name: bytes) -> bool:
        """Make room; True: something is mounted exactly there, and stays."""
        try:
            if statx.is_mount_root(parent, name):
                return True
            os.unlink(name, dir_fd=parent)
        except FileNotFoundError:
            pass
        return False

    # ------------------------------------------------------------ places

    def _open(self, parts: tuple[bytes, ...]) -> int:
        """A descriptor of the directory, made if it is not there; ours, and good until the next call."""
        if self._parent[0] != parts:
            self._forget_parent()
            self._parent = (parts, self._opened(parts))
        return self._parent[1]

    def _opened(self, parts: tuple[bytes, ...]) -> int:
        fd = os.dup(self._where.directory)
        for depth, part in enumerate(parts, 1):
            above = fd
            try:
                fd = self._step(above, part, parts[:depth])
            finally:
                os.close(above)
        return fd

    def _step(self, above: int, part: bytes, so_far: tuple[bytes, ...]) -> int:
        flags = PATH_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC
        try:
            return os.open(part, flags, dir_fd=above)
        except FileNotFoundError:
            os.mkdir(part, 0o755, dir_fd=above)
            if self._owner != Owner.MINE:
                os.chown(part, 0, 0, dir_fd=above, follow_symlinks=False)
            return os.open(part, flags, dir_fd=above)
        except NotADirectoryError:
            if self._root < 0:
                raise Misfit(f"{_shown(so_far)} is no directory") from None
            return openat2.open_in_root(self._root, b"/".join((self._where.text, *so_far)), PATH_DIRECTORY)

    def _forget_parent(self) -> None:
        if self._parent[1] >= 0:
            os.close(self._parent[1])
        self._parent = (None, -1)

    # ------------------------------------------------------------ looks

    def _dress(self, fd: int, member: tarfile.TarInfo) -> None:
        if self._owner != Owner.MINE:
            with _foreign(member):
                os.fchown(fd, *self._ids(member))
        os.fchmod(fd, self._mode(member))
        for key, value in member.pax_headers.items():
            name = key.removeprefix(_XATTR)
            if key.startswith(_XATTR) and self._takes(name):
                try:
                    os.setxattr(fd, name, value.encode("utf-8", "surrogateescape"))
                except OSError as exc:
                    if exc.errno not in _NOT_HERE:
                        raise
        os.utime(fd, ns=(_mtime_ns(member), _mtime_ns(member)))

    def _dress_at(self, parent: int, name: bytes, member: tarfile.TarInfo, *, link: bool) -> None:
        if self._owner != Owner.MINE:
            with _foreign(member):
                os.chown(name, *self._ids(member), dir_fd=parent, follow_symlinks=False)
        if not link:
            os.chmod(name, self._mode(member), dir_fd=parent)
        os.utime(name, ns=(_mtime_ns(member), _mtime_ns(member)), dir_fd=parent, follow_symlinks=False)

    def _ids(self, member: tarfile.TarInfo) -> tuple[int, int]:
        if self._owner == Owner.ROOT:
            return 0, 0
        for number in (member.uid, member.gid):
            if not 0 <= number < _NAMELESS_ID:
                raise Misfit(f"{member.name!r} belongs to {member.uid}:{member.gid}, which no file can")
        return member.uid, member.gid

    def _mode(self, member: tarfile.TarInfo) -> int:
        """Set-id bits go where the file changes hands, as with chown(2): they were given by somebody else."""
        changed = self._owner == Owner.MINE or (self._owner == Owner.ROOT and (member.uid, member.gid) != (0, 0))
        return member.mode & (0o1777 if changed and not member.isdir() else 0o7777)

    def _takes(self, xattr: str) -> bool:
        if self._owner == Owner.MINE:
            return xattr.startswith("user.")
        return not xattr.startswith("trusted.")


@contextlib.contextmanager
def _foreign(member: tarfile.TarInfo) -> Iterator[None]:
    """Around a chown(2)."""
    try:
        yield
    except OSError as exc:
        if exc.errno != errno.EINVAL:
            raise
        raise Misfit(f"{member.name!r} belongs to {member.uid}:{member.gid}, which is nobody there") from exc


def _parts(name: str) -> list[bytes]:
    parts = [part for part in os.fsencode(name).split(b"/") if part not in (b"", b".")]
    if b".." in parts or any(b"\0" in part for part in parts):
        raise Misfit(f"{name!r} would lead out of the destination")
    return parts


def _shown(parts: tuple[bytes, ...]) -> str:
    return os.fsdecode(b"/".join(parts))


def _mtime_ns(member: tarfile.TarInfo) -> int:
    text = member.pax_headers.get("mtime")
    if text is None:
        return int(member.mtime) * 10**9
    seconds, _, fraction = text.partition(".")
    try:
        part = int((fraction + "000000000")[:9])
        return int(seconds) * 10**9 + (-part if seconds.startswith("-") else part)
    except ValueError as exc:
        raise Misfit(f"{member.name!r} has the time {text!r}") from exc
