from protos import types_pb2 as _types_pb2
from protos import agent_pb2 as _agent_pb2
from google.protobuf.internal import containers as _containers
from google.protobuf import descriptor as _descriptor
from google.protobuf import message as _message
from collections.abc import Iterable as _Iterable, Mapping as _Mapping
from typing import ClassVar as _ClassVar, Optional as _Optional, Union as _Union

DESCRIPTOR: _descriptor.FileDescriptor

class VersionRequest(_message.Message):
    __slots__ = ()
    def __init__(self) -> None: ...

class VersionResponse(_message.Message):
    __slots__ = ("version", "protocol", "fleet", "protocol_minor")
    VERSION_FIELD_NUMBER: _ClassVar[int]
    PROTOCOL_FIELD_NUMBER: _ClassVar[int]
    FLEET_FIELD_NUMBER: _ClassVar[int]
    PROTOCOL_MINOR_FIELD_NUMBER: _ClassVar[int]
    version: str
    protocol: int
    fleet: str
    protocol_minor: int
    def __init__(self, version: _Optional[str] = ..., protocol: _Optional[int] = ..., fleet: _Optional[str] = ..., protocol_minor: _Optional[int] = ...) -> None: ...

class HostsRequest(_message.Message):
    __slots__ = ("facts",)
    FACTS_FIELD_NUMBER: _ClassVar[int]
    facts: bool
    def __init__(self, facts: bool = ...) -> None: ...

class HostStatus(_message.Message):
    __slots__ = ("name", "address", "port", "reachable", "error", "facts", "containers", "labels", "cordoned", "cordon_reason", "cordoned_unix_ns", "pulse", "joined", "host_keys", "login")
    class LabelsEntry(_message.Message):
        __slots__ = ("key", "value")
        KEY_FIELD_NUMBER: _ClassVar[int]
        VALUE_FIELD_NUMBER: _ClassVar[int]
        key: str
        value: str
        def __init__(self, key: _Optional[str] = ..., value: _Optional[str] = ...) -> None: ...
    NAME_FIELD_NUMBER: _ClassVar[int]
    ADDRESS_FIELD_NUMBER: _ClassVar[int]
    PORT_FIELD_NUMBER: _ClassVar[int]
    REACHABLE_FIELD_NUMBER: _ClassVar[int]
    ERROR_FIELD_NUMBER: _ClassVar[int]
    FACTS_FIELD_NUMBER: _ClassVar[int]
    CONTAINERS_FIELD_NUMBER: _ClassVar[int]
    LABELS_FIELD_NUMBER: _ClassVar[int]
    CORDONED_FIELD_NUMBER: _ClassVar[int]
    CORDON_REASON_FIELD_NUMBER: _ClassVar[int]
    CORDONED_UNIX_NS_FIELD_NUMBER: _ClassVar[int]
    PULSE_FIELD_NUMBER: _ClassVar[int]
    JOINED_FIELD_NUMBER: _ClassVar[int]
    HOST_KEYS_FIELD_NUMBER: _ClassVar[int]
    LOGIN_FIELD_NUMBER: _ClassVar[int]
    name: str
    address: str
    port: int
    reachable: bool
    error: str
    facts: _agent_pb2.HostFacts
    containers: int
    labels: _containers.ScalarMap[str, str]
    cordoned: bool
    cordon_reason: str
    cordoned_unix_ns: int
    pulse: HostPulse
    joined: bool
    host_keys: _containers.RepeatedScalarFieldContainer[str]
    login: str
    def __init__(self, name: _Optional[str] = ..., address: _Optional[str] = ..., port: _Optional[int] = ..., reachable: bool = ..., error: _Optional[str] = ..., facts: _Optional[_Union[_agent_pb2.HostFacts, _Mapping]] = ..., containers: _Optional[int] = ..., labels: _Optional[_Mapping[str, str]] = ..., cordoned: bool = ..., cordon_reason: _Optional[str] = ..., cordoned_unix_ns: _Optional[int] = ..., pulse: _Optional[_Union[HostPulse, _Mapping]] = ..., joined: bool = ..., host_keys: _Optional[_Iterable[str]] = ..., login: _Optional[str] = ...) -> None: ...

