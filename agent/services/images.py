"""gRPC service Images: unpack, call the store, pack."""

from __future__ import annotations

from collections.abc import Iterator

import grpc

from agent.engine.container import Engine
from agent.errors import InvalidArgument, TransferError, WrongState
from agent.services import convert
from agent.storage.images import ImageStore
from protos import agent_pb2 as pb
from protos import agent_pb2_grpc, types_pb2


class ImagesService(agent_pb2_grpc.ImagesServicer):
    """This host's images."""

    def __init__(self, store: ImageStore, engine: Engine, host: str) -> None:
        self._store, self._engine, self._host = store, engine, host

    def Import(self, request_iterator: Iterator[pb.ImportChunk], context: grpc.ServicerContext) -> types_pb2.Image:
        first = next(request_iterator, None)
        if first is None or not first.HasField("start"):
            raise InvalidArgument("an import begins with the image's name")
        config = convert.config_from_proto(first.start.config)
        image = self._store.import_tar(first.start.name, config, _whole(request_iterator))
        return convert.image_to_proto(image, self._host)

    def List(self, request: pb.ListImagesRequest, context: grpc.ServicerContext) -> pb.ListImagesResponse:
        return pb.ListImagesResponse(images=[convert.image_to_proto(i, self._host) for i in self._store.list()])

    def Inspect(self, request: pb.InspectImageRequest, context: grpc.ServicerContext) -> types_pb2.Image:
        return convert.image_to_proto(self._store.get(request.name), self._host)

    def Remove(self, request: pb.RemoveImageRequest, context: grpc.ServicerContext) -> pb.RemoveImageResponse:
        """`force` takes the name away though containers use the image; they keep their layers in any case."""
        specs = [status.spec for status in self._engine.list()]
        digest = self._store.get(request.name).digest
        users = sorted(spec.name for spec in specs if spec.image_digest == digest)
        if users and not request.force:
            raise WrongState(
                f"image {request.name} is used by {', '.join(users)}",
                hint="remove the containers first, or use --force: they run on",
            )
        self._store.remove(request.name, request.force)
        return pb.RemoveImageResponse(removed=self._store.gc({layer for spec in specs for layer in spec.layers}))


def _whole(chunks: Iterator[pb.ImportChunk]) -> Iterator[bytes]:
    """The archive's bytes. A call that was cut off can look like one that has ended: the sender says where the end is."""
    size = 0
    for chunk in chunks:
        if chunk.HasField("end"):
            if chunk.end != size:
                raise TransferError(f"{size} bytes of the archive arrived, {chunk.end} were sent", touched="nothing")
            return
        size += len(chunk.data)
        yield chunk.data
    raise TransferError(f"the archive was cut off after {size} bytes", hint="import it again", touched="nothing")
