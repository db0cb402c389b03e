"""`image import --change`: lines of a Dockerfile that set what `run` takes from the image."""

from __future__ import annotations

import json
import shlex
from argparse import ArgumentTypeError
from collections.abc import Iterable
from dataclasses import replace

from migrate.cli import values
from migrate.records import ImageDefaults

KNOWN = "CMD ENTRYPOINT ENV EXPOSE VOLUME WORKDIR USER LABEL STOPSIGNAL"


def apply(changes: Iterable[str]) -> ImageDefaults:
    """What the image's config becomes, change by change; later ones win. Raises ArgumentTypeError naming the change."""
    defaults = ImageDefaults()
    for change in changes:
        word, _, value = change.strip().partition(" ")
        try:
            defaults = _apply(defaults, word.upper(), value.strip())
        except (ValueError, ArgumentTypeError) as exc:
            raise ArgumentTypeError(f"--change {change!r}: {exc}") from exc
    return defaults


def _apply(defaults: ImageDefaults, word: str, value: str) -> ImageDefaults:
    if word not in KNOWN.split():
        raise ValueError(f"known are {KNOWN}")
    if not value:
        raise ValueError(f"{word} takes a value")
    if word == "CMD":
        return replace(defaults, cmd=_command(value))
    if word == "ENTRYPOINT":
        return replace(defaults, entrypoint=_command(value))
    if word == "ENV":
        merged = dict(entry.partition("=")[::2] for entry in defaults.env) | _pairs(value)
        return replace(defaults, env=tuple(f"{key}={text}" for key, text in merged.items()))
    if word == "EXPOSE":
        return replace(defaults, exposed_ports=(*defaults.exposed_ports, *(_port(one) for one in value.split())))
    if word == "VOLUME":
        paths = _words(value) if value.startswith("[") else tuple(shlex.split(value))
        return replace(defaults, volumes=(*defaults.volumes, *paths))
    if word == "WORKDIR":
        if not value.startswith("/"):
            raise ValueError("takes an absolute path")
        return replace(defaults, working_dir=value)
    if word == "USER":
        return replace(defaults, user=value)
    if word == "LABEL":
        return replace(defaults, labels=dict(defaults.labels) | _pairs(value))
    return replace(defaults, stop_signal=values.signal(value))


def _command(value: str) -> tuple[str, ...]:
    """The words of the exec form, a JSON array, or /bin/sh -c for the shell form."""
    return _words(value) if value.startswith("[") else ("/bin/sh", "-c", value)


def _port(text: str) -> str:
    number, _, protocol = text.lower().partition("/")
    if not number.isdigit() or not 0 < int(number) < 65536 or protocol not in ("", "tcp", "udp", "sctp"):
        raise ValueError(f"{text!r} is no port such as 80 or 53/udp")
    return f"{number}/{protocol or 'tcp'}"


def _words(value: str) -> tuple[str, ...]:
    words = json.loads(value)
    if not all(isinstance(word, str) for word in words):
        raise ValueError("the array takes strings only")
    return tuple(words)


def _pairs(value: str) -> dict[str, str]:
    """{"A": "1 2", "B": "3"} of `A="1 2" B=3`, and {"A": "1 2"} of the old form `A 1 2`."""
    first, _, text = value.partition(" ")
    if "=" not in first:
        if not text:
            raise ValueError(f"{value!r} is not KEY=value")
        return {first: text.strip()}
    pairs: dict[str, str] = {}
    for word in shlex.split(value):
        key, equals, text = word.partition("=")
        if not equals or not key:
            raise ValueError(f"{word!r} is not KEY=value")
        pairs[key] = text
    return pairs
