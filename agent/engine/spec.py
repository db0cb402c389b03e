"""What a container is: frozen dataclasses with a JSON round trip.

A spec is the same on every host for the container's whole life; what depends on the host (paths, cgroup directories, pids) is
computed from it and never stored in it. Standard library only.
"""

from __future__ import annotations

import dataclasses
import functools
import json
from dataclasses import dataclass, field
from typing import Any, Self, TypeVar, cast, get_args, get_origin, get_type_hints

_Kind = TypeVar("_Kind")

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
class Port:
    """A port of the host that leads to one of the container. `host_address` "" = every address of the host."""

    host_address: str = ""
    host_port: int
    container_port: int
    protocol: str = "tcp"  # or "udp"


@dataclass(frozen=True, kw_only=True)
class Mount:
    """What the container sees at `target` besides its root. See Mount in protos/types.proto."""

    kind: str  # "bind", "volume" or "tmpfs"
    source: str = ""  # bind: an absolute path of the host; volume: its name
    target: str
    read_only: bool = False
    propagation: str = ""  # of a bind; "" = "rprivate"
    size_bytes: int = 0  # of a tmpfs; 0 = the kernel's default
    mode: int = 0  # of a tmpfs; 0 = 0o1777
    no_copy: bool = False
    anonymous: bool = False
    create_source: bool = False
    options: tuple[str, ...] = ()  # of a tmpfs: "exec", "uid=1000", ...


@dataclass(frozen=True, kw_only=True)
class Device:
    """A device of the host at `target`; `permissions` of "rwm"."""

    source: str
    target: str
    permissions: str = "rwm"


@dataclass(frozen=True, kw_only=True)
class Isolation:
    """What stands between the container and the host, where it is not the default. See protos/types.proto."""

    seccomp: str = ""  # "" = the default profile; "unconfined"; else a profile, JSON as Docker's
    new_privileges: bool = False
    sysctls: dict[str, str] = field(default_factory=dict)
    devices: tuple[Device, ...] = ()
    pid: str = ""  # "" = its own namespace; "host"
    ipc: str = ""
    uts: str = ""
    user: str = ""
    device_rules: tuple[str, ...] = ()  # "c 189:* rwm"


@dataclass(frozen=True, kw_only=True)
class Secret:
    """A file in the container's memory. Its contents are in no spec: agent/engine/secrets.py."""

    name: str
    target: str
    uid: int = 0  # the container's
    gid: int = 0
    mode: int = 0o444


@dataclass(frozen=True, kw_only=True)
class RestartPolicy:
    """`name`: "" (as "no"), "on-failure", "always", "unless-stopped"; max_retries 0 = no bound."""

    name: str = ""
    max_retries: int = 0

    @property
    def acts(self) -> bool:
        """Whether it ever starts anything."""
        return self.name not in ("", "no")


@dataclass(frozen=True, kw_only=True)
class Healthcheck:
    """As OCI's image config writes it; 0 = not said."""

    test: tuple[str, ...] = ()  # "CMD", ...; or "CMD-SHELL", line; or "NONE"
    interval_ns: int = 0
    timeout_ns: int = 0
    start_period_ns: int = 0
    retries: int = 0
    start_interval_ns: int = 0


@dataclass(frozen=True, kw_only=True)
class Network:
    """One interface, eth0. `address` with its prefix length ("10.88.1.2/16"); mtu 0 = the bridge's."""

    address: str
    mac: str
    gateway: str = ""
    mtu: int = 0
    mode: str = ""  # "" = eth0 on the bridge; "none" = lo alone; "host" = the host's own
    ports: tuple[Port, ...] = ()
    extra_hosts: tuple[str, ...] = ()  # "NAME:ADDRESS"
    dns: tuple[str, ...] = ()
    dns_search: tuple[str, ...] = ()
    dns_options: tuple[str, ...] = ()
    exposed: tuple[str, ...] = ()  # "5000/tcp": only shown


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
    cpuset_mems: str = ""  # "0-1": memory nodes
    memory_swappiness: int | None = None  # 0 to 100; version 1 alone
    oom_kill_disable: bool = False  # version 1 alone


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
    mounts: tuple[Mount, ...] = ()
    read_only: bool = False  # the root
    isolation: Isolation = field(default_factory=Isolation)
    restart: RestartPolicy = field(default_factory=RestartPolicy)
    health: Healthcheck = field(default_factory=Healthcheck)
    init: bool = False  # a small init is pid 1 and reaps
    log_options: dict[str, str] = field(default_factory=dict)  # "max-size", "max-file"
    groups: tuple[str, ...] = ()  # further groups of its processes: names of the image, or numbers
    domainname: str = ""
    annotations: dict[str, str] = field(default_factory=dict)
    umask: str = ""  # octal; "" = 022
    timezone: str = ""  # "Europe/Berlin"; "local" = that of the host that it was created on
    secrets: tuple[Secret, ...] = ()

    def to_json(self) -> str:
        return json.dumps(to_plain(self), sort_keys=True)

    @classmethod
    def from_json(cls, text: str) -> Self:
        """Raises KeyError, TypeError or ValueError when the text is not a spec."""
        return from_plain(cls, json.loads(text))


def to_plain(value: Any) -> Any:
    """As dataclasses.asdict(), of what only has dataclasses, tuples, dicts of text and what never changes: without its deep copies, which
    took a tenth of a container's start.
    """
    if dataclasses.is_dataclass(value):
        return {name: to_plain(one) for name, one in vars(value).items()}
    if isinstance(value, tuple):
        return [to_plain(one) for one in value]
    return value


def from_plain(kind: type[_Kind], raw: Any) -> _Kind:
    """The dataclass that to_plain() made `raw` of, after its way through JSON. Raises KeyError, TypeError or ValueError."""
    hints = _hints(cast("Any", kind))
    return kind(**{name: _value(hints[name], value) for name, value in raw.items()})


_hints = functools.cache(get_type_hints)  # it compiles every annotation anew


def _value(hint: Any, value: Any) -> Any:
    if dataclasses.is_dataclass(hint) and isinstance(hint, type):
        return from_plain(hint, value)
    if get_origin(hint) is tuple:
        inner = get_args(hint)[0]
        return tuple(_value(inner, one) for one in value)
    return value
