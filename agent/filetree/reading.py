"""Reads a tar that may be hostile, as a stream: plain, gzip, bzip2 or xz, told by how it begins."""

from __future__ import annotations

import bz2
import gzip
import lzma
import tarfile
import zlib
from collections.abc import Iterator
from typing import IO, Any, Protocol, Self, cast

from agent.filetree.paths import Misfit

# What the parser lets through when a header is damaged or hostile.
DAMAGED = (tarfile.TarError, ValueError, LookupError, OverflowError, EOFError, RecursionError)
_MAGIC_BYTES = 6
_LARGEST_HEADER = 16 << 20  # one with names and extended attributes: more than this is an attack on our memory
_HEADERS = (
    tarfile.XHDTYPE,
    tarfile.XGLTYPE,
    tarfile.SOLARIS_XHDTYPE,
    tarfile.GNUTYPE_LONGNAME,
    tarfile.GNUTYPE_LONGLINK,
)
_BUFFER_BYTES = 1 << 17
_CHUNK_BYTES = 1 << 20


class Stream(Protocol):
    """What is needed of a file. `read` may give less than was asked for, and b"" only at the end."""

    def read(self, size: int, /) -> bytes: ...


def members(tar: Stream) -> Iterator[tuple[tarfile.TarFile, tarfile.TarInfo]]:
    """Each member, and the archive that its data can be taken from before the next one is asked for. Reads to the end of `tar`.

    Raises Misfit for what is no tar or a damaged one, and what `tar` raises. No bytes at all are a tar of nothing.
    """
    begin = b""
    while len(begin) < _MAGIC_BYTES and (more := tar.read(tarfile.BLOCKSIZE)):
        begin += more
    if not begin:
        return
    whole = _Whole(begin, tar)
    # Not `for member in archive`: that takes a damaged header in the middle for the end.
    try:
        archive = tarfile.TarFile.open(  # `tar` is the caller's
            fileobj=_plain(begin, whole),
            mode="r|",
            bufsize=_BUFFER_BYTES,
            errorlevel=2,
            encoding="utf-8",
            errors="surrogateescape",
            tarinfo=_Header,
        )
        member: tarfile.TarInfo | None = archive.firstmember  # type: ignore[attr-defined]  # typeshed lacks it
        stream = archive.fileobj
        assert stream is not None
        while member is not None:
            yield archive, member
            archive.members.clear()  # type: ignore[attr-defined]  # a tar of a million files is not to be kept in memory
            stream.seek(archive.offset)  # over what nobody has read
            try:
                member = _Header.fromtarfile(archive)
            except (tarfile.EOFHeaderError, tarfile.EmptyHeaderError):  # type: ignore[attr-defined]  # typeshed lacks them
                member = None
    except DAMAGED as exc:
        raise Misfit(f"this is no tar, or a damaged one: {exc}") from exc
    while whole.read(_CHUNK_BYTES):  # what follows the mark of the end
        pass


class _Header(tarfile.TarInfo):
    """Of a size that can be held in memory."""

    def _proc_member(self, archive: tarfile.TarFile) -> Self:
        if self.type in _HEADERS and self.size > _LARGEST_HEADER:
            raise tarfile.ReadError(f"a header of {self.size} bytes")
        return super()._proc_member(archive)  # type: ignore[misc,no-any-return]  # typeshed lacks it


class _Whole:
    """A stream of which the beginning has been read."""

    def __init__(self, begin: bytes, rest: Stream) -> None:
        self._begin, self._rest = begin, rest

    def read(self, size: int) -> bytes:
        begin, self._begin = self._begin[:size], self._begin[size:]
        return begin or self._rest.read(size)


class _Decompressed:
    """What goes wrong with the compression, as a Misfit; what goes wrong with the stream below, as it is."""

    def __init__(self, file: Any) -> None:
        self._file = file

    def read(self, size: int) -> bytes:
        try:
            return cast(bytes, self._file.read1(size))
        except (zlib.error, lzma.LZMAError, EOFError) as exc:
            raise Misfit(f"the compressed tar is damaged: {exc}") from exc
        except OSError as exc:  # gzip's and bz2's own have no number
            if exc.errno is not None:
                raise
            raise Misfit(f"the compressed tar is damaged: {exc}") from exc


def _plain(begin: bytes, whole: Stream) -> IO[bytes]:
    below = cast(IO[bytes], whole)
    if begin.startswith(b"\x1f\x8b"):
        return cast(IO[bytes], _Decompressed(gzip.GzipFile(fileobj=below)))
    if begin.startswith(b"BZh"):
        return cast(IO[bytes], _Decompressed(bz2.BZ2File(below)))
    if begin.startswith(b"\xfd7zXZ\x00"):
        return cast(IO[bytes], _Decompressed(lzma.LZMAFile(below)))
    return below
