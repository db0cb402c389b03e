"""The client library's calls about a container's files; part of migrate.client.Client."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

from migrate import wire
from migrate.errors import MigrateError, Unreachable
from migrate.records_files import Copied, FileChange, Rootfs
from protos import agent_pb2, coordinator_pb2_grpc

if TYPE_CHECKING:
    from migrate.records import Image

QUICK_S = 30.0


class FileCalls:
    """What a client asks about files of containers. A path in a container that does not begin with / is taken from its root."""

    _files: coordinator_pb2_grpc.FleetFilesStub

    def _call(self, method: Any, request: Any, timeout_s: float | None) -> Any:
        raise NotImplementedError  # the client's

    def _stream(self, method: Any, request: Any) -> Iterator[Any]:
        raise NotImplementedError  # the client's

    def copy_from(
        self,
        name: str,
        path: str,
        destination: str | Path,
        *,
        follow: bool = False,
        archive: bool = False,
        progress: Callable[[int], None] = lambda _count: None,
    ) -> Copied:
        """Copy a file or a directory of the container to this machine, by the rules of `docker cp`.

        `follow`: a link at the end of `path`. `archive`: with the container's numbers of users and groups; else all is the caller's.
        `progress`: is told of bytes as they come.
        """
        from migrate import client_copy  # here: most commands need none of what it imports

        chunks = self._stream(self._files.CopyOut, _copy_out(name, path, follow))
        return client_copy.receive(chunks, destination, archive=archive, progress=progress)

    def read_tar(self, name: str, path: str, *, follow: bool = False) -> Iterator[bytes]:
        """A file or a directory of the container as a tar, in pieces."""
        return _tar(self._stream(self._files.CopyOut, _copy_out(name, path, follow)))

    def copy_to(
        self,
        name: str,
        source: str | Path,
        path: str,
        *,
        follow: bool = False,
        archive: bool = False,
        progress: Callable[[int], None] = lambda _count: None,
    ) -> Copied:
        """Copy a file or a directory of this machine to the container, by the rules of `docker cp`.

        `follow`: a link at the end of `source`. `archive`: with this machine's numbers of users and groups; else all is root's.
        `progress`: is told of bytes as they go.
        """
        from migrate import client_copy  # here: most commands need none of what it imports

        with client_copy.packed(source, follow=follow) as (what, tar):
            start = agent_pb2.CopyInStart(id=name, path=os.fsencode(path), keep_owner=archive)
            start.source.CopyFrom(agent_pb2.PathStat(name=what.name, mode=what.mode, size=what.size))
            return self._copy_in(start, tar, progress)

    def write_tar(self, name: str, path: str, tar: Iterable[bytes]) -> Copied:
        """Unpack a tar (plain or gzip, bzip2, xz) into a directory of the container, with the ids that it says."""
        return self._copy_in(agent_pb2.CopyInStart(id=name, path=os.fsencode(path), keep_owner=True), tar)

    def diff(self, name: str) -> list[FileChange]:
        """What the container has changed in its files, by path."""
        chunks = self._stream(self._files.Diff, agent_pb2.DiffRequest(id=name))
        return [FileChange(kind=one.kind, path=os.fsdecode(one.path)) for chunk in chunks for one in chunk.changes]

    def export(self, name: str) -> Iterator[bytes]:
        """All files of the container as a tar, in pieces, without volumes and what else is mounted in it."""
        return _tar(self._stream(self._files.Export, agent_pb2.ExportRequest(id=name)))

    def commit(
        self,
        name: str,
        image: str = "",
        *,
        author: str = "",
        message: str = "",
        changes: Iterable[str] = (),
        pause: bool = True,
    ) -> Image:
        """Make an image of the container, on its host. `changes`: instructions of a Dockerfile ('CMD ["/bin/sh"]')."""
        request = agent_pb2.CommitRequest(
            id=name, name=image, author=author, message=message, changes=changes, running=not pause
        )
        return wire.image(self._call(self._files.Commit, request, None))

    def rootfs(self, name: str) -> Rootfs:
        """Where the files of a running container are on its host."""
        reply = self._call(self._files.Root, agent_pb2.RootRequest(id=name), QUICK_S)
        return Rootfs(host=reply.host, path=reply.path)

    def _copy_in(
        self,
        start: agent_pb2.CopyInStart,
        tar: Iterable[bytes],
        progress: Callable[[int], None] = lambda _count: None,
    ) -> Copied:
        size = 0
        failed: list[Exception] = []

        def chunks() -> Iterator[agent_pb2.CopyInChunk]:
            nonlocal size
            yield agent_pb2.CopyInChunk(start=start)
            try:
                for data in tar:
                    size += len(data)
                    progress(len(data))
                    yield agent_pb2.CopyInChunk(data=data)
            except (OSError, MigrateError) as exc:
                failed.append(exc)  # in gRPC's thread, which tells nobody why
                raise
            yield agent_pb2.CopyInChunk(end=size)

        try:
            reply = self._call(self._files.CopyIn, chunks(), None)
        except MigrateError as exc:
            if failed:
                raise failed[0] from exc
            raise
        return Copied(bytes=size, files=reply.files, skipped=tuple(reply.skipped), skipped_count=reply.skipped_count)


def _copy_out(name: str, path: str, follow: bool) -> agent_pb2.CopyOutRequest:
    return agent_pb2.CopyOutRequest(id=name, path=os.fsencode(path), follow=follow)


def _tar(chunks: Iterator[agent_pb2.FileChunk]) -> Iterator[bytes]:
    """What is in the chunks. Unreachable where it is cut off."""
    size = 0
    for chunk in chunks:
        if chunk.HasField("end"):
            if chunk.end == size:
                return
            break
        if chunk.HasField("data"):
            size += len(chunk.data)
            yield chunk.data
    raise Unreachable(f"the tar was cut off after {size} bytes", hint="do it again", touched="nothing")
