from google.protobuf.internal import containers as _containers
from google.protobuf.internal import enum_type_wrapper as _enum_type_wrapper
from google.protobuf import descriptor as _descriptor
from google.protobuf import message as _message
from collections.abc import Iterable as _Iterable, Mapping as _Mapping
from typing import ClassVar as _ClassVar, Optional as _Optional, Union as _Union

DESCRIPTOR: _descriptor.FileDescriptor

class ContainerState(int, metaclass=_enum_type_wrapper.EnumTypeWrapper):
    __slots__ = ()
    CONTAINER_STATE_UNSPECIFIED: _ClassVar[ContainerState]
    CONTAINER_STATE_CREATED: _ClassVar[ContainerState]
    CONTAINER_STATE_RUNNING: _ClassVar[ContainerState]
    CONTAINER_STATE_FROZEN: _ClassVar[ContainerState]
    CONTAINER_STATE_EXITED: _ClassVar[ContainerState]
    CONTAINER_STATE_ARRIVING: _ClassVar[ContainerState]
    CONTAINER_STATE_LOST: _ClassVar[ContainerState]
    CONTAINER_STATE_RESTARTING: _ClassVar[ContainerState]
    CONTAINER_STATE_PAUSED: _ClassVar[ContainerState]
CONTAINER_STATE_UNSPECIFIED: ContainerState
CONTAINER_STATE_CREATED: ContainerState
CONTAINER_STATE_RUNNING: ContainerState
CONTAINER_STATE_FROZEN: ContainerState
CONTAINER_STATE_EXITED: ContainerState
CONTAINER_STATE_ARRIVING: ContainerState
CONTAINER_STATE_LOST: ContainerState
CONTAINER_STATE_RESTARTING: ContainerState
CONTAINER_STATE_PAUSED: ContainerState

class IdRange(_message.Message):
    __slots__ = ("base", "count")
    BASE_FIELD_NUMBER: _ClassVar[int]
    COUNT_FIELD_NUMBER: _ClassVar[int]
    base: int
    count: int
    def __init__(self, base: _Optional[int] = ..., count: _Optional[int] = ...) -> None: ...

class Network(_message.Message):
    __slots__ = ("address", "mac", "gateway", "mtu", "mode", "ports", "extra_hosts", "dns", "dns_search", "dns_options", "exposed")
    ADDRESS_FIELD_NUMBER: _ClassVar[int]
    MAC_FIELD_NUMBER: _ClassVar[int]
    GATEWAY_FIELD_NUMBER: _ClassVar[int]
    MTU_FIELD_NUMBER: _ClassVar[int]
    MODE_FIELD_NUMBER: _ClassVar[int]
    PORTS_FIELD_NUMBER: _ClassVar[int]
    EXTRA_HOSTS_FIELD_NUMBER: _ClassVar[int]
    DNS_FIELD_NUMBER: _ClassVar[int]
    DNS_SEARCH_FIELD_NUMBER: _ClassVar[int]
    DNS_OPTIONS_FIELD_NUMBER: _ClassVar[int]
    EXPOSED_FIELD_NUMBER: _ClassVar[int]
    address: str
    mac: str
    gateway: str
    mtu: int
    mode: str
    ports: _containers.RepeatedCompositeFieldContainer[Port]
    extra_hosts: _containers.RepeatedScalarFieldContainer[str]
    dns: _containers.RepeatedScalarFieldContainer[str]
    dns_search: _containers.RepeatedScalarFieldContainer[str]
    dns_options: _containers.RepeatedScalarFieldContainer[str]
    exposed: _containers.RepeatedScalarFieldContainer[str]
    def __init__(self, address: _Optional[str] = ..., mac: _Optional[str] = ..., gateway: _Optional[str] = ..., mtu: _Optional[int] = ..., mode: _Optional[str] = ..., ports: _Optional[_Iterable[_Union[Port, _Mapping]]] = ..., extra_hosts: _Optional[_Iterable[str]] = ..., dns: _Optional[_Iterable[str]] = ..., dns_search: _Optional[_Iterable[str]] = ..., dns_options: _Optional[_Iterable[str]] = ..., exposed: _Optional[_Iterable[str]] = ...) -> None: ...

class Port(_message.Message):
    __slots__ = ("host_address", "host_port", "container_port", "protocol", "host_port_end")
    HOST_ADDRESS_FIELD_NUMBER: _ClassVar[int]
    HOST_PORT_FIELD_NUMBER: _ClassVar[int]
    CONTAINER_PORT_FIELD_NUMBER: _ClassVar[int]
    PROTOCOL_FIELD_NUMBER: _ClassVar[int]
    HOST_PORT_END_FIELD_NUMBER: _ClassVar[int]
    host_address: str
    host_port: int
    container_port: int
    protocol: str
    host_port_end: int
    def __init__(self, host_address: _Optional[str] = ..., host_port: _Optional[int] = ..., container_port: _Optional[int] = ..., protocol: _Optional[str] = ..., host_port_end: _Optional[int] = ...) -> None: ...

