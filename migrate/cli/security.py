"""The options of `run` and `create` that say what stands between a container and its host; named as Docker's. docs/security.md."""

from __future__ import annotations

import argparse
import json
from argparse import ArgumentTypeError
from pathlib import Path
from typing import Any

from migrate.records import Isolation

_TRUE, _FALSE = ("", "1", "t", "true"), ("0", "f", "false")


def add_options(parser: argparse.ArgumentParser) -> None:
    group = parser.add_argument_group("isolation", "what each means: docs/security.md")
    group.add_argument(
        "--security-opt",
        dest="isolation_options",
        action="append",
        default=[],
        type=security_option,
        metavar="OPTION",
        help="seccomp=FILE (a profile as Docker's) or seccomp=unconfined; no-new-privileges=false lets programs gain"
        " privileges by set-uid bits; repeatable",
    )


def fields(args: argparse.Namespace) -> dict[str, Any]:
    """The fields of records.Run."""
    given: dict[str, Any] = {}
    for name, value in args.isolation_options:
        given[name] = value
    return {"isolation": Isolation(**given)}


def security_option(text: str) -> tuple[str, str | bool]:
    """A field of Isolation and its value. A profile is read here: the file is the caller's."""
    key, equals, value = text.partition("=")
    if not equals:
        key, _, value = text.partition(":")  # as Docker wrote it once
    if key == "no-new-privileges":
        if value.lower() not in _TRUE + _FALSE:
            raise ArgumentTypeError(f"{text!r} is not no-new-privileges=true or =false")
        return "new_privileges", value.lower() in _FALSE
    if key == "seccomp" and value:
        return "seccomp", profile(value)
    if key in ("apparmor", "label", "systempaths"):
        raise ArgumentTypeError(
            f"{key!r} is not one of what there is here: seccomp=FILE|unconfined, no-new-privileges[=false]"
        )
    raise ArgumentTypeError(f"{text!r} is not seccomp=FILE|unconfined or no-new-privileges[=false]")


def profile(value: str) -> str:
    """The text of a profile; "" = the default one."""
    if value in ("unconfined", "builtin"):
        return value if value == "unconfined" else ""
    try:
        text = Path(value).read_text()
        json.loads(text)
    except OSError as exc:
        raise ArgumentTypeError(f"opening seccomp profile ({value}) failed: {exc.strerror}") from exc
    except ValueError as exc:
        raise ArgumentTypeError(f"decoding seccomp profile ({value}) failed: {exc}") from exc
    return text
