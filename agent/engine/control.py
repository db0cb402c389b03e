"""Control files of cgroups: one value written, one text read, and what the kernel's refusals mean. Standard library only."""

from __future__ import annotations

import errno
import os
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path

from agent.errors import InvalidArgument, Unsupported

# What the kernel says of a value that it understood and does not take; anything else is not the caller's fault.
_REFUSED = (errno.EINVAL, errno.ERANGE, errno.EBUSY, errno.EACCES, errno.ENODEV, errno.EOPNOTSUPP, errno.ENOSPC)
_REMEDIES = {
    "memory": "boot the host with cgroup_enable=memory on the kernel's command line",
    "io": "boot the host with a kernel that has CONFIG_BLK_CGROUP and CONFIG_BLK_DEV_THROTTLING",
    "cpuset": "boot the host with a kernel that has CONFIG_CPUSETS",
    "cpu": "boot the host with a kernel that has CONFIG_CFS_BANDWIDTH",
    "pids": "boot the host with a kernel that has CONFIG_CGROUP_PIDS",
}


@dataclass(frozen=True, kw_only=True)
class Directories:
    """Where one cgroup's control files are: `legacy` maps each version 1 controller to its directory; `unified` is version 2's."""

    legacy: Mapping[str, Path]
    unified: Path

    def files(self, controller: str, *, v1: Iterable[str] = (), v2: Iterable[str] = ()) -> tuple[bool, Path]:
        """(whether it is a version 1 file, the first of these names that exists). Raises Unsupported naming the controller.

        `controller` by its version 2 name; a controller is in one of the hierarchies only.
        """
        directory = self.legacy.get("blkio" if controller == "io" else controller)
        names = v2 if directory is None else v1
        for name in names:
            if (path := (directory or self.unified) / name).exists():
                return directory is not None, path
        raise missing(controller, f"there is no {' or '.join(names)} in {directory or self.unified}")


def missing(controller: str, why: str) -> Unsupported:
    """The error for a limit that this host cannot keep."""
    remedy = _REMEDIES.get(controller, "use a kernel that has it")
    return Unsupported(
        f"this host cannot keep a limit of the {controller} controller: {why}",
        hint=f"{remedy}; or leave that limit out",
    )


def write(path: Path, value: str) -> None:
    """Raises InvalidArgument where the kernel refuses the value, OSError else. Never creates a file in a real hierarchy."""
    try:
        put(path, value)
    except OSError as exc:
        if exc.errno in _REFUSED:
            raise InvalidArgument(f"the kernel refuses {value} for {path}: {exc.strerror}") from exc
        raise


def put(path: Path, value: str) -> None:
    """One open, one write, one close: a start does some forty of these and Python's text files take five system calls more each.
    Raises OSError.
    """
    fd = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_CLOEXEC)
    try:
        os.write(fd, value.encode())
    finally:
        os.close(fd)


def read(path: Path) -> str:
    """ "" where there is no such file (any more)."""
    try:
        fd = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
    except FileNotFoundError:
        return ""
    try:
        parts = []
        while data := os.read(fd, 1 << 16):
            parts.append(data)
    except OSError as exc:
        if exc.errno == errno.ENODEV:  # its cgroup has just been removed
            return ""
        raise
    finally:
        os.close(fd)
    return b"".join(parts).decode()


def pairs(text: str) -> dict[str, str]:
    """{"populated": "1"} of the lines of cgroup.events and its like."""
    return dict(line.split(" ", 1) for line in text.splitlines() if " " in line)
