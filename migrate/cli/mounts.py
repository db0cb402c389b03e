"""The options of `run` and `create` that mount something into a container: -v, --mount, --tmpfs, --read-only. docs/volumes.md."""

from __future__ import annotations

import argparse
import csv
import re
from argparse import ArgumentTypeError
from collections.abc import Mapping
from typing import Any

from migrate.cli import values
from migrate.records import Mount

VOLUME_NAME = re.compile(r"[a-zA-Z0-9][a-zA-Z0-9_.-]*")
PROPAGATIONS = ("private", "rprivate", "slave", "rslave", "shared", "rshared")
IGNORED_MODES = (
    "z",
    "Z",
    "cached",
    "delegated",
    "consistent",
    "rbind",
    "bind",
)  # accepted, as there is nothing to do for them
TMPFS_FLAGS = ("exec", "noexec", "suid", "nosuid", "dev", "nodev")
TMPFS_VALUES = ("uid", "gid", "nr_inodes")


def add_options(parser: argparse.ArgumentParser) -> None:
    group = parser.add_argument_group("mounts", "docs/volumes.md")
    group.add_argument(
        "-v",
        "--volume",
        action="append",
        default=[],
        type=volume,
        metavar="[SOURCE:]TARGET[:OPTIONS]",
        help="a directory of the host (/srv/data:/data:ro) or a volume (data:/data); repeatable",
    )
    group.add_argument(
        "--mount",
        action="append",
        default=[],
        type=mount,
        metavar="KEY=VALUE,...",
        help="type=bind|volume|tmpfs,source=,target=,readonly,bind-propagation=,volume-nocopy,tmpfs-size=,tmpfs-mode=; repeatable",
    )
    group.add_argument(
        "--tmpfs",
        action="append",
        default=[],
        type=tmpfs,
        metavar="TARGET[:OPTIONS]",
        help="memory as files, such as /run:size=64m,mode=755,exec; repeatable",
    )
    group.add_argument("--read-only", action="store_true", help="nothing of the root can be written; mounts can")


def fields(args: argparse.Namespace) -> dict[str, Any]:
    """The fields of records.Place. Raises ArgumentTypeError where two mounts have one target."""
    found: dict[str, Mount] = {}
    for one in (*args.volume, *args.mount, *args.tmpfs):
        if one.target in found:
            raise ArgumentTypeError(f"duplicate mount point: {one.target}")
        found[one.target] = one
    return {"mounts": tuple(found.values()), "read_only": args.read_only}


def volume(text: str) -> Mount:
    """-v /srv/data:/data:ro,rslave, -v data:/data:nocopy, -v /data."""
    parts = text.split(":")
    if "" in parts:
        raise ArgumentTypeError(f"{text!r}: empty section between colons; it takes [SOURCE:]TARGET[:OPTIONS]")
    if len(parts) > 3:
        raise ArgumentTypeError(f"{text!r}: too many colons; it takes [SOURCE:]TARGET[:OPTIONS]")
    if len(parts) == 1:
        return Mount(kind="volume", target=_target(text, parts[0]), anonymous=True)
    source = parts[0]
    kind = "bind" if source.startswith("/") else "volume"
    given: dict[str, Any] = {}
    if kind == "bind":
        given["create_source"] = True
    else:
        _check_name(source)
    return Mount(
        kind=kind,
        source=_clean(source) if kind == "bind" else source,
        target=_target(text, parts[1]),
        **given,
        **_modes(text, kind, parts[2].split(",") if len(parts) == 3 else []),
    )


def _modes(text: str, kind: str, modes: list[str]) -> dict[str, Any]:
    given: dict[str, Any] = {}

    def once(name: str, value: object) -> None:
        if name in given:
            raise ArgumentTypeError(f"{text!r}: the options {','.join(modes)!r} contradict each other")
        given[name] = value

    for mode in modes:
        if mode in ("ro", "rw"):
            once("read_only", mode == "ro")
        elif mode in PROPAGATIONS and kind == "bind":
            once("propagation", mode)
        elif mode == "nocopy" and kind == "volume":
            once("no_copy", True)
        elif mode in PROPAGATIONS or mode == "nocopy":
            what = "a bind mount" if mode == "nocopy" else "a volume"
            raise ArgumentTypeError(f"{text!r}: {mode} is no option of {what}")
        elif mode not in IGNORED_MODES:
            raise ArgumentTypeError(
                f"{text!r}: invalid mode {mode!r}; known are ro, rw, nocopy, {', '.join(PROPAGATIONS)}"
            )
    return given


def mount(text: str) -> Mount:
    """--mount type=bind,source=/srv,target=/data,readonly."""
    given: dict[str, str] = {}
    try:
        words = next(csv.reader([text], strict=True))
    except (csv.Error, StopIteration) as exc:
        raise ArgumentTypeError(f"{text!r} is not KEY=VALUE,...") from exc
    for word in words:
        key, equals, value = word.partition("=")
        key = {"src": "source", "dst": "target", "destination": "target", "ro": "readonly"}.get(
            key.lower(), key.lower()
        )
        if not equals:
            if key not in ("readonly", "volume-nocopy", "bind-nonrecursive"):
                raise ArgumentTypeError(f"{text!r}: {word!r} is not KEY=VALUE")
            value = "true"
        if key in given:
            raise ArgumentTypeError(f"{text!r}: {key} is given twice")
        given[key] = value
    kind = given.pop("type", "volume")
    if kind not in ("bind", "volume", "tmpfs"):
        raise ArgumentTypeError(f"{text!r}: type is bind, volume or tmpfs, not {kind!r}")
    if "target" not in given:
        raise ArgumentTypeError(f"{text!r}: target is required")
    result: dict[str, Any] = {"kind": kind, "target": _target(text, given.pop("target"))}
    result |= _mount_source(text, kind, given.pop("source", ""))
    for key, value in given.items():
        result |= _mount_option(text, kind, key, value)
    return Mount(**result)


