"""Which capabilities a container gets: Docker's defaults, what was added, less what was dropped."""

from __future__ import annotations

from collections.abc import Iterable

from migrate.errors import InvalidArgument

# What people expect a container's root to be able to do.
DEFAULT = (
    "CAP_AUDIT_WRITE", "CAP_CHOWN", "CAP_DAC_OVERRIDE", "CAP_FOWNER", "CAP_FSETID", "CAP_KILL", "CAP_MKNOD",
    "CAP_NET_BIND_SERVICE", "CAP_NET_RAW", "CAP_SETFCAP", "CAP_SETGID", "CAP_SETPCAP", "CAP_SETUID", "CAP_SYS_CHROOT",
)  # fmt: skip
ALL = frozenset({
    *DEFAULT, "CAP_AUDIT_CONTROL", "CAP_AUDIT_READ", "CAP_BLOCK_SUSPEND", "CAP_BPF", "CAP_CHECKPOINT_RESTORE",
    "CAP_DAC_READ_SEARCH", "CAP_IPC_LOCK", "CAP_IPC_OWNER", "CAP_LEASE", "CAP_LINUX_IMMUTABLE", "CAP_MAC_ADMIN",
    "CAP_MAC_OVERRIDE", "CAP_NET_ADMIN", "CAP_NET_BROADCAST", "CAP_PERFMON", "CAP_SYSLOG", "CAP_SYS_ADMIN",
    "CAP_SYS_BOOT", "CAP_SYS_MODULE", "CAP_SYS_NICE", "CAP_SYS_PACCT", "CAP_SYS_PTRACE", "CAP_SYS_RAWIO",
    "CAP_SYS_RESOURCE", "CAP_SYS_TIME", "CAP_SYS_TTY_CONFIG", "CAP_WAKE_ALARM",
})  # fmt: skip


def bounding_set(add: Iterable[str], drop: Iterable[str]) -> tuple[str, ...]:
    """Sorted. "ALL" may be added or dropped; with both, what is named beside them decides. Raises InvalidArgument."""
    added, dropped = {_checked(name) for name in add}, {_checked(name) for name in drop}
    if "ALL" in dropped:
        base: set[str] = set()
    else:
        base = set(ALL if "ALL" in added else DEFAULT) - dropped
    return tuple(sorted(base | (added - {"ALL"})))


def _checked(name: str) -> str:
    full = name.upper()
    if full != "ALL" and not full.startswith("CAP_"):
        full = f"CAP_{full}"
    if full != "ALL" and full not in ALL:
        raise InvalidArgument(f"{name!r} is not a capability", hint="such as NET_ADMIN; man 7 capabilities lists them")
    return full