class HostPulse(_message.Message):
    __slots__ = ("health", "since_unix_ns", "seen_unix_ns", "error")
    HEALTH_FIELD_NUMBER: _ClassVar[int]
    SINCE_UNIX_NS_FIELD_NUMBER: _ClassVar[int]
    SEEN_UNIX_NS_FIELD_NUMBER: _ClassVar[int]
    ERROR_FIELD_NUMBER: _ClassVar[int]
    health: str
    since_unix_ns: int
    seen_unix_ns: int
    error: str
    def __init__(self, health: _Optional[str] = ..., since_unix_ns: _Optional[int] = ..., seen_unix_ns: _Optional[int] = ..., error: _Optional[str] = ...) -> None: ...

class HostsResponse(_message.Message):
    __slots__ = ("hosts",)
    HOSTS_FIELD_NUMBER: _ClassVar[int]
    hosts: _containers.RepeatedCompositeFieldContainer[HostStatus]
    def __init__(self, hosts: _Optional[_Iterable[_Union[HostStatus, _Mapping]]] = ...) -> None: ...

class RunRequest(_message.Message):
    __slots__ = ("name", "host", "image", "argv", "entrypoint", "env", "cwd", "user", "hostname", "limits", "tty", "stdin_open", "labels", "address", "mac", "create_only", "cap_add", "cap_drop", "stop_signal", "stop_timeout_s", "remove_on_exit", "mounts", "read_only", "isolation", "restart", "health", "init", "log_options", "network", "publish_all", "groups", "domainname", "annotations", "umask", "timezone", "secrets", "secret_data", "unset_env", "platform")
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
    class SecretDataEntry(_message.Message):
        __slots__ = ("key", "value")
        KEY_FIELD_NUMBER: _ClassVar[int]
        VALUE_FIELD_NUMBER: _ClassVar[int]
        key: str
        value: bytes
        def __init__(self, key: _Optional[str] = ..., value: _Optional[bytes] = ...) -> None: ...
    NAME_FIELD_NUMBER: _ClassVar[int]
    HOST_FIELD_NUMBER: _ClassVar[int]
    IMAGE_FIELD_NUMBER: _ClassVar[int]
    ARGV_FIELD_NUMBER: _ClassVar[int]
    ENTRYPOINT_FIELD_NUMBER: _ClassVar[int]
    ENV_FIELD_NUMBER: _ClassVar[int]
    CWD_FIELD_NUMBER: _ClassVar[int]
    USER_FIELD_NUMBER: _ClassVar[int]
    HOSTNAME_FIELD_NUMBER: _ClassVar[int]
    LIMITS_FIELD_NUMBER: _ClassVar[int]
    TTY_FIELD_NUMBER: _ClassVar[int]
    STDIN_OPEN_FIELD_NUMBER: _ClassVar[int]
    LABELS_FIELD_NUMBER: _ClassVar[int]
    ADDRESS_FIELD_NUMBER: _ClassVar[int]
    MAC_FIELD_NUMBER: _ClassVar[int]
    CREATE_ONLY_FIELD_NUMBER: _ClassVar[int]
    CAP_ADD_FIELD_NUMBER: _ClassVar[int]
    CAP_DROP_FIELD_NUMBER: _ClassVar[int]
    STOP_SIGNAL_FIELD_NUMBER: _ClassVar[int]
    STOP_TIMEOUT_S_FIELD_NUMBER: _ClassVar[int]
    REMOVE_ON_EXIT_FIELD_NUMBER: _ClassVar[int]
    MOUNTS_FIELD_NUMBER: _ClassVar[int]
    READ_ONLY_FIELD_NUMBER: _ClassVar[int]
    ISOLATION_FIELD_NUMBER: _ClassVar[int]
    RESTART_FIELD_NUMBER: _ClassVar[int]
    HEALTH_FIELD_NUMBER: _ClassVar[int]
    INIT_FIELD_NUMBER: _ClassVar[int]
    LOG_OPTIONS_FIELD_NUMBER: _ClassVar[int]
    NETWORK_FIELD_NUMBER: _ClassVar[int]
    PUBLISH_ALL_FIELD_NUMBER: _ClassVar[int]
    GROUPS_FIELD_NUMBER: _ClassVar[int]
    DOMAINNAME_FIELD_NUMBER: _ClassVar[int]
    ANNOTATIONS_FIELD_NUMBER: _ClassVar[int]
    UMASK_FIELD_NUMBER: _ClassVar[int]
    TIMEZONE_FIELD_NUMBER: _ClassVar[int]
    SECRETS_FIELD_NUMBER: _ClassVar[int]
    SECRET_DATA_FIELD_NUMBER: _ClassVar[int]
    UNSET_ENV_FIELD_NUMBER: _ClassVar[int]
    PLATFORM_FIELD_NUMBER: _ClassVar[int]
    name: str
    host: str
    image: str
    argv: _containers.RepeatedScalarFieldContainer[str]
    entrypoint: _containers.RepeatedScalarFieldContainer[str]
    env: _containers.RepeatedScalarFieldContainer[str]
    cwd: str
    user: str
    hostname: str
    limits: _types_pb2.Limits
    tty: bool
    stdin_open: bool
    labels: _containers.ScalarMap[str, str]
    address: str
    mac: str
    create_only: bool
    cap_add: _containers.RepeatedScalarFieldContainer[str]
    cap_drop: _containers.RepeatedScalarFieldContainer[str]
    stop_signal: str
    stop_timeout_s: float
    remove_on_exit: bool
    mounts: _containers.RepeatedCompositeFieldContainer[_types_pb2.Mount]
    read_only: bool
    isolation: _types_pb2.Isolation
    restart: _types_pb2.RestartPolicy
    health: _types_pb2.Healthcheck
    init: bool
    log_options: _containers.ScalarMap[str, str]
    network: _types_pb2.Network
    publish_all: bool
    groups: _containers.RepeatedScalarFieldContainer[str]
    domainname: str
    annotations: _containers.ScalarMap[str, str]
    umask: str
    timezone: str
    secrets: _containers.RepeatedCompositeFieldContainer[_types_pb2.Secret]
    secret_data: _containers.ScalarMap[str, bytes]
    unset_env: _containers.RepeatedScalarFieldContainer[str]
    platform: str
    def __init__(self, name: _Optional[str] = ..., host: _Optional[str] = ..., image: _Optional[str] = ..., argv: _Optional[_Iterable[str]] = ..., entrypoint: _Optional[_Iterable[str]] = ..., env: _Optional[_Iterable[str]] = ..., cwd: _Optional[str] = ..., user: _Optional[str] = ..., hostname: _Optional[str] = ..., limits: _Optional[_Union[_types_pb2.Limits, _Mapping]] = ..., tty: bool = ..., stdin_open: bool = ..., labels: _Optional[_Mapping[str, str]] = ..., address: _Optional[str] = ..., mac: _Optional[str] = ..., create_only: bool = ..., cap_add: _Optional[_Iterable[str]] = ..., cap_drop: _Optional[_Iterable[str]] = ..., stop_signal: _Optional[str] = ..., stop_timeout_s: _Optional[float] = ..., remove_on_exit: bool = ..., mounts: _Optional[_Iterable[_Union[_types_pb2.Mount, _Mapping]]] = ..., read_only: bool = ..., isolation: _Optional[_Union[_types_pb2.Isolation, _Mapping]] = ..., restart: _Optional[_Union[_types_pb2.RestartPolicy, _Mapping]] = ..., health: _Optional[_Union[_types_pb2.Healthcheck, _Mapping]] = ..., init: bool = ..., log_options: _Optional[_Mapping[str, str]] = ..., network: _Optional[_Union[_types_pb2.Network, _Mapping]] = ..., publish_all: bool = ..., groups: _Optional[_Iterable[str]] = ..., domainname: _Optional[str] = ..., annotations: _Optional[_Mapping[str, str]] = ..., umask: _Optional[str] = ..., timezone: _Optional[str] = ..., secrets: _Optional[_Iterable[_Union[_types_pb2.Secret, _Mapping]]] = ..., secret_data: _Optional[_Mapping[str, bytes]] = ..., unset_env: _Optional[_Iterable[str]] = ..., platform: _Optional[str] = ...) -> None: ...

