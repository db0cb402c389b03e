from protos import types_pb2 as _types_pb2
from google.protobuf.internal import containers as _containers
from google.protobuf import descriptor as _descriptor
from google.protobuf import message as _message
from collections.abc import Iterable as _Iterable, Mapping as _Mapping
from typing import ClassVar as _ClassVar, Optional as _Optional, Union as _Union

DESCRIPTOR: _descriptor.FileDescriptor

class FactsRequest(_message.Message):
    __slots__ = ()
    def __init__(self) -> None: ...

class BeatRequest(_message.Message):
    __slots__ = ()
    def __init__(self) -> None: ...

class BeatResponse(_message.Message):
    __slots__ = ("host", "boot_id", "started_unix_ns")
    HOST_FIELD_NUMBER: _ClassVar[int]
    BOOT_ID_FIELD_NUMBER: _ClassVar[int]
    STARTED_UNIX_NS_FIELD_NUMBER: _ClassVar[int]
    host: str
    boot_id: str
    started_unix_ns: int
    def __init__(self, host: _Optional[str] = ..., boot_id: _Optional[str] = ..., started_unix_ns: _Optional[int] = ...) -> None: ...

class TrustRequest(_message.Message):
    __slots__ = ("authorities",)
    AUTHORITIES_FIELD_NUMBER: _ClassVar[int]
    authorities: _containers.RepeatedScalarFieldContainer[str]
    def __init__(self, authorities: _Optional[_Iterable[str]] = ...) -> None: ...

class TrustResponse(_message.Message):
    __slots__ = ()
    def __init__(self) -> None: ...

class Capability(_message.Message):
    __slots__ = ("name", "ok", "value", "remedy", "required")
    NAME_FIELD_NUMBER: _ClassVar[int]
    OK_FIELD_NUMBER: _ClassVar[int]
    VALUE_FIELD_NUMBER: _ClassVar[int]
    REMEDY_FIELD_NUMBER: _ClassVar[int]
    REQUIRED_FIELD_NUMBER: _ClassVar[int]
    name: str
    ok: bool
    value: str
    remedy: str
    required: bool
    def __init__(self, name: _Optional[str] = ..., ok: bool = ..., value: _Optional[str] = ..., remedy: _Optional[str] = ..., required: bool = ...) -> None: ...

class HostFacts(_message.Message):
    __slots__ = ("host", "agent_version", "protocol", "kernel", "architecture", "criu_version", "memory_total_bytes", "memory_available_bytes", "disk_available_bytes", "capabilities", "containers_running", "bridge", "cpus", "instructions", "cgroup", "lsm", "bridge_addresses", "bridge_mtu", "unix_ns", "processor", "boot_id", "protocol_minor")
    HOST_FIELD_NUMBER: _ClassVar[int]
    AGENT_VERSION_FIELD_NUMBER: _ClassVar[int]
    PROTOCOL_FIELD_NUMBER: _ClassVar[int]
    KERNEL_FIELD_NUMBER: _ClassVar[int]
    ARCHITECTURE_FIELD_NUMBER: _ClassVar[int]
    CRIU_VERSION_FIELD_NUMBER: _ClassVar[int]
    MEMORY_TOTAL_BYTES_FIELD_NUMBER: _ClassVar[int]
    MEMORY_AVAILABLE_BYTES_FIELD_NUMBER: _ClassVar[int]
    DISK_AVAILABLE_BYTES_FIELD_NUMBER: _ClassVar[int]
    CAPABILITIES_FIELD_NUMBER: _ClassVar[int]
    CONTAINERS_RUNNING_FIELD_NUMBER: _ClassVar[int]
    BRIDGE_FIELD_NUMBER: _ClassVar[int]
    CPUS_FIELD_NUMBER: _ClassVar[int]
    INSTRUCTIONS_FIELD_NUMBER: _ClassVar[int]
    CGROUP_FIELD_NUMBER: _ClassVar[int]
    LSM_FIELD_NUMBER: _ClassVar[int]
    BRIDGE_ADDRESSES_FIELD_NUMBER: _ClassVar[int]
    BRIDGE_MTU_FIELD_NUMBER: _ClassVar[int]
    UNIX_NS_FIELD_NUMBER: _ClassVar[int]
    PROCESSOR_FIELD_NUMBER: _ClassVar[int]
    BOOT_ID_FIELD_NUMBER: _ClassVar[int]
    PROTOCOL_MINOR_FIELD_NUMBER: _ClassVar[int]
    host: str
    agent_version: str
    protocol: int
    kernel: str
    architecture: str
    criu_version: str
    memory_total_bytes: int
    memory_available_bytes: int
    disk_available_bytes: int
    capabilities: _containers.RepeatedCompositeFieldContainer[Capability]
    containers_running: int
    bridge: str
    cpus: int
    instructions: _containers.RepeatedScalarFieldContainer[str]
    cgroup: str
    lsm: str
    bridge_addresses: _containers.RepeatedScalarFieldContainer[str]
    bridge_mtu: int
    unix_ns: int
    processor: str
    boot_id: str
    protocol_minor: int
    def __init__(self, host: _Optional[str] = ..., agent_version: _Optional[str] = ..., protocol: _Optional[int] = ..., kernel: _Optional[str] = ..., architecture: _Optional[str] = ..., criu_version: _Optional[str] = ..., memory_total_bytes: _Optional[int] = ..., memory_available_bytes: _Optional[int] = ..., disk_available_bytes: _Optional[int] = ..., capabilities: _Optional[_Iterable[_Union[Capability, _Mapping]]] = ..., containers_running: _Optional[int] = ..., bridge: _Optional[str] = ..., cpus: _Optional[int] = ..., instructions: _Optional[_Iterable[str]] = ..., cgroup: _Optional[str] = ..., lsm: _Optional[str] = ..., bridge_addresses: _Optional[_Iterable[str]] = ..., bridge_mtu: _Optional[int] = ..., unix_ns: _Optional[int] = ..., processor: _Optional[str] = ..., boot_id: _Optional[str] = ..., protocol_minor: _Optional[int] = ...) -> None: ...

class UpdateRequest(_message.Message):
    __slots__ = ("id", "limits")
    ID_FIELD_NUMBER: _ClassVar[int]
    LIMITS_FIELD_NUMBER: _ClassVar[int]
    id: str
    limits: _types_pb2.Limits
    def __init__(self, id: _Optional[str] = ..., limits: _Optional[_Union[_types_pb2.Limits, _Mapping]] = ...) -> None: ...

class PauseRequest(_message.Message):
    __slots__ = ("id",)
    ID_FIELD_NUMBER: _ClassVar[int]
    id: str
    def __init__(self, id: _Optional[str] = ...) -> None: ...

class UsageRequest(_message.Message):
    __slots__ = ("ids",)
    IDS_FIELD_NUMBER: _ClassVar[int]
    ids: _containers.RepeatedScalarFieldContainer[str]
    def __init__(self, ids: _Optional[_Iterable[str]] = ...) -> None: ...

class UsageResponse(_message.Message):
    __slots__ = ("usages",)
    USAGES_FIELD_NUMBER: _ClassVar[int]
    usages: _containers.RepeatedCompositeFieldContainer[_types_pb2.ContainerUsage]
    def __init__(self, usages: _Optional[_Iterable[_Union[_types_pb2.ContainerUsage, _Mapping]]] = ...) -> None: ...

class TopRequest(_message.Message):
    __slots__ = ("id",)
    ID_FIELD_NUMBER: _ClassVar[int]
    id: str
    def __init__(self, id: _Optional[str] = ...) -> None: ...

class TopResponse(_message.Message):
    __slots__ = ("processes",)
    PROCESSES_FIELD_NUMBER: _ClassVar[int]
    processes: _containers.RepeatedCompositeFieldContainer[_types_pb2.ContainerProcess]
    def __init__(self, processes: _Optional[_Iterable[_Union[_types_pb2.ContainerProcess, _Mapping]]] = ...) -> None: ...

class CreateRequest(_message.Message):
    __slots__ = ("spec", "epoch", "start", "secrets")
    class SecretsEntry(_message.Message):
        __slots__ = ("key", "value")
        KEY_FIELD_NUMBER: _ClassVar[int]
        VALUE_FIELD_NUMBER: _ClassVar[int]
        key: str
        value: bytes
        def __init__(self, key: _Optional[str] = ..., value: _Optional[bytes] = ...) -> None: ...
    SPEC_FIELD_NUMBER: _ClassVar[int]
    EPOCH_FIELD_NUMBER: _ClassVar[int]
    START_FIELD_NUMBER: _ClassVar[int]
    SECRETS_FIELD_NUMBER: _ClassVar[int]
    spec: _types_pb2.ContainerSpec
    epoch: int
    start: bool
    secrets: _containers.ScalarMap[str, bytes]
    def __init__(self, spec: _Optional[_Union[_types_pb2.ContainerSpec, _Mapping]] = ..., epoch: _Optional[int] = ..., start: bool = ..., secrets: _Optional[_Mapping[str, bytes]] = ...) -> None: ...

