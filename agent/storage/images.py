"""Images and their layers on this host: content-addressed, shared by the agent and by the transfer processes.

    blobs/sha256/HEX    layer archives as they came, manifests and configs (OCI media types, canonical JSON)
    layers/HEX/         an unpacked layer, named by its diff id (sha256 of the plain tar); never changed
    layers/HEX.json     of that layer: which blob holds it, sizes
    images.json         name -> digest of the manifest
    tmp/                one directory for each unpacking under way, locked by who unpacks
    .lock               held (flock) while names or layers appear or go

A manifest names plain tars, whatever compression the blobs have: so the digest of an image depends on nothing but its
config and its diff ids, and every host that has them can write the same manifest.
"""

from __future__ import annotations

import builtins
import fcntl
import hashlib
import json
import os
import re
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import BinaryIO

from agent import atomic
from agent.errors import InvalidArgument, NotFound, StorageError, WrongState
from agent.linux import remove
from agent.storage import manifest, rawfs, tarstream, unpack
from agent.storage.manifest import ImageConfig
from agent.storage.receive import LayerWriter

_DIGEST = re.compile(r"sha256:[0-9a-f]{64}")
_SHORT = re.compile(r"(?:sha256:)?[0-9a-f]{12,64}")
_NAME = re.compile(r"[a-z0-9]+(?:[._/:-]+[a-zA-Z0-9]+)*")
_LATEST = "latest"
_LONGEST_NAME = 255
_TAG = re.compile(r"[A-Za-z0-9_][A-Za-z0-9_.-]{0,127}")

__all__ = ["Image", "ImageConfig", "ImageStore", "LayerWriter"]


@dataclass(frozen=True, kw_only=True)
class Image:
    """`digest`: of the manifest. `layers`: diff ids, base first. `size_bytes`: unpacked."""

    name: str
    digest: str
    layers: tuple[str, ...]
    size_bytes: int
    created_unix_ns: int
    config: ImageConfig = field(default_factory=ImageConfig)


@dataclass(frozen=True, kw_only=True)
class _Layer:
    """layers/HEX.json."""

    diff_id: str
    blob: str
    media_type: str
    blob_bytes: int
    tar_bytes: int
    unpacked_bytes: int
    newest_unix_ns: int