class Mount(_message.Message):
    __slots__ = ("kind", "source", "target", "read_only", "propagation", "size_bytes", "mode", "no_copy", "anonymous", "create_source", "options")
    KIND_FIELD_NUMBER: _ClassVar[int]
    SOURCE_FIELD_NUMBER: _ClassVar[int]
    TARGET_FIELD_NUMBER: _ClassVar[int]
    READ_ONLY_FIELD_NUMBER: _ClassVar[int]
    PROPAGATION_FIELD_NUMBER: _ClassVar[int]
    SIZE_BYTES_FIELD_NUMBER: _ClassVar[int]
    MODE_FIELD_NUMBER: _ClassVar[int]
    NO_COPY_FIELD_NUMBER: _ClassVar[int]
    ANONYMOUS_FIELD_NUMBER: _ClassVar[int]
    CREATE_SOURCE_FIELD_NUMBER: _ClassVar[int]
    OPTIONS_FIELD_NUMBER: _ClassVar[int]
    kind: str
    source: str
    target: str
    read_only: bool
    propagation: str
    size_bytes: int
    mode: int
    no_copy: bool
    anonymous: bool
    create_source: bool
    options: _containers.RepeatedScalarFieldContainer[str]
    def __init__(self, kind: _Optional[str] = ..., source: _Optional[str] = ..., target: _Optional[str] = ..., read_only: bool = ..., propagation: _Optional[str] = ..., size_bytes: _Optional[int] = ..., mode: _Optional[int] = ..., no_copy: bool = ..., anonymous: bool = ..., create_source: bool = ..., options: _Optional[_Iterable[str]] = ...) -> None: ...

class Volume(_message.Message):
    __slots__ = ("name", "labels", "created_unix_ns", "anonymous", "shared", "host", "path", "used_by", "migration_id")
    class LabelsEntry(_message.Message):
        __slots__ = ("key", "value")
        KEY_FIELD_NUMBER: _ClassVar[int]
        VALUE_FIELD_NUMBER: _ClassVar[int]
        key: str
        value: str
        def __init__(self, key: _Optional[str] = ..., value: _Optional[str] = ...) -> None: ...
    NAME_FIELD_NUMBER: _ClassVar[int]
    LABELS_FIELD_NUMBER: _ClassVar[int]
    CREATED_UNIX_NS_FIELD_NUMBER: _ClassVar[int]
    ANONYMOUS_FIELD_NUMBER: _ClassVar[int]
    SHARED_FIELD_NUMBER: _ClassVar[int]
    HOST_FIELD_NUMBER: _ClassVar[int]
    PATH_FIELD_NUMBER: _ClassVar[int]
    USED_BY_FIELD_NUMBER: _ClassVar[int]
    MIGRATION_ID_FIELD_NUMBER: _ClassVar[int]
    name: str
    labels: _containers.ScalarMap[str, str]
    created_unix_ns: int
    anonymous: bool
    shared: str
    host: str
    path: str
    used_by: _containers.RepeatedScalarFieldContainer[str]
    migration_id: str
    def __init__(self, name: _Optional[str] = ..., labels: _Optional[_Mapping[str, str]] = ..., created_unix_ns: _Optional[int] = ..., anonymous: bool = ..., shared: _Optional[str] = ..., host: _Optional[str] = ..., path: _Optional[str] = ..., used_by: _Optional[_Iterable[str]] = ..., migration_id: _Optional[str] = ...) -> None: ...

class Device(_message.Message):
    __slots__ = ("source", "target", "permissions")
    SOURCE_FIELD_NUMBER: _ClassVar[int]
    TARGET_FIELD_NUMBER: _ClassVar[int]
    PERMISSIONS_FIELD_NUMBER: _ClassVar[int]
    source: str
    target: str
    permissions: str
    def __init__(self, source: _Optional[str] = ..., target: _Optional[str] = ..., permissions: _Optional[str] = ...) -> None: ...

class Isolation(_message.Message):
    __slots__ = ("seccomp", "new_privileges", "sysctls", "devices", "pid", "ipc", "uts", "user", "device_rules")
    class SysctlsEntry(_message.Message):
        __slots__ = ("key", "value")
        KEY_FIELD_NUMBER: _ClassVar[int]
        VALUE_FIELD_NUMBER: _ClassVar[int]
        key: str
        value: str
        def __init__(self, key: _Optional[str] = ..., value: _Optional[str] = ...) -> None: ...
    SECCOMP_FIELD_NUMBER: _ClassVar[int]
    NEW_PRIVILEGES_FIELD_NUMBER: _ClassVar[int]
    SYSCTLS_FIELD_NUMBER: _ClassVar[int]
    DEVICES_FIELD_NUMBER: _ClassVar[int]
    PID_FIELD_NUMBER: _ClassVar[int]
    IPC_FIELD_NUMBER: _ClassVar[int]
    UTS_FIELD_NUMBER: _ClassVar[int]
    USER_FIELD_NUMBER: _ClassVar[int]
    DEVICE_RULES_FIELD_NUMBER: _ClassVar[int]
    seccomp: str
    new_privileges: bool
    sysctls: _containers.ScalarMap[str, str]
    devices: _containers.RepeatedCompositeFieldContainer[Device]
    pid: str
    ipc: str
    uts: str
    user: str
    device_rules: _containers.RepeatedScalarFieldContainer[str]
    def __init__(self, seccomp: _Optional[str] = ..., new_privileges: bool = ..., sysctls: _Optional[_Mapping[str, str]] = ..., devices: _Optional[_Iterable[_Union[Device, _Mapping]]] = ..., pid: _Optional[str] = ..., ipc: _Optional[str] = ..., uts: _Optional[str] = ..., user: _Optional[str] = ..., device_rules: _Optional[_Iterable[str]] = ...) -> None: ...