class StartRequest(_message.Message):
    __slots__ = ("id",)
    ID_FIELD_NUMBER: _ClassVar[int]
    id: str
    def __init__(self, id: _Optional[str] = ...) -> None: ...

class StopRequest(_message.Message):
    __slots__ = ("id", "timeout_s", "signal", "default_timeout")
    ID_FIELD_NUMBER: _ClassVar[int]
    TIMEOUT_S_FIELD_NUMBER: _ClassVar[int]
    SIGNAL_FIELD_NUMBER: _ClassVar[int]
    DEFAULT_TIMEOUT_FIELD_NUMBER: _ClassVar[int]
    id: str
    timeout_s: float
    signal: str
    default_timeout: bool
    def __init__(self, id: _Optional[str] = ..., timeout_s: _Optional[float] = ..., signal: _Optional[str] = ..., default_timeout: bool = ...) -> None: ...

class KillRequest(_message.Message):
    __slots__ = ("id", "signal")
    ID_FIELD_NUMBER: _ClassVar[int]
    SIGNAL_FIELD_NUMBER: _ClassVar[int]
    id: str
    signal: str
    def __init__(self, id: _Optional[str] = ..., signal: _Optional[str] = ...) -> None: ...

class KillResponse(_message.Message):
    __slots__ = ()
    def __init__(self) -> None: ...

class RemoveRequest(_message.Message):
    __slots__ = ("id", "force", "volumes")
    ID_FIELD_NUMBER: _ClassVar[int]
    FORCE_FIELD_NUMBER: _ClassVar[int]
    VOLUMES_FIELD_NUMBER: _ClassVar[int]
    id: str
    force: bool
    volumes: bool
    def __init__(self, id: _Optional[str] = ..., force: bool = ..., volumes: bool = ...) -> None: ...

class RemoveResponse(_message.Message):
    __slots__ = ()
    def __init__(self) -> None: ...

class InspectRequest(_message.Message):
    __slots__ = ("id",)
    ID_FIELD_NUMBER: _ClassVar[int]
    id: str
    def __init__(self, id: _Optional[str] = ...) -> None: ...

class ListRequest(_message.Message):
    __slots__ = ("size",)
    SIZE_FIELD_NUMBER: _ClassVar[int]
    size: bool
    def __init__(self, size: bool = ...) -> None: ...

class ListResponse(_message.Message):
    __slots__ = ("containers",)
    CONTAINERS_FIELD_NUMBER: _ClassVar[int]
    containers: _containers.RepeatedCompositeFieldContainer[_types_pb2.ContainerStatus]
    def __init__(self, containers: _Optional[_Iterable[_Union[_types_pb2.ContainerStatus, _Mapping]]] = ...) -> None: ...

class WaitRequest(_message.Message):
    __slots__ = ("id",)
    ID_FIELD_NUMBER: _ClassVar[int]
    id: str
    def __init__(self, id: _Optional[str] = ...) -> None: ...

class LogsRequest(_message.Message):
    __slots__ = ("id", "follow", "tail", "since_unix_ns", "all")
    ID_FIELD_NUMBER: _ClassVar[int]
    FOLLOW_FIELD_NUMBER: _ClassVar[int]
    TAIL_FIELD_NUMBER: _ClassVar[int]
    SINCE_UNIX_NS_FIELD_NUMBER: _ClassVar[int]
    ALL_FIELD_NUMBER: _ClassVar[int]
    id: str
    follow: bool
    tail: int
    since_unix_ns: int
    all: bool
    def __init__(self, id: _Optional[str] = ..., follow: bool = ..., tail: _Optional[int] = ..., since_unix_ns: _Optional[int] = ..., all: bool = ...) -> None: ...

class LogChunk(_message.Message):
    __slots__ = ("unix_ns", "stream", "data")
    UNIX_NS_FIELD_NUMBER: _ClassVar[int]
    STREAM_FIELD_NUMBER: _ClassVar[int]
    DATA_FIELD_NUMBER: _ClassVar[int]
    unix_ns: int
    stream: str
    data: bytes
    def __init__(self, unix_ns: _Optional[int] = ..., stream: _Optional[str] = ..., data: _Optional[bytes] = ...) -> None: ...

class ExecStart(_message.Message):
    __slots__ = ("id", "argv", "env", "cwd", "user", "tty", "stdin", "rows", "columns", "privileged", "detach")
    ID_FIELD_NUMBER: _ClassVar[int]
    ARGV_FIELD_NUMBER: _ClassVar[int]
    ENV_FIELD_NUMBER: _ClassVar[int]
    CWD_FIELD_NUMBER: _ClassVar[int]
    USER_FIELD_NUMBER: _ClassVar[int]
    TTY_FIELD_NUMBER: _ClassVar[int]
    STDIN_FIELD_NUMBER: _ClassVar[int]
    ROWS_FIELD_NUMBER: _ClassVar[int]
    COLUMNS_FIELD_NUMBER: _ClassVar[int]
    PRIVILEGED_FIELD_NUMBER: _ClassVar[int]
    DETACH_FIELD_NUMBER: _ClassVar[int]
    id: str
    argv: _containers.RepeatedScalarFieldContainer[str]
    env: _containers.RepeatedScalarFieldContainer[str]
    cwd: str
    user: str
    tty: bool
    stdin: bool
    rows: int
    columns: int
    privileged: bool
    detach: bool
    def __init__(self, id: _Optional[str] = ..., argv: _Optional[_Iterable[str]] = ..., env: _Optional[_Iterable[str]] = ..., cwd: _Optional[str] = ..., user: _Optional[str] = ..., tty: bool = ..., stdin: bool = ..., rows: _Optional[int] = ..., columns: _Optional[int] = ..., privileged: bool = ..., detach: bool = ...) -> None: ...

class WindowSize(_message.Message):
    __slots__ = ("rows", "columns")
    ROWS_FIELD_NUMBER: _ClassVar[int]
    COLUMNS_FIELD_NUMBER: _ClassVar[int]
    rows: int
    columns: int
    def __init__(self, rows: _Optional[int] = ..., columns: _Optional[int] = ...) -> None: ...

class ExecInput(_message.Message):
    __slots__ = ("start", "stdin", "close_stdin", "resize", "signal")
    START_FIELD_NUMBER: _ClassVar[int]
    STDIN_FIELD_NUMBER: _ClassVar[int]
    CLOSE_STDIN_FIELD_NUMBER: _ClassVar[int]
    RESIZE_FIELD_NUMBER: _ClassVar[int]
    SIGNAL_FIELD_NUMBER: _ClassVar[int]
    start: ExecStart
    stdin: bytes
    close_stdin: bool
    resize: WindowSize
    signal: str
    def __init__(self, start: _Optional[_Union[ExecStart, _Mapping]] = ..., stdin: _Optional[bytes] = ..., close_stdin: bool = ..., resize: _Optional[_Union[WindowSize, _Mapping]] = ..., signal: _Optional[str] = ...) -> None: ...

class ExecOutput(_message.Message):
    __slots__ = ("stdout", "stderr", "exit_code", "started")
    STDOUT_FIELD_NUMBER: _ClassVar[int]
    STDERR_FIELD_NUMBER: _ClassVar[int]
    EXIT_CODE_FIELD_NUMBER: _ClassVar[int]
    STARTED_FIELD_NUMBER: _ClassVar[int]
    stdout: bytes
    stderr: bytes
    exit_code: int
    started: bool
    def __init__(self, stdout: _Optional[bytes] = ..., stderr: _Optional[bytes] = ..., exit_code: _Optional[int] = ..., started: bool = ...) -> None: ...

class RestartRequest(_message.Message):
    __slots__ = ("id", "timeout_s", "default_timeout", "signal")
    ID_FIELD_NUMBER: _ClassVar[int]
    TIMEOUT_S_FIELD_NUMBER: _ClassVar[int]
    DEFAULT_TIMEOUT_FIELD_NUMBER: _ClassVar[int]
    SIGNAL_FIELD_NUMBER: _ClassVar[int]
    id: str
    timeout_s: float
    default_timeout: bool
    signal: str
    def __init__(self, id: _Optional[str] = ..., timeout_s: _Optional[float] = ..., default_timeout: bool = ..., signal: _Optional[str] = ...) -> None: ...

class RenameRequest(_message.Message):
    __slots__ = ("id", "name")
    ID_FIELD_NUMBER: _ClassVar[int]
    NAME_FIELD_NUMBER: _ClassVar[int]
    id: str
    name: str
    def __init__(self, id: _Optional[str] = ..., name: _Optional[str] = ...) -> None: ...

class SetRestartRequest(_message.Message):
    __slots__ = ("id", "restart")
    ID_FIELD_NUMBER: _ClassVar[int]
    RESTART_FIELD_NUMBER: _ClassVar[int]
    id: str
    restart: _types_pb2.RestartPolicy
    def __init__(self, id: _Optional[str] = ..., restart: _Optional[_Union[_types_pb2.RestartPolicy, _Mapping]] = ...) -> None: ...

