"""Writes the upper directory of an overlay as an OCI layer: a plain tar, the same bytes for the same files.

Members are sorted by name; a directory that only leads to others, and looks as it does below, is left out unless
something is in it. Whiteouts become `.wh.NAME`, opaque directories get `.wh..wh..opq`; the overlay's own xattrs stay
behind, all others go along. Nobody may write to the directory meanwhile, unless the caller says that it is not `steady`: then
what is gone when its turn comes is left out, and a file that became shorter is filled up with zeros.
"""

from __future__ import annotations

import errno
import os
import stat
import tarfile
from collections.abc import Collection, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from agent.errors import StorageError
from agent.storage.unpack import OVERLAY_OPAQUE, OVERLAY_PREFIX

_CHUNK = 1 << 20
_DIRECTORY = os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC
_FILE = os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC  # a fifo that took its place must not hold us up
_END = bytes(2 * tarfile.BLOCKSIZE)


@dataclass
class _Level:
    """A directory being walked. `header`: its member, None once it is written (or for the root)."""

    fd: int
    path: bytes
    header: bytes | None
    names: list[bytes] = field(default_factory=list)
    wanted: bool = False  # it is written even if nothing is in it


def write(upper: Path, lower: Sequence[Path], ignore: Collection[str] = (), *, steady: bool = True) -> Iterator[bytes]:
    """The tar in pieces. `lower`: the layers below, base first. `ignore`: paths ("etc/hosts") that are left out, with
    what is in them. Raises StorageError.
    """
    try:
        yield from _Writer(lower, {os.fsencode(path) for path in ignore}, steady=steady).run(upper)
    except OSError as exc:
        raise StorageError(f"cannot read {upper}: {exc.strerror} ({exc.filename!r})") from exc


def is_empty(upper: Path, lower: Sequence[Path], ignore: Collection[str] = (), *, steady: bool = True) -> bool:
    """Whether `write` would give a tar without a member."""
    first = next(iter(write(upper, lower, ignore, steady=steady)))
    return first == _END


class _Writer:
    def __init__(self, lower: Sequence[Path], ignore: Collection[bytes], *, steady: bool) -> None:
        self._steady = steady
        self._lower = [os.fsencode(path) for path in reversed(lower)]  # top first
        self._ignore = ignore
        self._names: dict[tuple[int, int], bytes] = {}  # files with several names -> the first
        self._levels: list[_Level] = []

    def run(self, upper: Path) -> Iterator[bytes]:
        try:
            self._enter(os.open(upper, _DIRECTORY), b"", None)
            while self._levels:
                level = self._levels[-1]
                if level.names:
                    yield from self._member(level, level.names.pop())
                    continue
                if level.wanted:
                    yield from self._headers()
                os.close(self._levels.pop().fd)
            yield _END
        finally:
            for level in self._levels:
                os.close(level.fd)

    def _enter(self, fd: int, path: bytes, header: bytes | None, *, wanted: bool = False) -> None:
        names = sorted((os.fsencode(name) for name in os.listdir(fd)), reverse=True)
        self._levels.append(_Level(fd=fd, path=path, header=header, names=names, wanted=wanted))

    def _headers(self) -> Iterator[bytes]:
        """Of the directories on the way that are not written yet."""
        for level in self._levels:
            if level.header is not None:
                yield level.header
                level.header = None

    def _member(self, parent: _Level, name: bytes) -> Iterator[bytes]:
        try:
            yield from self._entry(parent, name)
        except OSError as exc:
            # Another kind of file in its place: it is as gone as one that was removed.
            if self._steady or exc.errno not in (errno.ENOENT, errno.ENOTDIR, errno.ELOOP, errno.ENXIO):
                raise

    def _entry(self, parent: _Level, name: bytes) -> Iterator[bytes]:
        path = parent.path + b"/" + name if parent.path else name
        status = os.stat(name, dir_fd=parent.fd, follow_symlinks=False)
        kind = stat.S_IFMT(status.st_mode)
        if path in self._ignore or kind == stat.S_IFSOCK:
            return
        if kind == stat.S_IFDIR:
            yield from self._directory(parent, name, path, status)
            return
        if kind == stat.S_IFREG:
            yield from self._file(parent.fd, name, path)
            return
        yield from self._headers()
        if kind == stat.S_IFCHR and status.st_rdev == 0:
            yield _header(tarfile.TarInfo(_text(_join(parent.path, b".wh." + name))))
            return
        info = _info(path, status, _xattrs(parent.fd, name))
        if self._another_name(info, path, status):
            yield _header(info)
            return
        if kind == stat.S_IFLNK:
            info.type, info.linkname = tarfile.SYMTYPE, os.readlink(os.fsdecode(name), dir_fd=parent.fd)
        elif kind == stat.S_IFIFO:
            info.type = tarfile.FIFOTYPE
        else:
            info.type = tarfile.CHRTYPE if kind == stat.S_IFCHR else tarfile.BLKTYPE
            info.devmajor, info.devminor = os.major(status.st_rdev), os.minor(status.st_rdev)
        yield _header(info)

    def _another_name(self, info: tarfile.TarInfo, path: bytes, status: os.stat_result) -> bool:
        """Whether the file has had its turn under another name: then `info` becomes a hard link."""
        identity = (status.st_dev, status.st_ino)
        if status.st_nlink > 1 and identity in self._names:
            info.type, info.linkname, info.size = tarfile.LNKTYPE, _text(self._names[identity]), 0
            info.pax_headers = {}
            return True
        if status.st_nlink > 1:
            self._names[identity] = path
        return False

    def _file(self, parent: int, name: bytes, path: bytes) -> Iterator[bytes]:
        fd = os.open(name, _FILE, dir_fd=parent)  # before its header: then there is one only if there is a file
        with open(fd, "rb", buffering=0) as file:
            status = os.fstat(fd)
            if not stat.S_ISREG(status.st_mode):
                raise FileNotFoundError(errno.ENOENT, "it is no file any more", os.fsdecode(path))
            info = _info(path, status, _all_xattrs(fd))
            info.size = status.st_size
            linked = self._another_name(info, path, status)
            yield from self._headers()
            yield _header(info)
            if linked:
                return
            left = status.st_size
            while left:
                chunk = file.read(min(_CHUNK, left))
                if not chunk and self._steady:
                    raise StorageError(f"{os.fsdecode(path)} became shorter while it was read")
                chunk = chunk or bytes(min(_CHUNK, left))
                left -= len(chunk)
                yield chunk
        if status.st_size % tarfile.BLOCKSIZE:
            yield bytes(tarfile.BLOCKSIZE - status.st_size % tarfile.BLOCKSIZE)

    def _directory(self, parent: _Level, name: bytes, path: bytes, status: os.stat_result) -> Iterator[bytes]:
        fd = os.open(name, _DIRECTORY, dir_fd=parent.fd)
        try:
            xattrs = _all_xattrs(fd)
            info = _info(path, status, xattrs)
            info.type = tarfile.DIRTYPE
            opaque = xattrs.get(OVERLAY_OPAQUE) == b"y"
            self._enter(fd, path, _header(info), wanted=opaque or not self._as_below(path, status, info))
        except BaseException:
            os.close(fd)
            raise
        if opaque:
            yield from self._headers()
            yield _header(tarfile.TarInfo(_text(_join(path, b".wh..wh..opq"))))

    def _as_below(self, path: bytes, status: os.stat_result, info: tarfile.TarInfo) -> bool:
        """Whether the layers below show the same directory here: mode, owner and xattrs; times do not count."""
        below = self._below(path)
        if below is None:
            return False
        where, seen = below
        same = (seen.st_mode, seen.st_uid, seen.st_gid) == (status.st_mode, status.st_uid, status.st_gid)
        return same and _pax_xattrs(_all_xattrs(where)) == _pax_xattrs_of(info)

    def _below(self, path: bytes) -> tuple[bytes, os.stat_result] | None:
        """The directory that overlayfs shows there, or None where it shows none."""
        parts = path.split(b"/")
        for layer in self._lower:
            place = layer
            for depth, part in enumerate(parts, 1):
                place = place + b"/" + part
                try:
                    seen = os.lstat(place)
                except (FileNotFoundError, NotADirectoryError):
                    break  # not in this layer: look further down
                if not stat.S_ISDIR(seen.st_mode):
                    return None  # a whiteout or a file hides what is below
                if depth == len(parts):
                    return place, seen
                if _all_xattrs(place).get(OVERLAY_OPAQUE) == b"y" and not os.path.lexists(layer + b"/" + path):
                    return None
        return None


