"""Reads a layer as a stream: finds the compression by its magic, hashes both sides, yields the members of the tar.

Nothing here touches a file system; `unpack` turns members into files.
"""

from __future__ import annotations

import gzip
import io
import tarfile
import zlib
from collections.abc import Iterator
from typing import IO, Protocol, cast

import zstandard

from agent.errors import StorageError

_BLOCK = 512
_CHUNK = 1 << 18
_LARGEST_HEADER = 16 << 20  # a pax header holds names and xattrs: more than this is an attack on our memory
_GZIP_MAGIC = b"\x1f\x8b"
_ZSTD_MAGIC = b"\x28\xb5\x2f\xfd"

MEDIA_TAR = "application/vnd.oci.image.layer.v1.tar"
MEDIA_GZIP = MEDIA_TAR + "+gzip"
MEDIA_ZSTD = MEDIA_TAR + "+zstd"


class Hash(Protocol):
    """What hashlib's constructors return."""

    def update(self, data: bytes, /) -> None: ...


class ChunkReader(io.RawIOBase):
    """File-like view of an iterator of chunks, for the decompressors."""

    def __init__(self, chunks: Iterator[bytes]) -> None:
        super().__init__()
        self._chunks = chunks
        self._rest = memoryview(b"")

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: memoryview) -> int:  # type: ignore[override]  # typeshed: WriteableBuffer
        while not self._rest:
            chunk = next(self._chunks, None)
            if chunk is None:
                return 0
            self._rest = memoryview(chunk)
        count = min(len(buffer), len(self._rest))
        buffer[:count] = self._rest[:count]
        self._rest = self._rest[count:]
        return count


def decompressed(chunks: Iterator[bytes]) -> tuple[str, Iterator[bytes]]:
    """The media type of what comes, told by its first bytes, and the plain tar that is in it."""
    head = b""
    for chunk in chunks:
        head += chunk
        if len(head) >= len(_ZSTD_MAGIC):
            break
    whole = _prepend(head, chunks)
    if head.startswith(_GZIP_MAGIC):
        return MEDIA_GZIP, _gunzip(ChunkReader(whole))
    if head.startswith(_ZSTD_MAGIC):
        return MEDIA_ZSTD, _unzstd(ChunkReader(whole))
    return MEDIA_TAR, whole


def hashed(chunks: Iterator[bytes], digest: Hash) -> Iterator[bytes]:
    """The same chunks; `digest` has seen each one before it is yielded."""
    for chunk in chunks:
        digest.update(chunk)
        yield chunk


class Members:
    """The members of a plain tar that comes as chunks. A member's data is skipped unless read with `data`."""

    def __init__(self, chunks: Iterator[bytes]) -> None:
        self._stream = _Forward(chunks)
        self._archive: tarfile.TarFile | None = None

    def __iter__(self) -> Iterator[tarfile.TarInfo]:
        # Not `for member in archive`: that takes a damaged header in the middle for the end.
        try:
            if not self._stream.at_end_mark():
                archive = self._archive = tarfile.TarFile(fileobj=cast(IO[bytes], self._stream), errorlevel=2)
                member = archive.next()
                while member is not None:
                    yield member
                    self._stream.seek(archive.offset)
                    member = None if self._stream.at_end_mark() else tarfile.TarInfo.fromtarfile(archive)
        # The parser lets these through when a damaged or hostile header makes its arithmetic fail.
        except (tarfile.TarError, ValueError, IndexError, OverflowError, RecursionError) as exc:
            raise StorageError(f"not a tar, or damaged at byte {self._stream.tell()}: {exc}") from exc
        self._stream.drain()  # so that the digest covers the padding too

    def data(self, member: tarfile.TarInfo) -> Iterator[tuple[int, memoryview]]:
        """The member's data as (offset in the file, bytes); what is not yielded is a hole."""
        self._stream.seek(member.offset_data)
        assert self._archive is not None
        end = self._archive.offset
        sparse = cast("list[tuple[int, int]] | None", getattr(member, "sparse", None))
        for offset, length in sparse if sparse is not None else [(0, member.size)]:
            if offset < 0 or length < 0 or offset + length > member.size or self._stream.tell() + length > end:
                raise StorageError(f"{member.name!r}: its map of holes leaves the file")
            for piece in self._stream.pieces(length):
                yield offset, piece
                offset += len(piece)


class _Forward:
    """What tarfile needs of a file, on top of an iterator: it can only go forward."""

    def __init__(self, chunks: Iterator[bytes]) -> None:
        self._chunks = chunks
        self._rest = memoryview(b"")
        self._position = 0

    def tell(self) -> int:
        return self._position

    def seek(self, position: int) -> None:
        if position < self._position:
            raise self._damaged(f"it points back to byte {position}")
        for _ in self.pieces(position - self._position):
            pass

    def read(self, size: int) -> bytes:
        """At most `size` bytes, fewer at the end."""
        if not 0 <= size <= _LARGEST_HEADER:
            raise self._damaged(f"it has a header of {size} bytes")
        if size <= len(self._rest):
            return bytes(self._take(size))
        parts = []
        while size and self._fill():
            part = self._take(size)
            parts.append(part)
            size -= len(part)
        return b"".join(parts)

    def at_end_mark(self) -> bool:
        """Whether the next block, still to be read, is the one of zeros that ends every tar."""
        while len(self._rest) < _BLOCK:
            chunk = next(self._chunks, None)
            if chunk is None:
                raise self._damaged("it stops without the mark of its end")
            self._rest = memoryview(bytes(self._rest) + chunk)
        return bytes(self._rest[:_BLOCK]).count(0) == _BLOCK

    def pieces(self, size: int) -> Iterator[memoryview]:
        """Exactly `size` bytes."""
        while size:
            if not self._fill():
                raise self._damaged("it stops in the middle of a file")
            part = self._take(size)
            size -= len(part)
            yield part

    def drain(self) -> None:
        while self._fill():
            self._take(len(self._rest))

    def _fill(self) -> bool:
        while not self._rest:
            chunk = next(self._chunks, None)
            if chunk is None:
                return False
            self._rest = memoryview(chunk)
        return True

    def _damaged(self, what: str) -> StorageError:
        return StorageError(f"not a tar, or damaged at byte {self._position}: {what}")

    def _take(self, size: int) -> memoryview:
        part, self._rest = self._rest[:size], self._rest[size:]
        self._position += len(part)
        return part


def _prepend(head: bytes, chunks: Iterator[bytes]) -> Iterator[bytes]:
    if head:
        yield head
    yield from chunks


def _gunzip(source: ChunkReader) -> Iterator[bytes]:
    with gzip.GzipFile(fileobj=cast(IO[bytes], io.BufferedReader(source, _CHUNK))) as file:
        try:
            while chunk := file.read(_CHUNK):
                yield chunk
        except (EOFError, gzip.BadGzipFile, zlib.error) as exc:
            raise StorageError(f"the gzip stream is damaged: {exc}") from exc


def _unzstd(source: ChunkReader) -> Iterator[bytes]:
    with zstandard.ZstdDecompressor().stream_reader(cast(IO[bytes], source), read_across_frames=True) as file:
        try:
            while chunk := file.read(_CHUNK):
                yield chunk
        except zstandard.ZstdError as exc:
            raise StorageError(f"the zstd stream is damaged: {exc}") from exc