class EventsRequest(_message.Message):
    __slots__ = ("since_unix_ns", "until_unix_ns", "follow", "after")
    SINCE_UNIX_NS_FIELD_NUMBER: _ClassVar[int]
    UNTIL_UNIX_NS_FIELD_NUMBER: _ClassVar[int]
    FOLLOW_FIELD_NUMBER: _ClassVar[int]
    AFTER_FIELD_NUMBER: _ClassVar[int]
    since_unix_ns: int
    until_unix_ns: int
    follow: bool
    after: int
    def __init__(self, since_unix_ns: _Optional[int] = ..., until_unix_ns: _Optional[int] = ..., follow: bool = ..., after: _Optional[int] = ...) -> None: ...

class ImportStart(_message.Message):
    __slots__ = ("name", "config", "created_by")
    NAME_FIELD_NUMBER: _ClassVar[int]
    CONFIG_FIELD_NUMBER: _ClassVar[int]
    CREATED_BY_FIELD_NUMBER: _ClassVar[int]
    name: str
    config: _types_pb2.ImageConfig
    created_by: str
    def __init__(self, name: _Optional[str] = ..., config: _Optional[_Union[_types_pb2.ImageConfig, _Mapping]] = ..., created_by: _Optional[str] = ...) -> None: ...

class ImportChunk(_message.Message):
    __slots__ = ("start", "data", "end")
    START_FIELD_NUMBER: _ClassVar[int]
    DATA_FIELD_NUMBER: _ClassVar[int]
    END_FIELD_NUMBER: _ClassVar[int]
    start: ImportStart
    data: bytes
    end: int
    def __init__(self, start: _Optional[_Union[ImportStart, _Mapping]] = ..., data: _Optional[bytes] = ..., end: _Optional[int] = ...) -> None: ...

class ListImagesRequest(_message.Message):
    __slots__ = ()
    def __init__(self) -> None: ...

class ListImagesResponse(_message.Message):
    __slots__ = ("images",)
    IMAGES_FIELD_NUMBER: _ClassVar[int]
    images: _containers.RepeatedCompositeFieldContainer[_types_pb2.Image]
    def __init__(self, images: _Optional[_Iterable[_Union[_types_pb2.Image, _Mapping]]] = ...) -> None: ...

class InspectImageRequest(_message.Message):
    __slots__ = ("name", "host")
    NAME_FIELD_NUMBER: _ClassVar[int]
    HOST_FIELD_NUMBER: _ClassVar[int]
    name: str
    host: str
    def __init__(self, name: _Optional[str] = ..., host: _Optional[str] = ...) -> None: ...

class RemoveImageRequest(_message.Message):
    __slots__ = ("name", "force")
    NAME_FIELD_NUMBER: _ClassVar[int]
    FORCE_FIELD_NUMBER: _ClassVar[int]
    name: str
    force: bool
    def __init__(self, name: _Optional[str] = ..., force: bool = ...) -> None: ...

class RemoveImageResponse(_message.Message):
    __slots__ = ("removed", "untagged", "deleted")
    REMOVED_FIELD_NUMBER: _ClassVar[int]
    UNTAGGED_FIELD_NUMBER: _ClassVar[int]
    DELETED_FIELD_NUMBER: _ClassVar[int]
    removed: _containers.RepeatedScalarFieldContainer[str]
    untagged: _containers.RepeatedScalarFieldContainer[str]
    deleted: _containers.RepeatedScalarFieldContainer[str]
    def __init__(self, removed: _Optional[_Iterable[str]] = ..., untagged: _Optional[_Iterable[str]] = ..., deleted: _Optional[_Iterable[str]] = ...) -> None: ...

class ImageEvent(_message.Message):
    __slots__ = ("host", "progress", "image", "digest")
    HOST_FIELD_NUMBER: _ClassVar[int]
    PROGRESS_FIELD_NUMBER: _ClassVar[int]
    IMAGE_FIELD_NUMBER: _ClassVar[int]
    DIGEST_FIELD_NUMBER: _ClassVar[int]
    host: str
    progress: _types_pb2.Progress
    image: _types_pb2.Image
    digest: str
    def __init__(self, host: _Optional[str] = ..., progress: _Optional[_Union[_types_pb2.Progress, _Mapping]] = ..., image: _Optional[_Union[_types_pb2.Image, _Mapping]] = ..., digest: _Optional[str] = ...) -> None: ...

class SaveImagesRequest(_message.Message):
    __slots__ = ("names", "host")
    NAMES_FIELD_NUMBER: _ClassVar[int]
    HOST_FIELD_NUMBER: _ClassVar[int]
    names: _containers.RepeatedScalarFieldContainer[str]
    host: str
    def __init__(self, names: _Optional[_Iterable[str]] = ..., host: _Optional[str] = ...) -> None: ...

class SaveChunk(_message.Message):
    __slots__ = ("total_bytes", "data", "end")
    TOTAL_BYTES_FIELD_NUMBER: _ClassVar[int]
    DATA_FIELD_NUMBER: _ClassVar[int]
    END_FIELD_NUMBER: _ClassVar[int]
    total_bytes: int
    data: bytes
    end: int
    def __init__(self, total_bytes: _Optional[int] = ..., data: _Optional[bytes] = ..., end: _Optional[int] = ...) -> None: ...

class RegistryAccess(_message.Message):
    __slots__ = ("credentials", "unverified", "certificates")
    CREDENTIALS_FIELD_NUMBER: _ClassVar[int]
    UNVERIFIED_FIELD_NUMBER: _ClassVar[int]
    CERTIFICATES_FIELD_NUMBER: _ClassVar[int]
    credentials: bytes
    unverified: bool
    certificates: bytes
    def __init__(self, credentials: _Optional[bytes] = ..., unverified: bool = ..., certificates: _Optional[bytes] = ...) -> None: ...

class PullImageRequest(_message.Message):
    __slots__ = ("name", "access", "host")
    NAME_FIELD_NUMBER: _ClassVar[int]
    ACCESS_FIELD_NUMBER: _ClassVar[int]
    HOST_FIELD_NUMBER: _ClassVar[int]
    name: str
    access: RegistryAccess
    host: str
    def __init__(self, name: _Optional[str] = ..., access: _Optional[_Union[RegistryAccess, _Mapping]] = ..., host: _Optional[str] = ...) -> None: ...

class PushImageRequest(_message.Message):
    __slots__ = ("name", "destination", "access", "host")
    NAME_FIELD_NUMBER: _ClassVar[int]
    DESTINATION_FIELD_NUMBER: _ClassVar[int]
    ACCESS_FIELD_NUMBER: _ClassVar[int]
    HOST_FIELD_NUMBER: _ClassVar[int]
    name: str
    destination: str
    access: RegistryAccess
    host: str
    def __init__(self, name: _Optional[str] = ..., destination: _Optional[str] = ..., access: _Optional[_Union[RegistryAccess, _Mapping]] = ..., host: _Optional[str] = ...) -> None: ...

class LoginRequest(_message.Message):
    __slots__ = ("registry", "username", "password", "access", "host")
    REGISTRY_FIELD_NUMBER: _ClassVar[int]
    USERNAME_FIELD_NUMBER: _ClassVar[int]
    PASSWORD_FIELD_NUMBER: _ClassVar[int]
    ACCESS_FIELD_NUMBER: _ClassVar[int]
    HOST_FIELD_NUMBER: _ClassVar[int]
    registry: str
    username: str
    password: bytes
    access: RegistryAccess
    host: str
    def __init__(self, registry: _Optional[str] = ..., username: _Optional[str] = ..., password: _Optional[bytes] = ..., access: _Optional[_Union[RegistryAccess, _Mapping]] = ..., host: _Optional[str] = ...) -> None: ...

class LoginResponse(_message.Message):
    __slots__ = ()
    def __init__(self) -> None: ...

class TagImageRequest(_message.Message):
    __slots__ = ("name", "tag", "host")
    NAME_FIELD_NUMBER: _ClassVar[int]
    TAG_FIELD_NUMBER: _ClassVar[int]
    HOST_FIELD_NUMBER: _ClassVar[int]
    name: str
    tag: str
    host: str
    def __init__(self, name: _Optional[str] = ..., tag: _Optional[str] = ..., host: _Optional[str] = ...) -> None: ...

class PruneImagesRequest(_message.Message):
    __slots__ = ("all", "before_unix_ns", "labels", "host")
    ALL_FIELD_NUMBER: _ClassVar[int]
    BEFORE_UNIX_NS_FIELD_NUMBER: _ClassVar[int]
    LABELS_FIELD_NUMBER: _ClassVar[int]
    HOST_FIELD_NUMBER: _ClassVar[int]
    all: bool
    before_unix_ns: int
    labels: _containers.RepeatedScalarFieldContainer[str]
    host: str
    def __init__(self, all: bool = ..., before_unix_ns: _Optional[int] = ..., labels: _Optional[_Iterable[str]] = ..., host: _Optional[str] = ...) -> None: ...