class Secret(_message.Message):
    __slots__ = ("name", "target", "uid", "gid", "mode")
    NAME_FIELD_NUMBER: _ClassVar[int]
    TARGET_FIELD_NUMBER: _ClassVar[int]
    UID_FIELD_NUMBER: _ClassVar[int]
    GID_FIELD_NUMBER: _ClassVar[int]
    MODE_FIELD_NUMBER: _ClassVar[int]
    name: str
    target: str
    uid: int
    gid: int
    mode: int
    def __init__(self, name: _Optional[str] = ..., target: _Optional[str] = ..., uid: _Optional[int] = ..., gid: _Optional[int] = ..., mode: _Optional[int] = ...) -> None: ...

class RestartPolicy(_message.Message):
    __slots__ = ("name", "max_retries")
    NAME_FIELD_NUMBER: _ClassVar[int]
    MAX_RETRIES_FIELD_NUMBER: _ClassVar[int]
    name: str
    max_retries: int
    def __init__(self, name: _Optional[str] = ..., max_retries: _Optional[int] = ...) -> None: ...

class Limits(_message.Message):
    __slots__ = ("memory_bytes", "cpus", "pids", "memory_swap_bytes", "memory_reservation_bytes", "cpu_shares", "cpu_period_us", "cpu_quota_us", "cpuset_cpus", "blkio_weight", "device_rates", "ulimits", "shm_bytes", "oom_score_adj", "storage_bytes", "cpuset_mems", "memory_swappiness", "oom_kill_disable")
    MEMORY_BYTES_FIELD_NUMBER: _ClassVar[int]
    CPUS_FIELD_NUMBER: _ClassVar[int]
    PIDS_FIELD_NUMBER: _ClassVar[int]
    MEMORY_SWAP_BYTES_FIELD_NUMBER: _ClassVar[int]
    MEMORY_RESERVATION_BYTES_FIELD_NUMBER: _ClassVar[int]
    CPU_SHARES_FIELD_NUMBER: _ClassVar[int]
    CPU_PERIOD_US_FIELD_NUMBER: _ClassVar[int]
    CPU_QUOTA_US_FIELD_NUMBER: _ClassVar[int]
    CPUSET_CPUS_FIELD_NUMBER: _ClassVar[int]
    BLKIO_WEIGHT_FIELD_NUMBER: _ClassVar[int]
    DEVICE_RATES_FIELD_NUMBER: _ClassVar[int]
    ULIMITS_FIELD_NUMBER: _ClassVar[int]
    SHM_BYTES_FIELD_NUMBER: _ClassVar[int]
    OOM_SCORE_ADJ_FIELD_NUMBER: _ClassVar[int]
    STORAGE_BYTES_FIELD_NUMBER: _ClassVar[int]
    CPUSET_MEMS_FIELD_NUMBER: _ClassVar[int]
    MEMORY_SWAPPINESS_FIELD_NUMBER: _ClassVar[int]
    OOM_KILL_DISABLE_FIELD_NUMBER: _ClassVar[int]
    memory_bytes: int
    cpus: float
    pids: int
    memory_swap_bytes: int
    memory_reservation_bytes: int
    cpu_shares: int
    cpu_period_us: int
    cpu_quota_us: int
    cpuset_cpus: str
    blkio_weight: int
    device_rates: _containers.RepeatedCompositeFieldContainer[DeviceRate]
    ulimits: _containers.RepeatedCompositeFieldContainer[Ulimit]
    shm_bytes: int
    oom_score_adj: int
    storage_bytes: int
    cpuset_mems: str
    memory_swappiness: int
    oom_kill_disable: bool
    def __init__(self, memory_bytes: _Optional[int] = ..., cpus: _Optional[float] = ..., pids: _Optional[int] = ..., memory_swap_bytes: _Optional[int] = ..., memory_reservation_bytes: _Optional[int] = ..., cpu_shares: _Optional[int] = ..., cpu_period_us: _Optional[int] = ..., cpu_quota_us: _Optional[int] = ..., cpuset_cpus: _Optional[str] = ..., blkio_weight: _Optional[int] = ..., device_rates: _Optional[_Iterable[_Union[DeviceRate, _Mapping]]] = ..., ulimits: _Optional[_Iterable[_Union[Ulimit, _Mapping]]] = ..., shm_bytes: _Optional[int] = ..., oom_score_adj: _Optional[int] = ..., storage_bytes: _Optional[int] = ..., cpuset_mems: _Optional[str] = ..., memory_swappiness: _Optional[int] = ..., oom_kill_disable: bool = ...) -> None: ...

class DeviceRate(_message.Message):
    __slots__ = ("path", "what", "rate")
    PATH_FIELD_NUMBER: _ClassVar[int]
    WHAT_FIELD_NUMBER: _ClassVar[int]
    RATE_FIELD_NUMBER: _ClassVar[int]
    path: str
    what: str
    rate: int
    def __init__(self, path: _Optional[str] = ..., what: _Optional[str] = ..., rate: _Optional[int] = ...) -> None: ...

class Ulimit(_message.Message):
    __slots__ = ("name", "soft", "hard")
    NAME_FIELD_NUMBER: _ClassVar[int]
    SOFT_FIELD_NUMBER: _ClassVar[int]
    HARD_FIELD_NUMBER: _ClassVar[int]
    name: str
    soft: int
    hard: int
    def __init__(self, name: _Optional[str] = ..., soft: _Optional[int] = ..., hard: _Optional[int] = ...) -> None: ...

