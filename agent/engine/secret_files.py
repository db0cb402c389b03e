"""Secrets of a container: files that its processes find in a tmpfs, and that its spec only names.

    create ─► keep (its directory, root's alone) ─► plan ─► init reads them while it is still the host's root, writes them into the tmpfs
    move   ─► the tmpfs goes as any other does; what was kept goes with the container's life (roles.py), for its next start over there

Contents are in no spec, no record, no writable layer and no image made of it.
"""

from __future__ import annotations

import base64
import re
from collections.abc import Mapping
from pathlib import Path, PurePosixPath
from typing import Any

from agent import atomic
from agent.engine import mounted
from agent.engine.spec import ContainerSpec
from agent.errors import InvalidArgument

DIRECTORY = "/run/secrets"
MOST_BYTES = 512_000  # as Docker's
_NAME = re.compile(r"[A-Za-z0-9_][A-Za-z0-9_.-]{0,63}")


def check(spec: ContainerSpec, contents: Mapping[str, bytes] | None) -> None:
    """`contents`: None of one that arrives, whose secrets come with it. Raises InvalidArgument."""
    seen = set()
    for one in spec.secrets:
        if not _NAME.fullmatch(one.name):
            raise InvalidArgument(f"{one.name!r} is no name of a secret: letters, digits, _ . -, at most 64")
        target = PurePosixPath(one.target)
        if not target.is_relative_to(DIRECTORY) or ".." in target.parts or str(target) == DIRECTORY:
            raise InvalidArgument(f"a secret is a file below {DIRECTORY}, not {one.target!r}", hint="target=NAME")
        if one.target in seen:
            raise InvalidArgument(f"two secrets have the target {one.target}")
        seen.add(one.target)
        if one.mode & ~0o777:
            raise InvalidArgument(f"{one.mode:o} is no mode of a secret", hint="mode=0400")
        if contents is None:
            continue
        if one.name not in contents:
            raise InvalidArgument(f"nothing was sent for the secret {one.name}", hint="--secret id=NAME,src=FILE")
        if len(contents[one.name]) > MOST_BYTES:
            raise InvalidArgument(f"the secret {one.name} has more than {MOST_BYTES} bytes")
    if spec.secrets and not any(
        each.kind == "tmpfs" and mounted.clean(each.target) == DIRECTORY for each in spec.mounts
    ):
        raise InvalidArgument(f"a container with secrets has a tmpfs at {DIRECTORY}")


def keep(directory: Path, spec: ContainerSpec, contents: Mapping[str, bytes]) -> None:
    """Durably, in the container's directory. Raises OSError."""
    if not spec.secrets:
        return
    place = _place(directory)
    place.mkdir(mode=0o700, exist_ok=True)
    for name in {one.name for one in spec.secrets}:
        path = place / name
        path.touch(mode=0o600)
        atomic.write(path, contents[name])


def plan(directory: Path, spec: ContainerSpec) -> list[dict[str, Any]]:
    """For init."""
    return [
        {
            "source": str(_place(directory) / one.name),
            "target": one.target,
            "uid": one.uid,
            "gid": one.gid,
            "mode": one.mode,
        }
        for one in spec.secrets
    ]


def export(directory: Path, spec: ContainerSpec) -> dict[str, str]:
    """JSON, for the container's next host. Raises OSError."""
    names = {one.name for one in spec.secrets}
    return {name: base64.b64encode((_place(directory) / name).read_bytes()).decode() for name in sorted(names)}


def take(directory: Path, spec: ContainerSpec, exported: Mapping[str, str]) -> None:
    """What export() said on its last host."""
    keep(directory, spec, {name: base64.b64decode(text) for name, text in exported.items()})


def _place(directory: Path) -> Path:
    return directory / "secrets"