class PruneImagesResponse(_message.Message):
    __slots__ = ("untagged", "deleted", "layers", "freed_bytes", "host")
    UNTAGGED_FIELD_NUMBER: _ClassVar[int]
    DELETED_FIELD_NUMBER: _ClassVar[int]
    LAYERS_FIELD_NUMBER: _ClassVar[int]
    FREED_BYTES_FIELD_NUMBER: _ClassVar[int]
    HOST_FIELD_NUMBER: _ClassVar[int]
    untagged: _containers.RepeatedScalarFieldContainer[str]
    deleted: _containers.RepeatedScalarFieldContainer[str]
    layers: _containers.RepeatedScalarFieldContainer[str]
    freed_bytes: int
    host: str
    def __init__(self, untagged: _Optional[_Iterable[str]] = ..., deleted: _Optional[_Iterable[str]] = ..., layers: _Optional[_Iterable[str]] = ..., freed_bytes: _Optional[int] = ..., host: _Optional[str] = ...) -> None: ...

class BuildStart(_message.Message):
    __slots__ = ("dockerfile", "file", "tags", "build_args", "target", "no_cache", "pull", "network", "secrets", "labels", "host", "ids", "address", "access")
    class BuildArgsEntry(_message.Message):
        __slots__ = ("key", "value")
        KEY_FIELD_NUMBER: _ClassVar[int]
        VALUE_FIELD_NUMBER: _ClassVar[int]
        key: str
        value: str
        def __init__(self, key: _Optional[str] = ..., value: _Optional[str] = ...) -> None: ...
    class SecretsEntry(_message.Message):
        __slots__ = ("key", "value")
        KEY_FIELD_NUMBER: _ClassVar[int]
        VALUE_FIELD_NUMBER: _ClassVar[int]
        key: str
        value: bytes
        def __init__(self, key: _Optional[str] = ..., value: _Optional[bytes] = ...) -> None: ...
    class LabelsEntry(_message.Message):
        __slots__ = ("key", "value")
        KEY_FIELD_NUMBER: _ClassVar[int]
        VALUE_FIELD_NUMBER: _ClassVar[int]
        key: str
        value: str
        def __init__(self, key: _Optional[str] = ..., value: _Optional[str] = ...) -> None: ...
    DOCKERFILE_FIELD_NUMBER: _ClassVar[int]
    FILE_FIELD_NUMBER: _ClassVar[int]
    TAGS_FIELD_NUMBER: _ClassVar[int]
    BUILD_ARGS_FIELD_NUMBER: _ClassVar[int]
    TARGET_FIELD_NUMBER: _ClassVar[int]
    NO_CACHE_FIELD_NUMBER: _ClassVar[int]
    PULL_FIELD_NUMBER: _ClassVar[int]
    NETWORK_FIELD_NUMBER: _ClassVar[int]
    SECRETS_FIELD_NUMBER: _ClassVar[int]
    LABELS_FIELD_NUMBER: _ClassVar[int]
    HOST_FIELD_NUMBER: _ClassVar[int]
    IDS_FIELD_NUMBER: _ClassVar[int]
    ADDRESS_FIELD_NUMBER: _ClassVar[int]
    ACCESS_FIELD_NUMBER: _ClassVar[int]
    dockerfile: str
    file: str
    tags: _containers.RepeatedScalarFieldContainer[str]
    build_args: _containers.ScalarMap[str, str]
    target: str
    no_cache: bool
    pull: bool
    network: str
    secrets: _containers.ScalarMap[str, bytes]
    labels: _containers.ScalarMap[str, str]
    host: str
    ids: _types_pb2.IdRange
    address: _types_pb2.Network
    access: RegistryAccess
    def __init__(self, dockerfile: _Optional[str] = ..., file: _Optional[str] = ..., tags: _Optional[_Iterable[str]] = ..., build_args: _Optional[_Mapping[str, str]] = ..., target: _Optional[str] = ..., no_cache: bool = ..., pull: bool = ..., network: _Optional[str] = ..., secrets: _Optional[_Mapping[str, bytes]] = ..., labels: _Optional[_Mapping[str, str]] = ..., host: _Optional[str] = ..., ids: _Optional[_Union[_types_pb2.IdRange, _Mapping]] = ..., address: _Optional[_Union[_types_pb2.Network, _Mapping]] = ..., access: _Optional[_Union[RegistryAccess, _Mapping]] = ...) -> None: ...

class BuildChunk(_message.Message):
    __slots__ = ("start", "data", "end")
    START_FIELD_NUMBER: _ClassVar[int]
    DATA_FIELD_NUMBER: _ClassVar[int]
    END_FIELD_NUMBER: _ClassVar[int]
    start: BuildStart
    data: bytes
    end: int
    def __init__(self, start: _Optional[_Union[BuildStart, _Mapping]] = ..., data: _Optional[bytes] = ..., end: _Optional[int] = ...) -> None: ...

class BuildStep(_message.Message):
    __slots__ = ("number", "total", "text", "stage")
    NUMBER_FIELD_NUMBER: _ClassVar[int]
    TOTAL_FIELD_NUMBER: _ClassVar[int]
    TEXT_FIELD_NUMBER: _ClassVar[int]
    STAGE_FIELD_NUMBER: _ClassVar[int]
    number: int
    total: int
    text: str
    stage: str
    def __init__(self, number: _Optional[int] = ..., total: _Optional[int] = ..., text: _Optional[str] = ..., stage: _Optional[str] = ...) -> None: ...

class BuildStepDone(_message.Message):
    __slots__ = ("number", "cached", "layer", "duration_s")
    NUMBER_FIELD_NUMBER: _ClassVar[int]
    CACHED_FIELD_NUMBER: _ClassVar[int]
    LAYER_FIELD_NUMBER: _ClassVar[int]
    DURATION_S_FIELD_NUMBER: _ClassVar[int]
    number: int
    cached: bool
    layer: str
    duration_s: float
    def __init__(self, number: _Optional[int] = ..., cached: bool = ..., layer: _Optional[str] = ..., duration_s: _Optional[float] = ...) -> None: ...

class BuildEvent(_message.Message):
    __slots__ = ("step", "step_done", "stdout", "stderr", "warning", "done")
    STEP_FIELD_NUMBER: _ClassVar[int]
    STEP_DONE_FIELD_NUMBER: _ClassVar[int]
    STDOUT_FIELD_NUMBER: _ClassVar[int]
    STDERR_FIELD_NUMBER: _ClassVar[int]
    WARNING_FIELD_NUMBER: _ClassVar[int]
    DONE_FIELD_NUMBER: _ClassVar[int]
    step: BuildStep
    step_done: BuildStepDone
    stdout: bytes
    stderr: bytes
    warning: str
    done: _types_pb2.Image
    def __init__(self, step: _Optional[_Union[BuildStep, _Mapping]] = ..., step_done: _Optional[_Union[BuildStepDone, _Mapping]] = ..., stdout: _Optional[bytes] = ..., stderr: _Optional[bytes] = ..., warning: _Optional[str] = ..., done: _Optional[_Union[_types_pb2.Image, _Mapping]] = ...) -> None: ...

class CopyOutRequest(_message.Message):
    __slots__ = ("id", "path", "follow")
    ID_FIELD_NUMBER: _ClassVar[int]
    PATH_FIELD_NUMBER: _ClassVar[int]
    FOLLOW_FIELD_NUMBER: _ClassVar[int]
    id: str
    path: bytes
    follow: bool
    def __init__(self, id: _Optional[str] = ..., path: _Optional[bytes] = ..., follow: bool = ...) -> None: ...

class PathStat(_message.Message):
    __slots__ = ("name", "mode", "size", "mtime_unix_ns", "link_target")
    NAME_FIELD_NUMBER: _ClassVar[int]
    MODE_FIELD_NUMBER: _ClassVar[int]
    SIZE_FIELD_NUMBER: _ClassVar[int]
    MTIME_UNIX_NS_FIELD_NUMBER: _ClassVar[int]
    LINK_TARGET_FIELD_NUMBER: _ClassVar[int]
    name: bytes
    mode: int
    size: int
    mtime_unix_ns: int
    link_target: bytes
    def __init__(self, name: _Optional[bytes] = ..., mode: _Optional[int] = ..., size: _Optional[int] = ..., mtime_unix_ns: _Optional[int] = ..., link_target: _Optional[bytes] = ...) -> None: ...

class FileChunk(_message.Message):
    __slots__ = ("source", "data", "end")
    SOURCE_FIELD_NUMBER: _ClassVar[int]
    DATA_FIELD_NUMBER: _ClassVar[int]
    END_FIELD_NUMBER: _ClassVar[int]
    source: PathStat
    data: bytes
    end: int
    def __init__(self, source: _Optional[_Union[PathStat, _Mapping]] = ..., data: _Optional[bytes] = ..., end: _Optional[int] = ...) -> None: ...

class CopyInStart(_message.Message):
    __slots__ = ("id", "path", "source", "keep_owner")
    ID_FIELD_NUMBER: _ClassVar[int]
    PATH_FIELD_NUMBER: _ClassVar[int]
    SOURCE_FIELD_NUMBER: _ClassVar[int]
    KEEP_OWNER_FIELD_NUMBER: _ClassVar[int]
    id: str
    path: bytes
    source: PathStat
    keep_owner: bool
    def __init__(self, id: _Optional[str] = ..., path: _Optional[bytes] = ..., source: _Optional[_Union[PathStat, _Mapping]] = ..., keep_owner: bool = ...) -> None: ...