class ContainerSpec(_message.Message):
    __slots__ = ("id", "name", "image", "image_digest", "layers", "argv", "env", "cwd", "user", "hostname", "ids", "network", "limits", "tty", "stdin_open", "capabilities", "stop_signal", "stop_timeout_s", "labels", "created_unix_ns", "remove_on_exit", "mounts", "read_only", "isolation", "restart", "health", "init", "log_options", "groups", "domainname", "annotations", "umask", "timezone", "secrets")
    class LabelsEntry(_message.Message):
        __slots__ = ("key", "value")
        KEY_FIELD_NUMBER: _ClassVar[int]
        VALUE_FIELD_NUMBER: _ClassVar[int]
        key: str
        value: str
        def __init__(self, key: _Optional[str] = ..., value: _Optional[str] = ...) -> None: ...
    class LogOptionsEntry(_message.Message):
        __slots__ = ("key", "value")
        KEY_FIELD_NUMBER: _ClassVar[int]
        VALUE_FIELD_NUMBER: _ClassVar[int]
        key: str
        value: str
        def __init__(self, key: _Optional[str] = ..., value: _Optional[str] = ...) -> None: ...
    class AnnotationsEntry(_message.Message):
        __slots__ = ("key", "value")
        KEY_FIELD_NUMBER: _ClassVar[int]
        VALUE_FIELD_NUMBER: _ClassVar[int]
        key: str
        value: str
        def __init__(self, key: _Optional[str] = ..., value: _Optional[str] = ...) -> None: ...
    ID_FIELD_NUMBER: _ClassVar[int]
    NAME_FIELD_NUMBER: _ClassVar[int]
    IMAGE_FIELD_NUMBER: _ClassVar[int]
    IMAGE_DIGEST_FIELD_NUMBER: _ClassVar[int]
    LAYERS_FIELD_NUMBER: _ClassVar[int]
    ARGV_FIELD_NUMBER: _ClassVar[int]
    ENV_FIELD_NUMBER: _ClassVar[int]
    CWD_FIELD_NUMBER: _ClassVar[int]
    USER_FIELD_NUMBER: _ClassVar[int]
    HOSTNAME_FIELD_NUMBER: _ClassVar[int]
    IDS_FIELD_NUMBER: _ClassVar[int]
    NETWORK_FIELD_NUMBER: _ClassVar[int]
    LIMITS_FIELD_NUMBER: _ClassVar[int]
    TTY_FIELD_NUMBER: _ClassVar[int]
    STDIN_OPEN_FIELD_NUMBER: _ClassVar[int]
    CAPABILITIES_FIELD_NUMBER: _ClassVar[int]
    STOP_SIGNAL_FIELD_NUMBER: _ClassVar[int]
    STOP_TIMEOUT_S_FIELD_NUMBER: _ClassVar[int]
    LABELS_FIELD_NUMBER: _ClassVar[int]
    CREATED_UNIX_NS_FIELD_NUMBER: _ClassVar[int]
    REMOVE_ON_EXIT_FIELD_NUMBER: _ClassVar[int]
    MOUNTS_FIELD_NUMBER: _ClassVar[int]
    READ_ONLY_FIELD_NUMBER: _ClassVar[int]
    ISOLATION_FIELD_NUMBER: _ClassVar[int]
    RESTART_FIELD_NUMBER: _ClassVar[int]
    HEALTH_FIELD_NUMBER: _ClassVar[int]
    INIT_FIELD_NUMBER: _ClassVar[int]
    LOG_OPTIONS_FIELD_NUMBER: _ClassVar[int]
    GROUPS_FIELD_NUMBER: _ClassVar[int]
    DOMAINNAME_FIELD_NUMBER: _ClassVar[int]
    ANNOTATIONS_FIELD_NUMBER: _ClassVar[int]
    UMASK_FIELD_NUMBER: _ClassVar[int]
    TIMEZONE_FIELD_NUMBER: _ClassVar[int]
    SECRETS_FIELD_NUMBER: _ClassVar[int]
    id: str
    name: str
    image: str
    image_digest: str
    layers: _containers.RepeatedScalarFieldContainer[str]
    argv: _containers.RepeatedScalarFieldContainer[str]
    env: _containers.RepeatedScalarFieldContainer[str]
    cwd: str
    user: str
    hostname: str
    ids: IdRange
    network: Network
    limits: Limits
    tty: bool
    stdin_open: bool
    capabilities: _containers.RepeatedScalarFieldContainer[str]
    stop_signal: str
    stop_timeout_s: float
    labels: _containers.ScalarMap[str, str]
    created_unix_ns: int
    remove_on_exit: bool
    mounts: _containers.RepeatedCompositeFieldContainer[Mount]
    read_only: bool
    isolation: Isolation
    restart: RestartPolicy
    health: Healthcheck
    init: bool
    log_options: _containers.ScalarMap[str, str]
    groups: _containers.RepeatedScalarFieldContainer[str]
    domainname: str
    annotations: _containers.ScalarMap[str, str]
    umask: str
    timezone: str
    secrets: _containers.RepeatedCompositeFieldContainer[Secret]
    def __init__(self, id: _Optional[str] = ..., name: _Optional[str] = ..., image: _Optional[str] = ..., image_digest: _Optional[str] = ..., layers: _Optional[_Iterable[str]] = ..., argv: _Optional[_Iterable[str]] = ..., env: _Optional[_Iterable[str]] = ..., cwd: _Optional[str] = ..., user: _Optional[str] = ..., hostname: _Optional[str] = ..., ids: _Optional[_Union[IdRange, _Mapping]] = ..., network: _Optional[_Union[Network, _Mapping]] = ..., limits: _Optional[_Union[Limits, _Mapping]] = ..., tty: bool = ..., stdin_open: bool = ..., capabilities: _Optional[_Iterable[str]] = ..., stop_signal: _Optional[str] = ..., stop_timeout_s: _Optional[float] = ..., labels: _Optional[_Mapping[str, str]] = ..., created_unix_ns: _Optional[int] = ..., remove_on_exit: bool = ..., mounts: _Optional[_Iterable[_Union[Mount, _Mapping]]] = ..., read_only: bool = ..., isolation: _Optional[_Union[Isolation, _Mapping]] = ..., restart: _Optional[_Union[RestartPolicy, _Mapping]] = ..., health: _Optional[_Union[Healthcheck, _Mapping]] = ..., init: bool = ..., log_options: _Optional[_Mapping[str, str]] = ..., groups: _Optional[_Iterable[str]] = ..., domainname: _Optional[str] = ..., annotations: _Optional[_Mapping[str, str]] = ..., umask: _Optional[str] = ..., timezone: _Optional[str] = ..., secrets: _Optional[_Iterable[_Union[Secret, _Mapping]]] = ...) -> None: ...