class UpdateContainerRequest(_message.Message):
    __slots__ = ("name", "limits", "fields")
    NAME_FIELD_NUMBER: _ClassVar[int]
    LIMITS_FIELD_NUMBER: _ClassVar[int]
    FIELDS_FIELD_NUMBER: _ClassVar[int]
    name: str
    limits: _types_pb2.Limits
    fields: _containers.RepeatedScalarFieldContainer[str]
    def __init__(self, name: _Optional[str] = ..., limits: _Optional[_Union[_types_pb2.Limits, _Mapping]] = ..., fields: _Optional[_Iterable[str]] = ...) -> None: ...

class StatsRequest(_message.Message):
    __slots__ = ("names",)
    NAMES_FIELD_NUMBER: _ClassVar[int]
    names: _containers.RepeatedScalarFieldContainer[str]
    def __init__(self, names: _Optional[_Iterable[str]] = ...) -> None: ...

class ContainersRequest(_message.Message):
    __slots__ = ("all", "host", "size")
    ALL_FIELD_NUMBER: _ClassVar[int]
    HOST_FIELD_NUMBER: _ClassVar[int]
    SIZE_FIELD_NUMBER: _ClassVar[int]
    all: bool
    host: str
    size: bool
    def __init__(self, all: bool = ..., host: _Optional[str] = ..., size: bool = ...) -> None: ...

