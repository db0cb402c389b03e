"""Names of images and of blobs: what is one, and how the short forms that people type are written out. Pure functions.

debian                      debian:latest
docker.io/library/debian:12 debian:12, as Docker shows it
web:latest@sha256:HEX       an image whose tag another one took; `@sha256:HEX` one that never had a tag
"""

from __future__ import annotations

import re

from agent.errors import InvalidArgument

LATEST = "latest"
_LONGEST = 255
_DIGEST = re.compile(r"sha256:[0-9a-f]{64}")
_SHORT = re.compile(r"(?:sha256:)?[0-9a-f]{12,64}")
_REPOSITORY = re.compile(r"[a-z0-9]+(?:[._/:-]+[a-zA-Z0-9]+)*")
_TAG = re.compile(r"[A-Za-z0-9_][A-Za-z0-9_.-]{0,127}")
_HUB = ("docker.io/library/", "docker.io/", "index.docker.io/library/", "index.docker.io/")


def checked(name: str) -> str:
    """The full name with its tag: `debian` -> `debian:latest`. Raises InvalidArgument."""
    repository, tag = split(familiar(name))
    tag = tag if tag or name.endswith(":") else LATEST
    if len(repository) > _LONGEST or not _REPOSITORY.fullmatch(repository) or not _TAG.fullmatch(tag):
        raise InvalidArgument(
            f"{name!r} is no name of an image", hint="names look like debian:12 or registry:5000/team/web"
        )
    return f"{repository}:{tag}"


def split(name: str) -> tuple[str, str]:
    """Repository and tag, "" without one: the port of a registry is no tag."""
    repository, colon, tag = name.rpartition(":")
    if not colon or "/" in tag:
        return name, ""
    return repository, tag


def familiar(name: str) -> str:
    """Without the registry where that is Docker's own, which nobody writes."""
    for prefix in _HUB:
        if name.startswith(prefix):
            return name.removeprefix(prefix)
    return name


def is_tag(name: str) -> bool:
    """False for the names that the store gives to images without a tag."""
    return "@" not in name


def untagged(name: str, digest: str) -> str:
    """What an image is called that has lost the tag `name`, or ("") never had one."""
    return f"{name.partition('@')[0]}@{digest}"


def is_digest(text: str) -> bool:
    """A whole one, with its algorithm."""
    return _DIGEST.fullmatch(text) is not None


def digest_prefix(text: str) -> str:
    """The beginning of a digest that `text` stands for (12 hex digits do), "" where it is a name."""
    return f"sha256:{text.removeprefix('sha256:')}" if _SHORT.fullmatch(text) else ""


def hex_of(digest: str) -> str:
    """The hex digits; digests come from other hosts and become file names, so anything else is refused."""
    if not _DIGEST.fullmatch(digest):
        raise InvalidArgument(f"{digest!r} is no digest", hint="sha256: and 64 hex digits")
    return digest.removeprefix("sha256:")
