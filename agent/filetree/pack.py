"""Reads a file or a tree of files as a tar, while others may be writing to it.

Names sorted, numeric ids, times to the nanosecond, hard links, extended attributes. What is not there any more when its turn comes is
left out; a file that became shorter is filled up with zeros; sockets are left out; the kernel's own file systems (/proc, /sys)
are empty directories unless one of their files is asked for.
"""

from __future__ import annotations

import errno
import io
import os
import stat
import tarfile
from collections.abc import Iterator
from dataclasses import dataclass, field

from agent.linux import statx

END = bytes(2 * tarfile.BLOCKSIZE)
CHUNK_BYTES = 1 << 20
_SMALL_BYTES = 1 << 18  # is read before its header is written: then the size is right, also in /proc
_UNSIZED_BYTES = 16 << 20  # how much of a file that says it is empty
_DIRECTORY = os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC
_FILE = os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC  # a fifo that took its place must not hold us up


@dataclass(kw_only=True)
class _Level:
    fd: int
    path: bytes
    names: list[bytes] = field(default_factory=list)  # still to come, last first
    device: int


def tree(parent: int, name: bytes, top: bytes) -> Iterator[bytes]:
    """The tar of `name` in the open directory `parent`, in pieces of at most about CHUNK_BYTES; its first member is called `top`.

    `top` "" (of a directory): only what is in it. Raises OSError for what cannot be read.
    """
    pending = bytearray()
    packer = _Packer()
    try:
        for piece in packer.run(parent, name, top):
            if len(pending) + len(piece) > CHUNK_BYTES:
                yield bytes(pending)
                pending.clear()
            pending += piece
        yield bytes(pending) + END
    finally:
        packer.close()


class _Packer:
    def __init__(self) -> None:
        self._levels: list[_Level] = []
        self._names: dict[tuple[int, int], bytes] = {}  # files with several names -> the first

    def run(self, parent: int, name: bytes, top: bytes) -> Iterator[bytes]:
        yield from self._member(parent, name, top)
        while self._levels:
            level = self._levels[-1]
            if not level.names:
                os.close(self._levels.pop().fd)
                continue
            inner = level.names.pop()
            yield from self._member(level.fd, inner, level.path + b"/" + inner if level.path else inner)

    def close(self) -> None:
        while self._levels:
            os.close(self._levels.pop().fd)

    def _member(self, parent: int, name: bytes, path: bytes) -> Iterator[bytes]:
        try:
            status = os.stat(name, dir_fd=parent, follow_symlinks=False)
            kind = stat.S_IFMT(status.st_mode)
            if kind == stat.S_IFDIR:
                yield from self._directory(parent, name, path)
            elif kind == stat.S_IFREG:
                yield from self._file(parent, name, path)
            elif kind == stat.S_IFLNK:
                info = _info(path, status, {})
                info.type, info.linkname = tarfile.SYMTYPE, os.fsdecode(os.readlink(name, dir_fd=parent))
                yield _header(info)
            elif kind != stat.S_IFSOCK:
                info = _info(path, status, {})
                info.type = {stat.S_IFIFO: tarfile.FIFOTYPE, stat.S_IFCHR: tarfile.CHRTYPE}.get(kind, tarfile.BLKTYPE)
                info.devmajor, info.devminor = os.major(status.st_rdev), os.minor(status.st_rdev)
                yield _header(info)
        except OSError as exc:
            # Another kind of file has taken its place: it is as gone as one that was removed.
            if self._levels and exc.errno in (errno.ENOENT, errno.ELOOP, errno.ENOTDIR, errno.ENXIO):
                return
            raise OSError(exc.errno, exc.strerror, os.fsdecode(path)) from exc

    def _directory(self, parent: int, name: bytes, path: bytes) -> Iterator[bytes]:
        fd = os.open(name, _DIRECTORY, dir_fd=parent)
        try:
            status = os.fstat(fd)
            entered = self._levels and status.st_dev != self._levels[-1].device
            closed = entered and statx.file_system(fd) in statx.KERNEL_FILE_SYSTEMS
            names = [] if closed else sorted((os.fsencode(one) for one in os.listdir(fd)), reverse=True)  # noqa: PTH208  # of a descriptor
            info = _info(path, status, _xattrs(fd))
            info.type = tarfile.DIRTYPE
        except BaseException:
            os.close(fd)
            raise
        self._levels.append(_Level(fd=fd, path=path, names=names, device=status.st_dev))
        if path:
            yield _header(info)

    def _file(self, parent: int, name: bytes, path: bytes) -> Iterator[bytes]:
        fd = os.open(name, _FILE, dir_fd=parent)
        with open(fd, "rb", buffering=0) as file:
            status = os.fstat(fd)
            if not stat.S_ISREG(status.st_mode):
                return
            identity = (status.st_dev, status.st_ino)
            if status.st_nlink > 1 and identity in self._names:
                info = _info(path, status, {})
                info.type, info.linkname = tarfile.LNKTYPE, os.fsdecode(self._names[identity])
                yield _header(info)
                return
            info = _info(path, status, _xattrs(fd))
            if status.st_nlink > 1:
                self._names[identity] = path
            if status.st_size <= _SMALL_BYTES:
                data = _up_to(file, status.st_size or _UNSIZED_BYTES)
                info.size = len(data)
                yield _header(info) + data + bytes(-len(data) % tarfile.BLOCKSIZE)
                return
            info.size = left = status.st_size
            yield _header(info)
            while left:
                data = file.read(min(CHUNK_BYTES, left)) or bytes(min(CHUNK_BYTES, left))
                left -= len(data)
                yield data
            yield bytes(-info.size % tarfile.BLOCKSIZE)


def _up_to(file: io.FileIO, size: int) -> bytes:
    data = bytearray()
    while len(data) < size and (piece := file.read(min(size - len(data), CHUNK_BYTES))):
        data += piece
    return bytes(data)


def _info(path: bytes, status: os.stat_result, xattrs: dict[str, bytes]) -> tarfile.TarInfo:
    info = tarfile.TarInfo(os.fsdecode(path))
    info.mode = stat.S_IMODE(status.st_mode)
    info.uid, info.gid = status.st_uid, status.st_gid
    info.mtime, fraction = divmod(status.st_mtime_ns, 10**9)
    info.pax_headers = {
        f"SCHILY.xattr.{name}": value.decode("utf-8", "surrogateescape") for name, value in xattrs.items()
    }
    if fraction or info.mtime < 0:
        info.pax_headers["mtime"] = _seconds(status.st_mtime_ns)
    return info


def _header(info: tarfile.TarInfo) -> bytes:
    return info.tobuf(tarfile.PAX_FORMAT, "utf-8", "surrogateescape")


def _seconds(unix_ns: int) -> str:
    """ "12.5", and "-0.5" for half a second before 1970."""
    sign, unix_ns = ("-", -unix_ns) if unix_ns < 0 else ("", unix_ns)
    seconds, fraction = divmod(unix_ns, 10**9)
    return f"{sign}{seconds}.{fraction:09d}".rstrip("0").rstrip(".")


def _xattrs(fd: int) -> dict[str, bytes]:
    """Those that mean something elsewhere; SELinux writes its own there."""
    try:
        names = [name for name in os.listxattr(fd) if name != "security.selinux" and not name.startswith("trusted.")]
        return {name: os.getxattr(fd, name) for name in sorted(names)}
    except OSError as exc:
        if exc.errno in (errno.ENOTSUP, errno.ENODATA, errno.EPERM):
            return {}
        raise