class CopyInChunk(_message.Message):
    __slots__ = ("start", "data", "end")
    START_FIELD_NUMBER: _ClassVar[int]
    DATA_FIELD_NUMBER: _ClassVar[int]
    END_FIELD_NUMBER: _ClassVar[int]
    start: CopyInStart
    data: bytes
    end: int
    def __init__(self, start: _Optional[_Union[CopyInStart, _Mapping]] = ..., data: _Optional[bytes] = ..., end: _Optional[int] = ...) -> None: ...

class CopyInResponse(_message.Message):
    __slots__ = ("files", "skipped", "skipped_count")
    FILES_FIELD_NUMBER: _ClassVar[int]
    SKIPPED_FIELD_NUMBER: _ClassVar[int]
    SKIPPED_COUNT_FIELD_NUMBER: _ClassVar[int]
    files: int
    skipped: _containers.RepeatedScalarFieldContainer[str]
    skipped_count: int
    def __init__(self, files: _Optional[int] = ..., skipped: _Optional[_Iterable[str]] = ..., skipped_count: _Optional[int] = ...) -> None: ...

class DiffRequest(_message.Message):
    __slots__ = ("id",)
    ID_FIELD_NUMBER: _ClassVar[int]
    id: str
    def __init__(self, id: _Optional[str] = ...) -> None: ...

class PathChange(_message.Message):
    __slots__ = ("kind", "path")
    KIND_FIELD_NUMBER: _ClassVar[int]
    PATH_FIELD_NUMBER: _ClassVar[int]
    kind: str
    path: bytes
    def __init__(self, kind: _Optional[str] = ..., path: _Optional[bytes] = ...) -> None: ...

class DiffChunk(_message.Message):
    __slots__ = ("changes",)
    CHANGES_FIELD_NUMBER: _ClassVar[int]
    changes: _containers.RepeatedCompositeFieldContainer[PathChange]
    def __init__(self, changes: _Optional[_Iterable[_Union[PathChange, _Mapping]]] = ...) -> None: ...

class ExportRequest(_message.Message):
    __slots__ = ("id",)
    ID_FIELD_NUMBER: _ClassVar[int]
    id: str
    def __init__(self, id: _Optional[str] = ...) -> None: ...

class CommitRequest(_message.Message):
    __slots__ = ("id", "name", "author", "message", "changes", "running")
    ID_FIELD_NUMBER: _ClassVar[int]
    NAME_FIELD_NUMBER: _ClassVar[int]
    AUTHOR_FIELD_NUMBER: _ClassVar[int]
    MESSAGE_FIELD_NUMBER: _ClassVar[int]
    CHANGES_FIELD_NUMBER: _ClassVar[int]
    RUNNING_FIELD_NUMBER: _ClassVar[int]
    id: str
    name: str
    author: str
    message: str
    changes: _containers.RepeatedScalarFieldContainer[str]
    running: bool
    def __init__(self, id: _Optional[str] = ..., name: _Optional[str] = ..., author: _Optional[str] = ..., message: _Optional[str] = ..., changes: _Optional[_Iterable[str]] = ..., running: bool = ...) -> None: ...

class RootRequest(_message.Message):
    __slots__ = ("id",)
    ID_FIELD_NUMBER: _ClassVar[int]
    id: str
    def __init__(self, id: _Optional[str] = ...) -> None: ...

class RootResponse(_message.Message):
    __slots__ = ("path", "host")
    PATH_FIELD_NUMBER: _ClassVar[int]
    HOST_FIELD_NUMBER: _ClassVar[int]
    path: str
    host: str
    def __init__(self, path: _Optional[str] = ..., host: _Optional[str] = ...) -> None: ...

class VolumeRequest(_message.Message):
    __slots__ = ("name", "labels", "shared", "host")
    class LabelsEntry(_message.Message):
        __slots__ = ("key", "value")
        KEY_FIELD_NUMBER: _ClassVar[int]
        VALUE_FIELD_NUMBER: _ClassVar[int]
        key: str
        value: str
        def __init__(self, key: _Optional[str] = ..., value: _Optional[str] = ...) -> None: ...
    NAME_FIELD_NUMBER: _ClassVar[int]
    LABELS_FIELD_NUMBER: _ClassVar[int]
    SHARED_FIELD_NUMBER: _ClassVar[int]
    HOST_FIELD_NUMBER: _ClassVar[int]
    name: str
    labels: _containers.ScalarMap[str, str]
    shared: str
    host: str
    def __init__(self, name: _Optional[str] = ..., labels: _Optional[_Mapping[str, str]] = ..., shared: _Optional[str] = ..., host: _Optional[str] = ...) -> None: ...

class ListVolumesRequest(_message.Message):
    __slots__ = ("host",)
    HOST_FIELD_NUMBER: _ClassVar[int]
    host: str
    def __init__(self, host: _Optional[str] = ...) -> None: ...

class VolumeList(_message.Message):
    __slots__ = ("volumes",)
    VOLUMES_FIELD_NUMBER: _ClassVar[int]
    volumes: _containers.RepeatedCompositeFieldContainer[_types_pb2.Volume]
    def __init__(self, volumes: _Optional[_Iterable[_Union[_types_pb2.Volume, _Mapping]]] = ...) -> None: ...

class RemoveVolumeRequest(_message.Message):
    __slots__ = ("name", "force", "host")
    NAME_FIELD_NUMBER: _ClassVar[int]
    FORCE_FIELD_NUMBER: _ClassVar[int]
    HOST_FIELD_NUMBER: _ClassVar[int]
    name: str
    force: bool
    host: str
    def __init__(self, name: _Optional[str] = ..., force: bool = ..., host: _Optional[str] = ...) -> None: ...

class PruneVolumesRequest(_message.Message):
    __slots__ = ("all", "labels", "host")
    ALL_FIELD_NUMBER: _ClassVar[int]
    LABELS_FIELD_NUMBER: _ClassVar[int]
    HOST_FIELD_NUMBER: _ClassVar[int]
    all: bool
    labels: _containers.RepeatedScalarFieldContainer[str]
    host: str
    def __init__(self, all: bool = ..., labels: _Optional[_Iterable[str]] = ..., host: _Optional[str] = ...) -> None: ...

class PrunedVolumes(_message.Message):
    __slots__ = ("volumes", "freed_bytes")
    VOLUMES_FIELD_NUMBER: _ClassVar[int]
    FREED_BYTES_FIELD_NUMBER: _ClassVar[int]
    volumes: _containers.RepeatedCompositeFieldContainer[_types_pb2.Volume]
    freed_bytes: int
    def __init__(self, volumes: _Optional[_Iterable[_Union[_types_pb2.Volume, _Mapping]]] = ..., freed_bytes: _Optional[int] = ...) -> None: ...

class MoveLogsRequest(_message.Message):
    __slots__ = ("migration_id",)
    MIGRATION_ID_FIELD_NUMBER: _ClassVar[int]
    migration_id: str
    def __init__(self, migration_id: _Optional[str] = ...) -> None: ...

class MoveLog(_message.Message):
    __slots__ = ("name", "host", "tail")
    NAME_FIELD_NUMBER: _ClassVar[int]
    HOST_FIELD_NUMBER: _ClassVar[int]
    TAIL_FIELD_NUMBER: _ClassVar[int]
    name: str
    host: str
    tail: bytes
    def __init__(self, name: _Optional[str] = ..., host: _Optional[str] = ..., tail: _Optional[bytes] = ...) -> None: ...

class MoveLogs(_message.Message):
    __slots__ = ("logs", "silent")
    LOGS_FIELD_NUMBER: _ClassVar[int]
    SILENT_FIELD_NUMBER: _ClassVar[int]
    logs: _containers.RepeatedCompositeFieldContainer[MoveLog]
    silent: _containers.RepeatedScalarFieldContainer[str]
    def __init__(self, logs: _Optional[_Iterable[_Union[MoveLog, _Mapping]]] = ..., silent: _Optional[_Iterable[str]] = ...) -> None: ...

class ProbeRequest(_message.Message):
    __slots__ = ("probe_id",)
    PROBE_ID_FIELD_NUMBER: _ClassVar[int]
    probe_id: str
    def __init__(self, probe_id: _Optional[str] = ...) -> None: ...

class ExpectProbeResponse(_message.Message):
    __slots__ = ()
    def __init__(self) -> None: ...

class RunProbeRequest(_message.Message):
    __slots__ = ("probe_id", "tunnel")
    PROBE_ID_FIELD_NUMBER: _ClassVar[int]
    TUNNEL_FIELD_NUMBER: _ClassVar[int]
    probe_id: str
    tunnel: OpenTunnelRequest
    def __init__(self, probe_id: _Optional[str] = ..., tunnel: _Optional[_Union[OpenTunnelRequest, _Mapping]] = ...) -> None: ...

class RunProbeResponse(_message.Message):
    __slots__ = ("connect_s", "round_trip_s", "bytes_per_s")
    CONNECT_S_FIELD_NUMBER: _ClassVar[int]
    ROUND_TRIP_S_FIELD_NUMBER: _ClassVar[int]
    BYTES_PER_S_FIELD_NUMBER: _ClassVar[int]
    connect_s: float
    round_trip_s: float
    bytes_per_s: float
    def __init__(self, connect_s: _Optional[float] = ..., round_trip_s: _Optional[float] = ..., bytes_per_s: _Optional[float] = ...) -> None: ...

