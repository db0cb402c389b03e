"""`commit`: what a container has changed becomes a layer, and with its configuration an image; `diff`, which shows the same changes."""

from __future__ import annotations

import contextlib
import dataclasses
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from agent.build import dockerfile, instructions, runner
from agent.build.instructions import Scope
from agent.engine import files, stillness
from agent.engine.container import Engine
from agent.engine.spec import ContainerSpec
from agent.errors import InvalidArgument, StorageError
from agent.storage import changes, layertar, manifest, names
from agent.storage.images import Image, ImageStore
from agent.storage.manifest import History, ImageConfig

_INSTRUCTIONS = (
    "CMD", "ENTRYPOINT", "ENV", "EXPOSE", "HEALTHCHECK", "LABEL", "ONBUILD", "STOPSIGNAL", "USER", "VOLUME", "WORKDIR",
)  # fmt: skip
_READ_BYTES = 1 << 20


@dataclass(frozen=True, kw_only=True)
class Wanted:
    """`name`: of the image, "" = none. `changes`: instructions of a Dockerfile. `running`: do not let it stand still."""

    name: str = ""
    author: str = ""
    message: str = ""
    changes: tuple[str, ...] = ()
    running: bool = False


class Committer:
    """Of this host's containers."""

    def __init__(self, engine: Engine, images: ImageStore) -> None:
        self._engine, self._images = engine, images

    def diff(self, container_id: str) -> list[changes.Change]:
        """What is in its writable layer; by path. Raises NotFound, WrongState during a move."""
        spec = files.reachable(self._engine, "diff", container_id).spec
        return changes.between(
            self._upper(spec), self._layers(spec), ignore=runner.HOST_FILES, places=runner.MOUNT_POINTS
        )

    def commit(self, container_id: str, wanted: Wanted) -> Image:
        """The image, once it has its name. Raises NotFound, WrongState during a move, InvalidArgument before any work."""
        if wanted.name:
            names.checked(wanted.name)
        with contextlib.ExitStack() as stack:
            lock = stack.enter_context(contextlib.ExitStack())
            lock.enter_context(self._engine.store.lock(container_id))
            spec = files.reachable(self._engine, "commit", container_id).spec
            document = manifest.read(self._images.get(spec.image_digest).document)
            config = change(_config(spec, document.config), wanted.changes)
            work = stack.enter_context(self._images.workspace())
            hold = stack.enter_context(self._images.hold(*spec.layers))
            archive = work / "layer.tar"
            with contextlib.nullcontext() if wanted.running else stillness.still(self._engine, container_id):
                empty = self._write(spec, archive, steady=not wanted.running)
            lock.close()  # nobody has to wait while it is unpacked
            layer = "" if empty else self._images.add_layer(_chunks(archive), hold).diff_id
            image = self._add(wanted, spec, document, config, layer)
            self._engine.note("commit", spec, comment=wanted.message, imageID=image.digest, imageRef=wanted.name)
            return image

    def _write(self, spec: ContainerSpec, archive: Path, *, steady: bool) -> bool:
        """The layer's tar, uncompressed; returns whether it has no member. Quick: the container may be standing still."""
        upper, lower = self._upper(spec), self._layers(spec)
        made = [name for name in runner.MOUNT_POINTS if not any((layer / name).is_dir() for layer in lower)]
        ignore = (*runner.HOST_FILES, *made)
        try:
            if layertar.is_empty(upper, lower, ignore, steady=steady):
                return True
            with archive.open("xb", buffering=_READ_BYTES) as file:
                for piece in layertar.write(upper, lower, ignore, steady=steady):
                    file.write(piece)
        except OSError as exc:
            raise StorageError(f"cannot write the layer: {exc.strerror}", hint="is the disk full?") from exc
        return False

    def _add(
        self, wanted: Wanted, spec: ContainerSpec, base: manifest.Document, config: ImageConfig, layer: str
    ) -> Image:
        now = time.time_ns()
        history = base.history
        if sum(1 for step in history if not step.empty) != len(base.layers):
            step = History(created_unix_ns=base.created_unix_ns, created_by=f"FROM {spec.image}")
            history = (step,) * len(base.layers)  # an imported one says nothing of how it was made
        own = History(
            created_unix_ns=now,
            created_by=" ".join(spec.argv),
            comment=wanted.message,
            author=wanted.author,
            empty=not layer,
        )
        document = manifest.Document(
            config=config,
            layers=(*base.layers, layer) if layer else base.layers,
            created_unix_ns=now,
            history=(*history, own),
            architecture=base.architecture,
            os=base.os,
            variant=base.variant,
            author=wanted.author,
        )
        return self._images.add_image([wanted.name] if wanted.name else [], manifest.write(document))

    def _upper(self, spec: ContainerSpec) -> Path:
        return self._engine.store.directory(spec.id) / "layer" / "upper"

    def _layers(self, spec: ContainerSpec) -> list[Path]:
        return [self._images.layer_path(diff_id) for diff_id in spec.layers]


def change(config: ImageConfig, lines: Sequence[str]) -> ImageConfig:
    """The config after these instructions of a Dockerfile, one or several a text. Raises DockerfileError."""
    before = instructions.State(config=config)
    for text in lines:
        parsed = dockerfile.parse(text, "--change")
        for one in parsed.instructions:
            if one.name not in _INSTRUCTIONS:
                raise InvalidArgument(
                    f"--change {text!r}: {one.name} changes no configuration",
                    hint=f"it takes {', '.join(_INSTRUCTIONS)}",
                )
            before, _ = instructions.evaluate(before, one, Scope(escape=parsed.escape))
    return before.config


def _config(spec: ContainerSpec, image: ImageConfig) -> ImageConfig:
    """What the container runs with becomes the image's default; what only an image says stays the base's."""
    count = len(image.entrypoint)
    own_entrypoint = spec.argv[:count] != image.entrypoint
    ports = {f"{port.container_port}/{port.protocol}" for port in spec.network.ports}
    volumes = [mount.target for mount in spec.mounts if mount.kind == "volume" and mount.anonymous]
    return dataclasses.replace(
        image,
        entrypoint=() if own_entrypoint else image.entrypoint,
        cmd=spec.argv if own_entrypoint else spec.argv[count:],
        env=spec.env,
        working_dir="" if spec.cwd == "/" and not image.working_dir else spec.cwd,
        user=spec.user,
        labels=spec.labels,
        stop_signal="" if spec.stop_signal == "SIGTERM" and not image.stop_signal else spec.stop_signal,
        exposed_ports=(*image.exposed_ports, *sorted(ports - set(image.exposed_ports))),
        volumes=tuple(dict.fromkeys((*image.volumes, *volumes))),
        healthcheck=spec.health if spec.health.test else image.healthcheck,
        on_build=(),  # they were for builds from the base
    )


def _chunks(path: Path) -> Iterator[bytes]:
    with path.open("rb", buffering=0) as file:
        while data := file.read(_READ_BYTES):
            yield data
