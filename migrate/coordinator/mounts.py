"""A container's mounts: what the request says, and a volume for every place where the image wants one and the request has nothing."""

from __future__ import annotations

import secrets
from collections.abc import Iterable

from protos import types_pb2


def resolved(requested: Iterable[types_pb2.Mount], image_volumes: Iterable[str]) -> list[types_pb2.Mount]:
    """Anonymous volumes get their names here, so that they are called the same wherever the container goes."""
    result: list[types_pb2.Mount] = []
    for one in requested:
        mount = types_pb2.Mount()
        mount.CopyFrom(one)
        if mount.kind == "volume" and not mount.source:
            mount.anonymous, mount.source = True, secrets.token_hex(32)
        result.append(mount)
    taken = {_clean(mount.target) for mount in result}
    for path in map(_clean, image_volumes):
        if path not in taken and path != "/":
            taken.add(path)
            result.append(types_pb2.Mount(kind="volume", source=secrets.token_hex(32), target=path, anonymous=True))
    return result


def _clean(path: str) -> str:
    return "/" + "/".join(part for part in path.split("/") if part not in ("", "."))
