"""The two JSON documents of an image, as OCI writes them: pure functions, no disk.

The config document is kept byte for byte as it came, for others' images hold more than we know. The manifest is written
anew in one canonical form, which names plain tars: whoever has the config and the layers writes the same one.
"""

from __future__ import annotations

import hashlib
import json
import platform
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import Any

from agent.engine.spec import Healthcheck as Healthcheck
from agent.errors import InvalidArgument
from agent.storage.tarstream import MEDIA_TAR

MEDIA_MANIFEST = "application/vnd.oci.image.manifest.v1+json"
MEDIA_CONFIG = "application/vnd.oci.image.config.v1+json"
_ARCHITECTURES = {"x86_64": "amd64", "aarch64": "arm64", "armv7l": "arm", "i686": "386"}
_LAST_SECOND = 253402300799  # 9999-12-31T23:59:59Z, the last that RFC 3339 can write
_RFC3339 = re.compile(r"(\d{4}-\d\d-\d\d[Tt ]\d\d:\d\d:\d\d)(?:\.(\d+))?([Zz]|[+-]\d\d:\d\d)")


@dataclass(frozen=True, kw_only=True)
class ImageConfig:
    """Defaults that `run` and `build` take from the image; the meaning is OCI's, of the last three Docker's."""

    cmd: tuple[str, ...] = ()
    entrypoint: tuple[str, ...] = ()
    env: tuple[str, ...] = ()
    working_dir: str = ""
    user: str = ""
    labels: Mapping[str, str] = field(default_factory=dict)
    stop_signal: str = ""
    exposed_ports: tuple[str, ...] = ()  # "5000/tcp"
    volumes: tuple[str, ...] = ()  # absolute paths
    healthcheck: Healthcheck | None = None
    shell: tuple[str, ...] = ()
    on_build: tuple[str, ...] = ()


@dataclass(frozen=True, kw_only=True)
class History:
    """One step that made the image. `empty`: it made no layer."""

    created_unix_ns: int = 0
    created_by: str = ""
    comment: str = ""
    author: str = ""
    empty: bool = False


@dataclass(frozen=True, kw_only=True)
class Document:
    """What a config document says, as far as we read it. `layers`: diff ids, base first."""

    config: ImageConfig
    layers: tuple[str, ...]
    created_unix_ns: int
    history: tuple[History, ...] = ()
    architecture: str = ""
    os: str = "linux"
    variant: str = ""
    author: str = ""


def host_architecture() -> str:
    """Go's word for this machine's, as images use it."""
    machine = platform.machine()
    return _ARCHITECTURES.get(machine, machine)


def write(document: Document) -> str:
    """The config document, canonical JSON. Raises InvalidArgument for a history that does not fit the layers."""
    made = sum(1 for step in document.history if not step.empty)
    if document.history and made != len(document.layers):
        raise InvalidArgument(f"a history with {made} layers does not fit an image of {len(document.layers)}")
    raw: dict[str, Any] = {
        "architecture": document.architecture or host_architecture(),
        "author": document.author,
        "config": _filled(_inner(document.config)),
        "created": rfc3339(document.created_unix_ns),
        "history": [_step(step) for step in document.history],
        "os": document.os,
        "rootfs": {"type": "layers", "diff_ids": list(document.layers)},
        "variant": document.variant,
    }
    return _canonical({key: value for key, value in raw.items() if value or key == "config"}).decode()


def manifest(document: str, layers: Sequence[tuple[str, int]]) -> bytes:
    """The manifest for `layers`, (diff id, bytes of the plain tar), base first. The image's digest is that of these bytes."""
    config = document.encode()
    return _canonical(
        {
            "schemaVersion": 2,
            "mediaType": MEDIA_MANIFEST,
            "config": {"mediaType": MEDIA_CONFIG, "digest": digest_of(config), "size": len(config)},
            "layers": [{"mediaType": MEDIA_TAR, "digest": diff_id, "size": size} for diff_id, size in layers],
        }
    )


def read(document: str | bytes) -> Document:
    """Raises ValueError where that is no config document."""
    try:
        raw = json.loads(document)
        inner = raw.get("config") or {}
        return Document(
            config=_config(inner),
            layers=tuple(_texts(raw["rootfs"]["diff_ids"])),
            created_unix_ns=unix_ns(raw.get("created") or ""),
            history=tuple(_read_step(step) for step in raw.get("history") or ()),
            architecture=raw.get("architecture") or "",
            os=raw.get("os") or "linux",
            variant=raw.get("variant") or "",
            author=raw.get("author") or "",
        )
    except (KeyError, TypeError, AttributeError) as exc:
        raise ValueError(f"no config of an image: {exc!r}") from exc


