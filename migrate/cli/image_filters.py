"""`images --filter` and `image prune --filter`: Docker's words, as functions of the client's records."""

from __future__ import annotations

import fnmatch
from argparse import ArgumentTypeError
from collections.abc import Sequence

from migrate.cli import values
from migrate.records import Image

LISTED = "dangling=true|false, label=KEY[=VALUE], before=IMAGE, since=IMAGE, reference=PATTERN"
PRUNED = "until=AGE|TIME, label=KEY[=VALUE]"


def pair(text: str) -> tuple[str, str]:
    """KEY=VALUE, for argparse."""
    key, equals, value = text.partition("=")
    if not equals or not value:
        raise ArgumentTypeError(f"{text!r} is not KEY=VALUE")
    return key, value


def select(images: Sequence[Image], filters: Sequence[tuple[str, str]], pattern: str = "") -> list[Image]:
    """Those that every filter lets through; several of the same key: any of them does, as with Docker. ArgumentTypeError."""
    kept = [image for image in images if not pattern or named(image, pattern)]
    for key in dict.fromkeys(key for key, _ in filters):
        wanted = [value for name, value in filters if name == key]
        kept = [image for image in kept if any(_passes(image, key, value, images) for value in wanted)]
    return kept


def named(image: Image, pattern: str) -> bool:
    """Whether "debian", "debian:12" or a pattern such as "*/web:*" fits the image's name."""
    repository, tag = image.repository, image.tag
    if ":" in pattern.rpartition("/")[2]:
        return fnmatch.fnmatchcase(f"{repository}:{tag}", pattern)
    return fnmatch.fnmatchcase(repository, pattern)


def _passes(image: Image, key: str, value: str, images: Sequence[Image]) -> bool:
    if key == "dangling":
        if value not in ("true", "false", "1", "0"):
            raise ArgumentTypeError(f"dangling={value}: it takes true or false")
        return (image.tag == "") == (value in ("true", "1"))
    if key == "label":
        label, equals, text = value.partition("=")
        labels = image.defaults.labels
        return label in labels and (not equals or labels[label] == text)
    if key == "reference":
        return named(image, value)
    if key in ("before", "since"):
        other = _find(images, value).created_unix_ns
        return image.created_unix_ns < other if key == "before" else image.created_unix_ns > other
    raise ArgumentTypeError(f"there is no filter {key!r}; known are {LISTED}")


def _find(images: Sequence[Image], name: str) -> Image:
    digest = f"sha256:{name.removeprefix('sha256:')}"
    for image in images:
        if image.name in (name, f"{name}:latest") or (len(name) >= 12 and image.digest.startswith(digest)):
            return image
    raise ArgumentTypeError(f"no image {name!r} is listed")


def prune(filters: Sequence[tuple[str, str]]) -> tuple[int, list[str]]:
    """`before_unix_ns` (0 = of any age) and labels. Raises ArgumentTypeError."""
    before, labels = 0, []
    for key, value in filters:
        if key == "until":
            before = values.instant(value)
        elif key == "label":
            labels.append(value)
        else:
            raise ArgumentTypeError(f"there is no filter {key!r}; known are {PRUNED}")
    return before, labels