class ContainerStatus(_message.Message):
    __slots__ = ("spec", "state", "pid", "started_unix_ns", "finished_unix_ns", "exit_code", "error", "host", "epoch", "migration_id", "oom_kills", "restarts", "layer_bytes", "health")
    SPEC_FIELD_NUMBER: _ClassVar[int]
    STATE_FIELD_NUMBER: _ClassVar[int]
    PID_FIELD_NUMBER: _ClassVar[int]
    STARTED_UNIX_NS_FIELD_NUMBER: _ClassVar[int]
    FINISHED_UNIX_NS_FIELD_NUMBER: _ClassVar[int]
    EXIT_CODE_FIELD_NUMBER: _ClassVar[int]
    ERROR_FIELD_NUMBER: _ClassVar[int]
    HOST_FIELD_NUMBER: _ClassVar[int]
    EPOCH_FIELD_NUMBER: _ClassVar[int]
    MIGRATION_ID_FIELD_NUMBER: _ClassVar[int]
    OOM_KILLS_FIELD_NUMBER: _ClassVar[int]
    RESTARTS_FIELD_NUMBER: _ClassVar[int]
    LAYER_BYTES_FIELD_NUMBER: _ClassVar[int]
    HEALTH_FIELD_NUMBER: _ClassVar[int]
    spec: ContainerSpec
    state: ContainerState
    pid: int
    started_unix_ns: int
    finished_unix_ns: int
    exit_code: int
    error: str
    host: str
    epoch: int
    migration_id: str
    oom_kills: int
    restarts: int
    layer_bytes: int
    health: Health
    def __init__(self, spec: _Optional[_Union[ContainerSpec, _Mapping]] = ..., state: _Optional[_Union[ContainerState, str]] = ..., pid: _Optional[int] = ..., started_unix_ns: _Optional[int] = ..., finished_unix_ns: _Optional[int] = ..., exit_code: _Optional[int] = ..., error: _Optional[str] = ..., host: _Optional[str] = ..., epoch: _Optional[int] = ..., migration_id: _Optional[str] = ..., oom_kills: _Optional[int] = ..., restarts: _Optional[int] = ..., layer_bytes: _Optional[int] = ..., health: _Optional[_Union[Health, _Mapping]] = ...) -> None: ...

class Health(_message.Message):
    __slots__ = ("status", "failing_streak", "log")
    STATUS_FIELD_NUMBER: _ClassVar[int]
    FAILING_STREAK_FIELD_NUMBER: _ClassVar[int]
    LOG_FIELD_NUMBER: _ClassVar[int]
    status: str
    failing_streak: int
    log: _containers.RepeatedCompositeFieldContainer[HealthResult]
    def __init__(self, status: _Optional[str] = ..., failing_streak: _Optional[int] = ..., log: _Optional[_Iterable[_Union[HealthResult, _Mapping]]] = ...) -> None: ...

class HealthResult(_message.Message):
    __slots__ = ("started_unix_ns", "ended_unix_ns", "exit_code", "output")
    STARTED_UNIX_NS_FIELD_NUMBER: _ClassVar[int]
    ENDED_UNIX_NS_FIELD_NUMBER: _ClassVar[int]
    EXIT_CODE_FIELD_NUMBER: _ClassVar[int]
    OUTPUT_FIELD_NUMBER: _ClassVar[int]
    started_unix_ns: int
    ended_unix_ns: int
    exit_code: int
    output: str
    def __init__(self, started_unix_ns: _Optional[int] = ..., ended_unix_ns: _Optional[int] = ..., exit_code: _Optional[int] = ..., output: _Optional[str] = ...) -> None: ...

class Event(_message.Message):
    __slots__ = ("type", "action", "id", "name", "host", "unix_ns", "sequence", "attributes")
    class AttributesEntry(_message.Message):
        __slots__ = ("key", "value")
        KEY_FIELD_NUMBER: _ClassVar[int]
        VALUE_FIELD_NUMBER: _ClassVar[int]
        key: str
        value: str
        def __init__(self, key: _Optional[str] = ..., value: _Optional[str] = ...) -> None: ...
    TYPE_FIELD_NUMBER: _ClassVar[int]
    ACTION_FIELD_NUMBER: _ClassVar[int]
    ID_FIELD_NUMBER: _ClassVar[int]
    NAME_FIELD_NUMBER: _ClassVar[int]
    HOST_FIELD_NUMBER: _ClassVar[int]
    UNIX_NS_FIELD_NUMBER: _ClassVar[int]
    SEQUENCE_FIELD_NUMBER: _ClassVar[int]
    ATTRIBUTES_FIELD_NUMBER: _ClassVar[int]
    type: str
    action: str
    id: str
    name: str
    host: str
    unix_ns: int
    sequence: int
    attributes: _containers.ScalarMap[str, str]
    def __init__(self, type: _Optional[str] = ..., action: _Optional[str] = ..., id: _Optional[str] = ..., name: _Optional[str] = ..., host: _Optional[str] = ..., unix_ns: _Optional[int] = ..., sequence: _Optional[int] = ..., attributes: _Optional[_Mapping[str, str]] = ...) -> None: ...