class NameRequest(_message.Message):
    __slots__ = ("name",)
    NAME_FIELD_NUMBER: _ClassVar[int]
    name: str
    def __init__(self, name: _Optional[str] = ...) -> None: ...

class StopContainerRequest(_message.Message):
    __slots__ = ("name", "timeout_s", "default_timeout", "signal")
    NAME_FIELD_NUMBER: _ClassVar[int]
    TIMEOUT_S_FIELD_NUMBER: _ClassVar[int]
    DEFAULT_TIMEOUT_FIELD_NUMBER: _ClassVar[int]
    SIGNAL_FIELD_NUMBER: _ClassVar[int]
    name: str
    timeout_s: float
    default_timeout: bool
    signal: str
    def __init__(self, name: _Optional[str] = ..., timeout_s: _Optional[float] = ..., default_timeout: bool = ..., signal: _Optional[str] = ...) -> None: ...

class KillContainerRequest(_message.Message):
    __slots__ = ("name", "signal")
    NAME_FIELD_NUMBER: _ClassVar[int]
    SIGNAL_FIELD_NUMBER: _ClassVar[int]
    name: str
    signal: str
    def __init__(self, name: _Optional[str] = ..., signal: _Optional[str] = ...) -> None: ...

class RemoveContainerRequest(_message.Message):
    __slots__ = ("name", "force", "volumes")
    NAME_FIELD_NUMBER: _ClassVar[int]
    FORCE_FIELD_NUMBER: _ClassVar[int]
    VOLUMES_FIELD_NUMBER: _ClassVar[int]
    name: str
    force: bool
    volumes: bool
    def __init__(self, name: _Optional[str] = ..., force: bool = ..., volumes: bool = ...) -> None: ...

class ContainerLogsRequest(_message.Message):
    __slots__ = ("name", "follow", "tail", "since_unix_ns", "all")
    NAME_FIELD_NUMBER: _ClassVar[int]
    FOLLOW_FIELD_NUMBER: _ClassVar[int]
    TAIL_FIELD_NUMBER: _ClassVar[int]
    SINCE_UNIX_NS_FIELD_NUMBER: _ClassVar[int]
    ALL_FIELD_NUMBER: _ClassVar[int]
    name: str
    follow: bool
    tail: int
    since_unix_ns: int
    all: bool
    def __init__(self, name: _Optional[str] = ..., follow: bool = ..., tail: _Optional[int] = ..., since_unix_ns: _Optional[int] = ..., all: bool = ...) -> None: ...

class ImportImageStart(_message.Message):
    __slots__ = ("name", "config", "host", "created_by")
    NAME_FIELD_NUMBER: _ClassVar[int]
    CONFIG_FIELD_NUMBER: _ClassVar[int]
    HOST_FIELD_NUMBER: _ClassVar[int]
    CREATED_BY_FIELD_NUMBER: _ClassVar[int]
    name: str
    config: _types_pb2.ImageConfig
    host: str
    created_by: str
    def __init__(self, name: _Optional[str] = ..., config: _Optional[_Union[_types_pb2.ImageConfig, _Mapping]] = ..., host: _Optional[str] = ..., created_by: _Optional[str] = ...) -> None: ...

class ImportImageChunk(_message.Message):
    __slots__ = ("start", "data", "end")
    START_FIELD_NUMBER: _ClassVar[int]
    DATA_FIELD_NUMBER: _ClassVar[int]
    END_FIELD_NUMBER: _ClassVar[int]
    start: ImportImageStart
    data: bytes
    end: int
    def __init__(self, start: _Optional[_Union[ImportImageStart, _Mapping]] = ..., data: _Optional[bytes] = ..., end: _Optional[int] = ...) -> None: ...

class ImportImageResponse(_message.Message):
    __slots__ = ("images",)
    IMAGES_FIELD_NUMBER: _ClassVar[int]
    images: _containers.RepeatedCompositeFieldContainer[_types_pb2.Image]
    def __init__(self, images: _Optional[_Iterable[_Union[_types_pb2.Image, _Mapping]]] = ...) -> None: ...