def _info(path: bytes, status: os.stat_result, xattrs: dict[str, bytes]) -> tarfile.TarInfo:
    info = tarfile.TarInfo(_text(path))
    info.mode = stat.S_IMODE(status.st_mode)
    info.uid, info.gid = status.st_uid, status.st_gid
    seconds, fraction = divmod(status.st_mtime_ns, 10**9)
    info.mtime = seconds
    info.pax_headers = _pax_xattrs(xattrs)
    if fraction or seconds < 0:
        info.pax_headers["mtime"] = _seconds(status.st_mtime_ns)
    return info


def _seconds(unix_ns: int) -> str:
    """ "12.5", and "-0.5" for half a second before 1970."""
    sign, unix_ns = ("-", -unix_ns) if unix_ns < 0 else ("", unix_ns)
    seconds, fraction = divmod(unix_ns, 10**9)
    return f"{sign}{seconds}.{fraction:09d}".rstrip("0").rstrip(".")


def _header(info: tarfile.TarInfo) -> bytes:
    return info.tobuf(tarfile.PAX_FORMAT, "utf-8", "surrogateescape")


def _xattrs(parent: int, name: bytes) -> dict[str, bytes]:
    # There is no getxattrat(2) before Linux 6.13; this path names the same file and is not followed at its end.
    return _all_xattrs(b"/proc/self/fd/%d/%b" % (parent, name))


def _all_xattrs(where: int | bytes) -> dict[str, bytes]:
    follow = isinstance(where, int)
    return {
        name: os.getxattr(where, name, follow_symlinks=follow)
        for name in sorted(os.listxattr(where, follow_symlinks=follow))
    }


def _pax_xattrs(xattrs: dict[str, bytes]) -> dict[str, str]:
    return {
        f"SCHILY.xattr.{name}": value.decode("utf-8", "surrogateescape")
        for name, value in xattrs.items()
        if not name.startswith(OVERLAY_PREFIX)
    }


def _pax_xattrs_of(info: tarfile.TarInfo) -> dict[str, str]:
    return {name: value for name, value in info.pax_headers.items() if name != "mtime"}


def _join(parent: bytes, name: bytes) -> bytes:
    return parent + b"/" + name if parent else name


def _text(path: bytes) -> str:
    return path.decode("utf-8", "surrogateescape")
