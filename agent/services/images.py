"""gRPC service Images: unpack, call the store, pack."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterator
from contextlib import contextmanager

import grpc

from agent.build.cache import Cache
from agent.engine.container import Engine
from agent.engine.spec import ContainerSpec
from agent.errors import InvalidArgument, NotFound, WrongState
from agent.services import convert, image_events, streams
from agent.storage import ingest, names, registry, save, skopeo
from agent.storage.archive import Archive
from agent.storage.images import Forgotten, Image, ImageStore
from agent.storage.ingest import Report
from protos import agent_pb2 as pb
from protos import agent_pb2_grpc, types_pb2


class ImagesService(agent_pb2_grpc.ImagesServicer):
    """This host's images."""

    def __init__(self, store: ImageStore, engine: Engine, host: str, *, cache: Cache) -> None:
        """`cache`: of builds; its layers stay until `prune --all`."""
        self._store, self._engine, self._host, self._cache = store, engine, host, cache

    # ------------------------------------------------------------ make

    def Import(self, request_iterator: Iterator[pb.ImportChunk], context: grpc.ServicerContext) -> types_pb2.Image:
        first = next(request_iterator, None)
        if first is None or not first.HasField("start"):
            raise InvalidArgument("an import begins with the image's name")
        start = first.start
        config = convert.config_from_proto(start.config)
        image = self._store.import_tar(start.name, config, _archive(request_iterator), created_by=start.created_by)
        self._note("import", image.name)
        return convert.image_to_proto(image, self._host)

    def Tag(self, request: pb.TagImageRequest, context: grpc.ServicerContext) -> types_pb2.Image:
        image = self._store.tag(request.name, request.tag)
        self._note("tag", image.name)
        return convert.image_to_proto(image, self._host)

    # ------------------------------------------------------------ in and out

    def Load(
        self, request_iterator: Iterator[pb.ImportChunk], context: grpc.ServicerContext
    ) -> Iterator[pb.ImageEvent]:
        """Every image of the archive for this host's platform, or, after an error, none of it."""
        first = next(request_iterator, None)
        if first is None or not first.HasField("start"):
            raise InvalidArgument("a load begins with the name of what has none, or with an empty one")
        name = first.start.name

        def work(report: Report) -> list[pb.ImageEvent]:
            with self._or_nothing(), self._store.workspace() as directory, self._store.hold() as hold:
                sources = Archive(_archive(request_iterator), directory, report).images(name)
                for source in sources:
                    ingest.fetch(self._store, source, hold, report)
                return [self._made("load", ingest.record(self._store, source)) for source in sources]

        return image_events.streamed(context, work)

    def Save(self, request: pb.SaveImagesRequest, context: grpc.ServicerContext) -> Iterator[pb.SaveChunk]:
        images = [self._store.get(name) for name in request.names]
        if not images:
            raise InvalidArgument("there is nothing to save", hint="migrate save -o FILE IMAGE...")
        with self._store.hold(*(layer for image in images for layer in image.layers)):
            wanted = save.select(list(zip(request.names, images, strict=True)))
            yield pb.SaveChunk(total_bytes=save.size(self._store, images))
            sent = 0
            for chunk in save.archive(self._store, wanted):
                sent += len(chunk)
                yield pb.SaveChunk(data=chunk)
            yield pb.SaveChunk(end=sent)

    def Pull(self, request: pb.PullImageRequest, context: grpc.ServicerContext) -> Iterator[pb.ImageEvent]:
        """After an error the layers that are complete stay until the next collection, so that another pull is shorter."""

        def work(report: Report) -> list[pb.ImageEvent]:
            source = registry.find(request.name, convert.access_from_proto(request.access))
            with self._store.hold() as hold:
                ingest.fetch(self._store, source, hold, report)
                return [self._made("pull", ingest.record(self._store, source))]

        return image_events.streamed(context, work)

    def Push(self, request: pb.PushImageRequest, context: grpc.ServicerContext) -> Iterator[pb.ImageEvent]:
        image = self._store.get(request.name)
        destination = request.destination or request.name

        def work(report: Report) -> list[pb.ImageEvent]:
            digest = registry.push(self._store, image, destination, convert.access_from_proto(request.access), report)
            self._note("push", destination)
            return [pb.ImageEvent(digest=digest)]

        return image_events.streamed(context, work)

    def Login(self, request: pb.LoginRequest, context: grpc.ServicerContext) -> pb.LoginResponse:
        skopeo.login(request.registry, request.username, request.password, convert.access_from_proto(request.access))
        return pb.LoginResponse()

    def _made(self, action: str, image: Image) -> pb.ImageEvent:
        self._note(action, image.name)
        return pb.ImageEvent(image=self._pack(image, []))

    def _note(self, action: str, name: str) -> None:
        """For `migrate events`."""
        self._engine.events.publish("image", action, name, name)

    def _note_gone(self, gone: Forgotten) -> None:
        for name in gone.untagged:
            self._note("untag", name)
        for digest in gone.deleted:
            self._note("delete", digest)

    @contextmanager
    def _or_nothing(self) -> Iterator[None]:
        """After an error, layers that came before it go again."""
        try:
            yield
        except BaseException:
            self._store.gc(self._layers_in_use)
            raise

    # ------------------------------------------------------------ look

    def List(self, request: pb.ListImagesRequest, context: grpc.ServicerContext) -> pb.ListImagesResponse:
        users = self._users()
        images = [self._pack(image, users.get(image.digest, [])) for image in self._store.list()]
        for image in images:
            image.document = ""
        return pb.ListImagesResponse(images=images)

    def Inspect(self, request: pb.InspectImageRequest, context: grpc.ServicerContext) -> types_pb2.Image:
        image = self._store.get(request.name)
        return self._pack(image, self._users().get(image.digest, []))

    def _pack(self, image: Image, users: list[str]) -> types_pb2.Image:
        message = convert.image_to_proto(image, self._host)
        message.used_by.extend(sorted(users))
        return message

    # ------------------------------------------------------------ remove

    def Remove(self, request: pb.RemoveImageRequest, context: grpc.ServicerContext) -> pb.RemoveImageResponse:
        """`force` takes the name away though containers use the image; it stays without a name for them."""
        gone = self._store.forget(request.name, force=request.force, users=self._users_of)
        self._note_gone(gone)
        return pb.RemoveImageResponse(
            removed=self._store.gc(self._layers_in_use), untagged=gone.untagged, deleted=gone.deleted
        )

    def Prune(self, request: pb.PruneImagesRequest, context: grpc.ServicerContext) -> pb.PruneImagesResponse:
        """Untagged images, with `all` every one, unless a container uses it; then all layers that nothing names."""
        response = pb.PruneImagesResponse(host=self._host)
        tagged = {image.digest for image in self._store.list() if names.is_tag(image.name)}
        for image in self._store.list():
            if (image.digest in tagged and not request.all) or not _matches(image, request):
                continue
            try:
                gone = self._store.forget(image.name, force=False, users=self._users_of)
            except (WrongState, NotFound):
                continue  # a container uses it, or somebody was faster
            self._note_gone(gone)
            response.untagged.extend(gone.untagged)
            response.deleted.extend(gone.deleted)
        if request.all:
            self._cache.forget(older_than_s=0)
        collected = self._store.collect(self._layers_in_use)
        response.layers.extend(collected.layers)
        response.freed_bytes = collected.freed_bytes
        return response

    # ------------------------------------------------------------ who uses what

    def _specs(self) -> list[ContainerSpec]:
        """Of every container, also of those that are on their way here."""
        found = []
        for container_id in self._engine.store.ids():
            try:
                found.append(self._engine.store.spec(container_id))
            except NotFound:
                continue  # removed while we looked
        return found

    def _users(self) -> dict[str, list[str]]:
        """Digest of an image -> names of containers."""
        users: defaultdict[str, list[str]] = defaultdict(list)
        for spec in self._specs():
            users[spec.image_digest].append(spec.name)
        return users

    def _users_of(self, digest: str) -> list[str]:
        return self._users().get(digest, [])

    def collect_layers(self) -> None:
        """Delete those that neither an image, a container nor the build cache names."""
        self._store.gc(self._layers_in_use)

    def _layers_in_use(self) -> set[str]:
        return {layer for spec in self._specs() for layer in spec.layers} | self._cache.layers()


def _matches(image: Image, request: pb.PruneImagesRequest) -> bool:
    if request.before_unix_ns and image.created_unix_ns >= request.before_unix_ns:
        return False
    for wanted in request.labels:
        key, equals, value = wanted.partition("=")
        if key not in image.config.labels or (equals and image.config.labels[key] != value):
            return False
    return True


def _archive(chunks: Iterator[pb.ImportChunk]) -> Iterator[bytes]:
    return streams.whole(chunks, "archive", hint="import it again")