class ContainerUsage(_message.Message):
    __slots__ = ("id", "name", "host", "unix_ns", "cpu_ns", "memory_bytes", "memory_limit_bytes", "tasks", "network_received_bytes", "network_sent_bytes", "block_read_bytes", "block_written_bytes")
    ID_FIELD_NUMBER: _ClassVar[int]
    NAME_FIELD_NUMBER: _ClassVar[int]
    HOST_FIELD_NUMBER: _ClassVar[int]
    UNIX_NS_FIELD_NUMBER: _ClassVar[int]
    CPU_NS_FIELD_NUMBER: _ClassVar[int]
    MEMORY_BYTES_FIELD_NUMBER: _ClassVar[int]
    MEMORY_LIMIT_BYTES_FIELD_NUMBER: _ClassVar[int]
    TASKS_FIELD_NUMBER: _ClassVar[int]
    NETWORK_RECEIVED_BYTES_FIELD_NUMBER: _ClassVar[int]
    NETWORK_SENT_BYTES_FIELD_NUMBER: _ClassVar[int]
    BLOCK_READ_BYTES_FIELD_NUMBER: _ClassVar[int]
    BLOCK_WRITTEN_BYTES_FIELD_NUMBER: _ClassVar[int]
    id: str
    name: str
    host: str
    unix_ns: int
    cpu_ns: int
    memory_bytes: int
    memory_limit_bytes: int
    tasks: int
    network_received_bytes: int
    network_sent_bytes: int
    block_read_bytes: int
    block_written_bytes: int
    def __init__(self, id: _Optional[str] = ..., name: _Optional[str] = ..., host: _Optional[str] = ..., unix_ns: _Optional[int] = ..., cpu_ns: _Optional[int] = ..., memory_bytes: _Optional[int] = ..., memory_limit_bytes: _Optional[int] = ..., tasks: _Optional[int] = ..., network_received_bytes: _Optional[int] = ..., network_sent_bytes: _Optional[int] = ..., block_read_bytes: _Optional[int] = ..., block_written_bytes: _Optional[int] = ...) -> None: ...

class ContainerProcess(_message.Message):
    __slots__ = ("host_pid", "pid", "parent", "user", "threads", "resident_bytes", "cpu_s", "state", "started_unix_ns", "command")
    HOST_PID_FIELD_NUMBER: _ClassVar[int]
    PID_FIELD_NUMBER: _ClassVar[int]
    PARENT_FIELD_NUMBER: _ClassVar[int]
    USER_FIELD_NUMBER: _ClassVar[int]
    THREADS_FIELD_NUMBER: _ClassVar[int]
    RESIDENT_BYTES_FIELD_NUMBER: _ClassVar[int]
    CPU_S_FIELD_NUMBER: _ClassVar[int]
    STATE_FIELD_NUMBER: _ClassVar[int]
    STARTED_UNIX_NS_FIELD_NUMBER: _ClassVar[int]
    COMMAND_FIELD_NUMBER: _ClassVar[int]
    host_pid: int
    pid: int
    parent: int
    user: int
    threads: int
    resident_bytes: int
    cpu_s: float
    state: str
    started_unix_ns: int
    command: str
    def __init__(self, host_pid: _Optional[int] = ..., pid: _Optional[int] = ..., parent: _Optional[int] = ..., user: _Optional[int] = ..., threads: _Optional[int] = ..., resident_bytes: _Optional[int] = ..., cpu_s: _Optional[float] = ..., state: _Optional[str] = ..., started_unix_ns: _Optional[int] = ..., command: _Optional[str] = ...) -> None: ...

class Image(_message.Message):
    __slots__ = ("name", "digest", "layers", "size_bytes", "created_unix_ns", "config", "host", "document", "repo_digests", "layer_bytes", "stored_bytes", "used_by")
    NAME_FIELD_NUMBER: _ClassVar[int]
    DIGEST_FIELD_NUMBER: _ClassVar[int]
    LAYERS_FIELD_NUMBER: _ClassVar[int]
    SIZE_BYTES_FIELD_NUMBER: _ClassVar[int]
    CREATED_UNIX_NS_FIELD_NUMBER: _ClassVar[int]
    CONFIG_FIELD_NUMBER: _ClassVar[int]
    HOST_FIELD_NUMBER: _ClassVar[int]
    DOCUMENT_FIELD_NUMBER: _ClassVar[int]
    REPO_DIGESTS_FIELD_NUMBER: _ClassVar[int]
    LAYER_BYTES_FIELD_NUMBER: _ClassVar[int]
    STORED_BYTES_FIELD_NUMBER: _ClassVar[int]
    USED_BY_FIELD_NUMBER: _ClassVar[int]
    name: str
    digest: str
    layers: _containers.RepeatedScalarFieldContainer[str]
    size_bytes: int
    created_unix_ns: int
    config: ImageConfig
    host: str
    document: str
    repo_digests: _containers.RepeatedScalarFieldContainer[str]
    layer_bytes: _containers.RepeatedScalarFieldContainer[int]
    stored_bytes: int
    used_by: _containers.RepeatedScalarFieldContainer[str]
    def __init__(self, name: _Optional[str] = ..., digest: _Optional[str] = ..., layers: _Optional[_Iterable[str]] = ..., size_bytes: _Optional[int] = ..., created_unix_ns: _Optional[int] = ..., config: _Optional[_Union[ImageConfig, _Mapping]] = ..., host: _Optional[str] = ..., document: _Optional[str] = ..., repo_digests: _Optional[_Iterable[str]] = ..., layer_bytes: _Optional[_Iterable[int]] = ..., stored_bytes: _Optional[int] = ..., used_by: _Optional[_Iterable[str]] = ...) -> None: ...