def digest_of(data: bytes) -> str:
    return f"sha256:{hashlib.sha256(data).hexdigest()}"


def rfc3339(unix_ns_: int) -> str:
    seconds, fraction = divmod(max(0, min(unix_ns_, _LAST_SECOND * 10**9)), 10**9)
    return f"{datetime.fromtimestamp(seconds, UTC):%Y-%m-%dT%H:%M:%S}.{fraction:09d}Z"


def unix_ns(text: str) -> int:
    """0 for "" and for what lies before 1970, which tools write for "unknown". Raises ValueError."""
    if not text:
        return 0
    found = _RFC3339.fullmatch(text)
    if not found:
        raise ValueError(f"{text!r} is no time")
    zone = "+00:00" if found[3] in "Zz" else found[3]
    seconds = int(datetime.fromisoformat(f"{found[1].upper()}{zone}").timestamp())
    return max(0, seconds * 10**9 + int(((found[2] or "") + "000000000")[:9]))


def _inner(config: ImageConfig) -> dict[str, Any]:
    check = config.healthcheck
    return {
        "Cmd": list(config.cmd),
        "Entrypoint": list(config.entrypoint),
        "Env": list(config.env),
        "ExposedPorts": {port: {} for port in config.exposed_ports},
        "Healthcheck": check
        and _filled(
            {
                "Test": list(check.test),
                "Interval": check.interval_ns,
                "Timeout": check.timeout_ns,
                "StartPeriod": check.start_period_ns,
                "Retries": check.retries,
                "StartInterval": check.start_interval_ns,
            }
        ),
        "Labels": dict(config.labels),
        "OnBuild": list(config.on_build),
        "Shell": list(config.shell),
        "StopSignal": config.stop_signal,
        "User": config.user,
        "Volumes": {path: {} for path in config.volumes},
        "WorkingDir": config.working_dir,
    }


def _config(inner: Mapping[str, Any]) -> ImageConfig:
    check = inner.get("Healthcheck")
    return ImageConfig(
        cmd=_texts(inner.get("Cmd")),
        entrypoint=_texts(inner.get("Entrypoint")),
        env=_texts(inner.get("Env")),
        working_dir=inner.get("WorkingDir") or "",
        user=inner.get("User") or "",
        labels={str(key): str(value) for key, value in (inner.get("Labels") or {}).items()},
        stop_signal=inner.get("StopSignal") or "",
        exposed_ports=_texts(inner.get("ExposedPorts")),
        volumes=_texts(inner.get("Volumes")),
        healthcheck=Healthcheck(
            test=_texts(check.get("Test")),
            interval_ns=int(check.get("Interval") or 0),
            timeout_ns=int(check.get("Timeout") or 0),
            start_period_ns=int(check.get("StartPeriod") or 0),
            retries=int(check.get("Retries") or 0),
            start_interval_ns=int(check.get("StartInterval") or 0),
        )
        if check
        else None,
        shell=_texts(inner.get("Shell")),
        on_build=_texts(inner.get("OnBuild")),
    )


def _texts(raw: Any) -> tuple[str, ...]:
    """A list of strings, or the keys of a set as Go writes it."""
    if raw is None:
        return ()
    if not isinstance(raw, list | dict) or not all(isinstance(one, str) for one in raw):
        raise TypeError(f"{raw!r} is no list of strings")
    return tuple(raw)


def _step(step: History) -> dict[str, Any]:
    return _filled(
        {
            "created": rfc3339(step.created_unix_ns),
            "created_by": step.created_by,
            "comment": step.comment,
            "author": step.author,
            "empty_layer": step.empty,
        }
    )


def _read_step(raw: Mapping[str, Any]) -> History:
    return History(
        created_unix_ns=unix_ns(raw.get("created") or ""),
        created_by=raw.get("created_by") or "",
        comment=raw.get("comment") or "",
        author=raw.get("author") or "",
        empty=bool(raw.get("empty_layer")),
    )


def _filled(raw: Mapping[str, Any]) -> dict[str, Any]:
    return {key: value for key, value in raw.items() if value}


def _canonical(document: Mapping[str, Any]) -> bytes:
    return json.dumps(document, sort_keys=True, separators=(",", ":"), ensure_ascii=False).encode()