class TryRequest(_message.Message):
    __slots__ = ("migration_id", "epoch")
    MIGRATION_ID_FIELD_NUMBER: _ClassVar[int]
    EPOCH_FIELD_NUMBER: _ClassVar[int]
    migration_id: str
    epoch: int
    def __init__(self, migration_id: _Optional[str] = ..., epoch: _Optional[int] = ...) -> None: ...

class TryResponse(_message.Message):
    __slots__ = ("passed", "text", "marks", "health", "tasks")
    PASSED_FIELD_NUMBER: _ClassVar[int]
    TEXT_FIELD_NUMBER: _ClassVar[int]
    MARKS_FIELD_NUMBER: _ClassVar[int]
    HEALTH_FIELD_NUMBER: _ClassVar[int]
    TASKS_FIELD_NUMBER: _ClassVar[int]
    passed: bool
    text: str
    marks: _containers.RepeatedCompositeFieldContainer[_types_pb2.Mark]
    health: str
    tasks: int
    def __init__(self, passed: bool = ..., text: _Optional[str] = ..., marks: _Optional[_Iterable[_Union[_types_pb2.Mark, _Mapping]]] = ..., health: _Optional[str] = ..., tasks: _Optional[int] = ...) -> None: ...

class DescribeRequest(_message.Message):
    __slots__ = ("migration_id", "epoch", "container_id")
    MIGRATION_ID_FIELD_NUMBER: _ClassVar[int]
    EPOCH_FIELD_NUMBER: _ClassVar[int]
    CONTAINER_ID_FIELD_NUMBER: _ClassVar[int]
    migration_id: str
    epoch: int
    container_id: str
    def __init__(self, migration_id: _Optional[str] = ..., epoch: _Optional[int] = ..., container_id: _Optional[str] = ...) -> None: ...

class Description(_message.Message):
    __slots__ = ("spec", "state", "memory_bytes", "layer_bytes", "tasks", "blockers", "image", "volumes", "lsm_label")
    SPEC_FIELD_NUMBER: _ClassVar[int]
    STATE_FIELD_NUMBER: _ClassVar[int]
    MEMORY_BYTES_FIELD_NUMBER: _ClassVar[int]
    LAYER_BYTES_FIELD_NUMBER: _ClassVar[int]
    TASKS_FIELD_NUMBER: _ClassVar[int]
    BLOCKERS_FIELD_NUMBER: _ClassVar[int]
    IMAGE_FIELD_NUMBER: _ClassVar[int]
    VOLUMES_FIELD_NUMBER: _ClassVar[int]
    LSM_LABEL_FIELD_NUMBER: _ClassVar[int]
    spec: _types_pb2.ContainerSpec
    state: _types_pb2.ContainerState
    memory_bytes: int
    layer_bytes: int
    tasks: int
    blockers: _containers.RepeatedCompositeFieldContainer[Blocker]
    image: _types_pb2.Image
    volumes: _containers.RepeatedCompositeFieldContainer[_types_pb2.Volume]
    lsm_label: str
    def __init__(self, spec: _Optional[_Union[_types_pb2.ContainerSpec, _Mapping]] = ..., state: _Optional[_Union[_types_pb2.ContainerState, str]] = ..., memory_bytes: _Optional[int] = ..., layer_bytes: _Optional[int] = ..., tasks: _Optional[int] = ..., blockers: _Optional[_Iterable[_Union[Blocker, _Mapping]]] = ..., image: _Optional[_Union[_types_pb2.Image, _Mapping]] = ..., volumes: _Optional[_Iterable[_Union[_types_pb2.Volume, _Mapping]]] = ..., lsm_label: _Optional[str] = ...) -> None: ...

class Blocker(_message.Message):
    __slots__ = ("what", "where", "remedy", "check", "warning", "pid", "descriptor", "path")
    WHAT_FIELD_NUMBER: _ClassVar[int]
    WHERE_FIELD_NUMBER: _ClassVar[int]
    REMEDY_FIELD_NUMBER: _ClassVar[int]
    CHECK_FIELD_NUMBER: _ClassVar[int]
    WARNING_FIELD_NUMBER: _ClassVar[int]
    PID_FIELD_NUMBER: _ClassVar[int]
    DESCRIPTOR_FIELD_NUMBER: _ClassVar[int]
    PATH_FIELD_NUMBER: _ClassVar[int]
    what: str
    where: str
    remedy: str
    check: str
    warning: bool
    pid: int
    descriptor: str
    path: str
    def __init__(self, what: _Optional[str] = ..., where: _Optional[str] = ..., remedy: _Optional[str] = ..., check: _Optional[str] = ..., warning: bool = ..., pid: _Optional[int] = ..., descriptor: _Optional[str] = ..., path: _Optional[str] = ...) -> None: ...

class PrepareTunnelRequest(_message.Message):
    __slots__ = ("migration_id", "epoch", "container_id", "rehearsal")
    MIGRATION_ID_FIELD_NUMBER: _ClassVar[int]
    EPOCH_FIELD_NUMBER: _ClassVar[int]
    CONTAINER_ID_FIELD_NUMBER: _ClassVar[int]
    REHEARSAL_FIELD_NUMBER: _ClassVar[int]
    migration_id: str
    epoch: int
    container_id: str
    rehearsal: bool
    def __init__(self, migration_id: _Optional[str] = ..., epoch: _Optional[int] = ..., container_id: _Optional[str] = ..., rehearsal: bool = ...) -> None: ...

class PrepareTunnelResponse(_message.Message):
    __slots__ = ("public_key",)
    PUBLIC_KEY_FIELD_NUMBER: _ClassVar[int]
    public_key: str
    def __init__(self, public_key: _Optional[str] = ...) -> None: ...

class OpenTunnelRequest(_message.Message):
    __slots__ = ("migration_id", "epoch", "container_id", "certificate", "address", "port", "user", "host_keys", "transfer")
    MIGRATION_ID_FIELD_NUMBER: _ClassVar[int]
    EPOCH_FIELD_NUMBER: _ClassVar[int]
    CONTAINER_ID_FIELD_NUMBER: _ClassVar[int]
    CERTIFICATE_FIELD_NUMBER: _ClassVar[int]
    ADDRESS_FIELD_NUMBER: _ClassVar[int]
    PORT_FIELD_NUMBER: _ClassVar[int]
    USER_FIELD_NUMBER: _ClassVar[int]
    HOST_KEYS_FIELD_NUMBER: _ClassVar[int]
    TRANSFER_FIELD_NUMBER: _ClassVar[int]
    migration_id: str
    epoch: int
    container_id: str
    certificate: str
    address: str
    port: int
    user: str
    host_keys: _containers.RepeatedScalarFieldContainer[str]
    transfer: _types_pb2.TransferOptions
    def __init__(self, migration_id: _Optional[str] = ..., epoch: _Optional[int] = ..., container_id: _Optional[str] = ..., certificate: _Optional[str] = ..., address: _Optional[str] = ..., port: _Optional[int] = ..., user: _Optional[str] = ..., host_keys: _Optional[_Iterable[str]] = ..., transfer: _Optional[_Union[_types_pb2.TransferOptions, _Mapping]] = ...) -> None: ...

class OpenTunnelResponse(_message.Message):
    __slots__ = ("connect_s", "round_trip_s", "cipher")
    CONNECT_S_FIELD_NUMBER: _ClassVar[int]
    ROUND_TRIP_S_FIELD_NUMBER: _ClassVar[int]
    CIPHER_FIELD_NUMBER: _ClassVar[int]
    connect_s: float
    round_trip_s: float
    cipher: str
    def __init__(self, connect_s: _Optional[float] = ..., round_trip_s: _Optional[float] = ..., cipher: _Optional[str] = ...) -> None: ...

class SetBandwidthRequest(_message.Message):
    __slots__ = ("migration_id", "epoch", "bandwidth")
    MIGRATION_ID_FIELD_NUMBER: _ClassVar[int]
    EPOCH_FIELD_NUMBER: _ClassVar[int]
    BANDWIDTH_FIELD_NUMBER: _ClassVar[int]
    migration_id: str
    epoch: int
    bandwidth: int
    def __init__(self, migration_id: _Optional[str] = ..., epoch: _Optional[int] = ..., bandwidth: _Optional[int] = ...) -> None: ...

class SetBandwidthResponse(_message.Message):
    __slots__ = ()
    def __init__(self) -> None: ...

class SendLayersRequest(_message.Message):
    __slots__ = ("migration_id", "epoch", "layers")
    MIGRATION_ID_FIELD_NUMBER: _ClassVar[int]
    EPOCH_FIELD_NUMBER: _ClassVar[int]
    LAYERS_FIELD_NUMBER: _ClassVar[int]
    migration_id: str
    epoch: int
    layers: _containers.RepeatedScalarFieldContainer[str]
    def __init__(self, migration_id: _Optional[str] = ..., epoch: _Optional[int] = ..., layers: _Optional[_Iterable[str]] = ...) -> None: ...

