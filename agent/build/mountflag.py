"""RUN --mount=type=...,target=...: what is mounted while a command runs, and is not in the layer. Pure."""

from __future__ import annotations

import posixpath
import re
from dataclasses import dataclass

from agent.build.dockerfile import DockerfileError, Place

_KINDS = ("bind", "cache", "tmpfs", "secret")
_NAMES = {"target": "target", "dst": "target", "destination": "target", "source": "source", "src": "source"}
_SWITCHES = {"ro", "readonly", "rw", "readwrite", "required"}
_KNOWN = {"type", "id", "from", "mode", "uid", "gid", "size", "sharing", "env"} | _SWITCHES
_SIZE = re.compile(r"(\d+)([kmg]?)b?", re.IGNORECASE)


@dataclass(frozen=True, kw_only=True)
class Mount:
    """`target`: absolute. `from_`: stage or image, "" = the context (bind) or nothing (cache). `mode`, `uid`, `gid`: of
    what is made. `env`: of a secret, the variable that gets it, "" = it is a file.
    """

    kind: str
    target: str
    source: str = "/"
    from_: str = ""
    id: str = ""
    read_only: bool = True
    required: bool = False
    sharing: str = "shared"
    mode: int = 0o755
    uid: int = 0
    gid: int = 0
    size_bytes: int = 0
    env: str = ""


def parse(text: str, cwd: str, place: Place) -> Mount:
    """Raises DockerfileError."""
    fields: dict[str, str] = {}
    for part in text.split(","):
        key, equals, value = part.strip().partition("=")
        key = _NAMES.get(key.lower(), key.lower())
        if key not in _KNOWN and key not in _NAMES.values():
            raise DockerfileError(place, f"--mount has no {key!r}", hint="it takes type, target, source, from, id, ...")
        if not equals and key not in _SWITCHES:
            raise DockerfileError(place, f"--mount: {key} takes a value")
        fields[key] = value if equals else "true"
    kind = fields.get("type", "bind")
    if kind not in _KINDS:
        raise DockerfileError(place, f"--mount=type={kind} is not supported", hint=f"known are {', '.join(_KINDS)}")
    name = fields.get("id", "") or (posixpath.basename(fields.get("source", "")) if kind == "secret" else "")
    env = fields.get("env", "")
    target = fields.get("target", "")
    if kind == "secret":
        name = name or posixpath.basename(target)
        if not name:
            raise DockerfileError(place, "--mount=type=secret takes an id")
        target = target or ("" if env else f"/run/secrets/{name}")
    elif not target:
        raise DockerfileError(place, f"--mount=type={kind} takes a target")
    sharing = fields.get("sharing", "shared")
    if sharing not in ("shared", "private", "locked"):
        raise DockerfileError(place, f"--mount: sharing is shared, private or locked, not {sharing!r}")
    target = posixpath.normpath(posixpath.join("/", cwd, target)) if target else ""
    return Mount(
        kind=kind,
        target=target,
        source=posixpath.normpath(posixpath.join("/", fields.get("source", "/"))),
        from_=fields.get("from", ""),
        id=name or (target if kind == "cache" else ""),
        read_only=_read_only(fields, kind),
        required=fields.get("required") == "true",
        sharing=sharing,
        mode=_number(fields, "mode", 0o400 if kind == "secret" else 0o755, place, base=8),
        uid=_number(fields, "uid", 0, place),
        gid=_number(fields, "gid", 0, place),
        size_bytes=_size(fields.get("size", ""), place),
        env=env,
    )


def _read_only(fields: dict[str, str], kind: str) -> bool:
    for key, means in (("ro", True), ("readonly", True), ("rw", False), ("readwrite", False)):
        if key in fields:
            return (fields[key] == "true") == means
    return kind in ("bind", "secret")


def _number(fields: dict[str, str], key: str, default: int, place: Place, *, base: int = 10) -> int:
    try:
        return int(fields[key], base) if key in fields else default
    except ValueError as exc:
        raise DockerfileError(place, f"--mount: {key} takes a number, not {fields[key]!r}") from exc


def _size(text: str, place: Place) -> int:
    found = _SIZE.fullmatch(text)
    if text and not found:
        raise DockerfileError(place, f"--mount: size takes bytes such as 64m, not {text!r}")
    return int(found[1]) << {"": 0, "k": 10, "m": 20, "g": 30}[found[2].lower()] if found else 0
