"""Containers as the client library takes and gives them. Standard library only."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import field

from migrate.records_json import Json, Record


class DeviceRate(Json):
    """`path`: of a device, or of anything on it; `what`: "read_bps", "write_bps", "read_iops" or "write_iops"."""

    path: str
    what: str
    rate: int


class Ulimit(Json):
    """`name`: "nofile"; -1 = unlimited."""

    name: str
    soft: int
    hard: int


class Limits(Record):
    """0, or nothing, = no limit. docs/limits.md says what each means."""

    memory_bytes: int = 0
    memory_swap_bytes: int = 0  # of both together; 0 = as memory_bytes: no swap; -1 = no bound on swap
    memory_reservation_bytes: int = 0
    cpus: float = 0.0
    cpu_shares: int = 0
    cpu_period_us: int = 0
    cpu_quota_us: int = 0
    cpuset_cpus: str = ""  # "0-2,5"
    pids: int = 0
    blkio_weight: int = 0
    device_rates: tuple[DeviceRate, ...] = ()
    ulimits: tuple[Ulimit, ...] = ()
    shm_bytes: int = 0
    oom_score_adj: int = 0
    storage_bytes: int = 0  # of the writable layer
    cpuset_mems: str = ""  # "0-1": memory nodes
    memory_swappiness: int | None = None  # 0 to 100; hosts with version 1 of cgroups alone
    oom_kill_disable: bool = False  # at the limit of memory its tasks wait; version 1 alone


class Mount(Json):
    """What a container sees at `target` besides its root. `kind`: "bind" (`source`: an absolute path of the host),
    "volume" (`source`: its name) or "tmpfs" (`size_bytes`, `mode`; 0 = the kernel's default and 01777).

    `no_copy`: an empty volume is not filled from the image; `anonymous`: made with the container; `create_source`: a bind's
    source that is not there becomes a directory.
    """

    kind: str
    target: str
    source: str = ""
    read_only: bool = False
    propagation: str = ""  # of a bind; "" = "rprivate"
    size_bytes: int = 0
    mode: int = 0
    no_copy: bool = False
    anonymous: bool = False
    create_source: bool = False
    options: tuple[str, ...] = ()  # of a tmpfs: "exec", "uid=1000", ...


class Port(Json):
    """A port of the host that leads to one of the container. `host_address` "" = every address; `host_port` 0 = one that is
    free; with `host_port_end` one that is free between the two.
    """

    container_port: int
    host_port: int = 0
    host_port_end: int = 0
    host_address: str = ""
    protocol: str = "tcp"


class Device(Json):
    """A device of the host at `target`; `permissions` of "rwm"."""

    source: str
    target: str
    permissions: str = "rwm"


class Isolation(Json):
    """What stands between a container and its host, where it is not the default. `seccomp`: "" = the default profile,
    "unconfined", or a profile (JSON, as Docker's). `pid`, `ipc`, `uts`, `user`: "" = a namespace of its own, "host".
    """

    seccomp: str = ""
    new_privileges: bool = False
    sysctls: Mapping[str, str] = field(default_factory=dict)
    devices: tuple[Device, ...] = ()
    pid: str = ""
    ipc: str = ""
    uts: str = ""
    user: str = ""
    device_rules: tuple[str, ...] = ()  # "c 189:* rwm"


class Secret(Json):
    """A file that only the container sees, in memory, at `target`; its contents are in Run.secret_data, by `name`."""

    name: str
    target: str
    uid: int = 0
    gid: int = 0
    mode: int = 0o444


class RestartPolicy(Json):
    """`name`: "" or "no", "on-failure", "always", "unless-stopped"; max_retries 0 = no bound."""

    name: str = ""
    max_retries: int = 0


class Healthcheck(Json):
    """How a container shows that it is well; `test`: ("CMD", ...), ("CMD-SHELL", line) or ("NONE",). 0 = not said."""

    test: tuple[str, ...] = ()
    interval_ns: int = 0
    timeout_ns: int = 0
    start_period_ns: int = 0
    retries: int = 0
    start_interval_ns: int = 0


class HealthResult(Json):
    """One check; `output`: what it wrote, cut."""

    started_unix_ns: int
    ended_unix_ns: int
    exit_code: int
    output: str


class Health(Json):
    """`status`: "" where nothing is checked, "starting", "healthy", "unhealthy"; `log`: the last five checks."""

    status: str = ""
    failing_streak: int = 0
    log: tuple[HealthResult, ...] = ()


class Place(Record):
    """What a container has around it. `network_mode`: "" = eth0 on the bridge, "none", "host"; `extra_hosts`: "NAME:ADDRESS"."""

    mounts: tuple[Mount, ...] = ()
    read_only: bool = False  # the root
    isolation: Isolation = field(default_factory=Isolation)
    restart: RestartPolicy = field(default_factory=RestartPolicy)
    health: Healthcheck = field(default_factory=Healthcheck)
    init: bool = False  # a small init is pid 1 and reaps
    log_options: Mapping[str, str] = field(default_factory=dict)  # "max-size", "max-file"
    network_mode: str = ""
    ports: tuple[Port, ...] = ()
    extra_hosts: tuple[str, ...] = ()
    dns: tuple[str, ...] = ()
    dns_search: tuple[str, ...] = ()
    dns_options: tuple[str, ...] = ()
    exposed: tuple[str, ...] = ()  # "5000/tcp": what it says that it serves
    groups: tuple[str, ...] = ()  # further ones of its processes: names of the image, or numbers
    domainname: str = ""
    annotations: Mapping[str, str] = field(default_factory=dict)
    umask: str = ""  # octal; "" = 022
    timezone: str = ""  # "Europe/Berlin"; "local" = that of the host that it was created on
    secrets: tuple[Secret, ...] = ()


class Run(Limits, Place):
    """What `run` and `create` take. Empty values mean the image's or the fleet's default.

    `argv` replaces the image's cmd; `entrypoint` the image's entrypoint (None = keep, empty = none).
    """

    image: str
    argv: tuple[str, ...] = ()
    entrypoint: tuple[str, ...] | None = None
    name: str = ""
    host: str = ""
    env: tuple[str, ...] = ()
    cwd: str = ""
    user: str = ""
    hostname: str = ""
    tty: bool = False
    stdin_open: bool = False
    labels: Mapping[str, str] = field(default_factory=dict)
    address: str = ""
    mac: str = ""
    cap_add: tuple[str, ...] = ()
    cap_drop: tuple[str, ...] = ()
    stop_signal: str = ""
    stop_timeout_s: float = 0.0
    remove_on_exit: bool = False
    publish_all: bool = False  # every port that the image exposes
    secret_data: Mapping[str, bytes] = field(default_factory=dict, repr=False)  # by the name of a secret
    unset_env: tuple[str, ...] = ()  # names of variables of the image
    platform: str = ""  # "linux/arm64": of the image and its host


class Container(Json, Limits, Place):
    """A container as it is now. `exit_code` is None until it has exited; 128+n: killed by signal n."""

    id: str
    name: str
    host: str
    state: str
    image: str
    image_digest: str = ""
    layers: tuple[str, ...] = ()
    argv: tuple[str, ...] = ()
    env: tuple[str, ...] = ()
    cwd: str = ""
    user: str = ""
    hostname: str = ""
    address: str = ""  # with the prefix length
    mac: str = ""
    gateway: str = ""
    ids_base: int = 0  # first host uid and gid of its user namespace
    ids_count: int = 0
    tty: bool = False
    stdin_open: bool = False
    capabilities: tuple[str, ...] = ()
    stop_signal: str = ""
    stop_timeout_s: float = 0.0
    labels: Mapping[str, str] = field(default_factory=dict)
    created_unix_ns: int = 0
    remove_on_exit: bool = False
    pid: int = 0  # on the host
    started_unix_ns: int = 0
    finished_unix_ns: int = 0
    exit_code: int | None = None
    error: str = ""
    epoch: int = 0  # grows by one with each move
    migration_id: str = ""  # of the move under way
    oom_kills: int = 0  # processes that the kernel killed on this host because the container was at its limit of memory
    oom_killed: bool = False
    restarts: int = 0  # by its restart policy, since somebody started it
    health_now: Health = field(default_factory=Health)
    layer_bytes: int = 0  # what is in its writable layer; only of lists where that was asked for
