"""What ADD does more than COPY: archives are unpacked, URLs are fetched."""

from __future__ import annotations

import bz2
import email.utils
import hashlib
import lzma
import os
import stat
import tarfile
import urllib.error
import urllib.parse
import urllib.request
from collections.abc import Iterator
from pathlib import Path
from typing import Protocol

from agent.build import sources
from agent.errors import InvalidArgument, StorageError
from agent.linux import remove
from agent.storage import tarstream, unpack

_CHUNK = 1 << 18
_TIMEOUT_S = 30.0
_MAGICS = (b"\x1f\x8b", b"BZh", b"\xfd7zXZ\x00", b"\x28\xb5\x2f\xfd")


class _Decompressor(Protocol):
    @property
    def eof(self) -> bool: ...
    def decompress(self, data: bytes, /) -> bytes: ...


def is_url(source: str) -> bool:
    return source.startswith(("http://", "https://"))


def is_archive(tree: int, path: str) -> bool:
    """Whether ADD unpacks it: a tar, plain or compressed, by its first bytes and not by its name."""
    fd = sources.open_path(tree, path, os.O_RDONLY | os.O_NONBLOCK)
    with open(fd, "rb") as file:
        if not stat.S_ISREG(os.fstat(fd).st_mode):
            return False
        head = file.read(tarfile.BLOCKSIZE)
        if not head.startswith(_MAGICS):
            return _is_tar(head)
        file.seek(0)
        try:
            return _is_tar(next(_plain(_chunks(fd)), b""))  # a compressed file that is no tar is copied
        except (StorageError, OSError, EOFError, lzma.LZMAError):
            return False


def unpack_archive(tree: int, path: str, place: Path) -> None:
    """Into the empty directory. Owners and modes are the archive's. Raises StorageError."""
    fd = sources.open_path(tree, path, os.O_RDONLY)
    try:
        unpack.layer(_plain(_chunks(fd)), place, whiteouts=False)
    except (OSError, EOFError, lzma.LZMAError) as exc:
        raise StorageError(f"cannot unpack {path}: {exc}") from exc
    finally:
        os.close(fd)


def remove_tree(path: Path) -> None:
    remove.tree(path)


def fetch(url: str, work: Path, checksum: str) -> Path:
    """A new directory in `work` that holds what was fetched, mode 600, under the URL's last name. `checksum`:
    "sha256:HEX" or "". Raises InvalidArgument, StorageError.
    """
    name = urllib.parse.unquote(urllib.parse.urlsplit(url).path.rpartition("/")[2])
    if not name or "/" in name or name in (".", ".."):
        raise InvalidArgument(f"{url} has no name for a file", hint="give a URL that ends with one")
    directory = work / f"fetched-{os.urandom(4).hex()}"
    directory.mkdir(mode=0o755)
    digest = hashlib.sha256()
    try:
        with urllib.request.urlopen(url, timeout=_TIMEOUT_S) as reply, (directory / name).open("xb") as file:  # noqa: S310  # http or https
            while chunk := reply.read(_CHUNK):
                digest.update(chunk)
                file.write(chunk)
            os.fchmod(file.fileno(), 0o600)
            when = reply.headers["Last-Modified"]
            modified = email.utils.parsedate_to_datetime(when).timestamp() if when else 0.0
    except (urllib.error.URLError, OSError, ValueError) as exc:
        raise StorageError(
            f"cannot fetch {url}: {exc}", hint="it is fetched by the agent: can its host reach it?"
        ) from exc
    os.utime(directory / name, (modified, modified))
    if checksum and checksum != f"sha256:{digest.hexdigest()}":
        raise StorageError(f"{url} has sha256:{digest.hexdigest()}, not {checksum}")
    return directory


def _is_tar(head: bytes) -> bool:
    try:
        tarfile.TarInfo.frombuf(head[: tarfile.BLOCKSIZE], "utf-8", "surrogateescape")
    except tarfile.HeaderError:
        return False
    return True


def _chunks(fd: int) -> Iterator[bytes]:
    while chunk := os.read(fd, _CHUNK):
        yield chunk


def _plain(chunks: Iterator[bytes]) -> Iterator[bytes]:
    head = next(chunks, b"")

    def whole() -> Iterator[bytes]:
        yield head
        yield from chunks

    if head.startswith(b"BZh"):
        yield from _decompress(whole(), bz2.BZ2Decompressor())
    elif head.startswith(b"\xfd7zXZ\x00"):
        yield from _decompress(whole(), lzma.LZMADecompressor())
    else:
        yield from tarstream.decompressed(whole())[1]


def _decompress(chunks: Iterator[bytes], one: _Decompressor) -> Iterator[bytes]:
    for chunk in chunks:
        if one.eof:
            return
        if plain := one.decompress(chunk):
            yield plain
    if not one.eof:
        raise StorageError("the archive stops in the middle")
