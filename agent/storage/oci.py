"""Manifests and indexes of other tools, OCI's and Docker's: what is in them, and which image of several is this host's.

Pure functions. What is no image for containers (schema 1, charts, signatures) is refused with the name of what it is.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from agent.errors import StorageError, Unsupported
from agent.storage import manifest, names

OCI_INDEX = "application/vnd.oci.image.index.v1+json"
DOCKER_LIST = "application/vnd.docker.distribution.manifest.list.v2+json"
DOCKER_MANIFEST = "application/vnd.docker.distribution.manifest.v2+json"
DOCKER_CONFIG = "application/vnd.docker.container.image.v1+json"
_INDEXES = (OCI_INDEX, DOCKER_LIST)
_MANIFESTS = (manifest.MEDIA_MANIFEST, DOCKER_MANIFEST)
_CONFIGS = (manifest.MEDIA_CONFIG, DOCKER_CONFIG)
_LAYER_PREFIXES = (
    "application/vnd.oci.image.layer.v1.tar",
    "application/vnd.oci.image.layer.nondistributable.v1.tar",
    "application/vnd.docker.image.rootfs.diff.tar",
    "application/vnd.docker.image.rootfs.foreign.diff.tar",
)


@dataclass(frozen=True, kw_only=True)
class Descriptor:
    """A blob that a document names."""

    digest: str
    size: int
    media_type: str = ""
    annotations: Mapping[str, str] | None = None
    platform: Mapping[str, str] | None = None


@dataclass(frozen=True, kw_only=True)
class Manifest:
    """One image: its config document and its layers, base first."""

    config: Descriptor
    layers: tuple[Descriptor, ...]


def index(data: bytes, what: str) -> tuple[Descriptor, ...]:
    """The entries of an index. Raises StorageError naming `what`."""
    raw = _object(data, what)
    entries = raw.get("manifests")
    if not isinstance(entries, list):
        raise StorageError(f"{what} is no index of images")
    return tuple(_descriptor(entry, what) for entry in entries)


def is_index(data: bytes, media_type: str, what: str) -> bool:
    """Whether the document is one of several images; its own word counts more than the descriptor's."""
    raw = _object(data, what)
    kind = raw.get("mediaType") or media_type
    return kind in _INDEXES or (not kind and isinstance(raw.get("manifests"), list))


def manifest_of(data: bytes, what: str) -> Manifest:
    """Raises StorageError for damage, Unsupported for what is no image of a container."""
    raw = _object(data, what)
    kind = raw.get("mediaType") or manifest.MEDIA_MANIFEST
    if raw.get("schemaVersion") == 1:
        raise Unsupported(f"{what} has a manifest of schema 1, which nobody writes since 2017", hint="push it anew")
    if kind not in _MANIFESTS or not isinstance(raw.get("layers"), list):
        raise Unsupported(f"{what} is no image: its manifest is of type {kind}")
    config = _descriptor(raw.get("config"), what)
    if config.media_type not in _CONFIGS:
        raise Unsupported(f"{what} is no image of a container: its config is of type {config.media_type}")
    layers = tuple(_descriptor(layer, what) for layer in raw["layers"])
    for layer in layers:
        if not layer.media_type.startswith(_LAYER_PREFIXES) or layer.media_type.endswith("+encrypted"):
            raise Unsupported(f"{what} has a layer of type {layer.media_type}, which is no plain tar, gzip or zstd")
    return Manifest(config=config, layers=layers)


def choose(entries: Sequence[Descriptor], what: str) -> Descriptor:
    """The entry for this host's platform; one without a platform only where there is nothing to choose. Unsupported."""
    wanted = manifest.host_architecture()
    # Attestations stand beside images as "unknown/unknown".
    images = [entry for entry in entries if (entry.platform or {}).get("architecture") != "unknown"]
    if len(images) == 1 and not images[0].platform:
        return images[0]
    fitting = [entry for entry in images if fits(entry.platform or {}, wanted)]
    if not fitting:
        raise no_platform(what, (platform(entry.platform or {}) for entry in images))
    # Of several variants the plainest: every machine of that architecture runs it.
    return min(fitting, key=lambda entry: (entry.platform or {}).get("variant", ""))


def fits(found: Mapping[str, str], wanted: str) -> bool:
    """Whether a host of the architecture `wanted` runs what is for the platform `found`."""
    return found.get("os", "linux") == "linux" and found.get("architecture") == wanted


def no_platform(what: str, found: Any) -> Unsupported:
    listed = ", ".join(sorted(set(found))) or "nothing"
    return Unsupported(
        f"{what} has no image for linux/{manifest.host_architecture()}, this host's platform; it has {listed}",
        hint="get one that was built for this platform",
    )


def platform(found: Mapping[str, str]) -> str:
    """ "linux/arm64/v8"."""
    parts = [found.get("os") or "linux", found.get("architecture") or "?", found.get("variant") or ""]
    return "/".join(part for part in parts if part)


def _object(data: bytes, what: str) -> dict[str, Any]:
    try:
        raw = json.loads(data)
    except ValueError as exc:
        raise StorageError(f"{what}: its manifest is no JSON: {exc}") from exc
    if not isinstance(raw, dict):
        raise StorageError(f"{what}: its manifest is no object")
    return raw


def _descriptor(raw: Any, what: str) -> Descriptor:
    if not isinstance(raw, dict) or not isinstance(raw.get("size"), int) or not isinstance(raw.get("digest"), str):
        raise StorageError(f"{what}: {raw!r} does not describe a blob")
    if not names.is_digest(raw["digest"]):
        raise Unsupported(f"{what} names {raw['digest']!r}: only sha256 digests are known")
    return Descriptor(
        digest=raw["digest"],
        size=raw["size"],
        media_type=str(raw.get("mediaType") or ""),
        annotations=raw.get("annotations") or {},
        platform=raw.get("platform"),
    )
