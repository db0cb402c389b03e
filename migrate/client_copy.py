"""This machine's end of `migrate cp`: its files as a tar, and a tar as its files. What comes from a container is taken for hostile."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, cast

from agent.filetree import pack, paths, place
from migrate.errors import InvalidArgument, MigrateError, NotFound, Unreachable
from migrate.records_files import Copied
from protos import agent_pb2


def receive(
    chunks: Iterator[agent_pb2.FileChunk], destination: str | Path, *, archive: bool, progress: Callable[[int], None]
) -> Copied:
    """Place what comes, by the rules of `docker cp`. `archive`: with the ids that the tar says. Raises MigrateError."""
    owner = place.Owner.TAR if archive else place.Owner.MINE
    try:
        reading = _Reading(chunks, progress)
        source = reading.source()
        with _local(), _root() as root, paths.destination(root, _absolute(destination), source) as where:
            placed = place.members(reading, where, owner)
    finally:
        cast(Any, chunks).close()  # a generator: ends the call
    return Copied(
        bytes=reading.size, files=placed.files, skipped=tuple(placed.skipped), skipped_count=placed.skipped_count
    )


@contextmanager
def packed(source: str | Path, *, follow: bool) -> Iterator[tuple[paths.Source, Iterator[bytes]]]:
    """What `source` is, and its tar; `follow`: a link at its end. Raises MigrateError."""
    with _local(), _root() as root:
        located, what = paths.source(root, _absolute(source), follow=follow)
        with located:
            yield what, _explaining(pack.tree(located.parent, located.name, what.name))


class _Reading:
    """The chunks as a stream to be read once. Unreachable where they are cut off."""

    def __init__(self, chunks: Iterator[agent_pb2.FileChunk], progress: Callable[[int], None]) -> None:
        self._progress = progress
        self.size = 0
        self._chunks = chunks
        self._rest = memoryview(b"")
        self._ended = False

    def source(self) -> paths.Source:
        """What is copied; before anything else."""
        first = next(self._chunks, None)
        if first is None or not first.HasField("source"):
            raise Unreachable("the copy does not say what it is", hint="copy it again")
        found = first.source
        return paths.Source(name=found.name, mode=found.mode, size=found.size, link_target=found.link_target)

    def read(self, size: int, /) -> bytes:
        rest = self._rest or memoryview(self._next())
        self._rest = rest[size:]
        return bytes(rest[:size])

    def _next(self) -> bytes:
        """b"" at the end."""
        while not self._ended:
            chunk = next(self._chunks, None)
            if chunk is None or (chunk.HasField("end") and chunk.end != self.size):
                raise Unreachable(f"the copy was cut off after {self.size} bytes", hint="copy it again")
            if chunk.HasField("end"):
                self._ended = True
            elif chunk.data:
                self.size += len(chunk.data)
                self._progress(len(chunk.data))
                return bytes(chunk.data)
        return b""


@contextmanager
def _local() -> Iterator[None]:
    """What goes wrong with this machine's files, in the library's own errors."""
    try:
        yield
    except paths.Misfit as exc:
        raise InvalidArgument(str(exc)) from exc
    except OSError as exc:
        raise _explained(exc) from exc


def _explaining(tar: Iterator[bytes]) -> Iterator[bytes]:
    with _local():
        yield from tar


@contextmanager
def _root() -> Iterator[int]:
    fd = os.open("/", os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        yield fd
    finally:
        os.close(fd)


def _explained(exc: OSError) -> MigrateError:
    name = os.fsdecode(exc.filename) if isinstance(exc.filename, bytes) else exc.filename
    where = f": {name}" if name else ""
    kind: Callable[[str], MigrateError] = NotFound if isinstance(exc, FileNotFoundError) else InvalidArgument
    return kind(f"on this machine: {exc.strerror or exc}{where}")


def _absolute(path: str | Path) -> bytes:
    """With what its end says ("dir/.") kept."""
    return os.path.join(os.fsencode(os.getcwd()), os.fsencode(path))  # noqa: PTH109, PTH118  # pathlib drops the end