def _mount_source(text: str, kind: str, source: str) -> dict[str, Any]:
    if kind == "tmpfs":
        if source:
            raise ArgumentTypeError(f"{text!r}: a tmpfs has no source")
        return {}
    if kind == "bind":
        if not source:
            raise ArgumentTypeError(f"{text!r}: source is required")
        if not source.startswith("/"):
            raise ArgumentTypeError(
                f"{text!r}: the source of a bind mount is an absolute path of the host, not {source!r}"
            )
        return {"source": _clean(source)}
    if not source:
        return {"anonymous": True}
    _check_name(source)
    return {"source": source}


def _mount_option(text: str, kind: str, key: str, value: str) -> dict[str, Any]:
    if key == "readonly":
        return {"read_only": _truth(text, key, value)}
    if key == "consistency":
        return {}
    if key == "volume-driver" and value in ("", "local"):
        return {}
    of, _, _ = key.partition("-")
    if of in ("bind", "volume", "tmpfs") and of != kind:
        raise ArgumentTypeError(f"{text!r}: {key} is no option of a mount of type {kind}")
    if key == "bind-propagation":
        if value not in PROPAGATIONS:
            raise ArgumentTypeError(f"{text!r}: invalid propagation {value!r}; known are {', '.join(PROPAGATIONS)}")
        return {"propagation": value}
    if key == "bind-nonrecursive":
        _truth(text, key, value)
        return {}
    if key == "volume-nocopy":
        return {"no_copy": _truth(text, key, value)}
    if key == "tmpfs-size":
        return {"size_bytes": _size(text, value)}
    if key == "tmpfs-mode":
        return {"mode": _mode(text, value)}
    raise ArgumentTypeError(f"{text!r}: unexpected key {key!r}")


def tmpfs(text: str) -> Mount:
    """--tmpfs /run:size=64m,mode=755,exec."""
    place, _, rest = text.partition(":")
    given: dict[str, Any] = {"kind": "tmpfs", "target": _target(text, place)}
    options: list[str] = []
    for word in rest.split(",") if rest else []:
        key, equals, value = word.partition("=")
        if key == "size" and equals:
            given["size_bytes"] = _size(text, value)
        elif key == "mode" and equals:
            given["mode"] = _mode(text, value)
        elif word in ("ro", "rw"):
            given["read_only"] = word == "ro"
        elif word in TMPFS_FLAGS or (key in TMPFS_VALUES and value.isdigit()):
            options.append(word)
        else:
            known = ("size=", "mode=", "ro", "rw", *TMPFS_FLAGS, *(f"{name}=" for name in TMPFS_VALUES))
            raise ArgumentTypeError(f"{text!r}: invalid tmpfs option {word!r}; known are {', '.join(known)}")
    return Mount(**given, options=tuple(options))


# ------------------------------------------------------------ parts


def _target(text: str, path: str) -> str:
    if not path.startswith("/"):
        raise ArgumentTypeError(f"{text!r}: invalid mount path {path!r}: mount path must be absolute")
    if ".." in path.split("/"):
        raise ArgumentTypeError(f"{text!r}: the mount path {path!r} must not have ..")
    if _clean(path) == "/":
        raise ArgumentTypeError(f"{text!r}: destination can't be '/'")
    return _clean(path)


def _clean(path: str) -> str:
    return "/" + "/".join(part for part in path.split("/") if part not in ("", "."))


def _check_name(name: str) -> None:
    if "/" in name or name.startswith((".", "~")):
        raise ArgumentTypeError(
            f"{name!r} is a relative path: the source of a bind mount is an absolute path of the container's host"
        )
    if not VOLUME_NAME.fullmatch(name):
        raise ArgumentTypeError(
            f"{name!r} includes invalid characters for a volume name, only [a-zA-Z0-9][a-zA-Z0-9_.-] are allowed; "
            "a directory of the host is given by its absolute path"
        )


def _truth(text: str, key: str, value: str) -> bool:
    known: Mapping[str, bool] = {"true": True, "1": True, "": True, "false": False, "0": False}
    if value.lower() not in known:
        raise ArgumentTypeError(f"{text!r}: {key} is true or false, not {value!r}")
    return known[value.lower()]


def _size(text: str, value: str) -> int:
    try:
        return values.size(value)
    except ArgumentTypeError as exc:
        raise ArgumentTypeError(f"{text!r}: {exc}") from exc


def _mode(text: str, value: str) -> int:
    if not re.fullmatch(r"[0-7]{1,5}", value) or int(value, 8) > 0o7777:
        raise ArgumentTypeError(f"{text!r}: {value!r} is not a mode such as 1777")
    return int(value, 8)
