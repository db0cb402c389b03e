"""What lies under the images: blobs, unpacked layers, the lock, workspaces, holds. Which image needs what is `images`' affair.

Safe for many processes and threads at once: what is written becomes visible by a rename, under one lock.
"""

from __future__ import annotations

import fcntl
import hashlib
import json
import os
from collections.abc import Callable, Collection, Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import BinaryIO

from agent import atomic
from agent.errors import NotFound, StorageError
from agent.linux import remove
from agent.storage import names, rawfs, tarstream, unpack

CHUNK_BYTES = 1 << 18


@dataclass(frozen=True, kw_only=True)
class Layer:
    """layers/HEX.json. `blob`: digest of the archive as it came; `diff_id`: of the plain tar."""

    diff_id: str
    blob: str
    media_type: str
    blob_bytes: int
    tar_bytes: int
    unpacked_bytes: int
    newest_unix_ns: int


class Hold:
    """Layers that garbage collection leaves alone while its holder lives; see LayerStore.hold."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._layers: set[str] = set()

    def add(self, *diff_ids: str) -> None:
        """From now on also these, whether they are here yet or not."""
        for diff_id in diff_ids:
            names.hex_of(diff_id)
        self._layers.update(diff_ids)
        atomic.write(self._path / "layers.json", json.dumps(sorted(self._layers)))


class LayerStore:
    """The directory `root`, which is made if it is not there."""

    def __init__(self, root: Path) -> None:
        self.root = root
        self.blobs = root / "blobs" / "sha256"
        self.layers = root / "layers"
        self._tmp = root / "tmp"
        self._holds = root / "holds"
        try:
            root.mkdir(parents=True, exist_ok=True, mode=0o755)
            for path in (self.blobs, self.layers, self._tmp, self._holds):
                path.mkdir(parents=True, exist_ok=True, mode=0o700)
            self._sweep()
        except OSError as exc:
            raise StorageError(f"cannot use {root} for images: {exc}") from exc

    # ------------------------------------------------------------------ layers

    def missing(self, diff_ids: Collection[str]) -> list[str]:
        """Those that are not here, in the same order, each once."""
        return [one for one in dict.fromkeys(diff_ids) if not (self.layers / names.hex_of(one)).is_dir()]

    def layer_path(self, diff_id: str) -> Path:
        """Where the layer is unpacked. Raises NotFound."""
        path = self.layers / names.hex_of(diff_id)
        if not path.is_dir():
            raise NotFound(
                f"no layer {diff_id} on this host",
                hint="import the image again, or move the container from a host that has it",
            )
        return path

    def layer(self, diff_id: str) -> Layer:
        """What is known of it. Raises NotFound, StorageError."""
        path = self.layer_path(diff_id).with_suffix(".json")
        try:
            return Layer(**json.loads(path.read_bytes()))
        except (OSError, ValueError, TypeError) as exc:
            raise StorageError(
                f"{path} is not readable: {exc}", hint="import the image again after removing this layer"
            ) from exc

    def open_layer(self, diff_id: str) -> tuple[BinaryIO, int]:
        """The stored archive of the layer, from its beginning, and its size in bytes. The caller closes it."""
        layer = self.layer(diff_id)
        try:
            return (self.blobs / names.hex_of(layer.blob)).open("rb"), layer.blob_bytes
        except OSError as exc:
            raise StorageError(
                f"layer {diff_id} has lost its archive {layer.blob}: {exc.strerror}", hint="import the image again"
            ) from exc

    @contextmanager
    def ingested(self, chunks: Iterator[bytes], *, diff_id: str = "", blob: str = "") -> Iterator[Callable[[], Layer]]:
        """Unpack in a workspace; the body calls what it gets, under the lock, to make the layer visible.

        `diff_id` and `blob`: what the plain tar and the archive must be, "" = whatever they are. Raises StorageError.
        """
        with self.workspace() as work:
            try:
                layer = _unpack_into(work, chunks, blob)
            except OSError as exc:
                raise StorageError(f"cannot store a layer in {self.root}: {exc}", hint="is the disk full?") from exc
            if blob and layer.blob != blob:
                raise _damaged(f"blob {blob} arrived as {layer.blob}")
            if diff_id and layer.diff_id != diff_id:
                raise _damaged(f"layer {diff_id} arrived as {layer.diff_id}")
            yield lambda: self._publish(work, layer)

    def _publish(self, work: Path, layer: Layer) -> Layer:
        """Give the unpacked layer its name, unless somebody was faster. Returns what is stored now."""
        path = self.layers / names.hex_of(layer.diff_id)
        if path.is_dir():
            return self.layer(layer.diff_id)
        (work / "blob").rename(self.blobs / names.hex_of(layer.blob))
        atomic.sync_directory(self.blobs)
        atomic.write(path.with_suffix(".json"), json.dumps(asdict(layer), sort_keys=True), mode=0o644)
        (work / "root").rename(path)
        atomic.sync_directory(self.layers)
        return layer

    # ------------------------------------------------------------------ blobs

    def write_blob(self, data: bytes) -> str:
        """Returns its digest."""
        digest = hashlib.sha256(data).hexdigest()
        atomic.write(self.blobs / digest, data, mode=0o644)
        return f"sha256:{digest}"

    def read_blob(self, digest: str) -> bytes:
        """A small one. Raises OSError, and ValueError where the bytes are others."""
        blob = (self.blobs / names.hex_of(digest)).read_bytes()
        if f"sha256:{hashlib.sha256(blob).hexdigest()}" != digest:
            raise ValueError(f"blob {digest} has other bytes")
        return blob

    # ------------------------------------------------------------------ garbage

    def take_layers(self, work: Path, keep: Collection[str]) -> dict[str, int]:
        """Move the layers that are not in `keep` into `work`; returns their diff ids with the bytes of archive and files.
        Under the lock.
        """
        taken: dict[str, int] = {}
        for path in sorted(path for path in self.layers.iterdir() if not path.suffix):
            diff_id = f"sha256:{path.name}"
            if not names.is_digest(diff_id) or diff_id in keep:
                continue
            try:
                layer = self.layer(diff_id)
                taken[diff_id] = layer.unpacked_bytes + layer.blob_bytes
            except StorageError:
                taken[diff_id] = 0  # its record is damaged: nobody can use it, and nobody knows its size
            path.rename(work / path.name)
        return taken

    def put_back(self, work: Path, diff_id: str) -> None:
        """Undo take_layers for one of them. Under the lock."""
        (work / names.hex_of(diff_id)).rename(self.layers / names.hex_of(diff_id))

    def remove_blobs(self, keep: Collection[str]) -> int:
        """Delete the blobs that no layer here has and that are not in `keep`, and records without their layer; returns
        the bytes of those that were nobody's archive. Under the lock.
        """
        here = {path.name for path in self.layers.iterdir() if not path.suffix}
        archives: set[str] = set()
        gone: set[str] = set()
        for record in self.layers.glob("*.json"):
            try:
                archive = names.hex_of(str(json.loads(record.read_bytes())["blob"]))
            except (OSError, ValueError, KeyError, TypeError):
                archive = ""
            if record.name.removesuffix(".json") in here:
                archives.add(archive)
            else:
                gone.add(archive)
                record.unlink()
        freed = 0
        kept = archives | {names.hex_of(digest) for digest in keep}
        for path in self.blobs.iterdir():
            if path.name not in kept:
                freed += 0 if path.name in gone else path.stat().st_size
                path.unlink()
        return freed

    # ------------------------------------------------------------------ locks, workspaces, holds

    @contextmanager
    def locked(self) -> Iterator[None]:
        """Alone among all processes and threads. Not reentrant."""
        fd = os.open(self.root / ".lock", os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
        try:
            fcntl.flock(fd, fcntl.LOCK_EX)
            yield
        finally:
            os.close(fd)

    @contextmanager
    def workspace(self) -> Iterator[Path]:
        """A directory that goes at the end, or, if this process dies, when the next one opens the store."""
        with self._owned_directory(self._tmp) as path:
            yield path

    @contextmanager
    def hold(self, *diff_ids: str) -> Iterator[Hold]:
        """Keep these layers, and those that are added, from `gc` until the end, or until this process dies.

        For work that brings layers before an image or a container names them: pull, load, build.
        """
        with self._owned_directory(self._holds) as path:
            hold = Hold(path)
            hold.add(*diff_ids)
            yield hold

    def held(self) -> set[str]:
        """Diff ids of all holds whose holder lives. Under the lock."""
        found: set[str] = set()
        for path in self._holds.iterdir():
            if not _abandoned(path):
                # No file yet: its holder is about to write it, and looks at the store only afterwards.
                record = path / "layers.json"
                found.update(json.loads(record.read_bytes()) if record.exists() else ())
        return found

    @contextmanager
    def _owned_directory(self, parent: Path) -> Iterator[Path]:
        path = parent / os.urandom(8).hex()
        with self.locked():  # or a sweep could come between mkdir and flock
            path.mkdir(mode=0o700)
            fd = os.open(path, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
            fcntl.flock(fd, fcntl.LOCK_EX)
        try:
            yield path
        finally:
            remove.tree(path)
            os.close(fd)

    def _sweep(self) -> None:
        """Remove the workspaces and the holds of the dead."""
        with self.locked():
            for path in (*self._tmp.iterdir(), *self._holds.iterdir()):
                _abandoned(path)


def _abandoned(path: Path) -> bool:
    """Whether nobody owns the directory any more; then it is removed."""
    try:
        fd = os.open(path, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    except FileNotFoundError:
        return True
    try:
        fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    else:
        try:
            remove.tree(path)
        except FileNotFoundError:
            pass  # its owner was just about to do the same
        return True
    finally:
        os.close(fd)


def _damaged(message: str) -> StorageError:
    return StorageError(message, hint="it was damaged on the way or at its origin: send it again")


def _unpack_into(work: Path, chunks: Iterator[bytes], expected_blob: str) -> Layer:
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
        try:
            media_type, plain = tarstream.decompressed(source)
            if media_type != tarstream.MEDIA_TAR:
                plain = tarstream.hashed(plain, tar_digest)
            else:
                tar_digest = blob_digest
            unpacked = unpack.layer(counted(plain), root)
        except StorageError as exc:
            if not expected_blob:
                raise
            # A flipped bit shows first as a broken stream or tar: the digest says whether it is the archive that is bad.
            for _ in source:
                pass
            found = f"sha256:{blob_digest.hexdigest()}"
            if found == expected_blob:
                raise
            raise _damaged(f"blob {expected_blob} arrived as {found}") from exc
        for _ in source:  # what follows the compressed stream belongs to the blob all the same
            pass
        blob.flush()
        # The layer gets its name by a rename, so its files must be on disk before: one call, not thousands of fsyncs.
        rawfs.sync_filesystem(blob.fileno())
        blob_bytes = blob.tell()
    return Layer(
        diff_id=f"sha256:{tar_digest.hexdigest()}",
        blob=f"sha256:{blob_digest.hexdigest()}",
        media_type=media_type,
        blob_bytes=blob_bytes,
        tar_bytes=tar_bytes,
        unpacked_bytes=unpacked.size_bytes,
        newest_unix_ns=max(0, unpacked.newest_ns),
    )
