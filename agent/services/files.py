"""gRPC service Files: unpack, call, pack."""

from __future__ import annotations

from collections.abc import Iterator

import grpc

from agent.build.commit import Committer, Wanted
from agent.engine.container import Engine
from agent.engine.files import Files, Reading
from agent.errors import InvalidArgument
from agent.filetree.paths import Source
from agent.filetree.place import Owner
from agent.services import convert, streams
from agent.storage.images import ImageStore
from protos import agent_pb2 as pb
from protos import agent_pb2_grpc, types_pb2

CHANGES = 1000  # in one message


class FilesService(agent_pb2_grpc.FilesServicer):
    """The files of this host's containers."""

    def __init__(self, engine: Engine, images: ImageStore, host: str) -> None:
        self._files, self._committer, self._host = Files(engine), Committer(engine, images), host

    def CopyOut(self, request: pb.CopyOutRequest, context: grpc.ServicerContext) -> Iterator[pb.FileChunk]:
        container_id = convert.container_id(request.id)
        with self._files.copy_out(container_id, request.path, follow=request.follow) as reading:
            yield pb.FileChunk(source=source_to_proto(reading.source))
            yield from _streamed(reading, context)

    def Export(self, request: pb.ExportRequest, context: grpc.ServicerContext) -> Iterator[pb.FileChunk]:
        with self._files.export(convert.container_id(request.id)) as reading:
            yield from _streamed(reading, context)

    def CopyIn(self, request_iterator: Iterator[pb.CopyInChunk], context: grpc.ServicerContext) -> pb.CopyInResponse:
        first = next(request_iterator, None)
        if first is None or not first.HasField("start"):
            raise InvalidArgument("a copy begins with where it goes")
        start = first.start
        source = Source(name=start.source.name, mode=start.source.mode) if start.HasField("source") else None
        if source is not None and (not source.name or b"/" in source.name):
            raise InvalidArgument(f"{source.name!r} is no name of a file")
        placed = self._files.copy_in(
            convert.container_id(start.id),
            start.path,
            source,
            Owner.TAR if start.keep_owner else Owner.ROOT,
            streams.whole(request_iterator, "copy", hint="copy it again"),
        )
        return pb.CopyInResponse(files=placed.files, skipped=placed.skipped, skipped_count=placed.skipped_count)

    def Diff(self, request: pb.DiffRequest, context: grpc.ServicerContext) -> Iterator[pb.DiffChunk]:
        found = self._committer.diff(convert.container_id(request.id))
        for first in range(0, len(found), CHANGES):
            changes = [pb.PathChange(kind=one.kind, path=one.path) for one in found[first : first + CHANGES]]
            yield pb.DiffChunk(changes=changes)

    def Commit(self, request: pb.CommitRequest, context: grpc.ServicerContext) -> types_pb2.Image:
        wanted = Wanted(
            name=request.name,
            author=request.author,
            message=request.message,
            changes=tuple(request.changes),
            running=request.running,
        )
        image = self._committer.commit(convert.container_id(request.id), wanted)
        return convert.image_to_proto(image, self._host)

    def Root(self, request: pb.RootRequest, context: grpc.ServicerContext) -> pb.RootResponse:
        return pb.RootResponse(path=str(self._files.root(convert.container_id(request.id))), host=self._host)


def source_to_proto(source: Source) -> pb.PathStat:
    return pb.PathStat(
        name=source.name,
        mode=source.mode,
        size=source.size,
        mtime_unix_ns=source.mtime_ns,
        link_target=source.link_target,
    )


def _streamed(reading: Reading, context: grpc.ServicerContext) -> Iterator[pb.FileChunk]:
    """Ends, with its process, when the caller has gone."""
    if not context.add_callback(reading.cut):
        return
    size = 0
    for data in reading:
        size += len(data)
        yield pb.FileChunk(data=data)
    yield pb.FileChunk(end=size)