class PruneImagesOfFleet(_message.Message):
    __slots__ = ("hosts",)
    HOSTS_FIELD_NUMBER: _ClassVar[int]
    hosts: _containers.RepeatedCompositeFieldContainer[_agent_pb2.PruneImagesResponse]
    def __init__(self, hosts: _Optional[_Iterable[_Union[_agent_pb2.PruneImagesResponse, _Mapping]]] = ...) -> None: ...

class RemoveImageFromRequest(_message.Message):
    __slots__ = ("name", "host", "force")
    NAME_FIELD_NUMBER: _ClassVar[int]
    HOST_FIELD_NUMBER: _ClassVar[int]
    FORCE_FIELD_NUMBER: _ClassVar[int]
    name: str
    host: str
    force: bool
    def __init__(self, name: _Optional[str] = ..., host: _Optional[str] = ..., force: bool = ...) -> None: ...

class MoveRequest(_message.Message):
    __slots__ = ("container", "to", "reason", "mode", "max_downtime_s", "request_id", "dry_run", "transfer", "constraints", "precopy", "skip", "no_policy")
    CONTAINER_FIELD_NUMBER: _ClassVar[int]
    TO_FIELD_NUMBER: _ClassVar[int]
    REASON_FIELD_NUMBER: _ClassVar[int]
    MODE_FIELD_NUMBER: _ClassVar[int]
    MAX_DOWNTIME_S_FIELD_NUMBER: _ClassVar[int]
    REQUEST_ID_FIELD_NUMBER: _ClassVar[int]
    DRY_RUN_FIELD_NUMBER: _ClassVar[int]
    TRANSFER_FIELD_NUMBER: _ClassVar[int]
    CONSTRAINTS_FIELD_NUMBER: _ClassVar[int]
    PRECOPY_FIELD_NUMBER: _ClassVar[int]
    SKIP_FIELD_NUMBER: _ClassVar[int]
    NO_POLICY_FIELD_NUMBER: _ClassVar[int]
    container: str
    to: str
    reason: str
    mode: str
    max_downtime_s: float
    request_id: str
    dry_run: bool
    transfer: _types_pb2.TransferOptions
    constraints: _containers.RepeatedScalarFieldContainer[str]
    precopy: _types_pb2.PrecopyOptions
    skip: _containers.RepeatedScalarFieldContainer[str]
    no_policy: bool
    def __init__(self, container: _Optional[str] = ..., to: _Optional[str] = ..., reason: _Optional[str] = ..., mode: _Optional[str] = ..., max_downtime_s: _Optional[float] = ..., request_id: _Optional[str] = ..., dry_run: bool = ..., transfer: _Optional[_Union[_types_pb2.TransferOptions, _Mapping]] = ..., constraints: _Optional[_Iterable[str]] = ..., precopy: _Optional[_Union[_types_pb2.PrecopyOptions, _Mapping]] = ..., skip: _Optional[_Iterable[str]] = ..., no_policy: bool = ...) -> None: ...

class CheckFinding(_message.Message):
    __slots__ = ("check", "severity", "what", "where", "remedy", "pid", "descriptor", "path", "skippable")
    CHECK_FIELD_NUMBER: _ClassVar[int]
    SEVERITY_FIELD_NUMBER: _ClassVar[int]
    WHAT_FIELD_NUMBER: _ClassVar[int]
    WHERE_FIELD_NUMBER: _ClassVar[int]
    REMEDY_FIELD_NUMBER: _ClassVar[int]
    PID_FIELD_NUMBER: _ClassVar[int]
    DESCRIPTOR_FIELD_NUMBER: _ClassVar[int]
    PATH_FIELD_NUMBER: _ClassVar[int]
    SKIPPABLE_FIELD_NUMBER: _ClassVar[int]
    check: str
    severity: str
    what: str
    where: str
    remedy: str
    pid: int
    descriptor: str
    path: str
    skippable: bool
    def __init__(self, check: _Optional[str] = ..., severity: _Optional[str] = ..., what: _Optional[str] = ..., where: _Optional[str] = ..., remedy: _Optional[str] = ..., pid: _Optional[int] = ..., descriptor: _Optional[str] = ..., path: _Optional[str] = ..., skippable: bool = ...) -> None: ...

