"""The options of `run` and `create` about what processes find inside: groups, names, time zone, secrets, the platform. docs/lifecycle.md"""

from __future__ import annotations

import argparse
import os
import re
from argparse import ArgumentTypeError
from pathlib import Path
from typing import Any

from migrate.cli import values
from migrate.records import Secret

SECRETS = "/run/secrets"
_SECRET_KEYS = frozenset({"id", "src", "source", "env", "type", "target", "uid", "gid", "mode"})


def add_options(parser: argparse.ArgumentParser) -> None:
    add = parser.add_argument
    add(
        "--group-add",
        action="append",
        default=[],
        metavar="GROUP",
        help="a further group of its processes, by the image's name or a number; repeatable",
    )
    add("--domainname", default="", metavar="NAME", help="domain of its host name; of NIS, too")
    add("--umask", default=None, type=umask, metavar="MODE", help="that its processes begin with (default: 0022)")
    add(
        "--tz",
        "--timezone",
        dest="timezone",
        default="",
        metavar="ZONE",
        help="/etc/localtime, such as Europe/Berlin; local: the host's (default: the image's)",
    )
    add("--annotation", action="append", default=[], metavar="KEY=VALUE", help="kept with it; repeatable")
    add(
        "--secret",
        action="append",
        default=[],
        metavar="id=NAME,src=FILE",
        help=f"a file {SECRETS}/NAME in its memory, in no image and not in inspect; env=VARIABLE instead of src=,"
        " and target=NAME,uid=,gid=,mode=; repeatable",
    )
    add(
        "--platform",
        default=None,
        type=platform,
        metavar="OS/ARCH",
        help="only on a host, and of an image, of this platform, such as linux/arm64 (default: the host's)",
    )
    add(
        "--unsetenv", action="append", default=[], metavar="NAME", help="without this variable of the image; repeatable"
    )


def fields(args: argparse.Namespace) -> dict[str, Any]:
    """Fields of records.Run. Raises ArgumentTypeError."""
    found = [secret(text) for text in args.secret]
    names = [one.name for one, _ in found]
    if twice := next((name for name in names if names.count(name) > 1), ""):
        raise ArgumentTypeError(f"--secret: two are called {twice}")
    return {
        "groups": tuple(args.group_add),
        "domainname": args.domainname,
        "umask": args.umask or "",
        "timezone": args.timezone,
        "annotations": values.labels(args.annotation),
        "secrets": tuple(one for one, _ in found),
        "secret_data": {one.name: data for one, data in found},
        "platform": args.platform or "",
        "unset_env": tuple(args.unsetenv),
    }


def umask(text: str) -> str:
    if not re.fullmatch(r"[0-7]{1,4}", text) or int(text, 8) > 0o777:
        raise ArgumentTypeError(f"{text!r} is not an umask such as 0027")
    return text


def platform(text: str) -> str:
    """linux/amd64, linux/arm64/v8."""
    if not re.fullmatch(r"[a-z0-9]+/[a-z0-9_]+(/[a-z0-9]+)?", text):
        raise ArgumentTypeError(f"{text!r} is not OS/ARCH such as linux/amd64")
    return text


def secret(text: str) -> tuple[Secret, bytes]:
    """id=NAME,src=FILE,... and the contents, which are read here: the file is the caller's."""
    given = dict(part.partition("=")[::2] for part in text.split(","))
    name, source, variable = given.get("id", ""), given.get("src") or given.get("source", ""), given.get("env", "")
    if not name or set(given) - _SECRET_KEYS or bool(source) == bool(variable):
        raise ArgumentTypeError(f"--secret takes id=NAME,src=FILE or id=NAME,env=VARIABLE, not {text!r}")
    if given.get("type", "file") not in ("file", "mount", "env"):
        raise ArgumentTypeError(f"--secret {text}: a secret is a file, type=mount; a variable would be in inspect")
    target = given.get("target") or name
    one = Secret(
        name=name,
        target=target if target.startswith("/") else f"{SECRETS}/{target}",
        uid=_number(given.get("uid", "0"), 10, "uid"),
        gid=_number(given.get("gid", "0"), 10, "gid"),
        mode=_number(given.get("mode", "0444"), 8, "mode"),
    )
    try:
        return one, os.environb[variable.encode()] if variable else Path(source).read_bytes()
    except KeyError as exc:
        raise ArgumentTypeError(f"--secret {text}: there is no variable {variable}") from exc
    except OSError as exc:
        raise ArgumentTypeError(f"--secret {text}: cannot read {source}: {exc.strerror}") from exc


def _number(text: str, base: int, what: str) -> int:
    try:
        return int(text, base)
    except ValueError as exc:
        raise ArgumentTypeError(f"--secret: {what}={text} is no number") from exc