class ImageStore:
    """The images under `root`, which is made if it is not there. Safe for many processes and threads at once."""

    def __init__(self, root: Path) -> None:
        self._root = root
        self._blobs = root / "blobs" / "sha256"
        self._layers = root / "layers"
        self._tmp = root / "tmp"
        self._names = root / "images.json"
        try:
            root.mkdir(parents=True, exist_ok=True, mode=0o755)
            for path in (self._blobs, self._layers, self._tmp):
                path.mkdir(parents=True, exist_ok=True, mode=0o700)
            self._sweep()
        except OSError as exc:
            raise StorageError(f"cannot use {root} for images: {exc}") from exc

    def import_tar(self, name: str, config: ImageConfig, chunks: Iterable[bytes]) -> Image:
        """Make an image of one layer out of a tar of a root file system, plain, gzip or zstd, and give it `name`.

        The same tar and config give the same digest on every host, for the image counts as created when its newest
        file was. A name that is taken moves to the new image. On an error nothing is left.
        """
        name = _checked(name)
        with self._ingested(iter(chunks), expected="") as publish, self._locked():
            layer = publish()
            return self._write_image(name, config, (layer,), layer.newest_unix_ns)

    def get(self, name_or_digest: str) -> Image:
        """The image of that name (":latest" is understood) or digest (12 hex digits do). Raises NotFound."""
        name, digest = self._resolve(name_or_digest)
        return self._read_image(name, digest)

    def remove(self, name: str, force: bool) -> builtins.list[str]:
        """Forget a name. Returns the diff ids that no image names any more; `gc` takes their bytes away.

        By digest: every name of the image, with `force` only if there are several. Whether a container still uses the
        layers is for the caller to know.
        """
        with self._locked():
            found, digest = self._resolve(name)
            names = self._read_names()
            by_digest = _SHORT.fullmatch(name) is not None
            gone = [known for known, other in names.items() if other == digest] if by_digest else [found]
            if len(gone) > 1 and not force:
                raise WrongState(f"{name} is called {', '.join(sorted(gone))}", hint="remove it by name, or use force")
            try:
                layers = set(self._read_image(found, digest).layers)
            except StorageError:
                layers = set()  # damaged: removing it is how people get out of that
            self._write_names({known: other for known, other in names.items() if known not in gone})
            return sorted(layers - self._named_layers())

    def missing(self, layers: Iterable[str]) -> builtins.list[str]:
        """Those of the diff ids that are not here, in the same order."""
        return [diff_id for diff_id in layers if not (self._layers / _hex(diff_id)).is_dir()]

    def layer_path(self, diff_id: str) -> Path:
        """Where the layer is unpacked. Raises NotFound."""
        path = self._layers / _hex(diff_id)
        if not path.is_dir():
            raise NotFound(
                f"no layer {diff_id} on this host",
                hint="import the image again, or move the container from a host that has it",
            )
        return path

    def open_layer(self, diff_id: str) -> tuple[BinaryIO, int]:
        """The stored archive of the layer, from its beginning, and its size in bytes. The caller closes it."""
        layer = self._read_layer(diff_id)
        try:
            return (self._blobs / _hex(layer.blob)).open("rb"), layer.blob_bytes
        except OSError as exc:
            raise StorageError(
                f"layer {diff_id} has lost its archive {layer.blob}: {exc.strerror}", hint="import the image again"
            ) from exc

    def receive_layer(self, diff_id: str) -> LayerWriter:
        """A context manager that takes the archive of the layer in pieces and unpacks it meanwhile; see LayerWriter."""
        _hex(diff_id)
        return LayerWriter(lambda chunks: self._receive(diff_id, chunks))

    def register(self, image: Image) -> None:
        """Record an image of another host, all of whose layers are here. Idempotent.

        If the name belongs to another image here, that stays so, and this one is called NAME@DIGEST.
        """
        name = _checked(image.name.partition("@")[0])
        with self._locked():
            lacking = self.missing(image.layers)
            if lacking:
                raise NotFound(f"image {name}: layers {', '.join(lacking)} are not here", hint="send them first")
            names = self._read_names()
            if names.get(name, image.digest) != image.digest:
                name = f"{name}@{image.digest}"
            layers = tuple(self._read_layer(diff_id) for diff_id in image.layers)
            files = self._manifest(image.config, layers, image.created_unix_ns)
            if files.digest != image.digest:
                raise StorageError(
                    f"image {name}: {image.digest} was announced, config and layers give {files.digest}",
                    hint="both hosts need the same version of migrate",
                )
            self._write_image(name, image.config, layers, image.created_unix_ns)

    def gc(self, in_use: Collection[str]) -> builtins.list[str]:
        """Delete the layers that neither an image nor `in_use` names; returns them.

        `in_use`: diff ids of all containers, and of moves under way, whose layers arrive before their image does.
        """
        removed = []
        with self._workspace() as work, self._locked():
            keep = self._named_layers() | set(in_use)
            for path in sorted(self._layers.iterdir()):
                diff_id = f"sha256:{path.name.removesuffix('.json')}"
                if not _DIGEST.fullmatch(diff_id) or diff_id in keep:
                    continue
                if path.suffix == ".json":
                    path.unlink()
                else:
                    path.rename(work / path.name)
                    removed.append(diff_id)
            referenced = self._referenced_blobs()
            for path in self._blobs.iterdir():
                if path.name not in referenced:
                    path.unlink()
        return removed

    def list(self) -> builtins.list[Image]:
        """Every name, sorted."""
        return [self._read_image(name, digest) for name, digest in sorted(self._read_names().items())]

    # ------------------------------------------------------------------ layers

    def _receive(self, diff_id: str, chunks: Iterator[bytes]) -> None:
        with self._ingested(chunks, expected=diff_id) as publish, self._locked():
            publish()

    @contextmanager
    def _ingested(self, chunks: Iterator[bytes], expected: str) -> Iterator[Callable[[], _Layer]]:
        """Unpack in a workspace; the body calls what it gets, under the lock, to make the layer visible."""
        with self._workspace() as work:
            try:
                layer = _unpack_into(work, chunks)
            except OSError as exc:
                raise StorageError(f"cannot store a layer in {self._root}: {exc}", hint="is the disk full?") from exc
            if expected and layer.diff_id != expected:
                raise StorageError(
                    f"layer {expected} arrived as {layer.diff_id}", hint="it was damaged on the way: send it again"
                )
            yield lambda: self._publish(work, layer)

    def _publish(self, work: Path, layer: _Layer) -> _Layer:
        """Give the unpacked layer its name, unless somebody was faster. Returns what is stored now."""
        path = self._layers / _hex(layer.diff_id)
        if path.is_dir():
            return self._read_layer(layer.diff_id)
        (work / "blob").rename(self._blobs / _hex(layer.blob))
        atomic.sync_directory(self._blobs)
        atomic.write(path.with_suffix(".json"), json.dumps(asdict(layer), sort_keys=True), mode=0o644)
        (work / "root").rename(path)
        atomic.sync_directory(self._layers)
        return layer

    def _read_layer(self, diff_id: str) -> _Layer:
        path = self.layer_path(diff_id).with_suffix(".json")
        try:
            return _Layer(**json.loads(path.read_bytes()))
        except (OSError, ValueError, TypeError) as exc:
            raise StorageError(
                f"{path} is not readable: {exc}", hint="import the image again after removing this layer"
            ) from exc

    # ------------------------------------------------------------------ names and manifests

    def _manifest(self, config: ImageConfig, layers: tuple[_Layer, ...], created_unix_ns: int) -> manifest.Files:
        return manifest.render(config, [(layer.diff_id, layer.tar_bytes) for layer in layers], created_unix_ns)

    def _write_image(self, name: str, config: ImageConfig, layers: tuple[_Layer, ...], created_unix_ns: int) -> Image:
        files = self._manifest(config, layers, created_unix_ns)
        for blob in (files.config, files.manifest):
            atomic.write(self._blobs / hashlib.sha256(blob).hexdigest(), blob, mode=0o644)
        self._write_names(self._read_names() | {name: files.digest})
        return self._read_image(name, files.digest)

    def _read_image(self, name: str, digest: str) -> Image:
        try:
            outer = json.loads(self._read_blob(digest))
            config, layers, created = manifest.parse(self._read_blob(outer["config"]["digest"]))
        except (OSError, ValueError, KeyError, TypeError) as exc:
            raise StorageError(
                f"image {name} ({digest}) is damaged: {exc}", hint="remove it and import it again"
            ) from exc
        size = sum(self._read_layer(diff_id).unpacked_bytes for diff_id in layers)
        return Image(name=name, digest=digest, layers=layers, size_bytes=size, created_unix_ns=created, config=config)

    def _read_blob(self, digest: str) -> bytes:
        blob = (self._blobs / _hex(digest)).read_bytes()
        if f"sha256:{hashlib.sha256(blob).hexdigest()}" != digest:
            raise ValueError(f"blob {digest} has other bytes")
        return blob

    def _resolve(self, wanted: str) -> tuple[str, str]:
        """Name and digest of an image. Of several names of one digest, the first."""
        names = self._read_names()
        if not _SHORT.fullmatch(wanted):
            found = [name for name in (wanted, f"{wanted}:{_LATEST}") if name in names]
        else:
            digest = f"sha256:{wanted.removeprefix('sha256:')}"
            found = sorted(name for name in names if names[name].startswith(digest))
            if len({names[name] for name in found}) > 1:
                raise InvalidArgument(f"{wanted!r} begins the digests of {', '.join(found)}", hint="write more of it")
        if not found:
            raise NotFound(f"no image {wanted!r} on this host", hint="`migrate image list` shows what is here")
        return found[0], names[found[0]]

    def _read_names(self) -> dict[str, str]:
        try:
            names = json.loads(self._names.read_bytes())
        except FileNotFoundError:
            return {}
        except (OSError, ValueError) as exc:
            raise StorageError(f"{self._names} is not readable: {exc}") from exc
        if not isinstance(names, dict):
            raise StorageError(f"{self._names} does not hold names")
        return names

    def _write_names(self, names: Mapping[str, str]) -> None:
        atomic.write(self._names, json.dumps(names, sort_keys=True, indent=1), mode=0o644)

    def _named_layers(self) -> set[str]:
        return {diff_id for image in self.list() for diff_id in image.layers}

    def _referenced_blobs(self) -> set[str]:
        digests = {self._read_layer(f"sha256:{path.name}").blob for path in self._layers.iterdir() if path.is_dir()}
        for digest in self._read_names().values():
            digests |= {digest, json.loads(self._read_blob(digest))["config"]["digest"]}
        return {_hex(digest) for digest in digests}

    # ------------------------------------------------------------------ locks and workspaces

    @contextmanager
    def _locked(self) -> Iterator[None]:
        """Alone among all processes and threads. Not reentrant."""
        fd = os.open(self._root / ".lock", os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
        try:
            fcntl.flock(fd, fcntl.LOCK_EX)
            yield
        finally:
            os.close(fd)

    @contextmanager
    def _workspace(self) -> Iterator[Path]:
        """A directory that goes at the end, or, if this process dies, when the next one opens the store."""
        path = self._tmp / os.urandom(8).hex()
        with self._locked():  # or a sweep could come between mkdir and flock
            path.mkdir(mode=0o700)
            fd = os.open(path, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
            fcntl.flock(fd, fcntl.LOCK_EX)
        try:
            yield path
        finally:
            remove.tree(path)
            os.close(fd)

    def _sweep(self) -> None:
        """Remove the workspaces of the dead."""
        with self._locked():
            for path in self._tmp.iterdir():
                fd = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
                try:
                    fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
                except BlockingIOError:
                    continue
                else:
                    remove.tree(path)
                finally:
                    os.close(fd)


def _unpack_into(work: Path, chunks: Iterator[bytes]) -> _Layer:
    """Write the archive to work/blob as it comes and its contents to work/root."""
    blob_digest, tar_digest = hashlib.sha256(), hashlib.sha256()
    root = work / "root"
    root.mkdir(mode=0o700)
    tar_bytes = 0

    with (work / "blob").open("wb") as blob:

        def stored() -> Iterator[bytes]:
            for chunk in chunks:
                blob_digest.update(chunk)
                blob.write(chunk)
                yield chunk

        def counted(plain: Iterator[bytes]) -> Iterator[bytes]:
            nonlocal tar_bytes
            for chunk in plain:
                tar_bytes += len(chunk)
                yield chunk

        source = stored()
        media_type, plain = tarstream.decompressed(source)
        if media_type != tarstream.MEDIA_TAR:
            plain = tarstream.hashed(plain, tar_digest)
        else:
            tar_digest = blob_digest
        unpacked = unpack.layer(counted(plain), root)
        for _ in source:  # what follows the compressed stream belongs to the blob all the same
            pass
        blob.flush()
        # The layer gets its name by a rename, so its files must be on disk before: one call, not thousands of fsyncs.
        rawfs.sync_filesystem(blob.fileno())
        blob_bytes = blob.tell()
    return _Layer(
        diff_id=f"sha256:{tar_digest.hexdigest()}",
        blob=f"sha256:{blob_digest.hexdigest()}",
        media_type=media_type,
        blob_bytes=blob_bytes,
        tar_bytes=tar_bytes,
        unpacked_bytes=unpacked.size_bytes,
        newest_unix_ns=max(0, unpacked.newest_ns),
    )


def _checked(name: str) -> str:
    """`debian` -> `debian:latest`. Raises InvalidArgument."""
    repository, colon, tag = name.rpartition(":")
    if not colon or "/" in tag:
        repository, tag = name, _LATEST
    if len(repository) > _LONGEST_NAME or not _NAME.fullmatch(repository) or not _TAG.fullmatch(tag):
        raise InvalidArgument(
            f"{name!r} is no name of an image", hint="names look like debian:12 or registry:5000/team/web"
        )
    return f"{repository}:{tag}"


def _hex(digest: str) -> str:
    """The hex digits; digests come from other hosts and become file names, so anything else is refused."""
    if not _DIGEST.fullmatch(digest):
        raise InvalidArgument(f"{digest!r} is no digest", hint="sha256: and 64 hex digits")
    return digest.removeprefix("sha256:")
