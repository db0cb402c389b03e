"""The client library's calls about images; part of migrate.client.Client."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any, BinaryIO

from migrate import records, wire
from migrate.errors import InvalidArgument, MigrateError, Unreachable
from protos import agent_pb2, coordinator_pb2, coordinator_pb2_grpc

if TYPE_CHECKING:
    from migrate.records import Image, ImageEvent, RemovedImages

QUICK_S = 30.0  # deadline of calls that change nothing, or little
LONG_S = 600.0  # of calls that move bytes on a host
CHUNK_BYTES = 1 << 20


class ImageCalls:
    """What a client asks about images. `host` "" = every host."""

    _fleet: coordinator_pb2_grpc.FleetStub

    def _call(self, method: Any, request: Any, timeout_s: float | None) -> Any:
        raise NotImplementedError  # the client's

    def _stream(self, method: Any, request: Any) -> Iterator[Any]:
        raise NotImplementedError  # the client's

    def import_image(
        self,
        file: BinaryIO,
        name: str,
        *,
        host: str = "",
        defaults: records.ImageDefaults | None = None,
        created_by: str = "",
    ) -> list[Image]:
        """Read a tar (plain, gzip or zstd) from `file` and import it on `host`, or on every host at the same time.

        `created_by`: the one line of the image's history.
        """
        config = wire.image_config(defaults or records.ImageDefaults())
        start = coordinator_pb2.ImportImageStart(name=name, config=config, host=host, created_by=created_by)
        upload = _Upload(file, start)
        with upload.explained():
            return [wire.image(one) for one in self._call(self._fleet.ImportImage, upload.chunks(), None).images]

    def load_images(self, file: BinaryIO, *, name: str = "", host: str = "") -> Iterator[ImageEvent]:
        """Read an archive of images from `file` (docker-archive or OCI layout) on `host`, or on every host.

        `name`: of an image that the archive does not name. Yields progress and images as they come.
        """
        upload = _Upload(file, coordinator_pb2.ImportImageStart(name=name, host=host))
        with upload.explained():
            yield from map(wire.image_event, self._stream(self._fleet.LoadImages, upload.chunks()))

    def save_images(self, names: Iterable[str], *, host: str = "") -> Iterator[bytes | int]:
        """An archive of the images: first about how many bytes will come, then the bytes. Unreachable if it is cut."""
        size = 0
        for chunk in self._stream(self._fleet.SaveImages, agent_pb2.SaveImagesRequest(names=names, host=host)):
            kind = chunk.WhichOneof("kind")
            if kind == "total_bytes":
                yield int(chunk.total_bytes)
            elif kind == "data":
                size += len(chunk.data)
                yield chunk.data
            elif chunk.end == size:
                return
        raise Unreachable(f"the archive was cut off after {size} bytes", hint="save it again", touched="nothing")

    def pull_image(
        self, name: str, *, access: records.RegistryAccess | None = None, host: str = ""
    ) -> Iterator[ImageEvent]:
        """Get an image from a registry on `host`, or on every host. Yields progress and images as they come."""
        request = agent_pb2.PullImageRequest(name=name, access=wire.registry_access(access), host=host)
        yield from map(wire.image_event, self._stream(self._fleet.PullImage, request))

    def push_image(
        self, name: str, *, destination: str = "", access: records.RegistryAccess | None = None, host: str = ""
    ) -> Iterator[ImageEvent]:
        """Send an image to a registry as `destination`, "" = as it is called. Yields progress and at the end its digest."""
        request = agent_pb2.PushImageRequest(
            name=name, destination=destination, access=wire.registry_access(access), host=host
        )
        yield from map(wire.image_event, self._stream(self._fleet.PushImage, request))

    def try_login(
        self,
        registry: str,
        username: str,
        password: str,
        *,
        access: records.RegistryAccess | None = None,
        host: str = "",
    ) -> None:
        """Let a host try user and password at the registry. Refused: code "registry.denied"."""
        request = agent_pb2.LoginRequest(
            registry=registry,
            username=username,
            password=password.encode(),
            access=wire.registry_access(access),
            host=host,
        )
        self._call(self._fleet.RegistryLogin, request, QUICK_S * 3)

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
        return records.RemovedImages(
            untagged=tuple(reply.untagged), deleted=tuple(reply.deleted), layers=tuple(reply.removed), host=host
        )

    def prune_images(
        self, *, all: bool = False, before_unix_ns: int = 0, labels: Iterable[str] = (), host: str = ""
    ) -> list[RemovedImages]:
        """Remove untagged images, with `all` every image, that no container uses, and layers that nothing names."""
        request = agent_pb2.PruneImagesRequest(all=all, before_unix_ns=before_unix_ns, labels=labels, host=host)
        return [
            records.RemovedImages(
                untagged=tuple(one.untagged),
                deleted=tuple(one.deleted),
                layers=tuple(one.layers),
                freed_bytes=one.freed_bytes,
                host=one.host,
            )
            for one in self._call(self._fleet.PruneImages, request, LONG_S).hosts
        ]


class _Upload:
    """A file as a stream of chunks."""

    def __init__(self, file: BinaryIO, start: coordinator_pb2.ImportImageStart) -> None:
        self._file, self._start = file, start
        self._unreadable: OSError | None = None

    def chunks(self) -> Iterator[coordinator_pb2.ImportImageChunk]:
        yield coordinator_pb2.ImportImageChunk(start=self._start)
        size = 0
        try:
            while data := self._file.read(CHUNK_BYTES):
                size += len(data)
                yield coordinator_pb2.ImportImageChunk(data=data)
        except OSError as exc:
            self._unreadable = exc  # in gRPC's thread, which tells nobody why
            raise
        yield coordinator_pb2.ImportImageChunk(end=size)

    @contextmanager
    def explained(self) -> Iterator[None]:
        """Where the call failed because the file could not be read, say so."""
        try:
            yield
        except MigrateError as exc:
            if self._unreadable is not None:
                raise InvalidArgument(f"cannot read the image: {self._unreadable}") from exc
            raise