class CheckReport(_message.Message):
    __slots__ = ("container_id", "container", "source", "target", "mode", "findings", "prediction", "plan")
    CONTAINER_ID_FIELD_NUMBER: _ClassVar[int]
    CONTAINER_FIELD_NUMBER: _ClassVar[int]
    SOURCE_FIELD_NUMBER: _ClassVar[int]
    TARGET_FIELD_NUMBER: _ClassVar[int]
    MODE_FIELD_NUMBER: _ClassVar[int]
    FINDINGS_FIELD_NUMBER: _ClassVar[int]
    PREDICTION_FIELD_NUMBER: _ClassVar[int]
    PLAN_FIELD_NUMBER: _ClassVar[int]
    container_id: str
    container: str
    source: str
    target: str
    mode: str
    findings: _containers.RepeatedCompositeFieldContainer[CheckFinding]
    prediction: Prediction
    plan: _containers.RepeatedScalarFieldContainer[str]
    def __init__(self, container_id: _Optional[str] = ..., container: _Optional[str] = ..., source: _Optional[str] = ..., target: _Optional[str] = ..., mode: _Optional[str] = ..., findings: _Optional[_Iterable[_Union[CheckFinding, _Mapping]]] = ..., prediction: _Optional[_Union[Prediction, _Mapping]] = ..., plan: _Optional[_Iterable[str]] = ...) -> None: ...

class Prediction(_message.Message):
    __slots__ = ("downtime_s", "downtime_because", "total_s", "total_because", "memory_bytes", "layer_bytes", "image_bytes", "missing_layers", "bytes_per_s", "round_trip_s")
    DOWNTIME_S_FIELD_NUMBER: _ClassVar[int]
    DOWNTIME_BECAUSE_FIELD_NUMBER: _ClassVar[int]
    TOTAL_S_FIELD_NUMBER: _ClassVar[int]
    TOTAL_BECAUSE_FIELD_NUMBER: _ClassVar[int]
    MEMORY_BYTES_FIELD_NUMBER: _ClassVar[int]
    LAYER_BYTES_FIELD_NUMBER: _ClassVar[int]
    IMAGE_BYTES_FIELD_NUMBER: _ClassVar[int]
    MISSING_LAYERS_FIELD_NUMBER: _ClassVar[int]
    BYTES_PER_S_FIELD_NUMBER: _ClassVar[int]
    ROUND_TRIP_S_FIELD_NUMBER: _ClassVar[int]
    downtime_s: float
    downtime_because: str
    total_s: float
    total_because: str
    memory_bytes: int
    layer_bytes: int
    image_bytes: int
    missing_layers: int
    bytes_per_s: float
    round_trip_s: float
    def __init__(self, downtime_s: _Optional[float] = ..., downtime_because: _Optional[str] = ..., total_s: _Optional[float] = ..., total_because: _Optional[str] = ..., memory_bytes: _Optional[int] = ..., layer_bytes: _Optional[int] = ..., image_bytes: _Optional[int] = ..., missing_layers: _Optional[int] = ..., bytes_per_s: _Optional[float] = ..., round_trip_s: _Optional[float] = ...) -> None: ...

class SetMigrationRequest(_message.Message):
    __slots__ = ("migration_id", "bandwidth")
    MIGRATION_ID_FIELD_NUMBER: _ClassVar[int]
    BANDWIDTH_FIELD_NUMBER: _ClassVar[int]
    migration_id: str
    bandwidth: int
    def __init__(self, migration_id: _Optional[str] = ..., bandwidth: _Optional[int] = ...) -> None: ...

class SetMigrationResponse(_message.Message):
    __slots__ = ("text",)
    TEXT_FIELD_NUMBER: _ClassVar[int]
    text: str
    def __init__(self, text: _Optional[str] = ...) -> None: ...

class MoveEvent(_message.Message):
    __slots__ = ("migration_id", "progress", "step", "done")
    MIGRATION_ID_FIELD_NUMBER: _ClassVar[int]
    PROGRESS_FIELD_NUMBER: _ClassVar[int]
    STEP_FIELD_NUMBER: _ClassVar[int]
    DONE_FIELD_NUMBER: _ClassVar[int]
    migration_id: str
    progress: _types_pb2.Progress
    step: StepEvent
    done: MigrationRecord
    def __init__(self, migration_id: _Optional[str] = ..., progress: _Optional[_Union[_types_pb2.Progress, _Mapping]] = ..., step: _Optional[_Union[StepEvent, _Mapping]] = ..., done: _Optional[_Union[MigrationRecord, _Mapping]] = ...) -> None: ...