class Healthcheck(_message.Message):
    __slots__ = ("test", "interval_ns", "timeout_ns", "start_period_ns", "retries", "start_interval_ns")
    TEST_FIELD_NUMBER: _ClassVar[int]
    INTERVAL_NS_FIELD_NUMBER: _ClassVar[int]
    TIMEOUT_NS_FIELD_NUMBER: _ClassVar[int]
    START_PERIOD_NS_FIELD_NUMBER: _ClassVar[int]
    RETRIES_FIELD_NUMBER: _ClassVar[int]
    START_INTERVAL_NS_FIELD_NUMBER: _ClassVar[int]
    test: _containers.RepeatedScalarFieldContainer[str]
    interval_ns: int
    timeout_ns: int
    start_period_ns: int
    retries: int
    start_interval_ns: int
    def __init__(self, test: _Optional[_Iterable[str]] = ..., interval_ns: _Optional[int] = ..., timeout_ns: _Optional[int] = ..., start_period_ns: _Optional[int] = ..., retries: _Optional[int] = ..., start_interval_ns: _Optional[int] = ...) -> None: ...

class ImageConfig(_message.Message):
    __slots__ = ("exposed_ports", "volumes", "healthcheck", "shell", "on_build", "cmd", "entrypoint", "env", "working_dir", "user", "labels", "stop_signal")
    class LabelsEntry(_message.Message):
        __slots__ = ("key", "value")
        KEY_FIELD_NUMBER: _ClassVar[int]
        VALUE_FIELD_NUMBER: _ClassVar[int]
        key: str
        value: str
        def __init__(self, key: _Optional[str] = ..., value: _Optional[str] = ...) -> None: ...
    EXPOSED_PORTS_FIELD_NUMBER: _ClassVar[int]
    VOLUMES_FIELD_NUMBER: _ClassVar[int]
    HEALTHCHECK_FIELD_NUMBER: _ClassVar[int]
    SHELL_FIELD_NUMBER: _ClassVar[int]
    ON_BUILD_FIELD_NUMBER: _ClassVar[int]
    CMD_FIELD_NUMBER: _ClassVar[int]
    ENTRYPOINT_FIELD_NUMBER: _ClassVar[int]
    ENV_FIELD_NUMBER: _ClassVar[int]
    WORKING_DIR_FIELD_NUMBER: _ClassVar[int]
    USER_FIELD_NUMBER: _ClassVar[int]
    LABELS_FIELD_NUMBER: _ClassVar[int]
    STOP_SIGNAL_FIELD_NUMBER: _ClassVar[int]
    exposed_ports: _containers.RepeatedScalarFieldContainer[str]
    volumes: _containers.RepeatedScalarFieldContainer[str]
    healthcheck: Healthcheck
    shell: _containers.RepeatedScalarFieldContainer[str]
    on_build: _containers.RepeatedScalarFieldContainer[str]
    cmd: _containers.RepeatedScalarFieldContainer[str]
    entrypoint: _containers.RepeatedScalarFieldContainer[str]
    env: _containers.RepeatedScalarFieldContainer[str]
    working_dir: str
    user: str
    labels: _containers.ScalarMap[str, str]
    stop_signal: str
    def __init__(self, exposed_ports: _Optional[_Iterable[str]] = ..., volumes: _Optional[_Iterable[str]] = ..., healthcheck: _Optional[_Union[Healthcheck, _Mapping]] = ..., shell: _Optional[_Iterable[str]] = ..., on_build: _Optional[_Iterable[str]] = ..., cmd: _Optional[_Iterable[str]] = ..., entrypoint: _Optional[_Iterable[str]] = ..., env: _Optional[_Iterable[str]] = ..., working_dir: _Optional[str] = ..., user: _Optional[str] = ..., labels: _Optional[_Mapping[str, str]] = ..., stop_signal: _Optional[str] = ...) -> None: ...

class Progress(_message.Message):
    __slots__ = ("phase", "text", "done_bytes", "total_bytes", "facts", "unix_ns", "verdict")
    class FactsEntry(_message.Message):
        __slots__ = ("key", "value")
        KEY_FIELD_NUMBER: _ClassVar[int]
        VALUE_FIELD_NUMBER: _ClassVar[int]
        key: str
        value: float
        def __init__(self, key: _Optional[str] = ..., value: _Optional[float] = ...) -> None: ...
    PHASE_FIELD_NUMBER: _ClassVar[int]
    TEXT_FIELD_NUMBER: _ClassVar[int]
    DONE_BYTES_FIELD_NUMBER: _ClassVar[int]
    TOTAL_BYTES_FIELD_NUMBER: _ClassVar[int]
    FACTS_FIELD_NUMBER: _ClassVar[int]
    UNIX_NS_FIELD_NUMBER: _ClassVar[int]
    VERDICT_FIELD_NUMBER: _ClassVar[int]
    phase: str
    text: str
    done_bytes: int
    total_bytes: int
    facts: _containers.ScalarMap[str, float]
    unix_ns: int
    verdict: str
    def __init__(self, phase: _Optional[str] = ..., text: _Optional[str] = ..., done_bytes: _Optional[int] = ..., total_bytes: _Optional[int] = ..., facts: _Optional[_Mapping[str, float]] = ..., unix_ns: _Optional[int] = ..., verdict: _Optional[str] = ...) -> None: ...