class PrecopyRequest(_message.Message):
    __slots__ = ("migration_id", "epoch", "max_downtime_s", "max_rounds", "precopy")
    MIGRATION_ID_FIELD_NUMBER: _ClassVar[int]
    EPOCH_FIELD_NUMBER: _ClassVar[int]
    MAX_DOWNTIME_S_FIELD_NUMBER: _ClassVar[int]
    MAX_ROUNDS_FIELD_NUMBER: _ClassVar[int]
    PRECOPY_FIELD_NUMBER: _ClassVar[int]
    migration_id: str
    epoch: int
    max_downtime_s: float
    max_rounds: int
    precopy: _types_pb2.PrecopyOptions
    def __init__(self, migration_id: _Optional[str] = ..., epoch: _Optional[int] = ..., max_downtime_s: _Optional[float] = ..., max_rounds: _Optional[int] = ..., precopy: _Optional[_Union[_types_pb2.PrecopyOptions, _Mapping]] = ...) -> None: ...

class HoldRequest(_message.Message):
    __slots__ = ("migration_id", "epoch")
    MIGRATION_ID_FIELD_NUMBER: _ClassVar[int]
    EPOCH_FIELD_NUMBER: _ClassVar[int]
    migration_id: str
    epoch: int
    def __init__(self, migration_id: _Optional[str] = ..., epoch: _Optional[int] = ...) -> None: ...

class SwitchRequest(_message.Message):
    __slots__ = ("migration_id", "epoch")
    MIGRATION_ID_FIELD_NUMBER: _ClassVar[int]
    EPOCH_FIELD_NUMBER: _ClassVar[int]
    migration_id: str
    epoch: int
    def __init__(self, migration_id: _Optional[str] = ..., epoch: _Optional[int] = ...) -> None: ...

class SwitchResponse(_message.Message):
    __slots__ = ()
    def __init__(self) -> None: ...

class EndExecRequest(_message.Message):
    __slots__ = ("migration_id", "epoch")
    MIGRATION_ID_FIELD_NUMBER: _ClassVar[int]
    EPOCH_FIELD_NUMBER: _ClassVar[int]
    migration_id: str
    epoch: int
    def __init__(self, migration_id: _Optional[str] = ..., epoch: _Optional[int] = ...) -> None: ...

class EndedExec(_message.Message):
    __slots__ = ("pid", "command", "signal")
    PID_FIELD_NUMBER: _ClassVar[int]
    COMMAND_FIELD_NUMBER: _ClassVar[int]
    SIGNAL_FIELD_NUMBER: _ClassVar[int]
    pid: int
    command: str
    signal: str
    def __init__(self, pid: _Optional[int] = ..., command: _Optional[str] = ..., signal: _Optional[str] = ...) -> None: ...

class EndExecResponse(_message.Message):
    __slots__ = ("ended",)
    ENDED_FIELD_NUMBER: _ClassVar[int]
    ended: _containers.RepeatedCompositeFieldContainer[EndedExec]
    def __init__(self, ended: _Optional[_Iterable[_Union[EndedExec, _Mapping]]] = ...) -> None: ...

class FreezeRequest(_message.Message):
    __slots__ = ("migration_id", "epoch", "postcopy")
    MIGRATION_ID_FIELD_NUMBER: _ClassVar[int]
    EPOCH_FIELD_NUMBER: _ClassVar[int]
    POSTCOPY_FIELD_NUMBER: _ClassVar[int]
    migration_id: str
    epoch: int
    postcopy: bool
    def __init__(self, migration_id: _Optional[str] = ..., epoch: _Optional[int] = ..., postcopy: bool = ...) -> None: ...

class FreezeEvent(_message.Message):
    __slots__ = ("progress", "result")
    PROGRESS_FIELD_NUMBER: _ClassVar[int]
    RESULT_FIELD_NUMBER: _ClassVar[int]
    progress: _types_pb2.Progress
    result: FreezeResult
    def __init__(self, progress: _Optional[_Union[_types_pb2.Progress, _Mapping]] = ..., result: _Optional[_Union[FreezeResult, _Mapping]] = ...) -> None: ...

class FreezeResult(_message.Message):
    __slots__ = ("marks", "sent_bytes", "memory_pages", "criu_stats", "digest", "travelled", "later_bytes")
    class SentBytesEntry(_message.Message):
        __slots__ = ("key", "value")
        KEY_FIELD_NUMBER: _ClassVar[int]
        VALUE_FIELD_NUMBER: _ClassVar[int]
        key: str
        value: int
        def __init__(self, key: _Optional[str] = ..., value: _Optional[int] = ...) -> None: ...
    class CriuStatsEntry(_message.Message):
        __slots__ = ("key", "value")
        KEY_FIELD_NUMBER: _ClassVar[int]
        VALUE_FIELD_NUMBER: _ClassVar[int]
        key: str
        value: float
        def __init__(self, key: _Optional[str] = ..., value: _Optional[float] = ...) -> None: ...
    MARKS_FIELD_NUMBER: _ClassVar[int]
    SENT_BYTES_FIELD_NUMBER: _ClassVar[int]
    MEMORY_PAGES_FIELD_NUMBER: _ClassVar[int]
    CRIU_STATS_FIELD_NUMBER: _ClassVar[int]
    DIGEST_FIELD_NUMBER: _ClassVar[int]
    TRAVELLED_FIELD_NUMBER: _ClassVar[int]
    LATER_BYTES_FIELD_NUMBER: _ClassVar[int]
    marks: _containers.RepeatedCompositeFieldContainer[_types_pb2.Mark]
    sent_bytes: _containers.ScalarMap[str, int]
    memory_pages: int
    criu_stats: _containers.ScalarMap[str, float]
    digest: str
    travelled: _types_pb2.Travelled
    later_bytes: int
    def __init__(self, marks: _Optional[_Iterable[_Union[_types_pb2.Mark, _Mapping]]] = ..., sent_bytes: _Optional[_Mapping[str, int]] = ..., memory_pages: _Optional[int] = ..., criu_stats: _Optional[_Mapping[str, float]] = ..., digest: _Optional[str] = ..., travelled: _Optional[_Union[_types_pb2.Travelled, _Mapping]] = ..., later_bytes: _Optional[int] = ...) -> None: ...

class SendRestRequest(_message.Message):
    __slots__ = ("migration_id", "epoch", "complete")
    MIGRATION_ID_FIELD_NUMBER: _ClassVar[int]
    EPOCH_FIELD_NUMBER: _ClassVar[int]
    COMPLETE_FIELD_NUMBER: _ClassVar[int]
    migration_id: str
    epoch: int
    complete: bool
    def __init__(self, migration_id: _Optional[str] = ..., epoch: _Optional[int] = ..., complete: bool = ...) -> None: ...

class ReopenRequest(_message.Message):
    __slots__ = ("migration_id", "epoch", "container_id")
    MIGRATION_ID_FIELD_NUMBER: _ClassVar[int]
    EPOCH_FIELD_NUMBER: _ClassVar[int]
    CONTAINER_ID_FIELD_NUMBER: _ClassVar[int]
    migration_id: str
    epoch: int
    container_id: str
    def __init__(self, migration_id: _Optional[str] = ..., epoch: _Optional[int] = ..., container_id: _Optional[str] = ...) -> None: ...

class ReopenResponse(_message.Message):
    __slots__ = ("needed",)
    NEEDED_FIELD_NUMBER: _ClassVar[int]
    needed: bool
    def __init__(self, needed: bool = ...) -> None: ...

class AcceptRequest(_message.Message):
    __slots__ = ("migration_id", "epoch", "spec", "image", "memory_bytes", "layer_bytes", "source_host", "volumes", "rehearsal", "connections")
    MIGRATION_ID_FIELD_NUMBER: _ClassVar[int]
    EPOCH_FIELD_NUMBER: _ClassVar[int]
    SPEC_FIELD_NUMBER: _ClassVar[int]
    IMAGE_FIELD_NUMBER: _ClassVar[int]
    MEMORY_BYTES_FIELD_NUMBER: _ClassVar[int]
    LAYER_BYTES_FIELD_NUMBER: _ClassVar[int]
    SOURCE_HOST_FIELD_NUMBER: _ClassVar[int]
    VOLUMES_FIELD_NUMBER: _ClassVar[int]
    REHEARSAL_FIELD_NUMBER: _ClassVar[int]
    CONNECTIONS_FIELD_NUMBER: _ClassVar[int]
    migration_id: str
    epoch: int
    spec: _types_pb2.ContainerSpec
    image: _types_pb2.Image
    memory_bytes: int
    layer_bytes: int
    source_host: str
    volumes: _containers.RepeatedCompositeFieldContainer[_types_pb2.Volume]
    rehearsal: bool
    connections: int
    def __init__(self, migration_id: _Optional[str] = ..., epoch: _Optional[int] = ..., spec: _Optional[_Union[_types_pb2.ContainerSpec, _Mapping]] = ..., image: _Optional[_Union[_types_pb2.Image, _Mapping]] = ..., memory_bytes: _Optional[int] = ..., layer_bytes: _Optional[int] = ..., source_host: _Optional[str] = ..., volumes: _Optional[_Iterable[_Union[_types_pb2.Volume, _Mapping]]] = ..., rehearsal: bool = ..., connections: _Optional[int] = ...) -> None: ...