class StepEvent(_message.Message):
    __slots__ = ("step", "event", "unix_ns", "facts_json", "error")
    STEP_FIELD_NUMBER: _ClassVar[int]
    EVENT_FIELD_NUMBER: _ClassVar[int]
    UNIX_NS_FIELD_NUMBER: _ClassVar[int]
    FACTS_JSON_FIELD_NUMBER: _ClassVar[int]
    ERROR_FIELD_NUMBER: _ClassVar[int]
    step: str
    event: str
    unix_ns: int
    facts_json: str
    error: str
    def __init__(self, step: _Optional[str] = ..., event: _Optional[str] = ..., unix_ns: _Optional[int] = ..., facts_json: _Optional[str] = ..., error: _Optional[str] = ...) -> None: ...

class WatchRequest(_message.Message):
    __slots__ = ("migration_id",)
    MIGRATION_ID_FIELD_NUMBER: _ClassVar[int]
    migration_id: str
    def __init__(self, migration_id: _Optional[str] = ...) -> None: ...

class CancelRequest(_message.Message):
    __slots__ = ("migration_id",)
    MIGRATION_ID_FIELD_NUMBER: _ClassVar[int]
    migration_id: str
    def __init__(self, migration_id: _Optional[str] = ...) -> None: ...

class CancelResponse(_message.Message):
    __slots__ = ("state", "text")
    STATE_FIELD_NUMBER: _ClassVar[int]
    TEXT_FIELD_NUMBER: _ClassVar[int]
    state: str
    text: str
    def __init__(self, state: _Optional[str] = ..., text: _Optional[str] = ...) -> None: ...

class RepairRequest(_message.Message):
    __slots__ = ("migration_id", "dry_run", "keep")
    MIGRATION_ID_FIELD_NUMBER: _ClassVar[int]
    DRY_RUN_FIELD_NUMBER: _ClassVar[int]
    KEEP_FIELD_NUMBER: _ClassVar[int]
    migration_id: str
    dry_run: bool
    keep: str
    def __init__(self, migration_id: _Optional[str] = ..., dry_run: bool = ..., keep: _Optional[str] = ...) -> None: ...

class MigrationsRequest(_message.Message):
    __slots__ = ("container", "limit", "active")
    CONTAINER_FIELD_NUMBER: _ClassVar[int]
    LIMIT_FIELD_NUMBER: _ClassVar[int]
    ACTIVE_FIELD_NUMBER: _ClassVar[int]
    container: str
    limit: int
    active: bool
    def __init__(self, container: _Optional[str] = ..., limit: _Optional[int] = ..., active: bool = ...) -> None: ...

class MigrationsResponse(_message.Message):
    __slots__ = ("migrations",)
    MIGRATIONS_FIELD_NUMBER: _ClassVar[int]
    migrations: _containers.RepeatedCompositeFieldContainer[MigrationRecord]
    def __init__(self, migrations: _Optional[_Iterable[_Union[MigrationRecord, _Mapping]]] = ...) -> None: ...

class MigrationRequest(_message.Message):
    __slots__ = ("migration_id",)
    MIGRATION_ID_FIELD_NUMBER: _ClassVar[int]
    migration_id: str
    def __init__(self, migration_id: _Optional[str] = ...) -> None: ...

class CommitMoveResponse(_message.Message):
    __slots__ = ("text",)
    TEXT_FIELD_NUMBER: _ClassVar[int]
    text: str
    def __init__(self, text: _Optional[str] = ...) -> None: ...

