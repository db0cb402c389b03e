"""The context of a build as a tar: a directory, without what .dockerignore names.

Owners are 0, names sorted; symbolic links go as links. Files are read while they are sent.
"""

from __future__ import annotations

import os
import stat
import tarfile
from collections.abc import Iterator
from pathlib import Path

from e2b_dockerfile_utils import PatternMatcher

from migrate.errors import InvalidArgument

CHUNK_BYTES = 1 << 20
_END = bytes(2 * tarfile.BLOCKSIZE)


def ignored(directory: Path, dockerfile: Path | None) -> PatternMatcher:
    """DOCKERFILE.dockerignore beside the Dockerfile, else .dockerignore of the context. Raises InvalidArgument, OSError."""
    own = dockerfile.with_name(f"{dockerfile.name}.dockerignore") if dockerfile else None
    for path in (own, directory / ".dockerignore"):
        if path is not None and path.is_file():
            try:
                return PatternMatcher(path.read_text(errors="surrogateescape").removeprefix("\ufeff").splitlines())
            except ValueError as exc:
                raise InvalidArgument(f"{path}: {exc}") from exc
    return PatternMatcher([])


def pack(directory: Path, ignore: PatternMatcher) -> Iterator[bytes]:
    """The tar, in pieces of at most CHUNK_BYTES. Raises OSError; InvalidArgument for a file that shrinks meanwhile."""
    pending = b""
    for piece in _members(directory, "", ignore):
        pending += piece
        if len(pending) >= CHUNK_BYTES:
            yield pending
            pending = b""
    yield pending + _END


def _members(directory: Path, path: str, ignore: PatternMatcher) -> Iterator[bytes]:
    for entry in sorted(os.scandir(directory), key=lambda one: one.name):
        inner = f"{path}/{entry.name}" if path else entry.name
        out = ignore.matches(inner)
        status = entry.stat(follow_symlinks=False)
        if not out:
            yield from _member(Path(entry.path), inner, status)
        if stat.S_ISDIR(status.st_mode) and (not out or ignore.may_match_under(inner)):
            yield from _members(Path(entry.path), inner, ignore)


def _member(file: Path, path: str, status: os.stat_result) -> Iterator[bytes]:
    info = tarfile.TarInfo(path)
    info.mode, info.mtime = stat.S_IMODE(status.st_mode), int(status.st_mtime)
    if stat.S_ISDIR(status.st_mode):
        info.type = tarfile.DIRTYPE
    elif stat.S_ISLNK(status.st_mode):
        info.type, info.linkname = tarfile.SYMTYPE, os.fsdecode(file.readlink())
    elif stat.S_ISFIFO(status.st_mode):
        info.type = tarfile.FIFOTYPE
    elif not stat.S_ISREG(status.st_mode):
        return  # sockets and devices mean nothing elsewhere
    else:
        info.size = status.st_size
    yield info.tobuf(tarfile.PAX_FORMAT, "utf-8", "surrogateescape")
    if not info.size:
        return
    left = info.size
    with file.open("rb") as data:
        while left:
            chunk = data.read(min(left, CHUNK_BYTES // 2))
            if not chunk:
                raise InvalidArgument(f"{file} became shorter while it was read", hint="build again")
            left -= len(chunk)
            yield chunk
    yield bytes(-info.size % tarfile.BLOCKSIZE)
