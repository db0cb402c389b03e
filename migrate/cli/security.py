"""The options of `run` and `create` that say what stands between a container and its host; named as Docker's. docs/security.md."""

from __future__ import annotations

import argparse
import json
import re
from argparse import ArgumentTypeError
from collections.abc import Callable
from pathlib import Path
from typing import Any

from migrate.records import Device, Isolation

_NAMESPACES = {"pid": "processes", "ipc": "shared memory and queues", "uts": "host name", "userns": "users"}
_OWN = {
    "pid": ("", "private"),
    "ipc": ("", "private", "shareable"),
    "uts": ("", "private"),
    "userns": ("", "auto", "private"),
}
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
    group.add_argument(
        "--device",
        dest="isolation_devices",
        action="append",
        default=[],
        type=device,
        metavar="PATH[:PATH][:rwm]",
        help="a device of the host, at the same path or another one; read, write, mknod; repeatable",
    )
    group.add_argument(
        "--sysctl",
        dest="isolation_sysctls",
        action="append",
        default=[],
        type=sysctl,
        metavar="NAME=VALUE",
        help="a kernel parameter of the container's own, such as net.core.somaxconn=1024; repeatable",
    )
    for name, what in _NAMESPACES.items():
        group.add_argument(
            f"--{name}",
            dest=f"isolation_{name}",
            default="",
            type=namespace_of(name),
            metavar="MODE",
            help=f"host: the host's {what} instead of its own",
        )
    group.add_argument(
        "--device-cgroup-rule",
        dest="isolation_device_rules",
        action="append",
        default=[],
        type=device_rule,
        metavar="RULE",
        help="what its tasks may do with devices, such as 'c 189:* rwm', besides those of --device; repeatable",
    )


def fields(args: argparse.Namespace) -> dict[str, Any]:
    """The fields of records.Run."""
    given: dict[str, Any] = {}
    for name, value in args.isolation_options:
        given[name] = value
    given["devices"] = tuple(args.isolation_devices)
    given["device_rules"] = tuple(args.isolation_device_rules)
    given["sysctls"] = dict(args.isolation_sysctls)
    for option, field in (("pid", "pid"), ("ipc", "ipc"), ("uts", "uts"), ("userns", "user")):
        given[field] = getattr(args, f"isolation_{option}")
    return {"isolation": Isolation(**given)}


def warnings(isolation: Isolation) -> list[str]:
    """What whoever asked for it should know."""
    if isolation.user != "host":
        return []
    return [
        "--userns host: the container's users are the host's of the same number, and its root owns the host's files that it is given"
    ]


def device(text: str) -> Device:
    """/dev/a, /dev/a:/dev/b, /dev/a:r, /dev/a:/dev/b:rw."""
    source, *rest = text.split(":")
    permissions = "rwm"
    if rest and not rest[-1].startswith("/"):
        permissions = rest.pop()
    if not source.startswith("/") or len(rest) > 1 or not permissions or set(permissions) - set("rwm"):
        raise ArgumentTypeError(f"{text!r} is not PATH[:PATH][:rwm] such as /dev/fuse or /dev/sda:/dev/disk:r")
    return Device(source=source, target=rest[0] if rest else source, permissions=permissions)


def device_rule(text: str) -> str:
    """ "c 189:* rwm"; "a" stands for both kinds."""
    if not re.fullmatch(r"[abc]\s+(\d+|\*):(\d+|\*)\s+[rwm]{1,3}", text):
        raise ArgumentTypeError(f"{text!r} is not a rule such as 'c 189:* rwm'")
    return text


def sysctl(text: str) -> tuple[str, str]:
    name, equals, value = text.partition("=")
    if not name or not equals:
        raise ArgumentTypeError(f"{text!r} is not NAME=VALUE such as net.core.somaxconn=1024")
    return name, value


def namespace_of(option: str) -> Callable[[str], str]:
    """ "host", or "" for what is the default here under whatever name Docker and Podman have for it."""

    def mode(text: str) -> str:
        if text == "host":
            return text
        if text in _OWN[option]:
            return ""
        if text.startswith("container:"):
            raise ArgumentTypeError(f"{text!r}: containers here share no namespaces, for each moves by itself")
        raise ArgumentTypeError(f"{text!r} is not host")

    return mode


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