class AcceptResponse(_message.Message):
    __slots__ = ("missing_layers", "restore_mode", "connections")
    MISSING_LAYERS_FIELD_NUMBER: _ClassVar[int]
    RESTORE_MODE_FIELD_NUMBER: _ClassVar[int]
    CONNECTIONS_FIELD_NUMBER: _ClassVar[int]
    missing_layers: _containers.RepeatedScalarFieldContainer[str]
    restore_mode: str
    connections: int
    def __init__(self, missing_layers: _Optional[_Iterable[str]] = ..., restore_mode: _Optional[str] = ..., connections: _Optional[int] = ...) -> None: ...

class RestoreRequest(_message.Message):
    __slots__ = ("migration_id", "epoch", "digest")
    MIGRATION_ID_FIELD_NUMBER: _ClassVar[int]
    EPOCH_FIELD_NUMBER: _ClassVar[int]
    DIGEST_FIELD_NUMBER: _ClassVar[int]
    migration_id: str
    epoch: int
    digest: str
    def __init__(self, migration_id: _Optional[str] = ..., epoch: _Optional[int] = ..., digest: _Optional[str] = ...) -> None: ...

class RestoreResponse(_message.Message):
    __slots__ = ("pid", "marks", "criu_stats", "mode")
    class CriuStatsEntry(_message.Message):
        __slots__ = ("key", "value")
        KEY_FIELD_NUMBER: _ClassVar[int]
        VALUE_FIELD_NUMBER: _ClassVar[int]
        key: str
        value: float
        def __init__(self, key: _Optional[str] = ..., value: _Optional[float] = ...) -> None: ...
    PID_FIELD_NUMBER: _ClassVar[int]
    MARKS_FIELD_NUMBER: _ClassVar[int]
    CRIU_STATS_FIELD_NUMBER: _ClassVar[int]
    MODE_FIELD_NUMBER: _ClassVar[int]
    pid: int
    marks: _containers.RepeatedCompositeFieldContainer[_types_pb2.Mark]
    criu_stats: _containers.ScalarMap[str, float]
    mode: str
    def __init__(self, pid: _Optional[int] = ..., marks: _Optional[_Iterable[_Union[_types_pb2.Mark, _Mapping]]] = ..., criu_stats: _Optional[_Mapping[str, float]] = ..., mode: _Optional[str] = ...) -> None: ...

class FinishRequest(_message.Message):
    __slots__ = ("migration_id", "epoch", "container_id", "committed", "role")
    MIGRATION_ID_FIELD_NUMBER: _ClassVar[int]
    EPOCH_FIELD_NUMBER: _ClassVar[int]
    CONTAINER_ID_FIELD_NUMBER: _ClassVar[int]
    COMMITTED_FIELD_NUMBER: _ClassVar[int]
    ROLE_FIELD_NUMBER: _ClassVar[int]
    migration_id: str
    epoch: int
    container_id: str
    committed: bool
    role: str
    def __init__(self, migration_id: _Optional[str] = ..., epoch: _Optional[int] = ..., container_id: _Optional[str] = ..., committed: bool = ..., role: _Optional[str] = ...) -> None: ...

class FinishResponse(_message.Message):
    __slots__ = ("marks", "left_over")
    MARKS_FIELD_NUMBER: _ClassVar[int]
    LEFT_OVER_FIELD_NUMBER: _ClassVar[int]
    marks: _containers.RepeatedCompositeFieldContainer[_types_pb2.Mark]
    left_over: _containers.RepeatedScalarFieldContainer[str]
    def __init__(self, marks: _Optional[_Iterable[_Union[_types_pb2.Mark, _Mapping]]] = ..., left_over: _Optional[_Iterable[str]] = ...) -> None: ...

class WhereRequest(_message.Message):
    __slots__ = ("container_id", "ports", "mounts", "volumes", "devices", "name", "address", "mac", "layers")
    CONTAINER_ID_FIELD_NUMBER: _ClassVar[int]
    PORTS_FIELD_NUMBER: _ClassVar[int]
    MOUNTS_FIELD_NUMBER: _ClassVar[int]
    VOLUMES_FIELD_NUMBER: _ClassVar[int]
    DEVICES_FIELD_NUMBER: _ClassVar[int]
    NAME_FIELD_NUMBER: _ClassVar[int]
    ADDRESS_FIELD_NUMBER: _ClassVar[int]
    MAC_FIELD_NUMBER: _ClassVar[int]
    LAYERS_FIELD_NUMBER: _ClassVar[int]
    container_id: str
    ports: _containers.RepeatedCompositeFieldContainer[_types_pb2.Port]
    mounts: _containers.RepeatedCompositeFieldContainer[_types_pb2.Mount]
    volumes: _containers.RepeatedCompositeFieldContainer[_types_pb2.Volume]
    devices: _containers.RepeatedCompositeFieldContainer[_types_pb2.Device]
    name: str
    address: str
    mac: str
    layers: _containers.RepeatedScalarFieldContainer[str]
    def __init__(self, container_id: _Optional[str] = ..., ports: _Optional[_Iterable[_Union[_types_pb2.Port, _Mapping]]] = ..., mounts: _Optional[_Iterable[_Union[_types_pb2.Mount, _Mapping]]] = ..., volumes: _Optional[_Iterable[_Union[_types_pb2.Volume, _Mapping]]] = ..., devices: _Optional[_Iterable[_Union[_types_pb2.Device, _Mapping]]] = ..., name: _Optional[str] = ..., address: _Optional[str] = ..., mac: _Optional[str] = ..., layers: _Optional[_Iterable[str]] = ...) -> None: ...

class MissingMemory(_message.Message):
    __slots__ = ("task", "bytes", "program", "ranges", "range_count")
    TASK_FIELD_NUMBER: _ClassVar[int]
    BYTES_FIELD_NUMBER: _ClassVar[int]
    PROGRAM_FIELD_NUMBER: _ClassVar[int]
    RANGES_FIELD_NUMBER: _ClassVar[int]
    RANGE_COUNT_FIELD_NUMBER: _ClassVar[int]
    task: int
    bytes: int
    program: str
    ranges: _containers.RepeatedCompositeFieldContainer[MissingRange]
    range_count: int
    def __init__(self, task: _Optional[int] = ..., bytes: _Optional[int] = ..., program: _Optional[str] = ..., ranges: _Optional[_Iterable[_Union[MissingRange, _Mapping]]] = ..., range_count: _Optional[int] = ...) -> None: ...

class MissingRange(_message.Message):
    __slots__ = ("start", "end", "area")
    START_FIELD_NUMBER: _ClassVar[int]
    END_FIELD_NUMBER: _ClassVar[int]
    AREA_FIELD_NUMBER: _ClassVar[int]
    start: int
    end: int
    area: str
    def __init__(self, start: _Optional[int] = ..., end: _Optional[int] = ..., area: _Optional[str] = ...) -> None: ...

class WhereResponse(_message.Message):
    __slots__ = ("present", "state", "epoch", "migration_id", "role", "committed", "missing", "missing_unknown", "rehearsal", "blockers", "missing_layers")
    PRESENT_FIELD_NUMBER: _ClassVar[int]
    STATE_FIELD_NUMBER: _ClassVar[int]
    EPOCH_FIELD_NUMBER: _ClassVar[int]
    MIGRATION_ID_FIELD_NUMBER: _ClassVar[int]
    ROLE_FIELD_NUMBER: _ClassVar[int]
    COMMITTED_FIELD_NUMBER: _ClassVar[int]
    MISSING_FIELD_NUMBER: _ClassVar[int]
    MISSING_UNKNOWN_FIELD_NUMBER: _ClassVar[int]
    REHEARSAL_FIELD_NUMBER: _ClassVar[int]
    BLOCKERS_FIELD_NUMBER: _ClassVar[int]
    MISSING_LAYERS_FIELD_NUMBER: _ClassVar[int]
    present: bool
    state: _types_pb2.ContainerState
    epoch: int
    migration_id: str
    role: str
    committed: bool
    missing: _containers.RepeatedCompositeFieldContainer[MissingMemory]
    missing_unknown: str
    rehearsal: bool
    blockers: _containers.RepeatedCompositeFieldContainer[Blocker]
    missing_layers: _containers.RepeatedScalarFieldContainer[str]
    def __init__(self, present: bool = ..., state: _Optional[_Union[_types_pb2.ContainerState, str]] = ..., epoch: _Optional[int] = ..., migration_id: _Optional[str] = ..., role: _Optional[str] = ..., committed: bool = ..., missing: _Optional[_Iterable[_Union[MissingMemory, _Mapping]]] = ..., missing_unknown: _Optional[str] = ..., rehearsal: bool = ..., blockers: _Optional[_Iterable[_Union[Blocker, _Mapping]]] = ..., missing_layers: _Optional[_Iterable[str]] = ...) -> None: ...
