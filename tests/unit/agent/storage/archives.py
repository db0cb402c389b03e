"""Makes archives of images as other tools write them, for tests."""

from __future__ import annotations

import hashlib
import io
import json
import tarfile
from typing import Any

from agent.storage import manifest, oci

DOCKER_LAYER = "application/vnd.docker.image.rootfs.diff.tar.gzip"


def digest(data: bytes) -> str:
    return f"sha256:{hashlib.sha256(data).hexdigest()}"


def pack(members: dict[str, bytes], links: dict[str, str] | None = None) -> bytes:
    out = io.BytesIO()
    with tarfile.open(fileobj=out, mode="w") as tar:
        for name, data in members.items():
            info = tarfile.TarInfo(name)
            info.size = len(data)
            tar.addfile(info, io.BytesIO(data))
        for name, target in (links or {}).items():
            info = tarfile.TarInfo(name)
            info.type, info.linkname = tarfile.SYMTYPE, target
            tar.addfile(info)
    return out.getvalue()


def config(*diff_ids: str, architecture: str = "", **inner: Any) -> bytes:
    raw = {
        "architecture": architecture or manifest.host_architecture(),
        "os": "linux",
        "created": "2023-11-14T22:13:20Z",
        "config": inner,
        "rootfs": {"type": "layers", "diff_ids": list(diff_ids)},
    }
    return json.dumps(raw, indent=1).encode()


class Layout:
    """An OCI layout in memory: add blobs and images, then `tar`."""

    def __init__(self) -> None:
        self.files: dict[str, bytes] = {"oci-layout": b'{"imageLayoutVersion": "1.0.0"}'}
        self.entries: list[dict[str, Any]] = []

    def blob(self, data: bytes, media_type: str, **more: Any) -> dict[str, Any]:
        self.files[f"blobs/sha256/{digest(data)[7:]}"] = data
        return {"mediaType": media_type, "digest": digest(data), "size": len(data), **more}

    def manifest(
        self, document: bytes, layers: list[tuple[str, bytes]], *, docker: bool = False, **more: Any
    ) -> dict[str, Any]:
        """`layers`: media type and archive."""
        raw = {
            "schemaVersion": 2,
            "mediaType": oci.DOCKER_MANIFEST if docker else manifest.MEDIA_MANIFEST,
            "config": self.blob(document, oci.DOCKER_CONFIG if docker else manifest.MEDIA_CONFIG),
            "layers": [self.blob(data, media_type) for media_type, data in layers],
        }
        return self.blob(json.dumps(raw).encode(), raw["mediaType"], **more)

    def index(self, entries: list[dict[str, Any]], media_type: str = oci.OCI_INDEX, **more: Any) -> dict[str, Any]:
        raw = {"schemaVersion": 2, "mediaType": media_type, "manifests": entries}
        return self.blob(json.dumps(raw).encode(), media_type, **more)

    def tar(self) -> bytes:
        index = {"schemaVersion": 2, "manifests": self.entries}
        return pack({"index.json": json.dumps(index).encode(), **self.files})


def named(name: str) -> dict[str, Any]:
    return {"annotations": {"org.opencontainers.image.ref.name": name}}
