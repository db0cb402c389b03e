"""Writes images into one tar that `docker load`, `podman load`, `skopeo` and `migrate load` read: an OCI layout with
docker-archive's manifest.json beside it. Layers keep the compression that they came with.
"""

from __future__ import annotations

import json
import tarfile
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

from agent.storage import manifest, names, oci
from agent.storage.images import Image, ImageStore
from agent.storage.layerstore import CHUNK_BYTES, Layer

_BLOCK = 512
_RECORD = 20 * _BLOCK


@dataclass(frozen=True, kw_only=True)
class Saved:
    """An image as other tools see it: its manifest, which names the archives as they are, and its layers in its order."""

    manifest: bytes
    document: bytes
    layers: tuple[Layer, ...]

    @property
    def digest(self) -> str:
        return manifest.digest_of(self.manifest)


def describe(store: ImageStore, image: Image) -> Saved:
    """Raises NotFound, StorageError."""
    layers = tuple(store.layer(diff_id) for diff_id in manifest.read(image.document).layers)
    document = image.document.encode()
    raw = {
        "schemaVersion": 2,
        "mediaType": manifest.MEDIA_MANIFEST,
        "config": _descriptor(manifest.MEDIA_CONFIG, manifest.digest_of(document), len(document)),
        "layers": [_descriptor(layer.media_type, layer.blob, layer.blob_bytes) for layer in layers],
    }
    return Saved(manifest=_json(raw), document=document, layers=layers)


def select(wanted: Sequence[tuple[str, Image]]) -> list[tuple[Image, tuple[str, ...]]]:
    """Each image once, with the tags that it was asked for by; by its digest it has none in the archive."""
    found: dict[str, tuple[Image, list[str]]] = {}
    for asked, image in wanted:
        tags = found.setdefault(image.digest, (image, []))[1]
        if not names.digest_prefix(asked) and names.is_tag(image.name) and image.name not in tags:
            tags.append(image.name)
    return [(image, tuple(tags)) for image, tags in found.values()]


def size(store: ImageStore, images: Sequence[Image]) -> int:
    """Bytes of the archives of all layers, each once: about what `archive` will give."""
    layers = {layer.blob: layer.blob_bytes for image in images for layer in describe(store, image).layers}
    return sum(layers.values())


def archive(store: ImageStore, images: Sequence[tuple[Image, tuple[str, ...]]]) -> Iterator[bytes]:
    """The tar of the images, each with the tags that it shall have there. The caller holds their layers."""
    written: set[str] = set()
    docker: list[dict[str, Any]] = []
    entries: list[dict[str, Any]] = []

    def blob(data: bytes) -> Iterator[bytes]:
        digest = manifest.digest_of(data)
        if digest not in written:
            written.add(digest)
            yield from _file(f"blobs/sha256/{names.hex_of(digest)}", data)

    yield from _file("oci-layout", _json({"imageLayoutVersion": "1.0.0"}))
    for image, tags in images:
        saved = describe(store, image)
        for layer in saved.layers:
            if layer.blob not in written:
                written.add(layer.blob)
                yield from _layer(store, layer)
        yield from blob(saved.document)
        yield from blob(saved.manifest)
        entry = _descriptor(manifest.MEDIA_MANIFEST, saved.digest, len(saved.manifest))
        read = manifest.read(image.document)
        entry["platform"] = {"architecture": read.architecture or manifest.host_architecture(), "os": read.os}
        for tag in tags:
            notes = {"io.containerd.image.name": tag, "org.opencontainers.image.ref.name": names.split(tag)[1]}
            entries.append({**entry, "annotations": notes})
        if not tags:
            entries.append(entry)
        config = names.hex_of(manifest.digest_of(saved.document))
        docker.append(
            {
                "Config": f"blobs/sha256/{config}",
                "RepoTags": list(tags) or None,
                "Layers": [f"blobs/sha256/{names.hex_of(layer.blob)}" for layer in saved.layers],
            }
        )
    yield from _file("index.json", _json({"schemaVersion": 2, "mediaType": oci.OCI_INDEX, "manifests": entries}))
    yield from _file("manifest.json", _json(docker))
    yield bytes(_RECORD)


def _layer(store: ImageStore, layer: Layer) -> Iterator[bytes]:
    file, size_bytes = store.open_layer(layer.diff_id)
    with file:
        yield _header(f"blobs/sha256/{names.hex_of(layer.blob)}", size_bytes)
        while chunk := file.read(CHUNK_BYTES):
            yield chunk
    yield bytes(-size_bytes % _BLOCK)


def _file(name: str, data: bytes) -> Iterator[bytes]:
    yield _header(name, len(data)) + data + bytes(-len(data) % _BLOCK)


def _header(name: str, size_bytes: int) -> bytes:
    """With no time and no owner: the same images give the same bytes."""
    member = tarfile.TarInfo(name)
    member.size, member.mode = size_bytes, 0o644
    return member.tobuf(tarfile.GNU_FORMAT)


def _descriptor(media_type: str, digest: str, size_bytes: int) -> dict[str, Any]:
    return {"mediaType": media_type, "digest": digest, "size": size_bytes}


def _json(raw: object) -> bytes:
    return json.dumps(raw, separators=(",", ":"), ensure_ascii=False).encode()
