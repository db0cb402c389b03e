"""Which kernel parameters a container may have values of its own of (`--sysctl`): those of its network and IPC namespaces. Standard
library only.
"""

from __future__ import annotations

from pathlib import Path

from agent.engine.spec import ContainerSpec
from agent.errors import InvalidArgument

_IPC = frozenset(
    f"kernel.{name}" for name in ("msgmax", "msgmnb", "msgmni", "sem", "shmall", "shmmax", "shmmni", "shm_rmid_forced")
)
ROOT = Path("/proc/sys")


def check(spec: ContainerSpec) -> None:
    """Raises InvalidArgument for one that is not of a namespace, or of one that the container has not got."""
    for name, value in spec.isolation.sysctls.items():
        path = path_of(name)
        parts = path.relative_to(ROOT).parts if path.is_relative_to(ROOT) else ()
        below = [parts[:depth] for depth in range(1, len(parts))]
        known = ".".join(parts) in _IPC or ("fs", "mqueue") in below or ("net",) in below
        if not known or ".." in parts or "\0" in name or any(twice in name for twice in ("..", "//")):
            raise InvalidArgument(
                f"sysctl {f'{name}={value}'!r} is not allowed",
                hint="only those of a container's own: net.*, kernel.msg*, kernel.sem, kernel.shm*, fs.mqueue.*",
            )
        if parts[0] == "net" and spec.network.mode == "host":
            raise InvalidArgument(
                f"sysctl {f'{name}={value}'!r} is not allowed in the host's network", hint="without --network host"
            )
        if parts[0] != "net" and spec.isolation.ipc == "host":
            raise InvalidArgument(
                f"sysctl {f'{name}={value}'!r} is not allowed with --ipc host", hint="without --ipc host"
            )


def path_of(name: str) -> Path:
    """As sysctl(8): dots separate, and where a part has dots of its own (an interface's name) slashes do."""
    first_dot, first_slash = name.find("."), name.find("/")
    if first_slash >= 0 and (first_dot < 0 or first_slash < first_dot):
        return ROOT / name
    return ROOT / name.translate(str.maketrans("./", "/."))