class MigrationRecord(_message.Message):
    __slots__ = ("migration_id", "container_id", "container", "source", "target", "state", "step", "reason", "mode", "started_unix_ns", "finished_unix_ns", "epoch", "error", "journal", "facts", "sent_bytes", "marks", "transfer", "travelled", "max_downtime_s", "precopy", "rehearsal", "policies", "priority")
    class FactsEntry(_message.Message):
        __slots__ = ("key", "value")
        KEY_FIELD_NUMBER: _ClassVar[int]
        VALUE_FIELD_NUMBER: _ClassVar[int]
        key: str
        value: float
        def __init__(self, key: _Optional[str] = ..., value: _Optional[float] = ...) -> None: ...
    class SentBytesEntry(_message.Message):
        __slots__ = ("key", "value")
        KEY_FIELD_NUMBER: _ClassVar[int]
        VALUE_FIELD_NUMBER: _ClassVar[int]
        key: str
        value: int
        def __init__(self, key: _Optional[str] = ..., value: _Optional[int] = ...) -> None: ...
    class PoliciesEntry(_message.Message):
        __slots__ = ("key", "value")
        KEY_FIELD_NUMBER: _ClassVar[int]
        VALUE_FIELD_NUMBER: _ClassVar[int]
        key: str
        value: str
        def __init__(self, key: _Optional[str] = ..., value: _Optional[str] = ...) -> None: ...
    MIGRATION_ID_FIELD_NUMBER: _ClassVar[int]
    CONTAINER_ID_FIELD_NUMBER: _ClassVar[int]
    CONTAINER_FIELD_NUMBER: _ClassVar[int]
    SOURCE_FIELD_NUMBER: _ClassVar[int]
    TARGET_FIELD_NUMBER: _ClassVar[int]
    STATE_FIELD_NUMBER: _ClassVar[int]
    STEP_FIELD_NUMBER: _ClassVar[int]
    REASON_FIELD_NUMBER: _ClassVar[int]
    MODE_FIELD_NUMBER: _ClassVar[int]
    STARTED_UNIX_NS_FIELD_NUMBER: _ClassVar[int]
    FINISHED_UNIX_NS_FIELD_NUMBER: _ClassVar[int]
    EPOCH_FIELD_NUMBER: _ClassVar[int]
    ERROR_FIELD_NUMBER: _ClassVar[int]
    JOURNAL_FIELD_NUMBER: _ClassVar[int]
    FACTS_FIELD_NUMBER: _ClassVar[int]
    SENT_BYTES_FIELD_NUMBER: _ClassVar[int]
    MARKS_FIELD_NUMBER: _ClassVar[int]
    TRANSFER_FIELD_NUMBER: _ClassVar[int]
    TRAVELLED_FIELD_NUMBER: _ClassVar[int]
    MAX_DOWNTIME_S_FIELD_NUMBER: _ClassVar[int]
    PRECOPY_FIELD_NUMBER: _ClassVar[int]
    REHEARSAL_FIELD_NUMBER: _ClassVar[int]
    POLICIES_FIELD_NUMBER: _ClassVar[int]
    PRIORITY_FIELD_NUMBER: _ClassVar[int]
    migration_id: str
    container_id: str
    container: str
    source: str
    target: str
    state: str
    step: str
    reason: str
    mode: str
    started_unix_ns: int
    finished_unix_ns: int
    epoch: int
    error: _types_pb2.ErrorDetail
    journal: _containers.RepeatedCompositeFieldContainer[StepEvent]
    facts: _containers.ScalarMap[str, float]
    sent_bytes: _containers.ScalarMap[str, int]
    marks: _containers.RepeatedCompositeFieldContainer[_types_pb2.Mark]
    transfer: _types_pb2.TransferOptions
    travelled: _types_pb2.Travelled
    max_downtime_s: float
    precopy: _types_pb2.PrecopyOptions
    rehearsal: bool
    policies: _containers.ScalarMap[str, str]
    priority: str
    def __init__(self, migration_id: _Optional[str] = ..., container_id: _Optional[str] = ..., container: _Optional[str] = ..., source: _Optional[str] = ..., target: _Optional[str] = ..., state: _Optional[str] = ..., step: _Optional[str] = ..., reason: _Optional[str] = ..., mode: _Optional[str] = ..., started_unix_ns: _Optional[int] = ..., finished_unix_ns: _Optional[int] = ..., epoch: _Optional[int] = ..., error: _Optional[_Union[_types_pb2.ErrorDetail, _Mapping]] = ..., journal: _Optional[_Iterable[_Union[StepEvent, _Mapping]]] = ..., facts: _Optional[_Mapping[str, float]] = ..., sent_bytes: _Optional[_Mapping[str, int]] = ..., marks: _Optional[_Iterable[_Union[_types_pb2.Mark, _Mapping]]] = ..., transfer: _Optional[_Union[_types_pb2.TransferOptions, _Mapping]] = ..., travelled: _Optional[_Union[_types_pb2.Travelled, _Mapping]] = ..., max_downtime_s: _Optional[float] = ..., precopy: _Optional[_Union[_types_pb2.PrecopyOptions, _Mapping]] = ..., rehearsal: bool = ..., policies: _Optional[_Mapping[str, str]] = ..., priority: _Optional[str] = ...) -> None: ...
