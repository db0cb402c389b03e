"""The client library's calls about images; part of migrate.client.Client."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import Any, BinaryIO

from migrate import records, wire
from migrate.errors import InvalidArgument, MigrateError
from migrate.records import Image, RemovedImages
from protos import agent_pb2, coordinator_pb2, coordinator_pb2_grpc

QUICK_S = 30.0  # deadline of calls that change nothing, or little
LONG_S = 600.0  # of calls that move bytes on a host
CHUNK_BYTES = 1 << 20


class ImageCalls:
    """What a client asks about images. `host` "" = every host."""

    _fleet: coordinator_pb2_grpc.FleetStub

    def _call(self, method: Any, request: Any, timeout_s: float | None) -> Any:
        raise NotImplementedError  # the client's

    def import_image(
        self, file: BinaryIO, name: str, *, host: str = "", defaults: records.ImageDefaults | None = None
    ) -> list[Image]:
        """Read a tar (plain, gzip or zstd) from `file` and import it on `host`, or on every host at the same time."""
        config = wire.image_config(defaults or records.ImageDefaults())
        unreadable: list[OSError] = []

        def chunks() -> Iterator[coordinator_pb2.ImportImageChunk]:
            start = coordinator_pb2.ImportImageStart(name=name, config=config, host=host)
            yield coordinator_pb2.ImportImageChunk(start=start)
            size = 0
            try:
                while data := file.read(CHUNK_BYTES):
                    size += len(data)
                    yield coordinator_pb2.ImportImageChunk(data=data)
            except OSError as exc:
                unreadable.append(exc)  # in gRPC's thread, which tells nobody why
                raise
            yield coordinator_pb2.ImportImageChunk(end=size)

        try:
            return [wire.image(one) for one in self._call(self._fleet.ImportImage, chunks(), None).images]
        except MigrateError as exc:
            if unreadable:
                raise InvalidArgument(f"cannot read the image: {unreadable[0]}") from exc
            raise

    def images(self) -> list[Image]:
        """Every image of every host that can be reached."""
        reply = self._call(self._fleet.ListImages, coordinator_pb2.HostsRequest(), QUICK_S)
        return [wire.image(one) for one in reply.images]

    def inspect_image(self, name: str, *, host: str = "") -> list[Image]:
        """The image as each host has it, with its config document. NotFound where none has."""
        request = agent_pb2.InspectImageRequest(name=name, host=host)
        return [wire.image(one) for one in self._call(self._fleet.InspectImage, request, QUICK_S).images]

    def tag_image(self, name: str, tag: str, *, host: str = "") -> list[Image]:
        """Another name for the image, on each host that has it; a name that is taken moves."""
        request = agent_pb2.TagImageRequest(name=name, tag=tag, host=host)
        return [wire.image(one) for one in self._call(self._fleet.TagImage, request, QUICK_S).images]

    def remove_image(self, name: str, *, host: str = "", force: bool = False) -> RemovedImages:
        """From `host` or from every host that has it. WrongState where a container uses it, but with `force`."""
        request = coordinator_pb2.RemoveImageFromRequest(name=name, host=host, force=force)
        reply = self._call(self._fleet.RemoveImage, request, LONG_S)
        return RemovedImages(
            untagged=tuple(reply.untagged), deleted=tuple(reply.deleted), layers=tuple(reply.removed), host=host
        )

    def prune_images(
        self, *, all: bool = False, before_unix_ns: int = 0, labels: Iterable[str] = (), host: str = ""
    ) -> list[RemovedImages]:
        """Remove untagged images, with `all` every image, that no container uses, and layers that nothing names."""
        request = agent_pb2.PruneImagesRequest(all=all, before_unix_ns=before_unix_ns, labels=labels, host=host)
        return [
            RemovedImages(
                untagged=tuple(one.untagged),
                deleted=tuple(one.deleted),
                layers=tuple(one.layers),
                freed_bytes=one.freed_bytes,
                host=one.host,
            )
            for one in self._call(self._fleet.PruneImages, request, LONG_S).hosts
        ]
