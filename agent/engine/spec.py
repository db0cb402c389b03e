"""What a container is: frozen dataclasses with a JSON round trip.

A spec is the same on every host for the container's whole life; what depends on the host (paths, cgroup directories, pids) is
computed from it and never stored in it. Standard library only.
"""

from __future__ import annotations

import dataclasses
import json
from dataclasses import dataclass, field
from typing import Any, Self

# Docker's default set: what people expect a container's root to be able to do.
DEFAULT_CAPABILITIES = (
    "CAP_AUDIT_WRITE", "CAP_CHOWN", "CAP_DAC_OVERRIDE", "CAP_FOWNER", "CAP_FSETID", "CAP_KILL", "CAP_MKNOD", "CAP_NET_BIND_SERVICE",
    "CAP_NET_RAW", "CAP_SETFCAP", "CAP_SETGID", "CAP_SETPCAP", "CAP_SETUID", "CAP_SYS_CHROOT",
)  # fmt: skip


@dataclass(frozen=True, kw_only=True)
class IdRange:
    """Host ids that the container's user namespace maps from 0: [base, base + count)."""

    base: int
    count: int = 65536


@dataclass(frozen=True, kw_only=True)
class Network:
    """One interface, eth0. `address` with its prefix length ("10.88.1.2/16"); mtu 0 = the bridge's."""

    address: str
    mac: str
    gateway: str = ""
    mtu: int = 0


@dataclass(frozen=True, kw_only=True)
class Limits:
    """0 = no limit."""

    memory_bytes: int = 0
    cpus: float = 0.0
    pids: int = 0


@dataclass(frozen=True, kw_only=True)
class ContainerSpec:
    """See ContainerSpec in protos/types.proto: the same fields, the same meaning."""

    id: str
    name: str
    image: str
    image_digest: str
    layers: tuple[str, ...]
    argv: tuple[str, ...]
    env: tuple[str, ...]
    cwd: str
    user: str
    hostname: str
    ids: IdRange
    network: Network
    limits: Limits = field(default_factory=Limits)
    tty: bool = False
    stdin_open: bool = False
    capabilities: tuple[str, ...] = DEFAULT_CAPABILITIES
    stop_signal: str = "SIGTERM"
    stop_timeout_s: float = 10.0
    labels: dict[str, str] = field(default_factory=dict)
    created_unix_ns: int = 0
    remove_on_exit: bool = False

    def to_json(self) -> str:
        return json.dumps(dataclasses.asdict(self), sort_keys=True)

    @classmethod
    def from_json(cls, text: str) -> Self:
        """Raises KeyError, TypeError or ValueError when the text is not a spec."""
        raw: dict[str, Any] = json.loads(text)
        for name in ("layers", "argv", "env", "capabilities"):
            raw[name] = tuple(raw[name])
        raw["ids"] = IdRange(**raw["ids"])
        raw["network"] = Network(**raw["network"])
        raw["limits"] = Limits(**raw["limits"])
        return cls(**raw)
