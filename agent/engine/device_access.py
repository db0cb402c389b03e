"""Devices: which a container sees besides the usual ones (`--device`), and which its tasks may use at all.

They may use the few that every program expects, and what they were given; make nodes of any (which a user namespace refuses anyway).
Version 1 keeps that list in its `devices` controller, version 2 by a BPF program on the container's cgroup; where a host has both, both
do. Where it has neither, what is left is the user namespace: it opens no node but those that are bound into it.
"""

from __future__ import annotations

import errno
import logging
import os
import re
import stat
from collections.abc import Iterable, Sequence
from pathlib import Path

from agent.engine.cgroup import Cgroup
from agent.engine.spec import ContainerSpec, Device
from agent.errors import AgentError, InvalidArgument, Unsupported
from agent.linux import bpf
from agent.linux.bpf import DeviceRule

DEFAULT = (
    *(DeviceRule(kind=kind, major=None, minor=None, access="m") for kind in "bc"),
    *(
        DeviceRule(kind="c", major=1, minor=minor, access="rwm") for minor in (3, 5, 7, 8, 9)
    ),  # null zero full random urandom
    *(DeviceRule(kind="c", major=5, minor=minor, access="rwm") for minor in (0, 1, 2)),  # tty console ptmx
    *(DeviceRule(kind="c", major=major, minor=None, access="rwm") for major in (136, 137, 138, 139)),  # pts
)

_RULE = re.compile(r"(?P<kind>[abc])\s+(?P<major>\d+|\*):(?P<minor>\d+|\*)\s+(?P<access>[rwm]{1,3})")

log = logging.getLogger(__name__)


def check(spec: ContainerSpec) -> None:
    """Raises InvalidArgument for what is no device of this host, or cannot be where it is asked for."""
    for device in spec.isolation.devices:
        if not device.permissions or set(device.permissions) - set("rwm"):
            raise InvalidArgument(f"invalid mode for device: {device.permissions}", hint="letters of rwm")
        for path in (device.source, device.target):
            if not path.startswith("/") or ".." in path.split("/"):
                raise InvalidArgument(f"a device is named by an absolute path, not {path!r}", hint="--device /dev/fuse")
        rule_of(device)
    for text in spec.isolation.device_rules:
        rules_of(text)


def missing(devices: Iterable[Device]) -> list[AgentError]:
    """Why this host cannot give them; nothing is touched."""
    found: list[AgentError] = []
    for device in devices:
        try:
            rule_of(device)
        except AgentError as exc:
            found.append(exc)
    return found


def rule_of(device: Device) -> DeviceRule:
    """Raises InvalidArgument where this host has no such device."""
    try:
        status = Path(device.source).stat()
    except OSError as exc:
        raise InvalidArgument(
            f"error gathering device information while adding custom device {device.source!r}: {exc.strerror}",
            hint="the device must be on the host that the container runs on, also after a move",
        ) from exc
    if not stat.S_ISCHR(status.st_mode) and not stat.S_ISBLK(status.st_mode):
        raise InvalidArgument(f"{device.source!r} is not a device node", hint="name each node: --device /dev/fuse")
    kind = "c" if stat.S_ISCHR(status.st_mode) else "b"
    return DeviceRule(
        kind=kind, major=os.major(status.st_rdev), minor=os.minor(status.st_rdev), access=device.permissions
    )


def rules_of(text: str) -> list[DeviceRule]:
    """Of "c 189:* rwm", as the kernel's devices.allow and Docker's --device-cgroup-rule have it. Raises InvalidArgument."""
    found = _RULE.fullmatch(text)
    if not found:
        raise InvalidArgument(f"{text!r} is no rule about devices", hint="--device-cgroup-rule 'c 189:* rwm'")
    kinds = ("b", "c") if found["kind"] == "a" else (found["kind"],)
    major, minor = (None if number == "*" else int(number) for number in (found["major"], found["minor"]))
    return [DeviceRule(kind=kind, major=major, minor=minor, access=found["access"]) for kind in kinds]


def restrict(cgroup: Cgroup, spec: ContainerSpec) -> None:
    """Before there are tasks. Raises Unsupported where less than all access to a device was asked for and nothing here can keep it."""
    rules = [*DEFAULT, *(rule_of(device) for device in spec.isolation.devices)]
    rules += [rule for text in spec.isolation.device_rules for rule in rules_of(text)]
    kept = by_version_1(cgroup, rules)
    try:
        bpf.allow_devices(cgroup.freezer, rules, keep=not (spec.isolation.devices or spec.isolation.device_rules))
        kept = True
    except OSError as exc:
        if exc.errno not in (errno.EPERM, errno.EACCES, errno.ENOSYS, errno.EINVAL):
            raise
        if not kept:
            log.info(
                "no list of devices for container %s: %s; its user namespace opens none of the host's", spec.id, exc
            )
    if not kept and any(set(device.permissions) != set("rwm") for device in spec.isolation.devices):
        raise Unsupported(
            "this host has neither the v1 devices controller nor BPF for cgroups: no access to a device can be left out",
            hint="--device without permissions",
        )


def by_version_1(cgroup: Cgroup, rules: list[DeviceRule]) -> bool:
    directory = cgroup.directories.legacy.get("devices")
    if directory is None:
        return False
    try:
        _write(directory / "devices.deny", ["a"])
        _write(directory / "devices.allow", [_text(rule) for rule in rules])
    except PermissionError as exc:  # within a container of somebody else's
        log.info("%s: %s", directory, exc)
        return False
    return True


def _text(rule: DeviceRule) -> str:
    numbers = ":".join("*" if number is None else str(number) for number in (rule.major, rule.minor))
    return f"{rule.kind} {numbers} {rule.access}"


def _write(path: Path, lines: Sequence[str]) -> None:
    """Each line by a write of its own: the kernel takes one at a time."""
    fd = os.open(path, os.O_WRONLY | os.O_CLOEXEC)
    try:
        for line in lines:
            os.write(fd, line.encode())
    finally:
        os.close(fd)
