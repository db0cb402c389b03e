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
class DeviceRate:
    """A bound on what goes to or comes from a disk. `path`: of the device, or of anything on it, looked up on each host anew."""

    path: str
    what: str  # one of RATES
    rate: int  # bytes or operations a second


RATES = ("read_bps", "write_bps", "read_iops", "write_iops")
UNLIMITED = -1


@dataclass(frozen=True, kw_only=True)
class Ulimit:
    """A resource limit that every process of the container has: "nofile" for RLIMIT_NOFILE; UNLIMITED is -1."""

    name: str
    soft: int
    hard: int


@dataclass(frozen=True, kw_only=True)
class Limits:
    """0, or nothing, = no limit. What they mean, and which file each becomes: docs/limits.md."""

    memory_bytes: int = 0
    cpus: float = 0.0
    pids: int = 0
    memory_swap_bytes: int = 0  # of memory and swap together; 0 = as memory_bytes: no swap; UNLIMITED
    memory_reservation_bytes: int = 0
    cpu_shares: int = 0  # 2 to 262144, others have 1024
    cpu_period_us: int = 0
    cpu_quota_us: int = 0
    cpuset_cpus: str = ""  # "0-2,5"
    blkio_weight: int = 0  # 10 to 1000
    device_rates: tuple[DeviceRate, ...] = ()
    ulimits: tuple[Ulimit, ...] = ()
    shm_bytes: int = 0  # size of /dev/shm; 0 = 64 MiB
    oom_score_adj: int = 0
    storage_bytes: int = 0  # of the writable layer

    @classmethod
    def from_dict(cls, raw: dict[str, Any]) -> Self:
        """Of dataclasses.asdict. Raises KeyError, TypeError or ValueError."""
        lists = {
            "device_rates": tuple(DeviceRate(**one) for one in raw.get("device_rates", ())),
            "ulimits": tuple(Ulimit(**one) for one in raw.get("ulimits", ())),
        }
        return cls(**{**raw, **lists})


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
        raw["limits"] = Limits.from_dict(raw["limits"])
        return cls(**raw)
