"""The two JSON documents of an image, as OCI writes them, in one canonical form: pure functions, no disk."""

from __future__ import annotations

import hashlib
import json
import platform
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import Any

from agent.storage.tarstream import MEDIA_TAR

MEDIA_MANIFEST = "application/vnd.oci.image.manifest.v1+json"
MEDIA_CONFIG = "application/vnd.oci.image.config.v1+json"
_ARCHITECTURES = {"x86_64": "amd64", "aarch64": "arm64"}
_LAST_SECOND = 253402300799  # 9999-12-31T23:59:59Z, the last that RFC 3339 can write


@dataclass(frozen=True, kw_only=True)
class ImageConfig:
    """Defaults that `run` takes from the image; the meaning is OCI's."""

    cmd: tuple[str, ...] = ()
    entrypoint: tuple[str, ...] = ()
    env: tuple[str, ...] = ()
    working_dir: str = ""
    user: str = ""
    labels: Mapping[str, str] = field(default_factory=dict)
    stop_signal: str = ""


@dataclass(frozen=True, kw_only=True)
class Files:
    """`digest` is the manifest's: the image's."""

    manifest: bytes
    config: bytes
    digest: str


def render(config: ImageConfig, layers: Sequence[tuple[str, int]], created_unix_ns: int) -> Files:
    """The documents for `layers`, (diff id, bytes of the plain tar), base first."""
    inner: dict[str, Any] = {
        "Cmd": list(config.cmd),
        "Entrypoint": list(config.entrypoint),
        "Env": list(config.env),
        "Labels": dict(config.labels),
        "StopSignal": config.stop_signal,
        "User": config.user,
        "WorkingDir": config.working_dir,
    }
    machine = platform.machine()
    config_bytes = _canonical(
        {
            "architecture": _ARCHITECTURES.get(machine, machine),
            "config": {key: value for key, value in inner.items() if value},
            "created": _rfc3339(created_unix_ns),
            "os": "linux",
            "rootfs": {"type": "layers", "diff_ids": [diff_id for diff_id, _ in layers]},
        }
    )
    manifest_bytes = _canonical(
        {
            "schemaVersion": 2,
            "mediaType": MEDIA_MANIFEST,
            "config": {"mediaType": MEDIA_CONFIG, "digest": _digest(config_bytes), "size": len(config_bytes)},
            "layers": [{"mediaType": MEDIA_TAR, "digest": diff_id, "size": size} for diff_id, size in layers],
        }
    )
    return Files(manifest=manifest_bytes, config=config_bytes, digest=_digest(manifest_bytes))


def parse(config_bytes: bytes) -> tuple[ImageConfig, tuple[str, ...], int]:
    """Config, diff ids and creation (Unix, ns) of a config document. Raises ValueError, KeyError or TypeError."""
    raw = json.loads(config_bytes)
    inner = raw.get("config") or {}
    config = ImageConfig(
        cmd=tuple(inner.get("Cmd") or ()),
        entrypoint=tuple(inner.get("Entrypoint") or ()),
        env=tuple(inner.get("Env") or ()),
        working_dir=inner.get("WorkingDir") or "",
        user=inner.get("User") or "",
        labels=dict(inner.get("Labels") or {}),
        stop_signal=inner.get("StopSignal") or "",
    )
    return config, tuple(raw["rootfs"]["diff_ids"]), _unix_ns(raw["created"])


def _canonical(document: Mapping[str, Any]) -> bytes:
    return json.dumps(document, sort_keys=True, separators=(",", ":"), ensure_ascii=False).encode()


def _digest(data: bytes) -> str:
    return f"sha256:{hashlib.sha256(data).hexdigest()}"


def _rfc3339(unix_ns: int) -> str:
    seconds, fraction = divmod(max(0, min(unix_ns, _LAST_SECOND * 10**9)), 10**9)
    return f"{datetime.fromtimestamp(seconds, UTC):%Y-%m-%dT%H:%M:%S}.{fraction:09d}Z"


def _unix_ns(text: str) -> int:
    whole, _, fraction = text.removesuffix("Z").partition(".")
    return int(datetime.fromisoformat(f"{whole}+00:00").timestamp()) * 10**9 + int((fraction + "000000000")[:9])