class PrecopyOptions(_message.Message):
    __slots__ = ("max_rounds", "timeout_s", "on_timeout", "throttle", "binding", "hold", "end_exec", "fixed_s")
    MAX_ROUNDS_FIELD_NUMBER: _ClassVar[int]
    TIMEOUT_S_FIELD_NUMBER: _ClassVar[int]
    ON_TIMEOUT_FIELD_NUMBER: _ClassVar[int]
    THROTTLE_FIELD_NUMBER: _ClassVar[int]
    BINDING_FIELD_NUMBER: _ClassVar[int]
    HOLD_FIELD_NUMBER: _ClassVar[int]
    END_EXEC_FIELD_NUMBER: _ClassVar[int]
    FIXED_S_FIELD_NUMBER: _ClassVar[int]
    max_rounds: int
    timeout_s: float
    on_timeout: str
    throttle: bool
    binding: bool
    hold: bool
    end_exec: bool
    fixed_s: float
    def __init__(self, max_rounds: _Optional[int] = ..., timeout_s: _Optional[float] = ..., on_timeout: _Optional[str] = ..., throttle: bool = ..., binding: bool = ..., hold: bool = ..., end_exec: bool = ..., fixed_s: _Optional[float] = ...) -> None: ...

class ErrorDetail(_message.Message):
    __slots__ = ("code", "message", "hint", "touched", "detail")
    CODE_FIELD_NUMBER: _ClassVar[int]
    MESSAGE_FIELD_NUMBER: _ClassVar[int]
    HINT_FIELD_NUMBER: _ClassVar[int]
    TOUCHED_FIELD_NUMBER: _ClassVar[int]
    DETAIL_FIELD_NUMBER: _ClassVar[int]
    code: str
    message: str
    hint: str
    touched: str
    detail: str
    def __init__(self, code: _Optional[str] = ..., message: _Optional[str] = ..., hint: _Optional[str] = ..., touched: _Optional[str] = ..., detail: _Optional[str] = ...) -> None: ...

class Mark(_message.Message):
    __slots__ = ("name", "unix_ns", "host")
    NAME_FIELD_NUMBER: _ClassVar[int]
    UNIX_NS_FIELD_NUMBER: _ClassVar[int]
    HOST_FIELD_NUMBER: _ClassVar[int]
    name: str
    unix_ns: int
    host: str
    def __init__(self, name: _Optional[str] = ..., unix_ns: _Optional[int] = ..., host: _Optional[str] = ...) -> None: ...

class TransferOptions(_message.Message):
    __slots__ = ("compress", "bandwidth", "connections")
    COMPRESS_FIELD_NUMBER: _ClassVar[int]
    BANDWIDTH_FIELD_NUMBER: _ClassVar[int]
    CONNECTIONS_FIELD_NUMBER: _ClassVar[int]
    compress: str
    bandwidth: int
    connections: int
    def __init__(self, compress: _Optional[str] = ..., bandwidth: _Optional[int] = ..., connections: _Optional[int] = ...) -> None: ...

class Travelled(_message.Message):
    __slots__ = ("raw_bytes", "codec_bytes", "skipped_bytes")
    class RawBytesEntry(_message.Message):
        __slots__ = ("key", "value")
        KEY_FIELD_NUMBER: _ClassVar[int]
        VALUE_FIELD_NUMBER: _ClassVar[int]
        key: str
        value: int
        def __init__(self, key: _Optional[str] = ..., value: _Optional[int] = ...) -> None: ...
    class CodecBytesEntry(_message.Message):
        __slots__ = ("key", "value")
        KEY_FIELD_NUMBER: _ClassVar[int]
        VALUE_FIELD_NUMBER: _ClassVar[int]
        key: str
        value: int
        def __init__(self, key: _Optional[str] = ..., value: _Optional[int] = ...) -> None: ...
    class SkippedBytesEntry(_message.Message):
        __slots__ = ("key", "value")
        KEY_FIELD_NUMBER: _ClassVar[int]
        VALUE_FIELD_NUMBER: _ClassVar[int]
        key: str
        value: int
        def __init__(self, key: _Optional[str] = ..., value: _Optional[int] = ...) -> None: ...
    RAW_BYTES_FIELD_NUMBER: _ClassVar[int]
    CODEC_BYTES_FIELD_NUMBER: _ClassVar[int]
    SKIPPED_BYTES_FIELD_NUMBER: _ClassVar[int]
    raw_bytes: _containers.ScalarMap[str, int]
    codec_bytes: _containers.ScalarMap[str, int]
    skipped_bytes: _containers.ScalarMap[str, int]
    def __init__(self, raw_bytes: _Optional[_Mapping[str, int]] = ..., codec_bytes: _Optional[_Mapping[str, int]] = ..., skipped_bytes: _Optional[_Mapping[str, int]] = ...) -> None: ...
