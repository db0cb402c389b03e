"""What a request says about what processes find inside, checked before anything is allocated: names, groups, secrets, the platform."""

from __future__ import annotations

import json
import re
from collections.abc import Iterable

from migrate.coordinator.mounts import clean
from migrate.errors import InvalidArgument
from protos import coordinator_pb2, types_pb2

SECRETS = "/run/secrets"
SECRETS_BYTES = 16 << 20
# What Go, and so every registry and image, calls them.
_GO_ARCHITECTURES = {
    "x86_64": "amd64", "aarch64": "arm64", "armv7l": "arm", "armv6l": "arm", "i686": "386", "i386": "386", "loongarch64": "loong64",
}  # fmt: skip


def check(request: coordinator_pb2.RunRequest) -> None:
    """Raises InvalidArgument."""
    if request.isolation.uts == "host":
        for name in ("hostname", "domainname"):
            if getattr(request, name):
                raise InvalidArgument(f"conflicting options: {name} and the UTS mode", hint=f"--{name} or --uts host")
    if request.umask and not re.fullmatch(r"[0-7]{1,4}", request.umask):
        raise InvalidArgument(f"{request.umask!r} is no umask", hint="octal: --umask 0027")
    if request.umask and int(request.umask, 8) > 0o777:
        raise InvalidArgument(f"{request.umask!r} is no umask", hint="octal, at most 0777: --umask 0027")
    if request.domainname and not re.fullmatch(r"[A-Za-z0-9_]([A-Za-z0-9_.-]{0,62})?", request.domainname):
        raise InvalidArgument(f"{request.domainname!r} is no domain name", hint="--domainname example.com")
    for group in request.groups:
        if not group or any(character.isspace() or character in ":," for character in group):
            raise InvalidArgument(f"{group!r} is no group", hint="--group-add audio, --group-add 29")


def secret_mounts(request: coordinator_pb2.RunRequest) -> Iterable[types_pb2.Mount]:
    """The tmpfs that secrets lie in, where there are some and nobody has asked for one there."""
    if request.secrets and all(clean(one.target) != SECRETS for one in request.mounts):
        yield types_pb2.Mount(kind="tmpfs", target=SECRETS, size_bytes=SECRETS_BYTES, mode=0o755)


def fits(platform: str, architecture: str) -> bool:
    """Whether what runs on `architecture` (as uname has it, or as Go) is "linux/arm64" or another platform of those."""
    system, _, wanted = platform.partition("/")
    here = _GO_ARCHITECTURES.get(architecture, architecture)
    machine = wanted.partition("/")[0]
    return system.lower() == "linux" and _GO_ARCHITECTURES.get(machine, machine) == here


def platform_of(architecture: str) -> str:
    return f"linux/{_GO_ARCHITECTURES.get(architecture, architecture)}"


def check_platform(platform: str, image: types_pb2.Image) -> None:
    """Raises InvalidArgument where the image on the host is for another one: hosts run no programs of other machines."""
    if not platform:
        return
    try:
        architecture = str(json.loads(image.document or "{}").get("architecture") or "")
    except ValueError:
        architecture = ""
    if architecture and not fits(platform, architecture):
        raise InvalidArgument(
            f"image {image.name} is for {platform_of(architecture)}, as its host is, not for {platform}",
            hint="--host HOST of that platform: migrate hosts",
        )
