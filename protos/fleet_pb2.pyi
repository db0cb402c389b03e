from protos import coordinator_pb2 as _coordinator_pb2
from protos import types_pb2 as _types_pb2
from google.protobuf.internal import containers as _containers
from google.protobuf import descriptor as _descriptor
from google.protobuf import message as _message
from collections.abc import Iterable as _Iterable, Mapping as _Mapping
from typing import ClassVar as _ClassVar, Optional as _Optional, Union as _Union

DESCRIPTOR: _descriptor.FileDescriptor

class AuthorityRequest(_message.Message):
    __slots__ = ()
    def __init__(self) -> None: ...

class AuthorityResponse(_message.Message):
    __slots__ = ("authorities",)
    AUTHORITIES_FIELD_NUMBER: _ClassVar[int]
    authorities: _containers.RepeatedScalarFieldContainer[str]
    def __init__(self, authorities: _Optional[_Iterable[str]] = ...) -> None: ...

class JoinRequest(_message.Message):
    __slots__ = ("name", "address", "port", "host_keys", "labels", "login", "untested")
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
    HOST_KEYS_FIELD_NUMBER: _ClassVar[int]
    LABELS_FIELD_NUMBER: _ClassVar[int]
    LOGIN_FIELD_NUMBER: _ClassVar[int]
    UNTESTED_FIELD_NUMBER: _ClassVar[int]
    name: str
    address: str
    port: int
    host_keys: _containers.RepeatedScalarFieldContainer[str]
    labels: _containers.ScalarMap[str, str]
    login: str
    untested: bool
    def __init__(self, name: _Optional[str] = ..., address: _Optional[str] = ..., port: _Optional[int] = ..., host_keys: _Optional[_Iterable[str]] = ..., labels: _Optional[_Mapping[str, str]] = ..., login: _Optional[str] = ..., untested: bool = ...) -> None: ...

class JoinResponse(_message.Message):
    __slots__ = ("host", "was_there", "tunnels")
    HOST_FIELD_NUMBER: _ClassVar[int]
    WAS_THERE_FIELD_NUMBER: _ClassVar[int]
    TUNNELS_FIELD_NUMBER: _ClassVar[int]
    host: _coordinator_pb2.HostStatus
    was_there: bool
    tunnels: _containers.RepeatedCompositeFieldContainer[TunnelTest]
    def __init__(self, host: _Optional[_Union[_coordinator_pb2.HostStatus, _Mapping]] = ..., was_there: bool = ..., tunnels: _Optional[_Iterable[_Union[TunnelTest, _Mapping]]] = ...) -> None: ...

class TunnelTest(_message.Message):
    __slots__ = ("source", "target", "bytes_per_s")
    SOURCE_FIELD_NUMBER: _ClassVar[int]
    TARGET_FIELD_NUMBER: _ClassVar[int]
    BYTES_PER_S_FIELD_NUMBER: _ClassVar[int]
    source: str
    target: str
    bytes_per_s: float
    def __init__(self, source: _Optional[str] = ..., target: _Optional[str] = ..., bytes_per_s: _Optional[float] = ...) -> None: ...

class LeaveRequest(_message.Message):
    __slots__ = ("host", "force")
    HOST_FIELD_NUMBER: _ClassVar[int]
    FORCE_FIELD_NUMBER: _ClassVar[int]
    host: str
    force: bool
    def __init__(self, host: _Optional[str] = ..., force: bool = ...) -> None: ...

class LeaveResponse(_message.Message):
    __slots__ = ("forgotten", "still_trusts")
    FORGOTTEN_FIELD_NUMBER: _ClassVar[int]
    STILL_TRUSTS_FIELD_NUMBER: _ClassVar[int]
    forgotten: _containers.RepeatedScalarFieldContainer[str]
    still_trusts: str
    def __init__(self, forgotten: _Optional[_Iterable[str]] = ..., still_trusts: _Optional[str] = ...) -> None: ...

class RotateKeysRequest(_message.Message):
    __slots__ = ()
    def __init__(self) -> None: ...

class RotateKeysResponse(_message.Message):
    __slots__ = ("hosts", "fingerprint")
    HOSTS_FIELD_NUMBER: _ClassVar[int]
    FINGERPRINT_FIELD_NUMBER: _ClassVar[int]
    hosts: _containers.RepeatedScalarFieldContainer[str]
    fingerprint: str
    def __init__(self, hosts: _Optional[_Iterable[str]] = ..., fingerprint: _Optional[str] = ...) -> None: ...

class HostRequest(_message.Message):
    __slots__ = ("host",)
    HOST_FIELD_NUMBER: _ClassVar[int]
    host: str
    def __init__(self, host: _Optional[str] = ...) -> None: ...

class LabelHostRequest(_message.Message):
    __slots__ = ("host", "set", "remove")
    class SetEntry(_message.Message):
        __slots__ = ("key", "value")
        KEY_FIELD_NUMBER: _ClassVar[int]
        VALUE_FIELD_NUMBER: _ClassVar[int]
        key: str
        value: str
        def __init__(self, key: _Optional[str] = ..., value: _Optional[str] = ...) -> None: ...
    HOST_FIELD_NUMBER: _ClassVar[int]
    SET_FIELD_NUMBER: _ClassVar[int]
    REMOVE_FIELD_NUMBER: _ClassVar[int]
    host: str
    set: _containers.ScalarMap[str, str]
    remove: _containers.RepeatedScalarFieldContainer[str]
    def __init__(self, host: _Optional[str] = ..., set: _Optional[_Mapping[str, str]] = ..., remove: _Optional[_Iterable[str]] = ...) -> None: ...

class CordonRequest(_message.Message):
    __slots__ = ("host", "reason")
    HOST_FIELD_NUMBER: _ClassVar[int]
    REASON_FIELD_NUMBER: _ClassVar[int]
    host: str
    reason: str
    def __init__(self, host: _Optional[str] = ..., reason: _Optional[str] = ...) -> None: ...

class PlaceRunRequest(_message.Message):
    __slots__ = ("run", "will_pull")
    RUN_FIELD_NUMBER: _ClassVar[int]
    WILL_PULL_FIELD_NUMBER: _ClassVar[int]
    run: _coordinator_pb2.RunRequest
    will_pull: bool
    def __init__(self, run: _Optional[_Union[_coordinator_pb2.RunRequest, _Mapping]] = ..., will_pull: bool = ...) -> None: ...

class Ranking(_message.Message):
    __slots__ = ("container", "hosts")
    CONTAINER_FIELD_NUMBER: _ClassVar[int]
    HOSTS_FIELD_NUMBER: _ClassVar[int]
    container: str
    hosts: _containers.RepeatedCompositeFieldContainer[RankedHost]
    def __init__(self, container: _Optional[str] = ..., hosts: _Optional[_Iterable[_Union[RankedHost, _Mapping]]] = ...) -> None: ...

class RankedHost(_message.Message):
    __slots__ = ("host", "score", "parts", "refusals")
    class PartsEntry(_message.Message):
        __slots__ = ("key", "value")
        KEY_FIELD_NUMBER: _ClassVar[int]
        VALUE_FIELD_NUMBER: _ClassVar[int]
        key: str
        value: float
        def __init__(self, key: _Optional[str] = ..., value: _Optional[float] = ...) -> None: ...
    HOST_FIELD_NUMBER: _ClassVar[int]
    SCORE_FIELD_NUMBER: _ClassVar[int]
    PARTS_FIELD_NUMBER: _ClassVar[int]
    REFUSALS_FIELD_NUMBER: _ClassVar[int]
    host: str
    score: float
    parts: _containers.ScalarMap[str, float]
    refusals: _containers.RepeatedScalarFieldContainer[str]
    def __init__(self, host: _Optional[str] = ..., score: _Optional[float] = ..., parts: _Optional[_Mapping[str, float]] = ..., refusals: _Optional[_Iterable[str]] = ...) -> None: ...

class EvacuateRequest(_message.Message):
    __slots__ = ("host", "to", "action", "max_parallel", "bandwidth", "deadline_s", "selector", "dry_run", "reason", "request_id", "skip", "end_exec")
    class SelectorEntry(_message.Message):
        __slots__ = ("key", "value")
        KEY_FIELD_NUMBER: _ClassVar[int]
        VALUE_FIELD_NUMBER: _ClassVar[int]
        key: str
        value: str
        def __init__(self, key: _Optional[str] = ..., value: _Optional[str] = ...) -> None: ...
    HOST_FIELD_NUMBER: _ClassVar[int]
    TO_FIELD_NUMBER: _ClassVar[int]
    ACTION_FIELD_NUMBER: _ClassVar[int]
    MAX_PARALLEL_FIELD_NUMBER: _ClassVar[int]
    BANDWIDTH_FIELD_NUMBER: _ClassVar[int]
    DEADLINE_S_FIELD_NUMBER: _ClassVar[int]
    SELECTOR_FIELD_NUMBER: _ClassVar[int]
    DRY_RUN_FIELD_NUMBER: _ClassVar[int]
    REASON_FIELD_NUMBER: _ClassVar[int]
    REQUEST_ID_FIELD_NUMBER: _ClassVar[int]
    SKIP_FIELD_NUMBER: _ClassVar[int]
    END_EXEC_FIELD_NUMBER: _ClassVar[int]
    host: str
    to: _containers.RepeatedScalarFieldContainer[str]
    action: str
    max_parallel: int
    bandwidth: int
    deadline_s: float
    selector: _containers.ScalarMap[str, str]
    dry_run: bool
    reason: str
    request_id: str
    skip: bool
    end_exec: bool
    def __init__(self, host: _Optional[str] = ..., to: _Optional[_Iterable[str]] = ..., action: _Optional[str] = ..., max_parallel: _Optional[int] = ..., bandwidth: _Optional[int] = ..., deadline_s: _Optional[float] = ..., selector: _Optional[_Mapping[str, str]] = ..., dry_run: bool = ..., reason: _Optional[str] = ..., request_id: _Optional[str] = ..., skip: bool = ..., end_exec: bool = ...) -> None: ...

class EvacuationRequest(_message.Message):
    __slots__ = ("id",)
    ID_FIELD_NUMBER: _ClassVar[int]
    id: str
    def __init__(self, id: _Optional[str] = ...) -> None: ...

class EvacuationsRequest(_message.Message):
    __slots__ = ("host", "active", "limit")
    HOST_FIELD_NUMBER: _ClassVar[int]
    ACTIVE_FIELD_NUMBER: _ClassVar[int]
    LIMIT_FIELD_NUMBER: _ClassVar[int]
    host: str
    active: bool
    limit: int
    def __init__(self, host: _Optional[str] = ..., active: bool = ..., limit: _Optional[int] = ...) -> None: ...

class EvacuationList(_message.Message):
    __slots__ = ("evacuations",)
    EVACUATIONS_FIELD_NUMBER: _ClassVar[int]
    evacuations: _containers.RepeatedCompositeFieldContainer[Evacuation]
    def __init__(self, evacuations: _Optional[_Iterable[_Union[Evacuation, _Mapping]]] = ...) -> None: ...

class EvacuationEvent(_message.Message):
    __slots__ = ("plan", "item", "note", "done")
    PLAN_FIELD_NUMBER: _ClassVar[int]
    ITEM_FIELD_NUMBER: _ClassVar[int]
    NOTE_FIELD_NUMBER: _ClassVar[int]
    DONE_FIELD_NUMBER: _ClassVar[int]
    plan: Evacuation
    item: EvacuationItem
    note: str
    done: Evacuation
    def __init__(self, plan: _Optional[_Union[Evacuation, _Mapping]] = ..., item: _Optional[_Union[EvacuationItem, _Mapping]] = ..., note: _Optional[str] = ..., done: _Optional[_Union[Evacuation, _Mapping]] = ...) -> None: ...

class Evacuation(_message.Message):
    __slots__ = ("id", "kind", "host", "state", "reason", "started_unix_ns", "finished_unix_ns", "items", "max_parallel", "bandwidth", "deadline_s", "predicted_s", "to", "action", "selector")
    class SelectorEntry(_message.Message):
        __slots__ = ("key", "value")
        KEY_FIELD_NUMBER: _ClassVar[int]
        VALUE_FIELD_NUMBER: _ClassVar[int]
        key: str
        value: str
        def __init__(self, key: _Optional[str] = ..., value: _Optional[str] = ...) -> None: ...
    ID_FIELD_NUMBER: _ClassVar[int]
    KIND_FIELD_NUMBER: _ClassVar[int]
    HOST_FIELD_NUMBER: _ClassVar[int]
    STATE_FIELD_NUMBER: _ClassVar[int]
    REASON_FIELD_NUMBER: _ClassVar[int]
    STARTED_UNIX_NS_FIELD_NUMBER: _ClassVar[int]
    FINISHED_UNIX_NS_FIELD_NUMBER: _ClassVar[int]
    ITEMS_FIELD_NUMBER: _ClassVar[int]
    MAX_PARALLEL_FIELD_NUMBER: _ClassVar[int]
    BANDWIDTH_FIELD_NUMBER: _ClassVar[int]
    DEADLINE_S_FIELD_NUMBER: _ClassVar[int]
    PREDICTED_S_FIELD_NUMBER: _ClassVar[int]
    TO_FIELD_NUMBER: _ClassVar[int]
    ACTION_FIELD_NUMBER: _ClassVar[int]
    SELECTOR_FIELD_NUMBER: _ClassVar[int]
    id: str
    kind: str
    host: str
    state: str
    reason: str
    started_unix_ns: int
    finished_unix_ns: int
    items: _containers.RepeatedCompositeFieldContainer[EvacuationItem]
    max_parallel: int
    bandwidth: int
    deadline_s: float
    predicted_s: float
    to: _containers.RepeatedScalarFieldContainer[str]
    action: str
    selector: _containers.ScalarMap[str, str]
    def __init__(self, id: _Optional[str] = ..., kind: _Optional[str] = ..., host: _Optional[str] = ..., state: _Optional[str] = ..., reason: _Optional[str] = ..., started_unix_ns: _Optional[int] = ..., finished_unix_ns: _Optional[int] = ..., items: _Optional[_Iterable[_Union[EvacuationItem, _Mapping]]] = ..., max_parallel: _Optional[int] = ..., bandwidth: _Optional[int] = ..., deadline_s: _Optional[float] = ..., predicted_s: _Optional[float] = ..., to: _Optional[_Iterable[str]] = ..., action: _Optional[str] = ..., selector: _Optional[_Mapping[str, str]] = ...) -> None: ...

class EvacuationItem(_message.Message):
    __slots__ = ("container_id", "container", "action", "state", "source", "target", "migration_id", "tries", "why", "error", "predicted_s", "predicted_downtime_s", "took_s", "downtime_s", "memory_bytes")
    CONTAINER_ID_FIELD_NUMBER: _ClassVar[int]
    CONTAINER_FIELD_NUMBER: _ClassVar[int]
    ACTION_FIELD_NUMBER: _ClassVar[int]
    STATE_FIELD_NUMBER: _ClassVar[int]
    SOURCE_FIELD_NUMBER: _ClassVar[int]
    TARGET_FIELD_NUMBER: _ClassVar[int]
    MIGRATION_ID_FIELD_NUMBER: _ClassVar[int]
    TRIES_FIELD_NUMBER: _ClassVar[int]
    WHY_FIELD_NUMBER: _ClassVar[int]
    ERROR_FIELD_NUMBER: _ClassVar[int]
    PREDICTED_S_FIELD_NUMBER: _ClassVar[int]
    PREDICTED_DOWNTIME_S_FIELD_NUMBER: _ClassVar[int]
    TOOK_S_FIELD_NUMBER: _ClassVar[int]
    DOWNTIME_S_FIELD_NUMBER: _ClassVar[int]
    MEMORY_BYTES_FIELD_NUMBER: _ClassVar[int]
    container_id: str
    container: str
    action: str
    state: str
    source: str
    target: str
    migration_id: str
    tries: int
    why: str
    error: _types_pb2.ErrorDetail
    predicted_s: float
    predicted_downtime_s: float
    took_s: float
    downtime_s: float
    memory_bytes: int
    def __init__(self, container_id: _Optional[str] = ..., container: _Optional[str] = ..., action: _Optional[str] = ..., state: _Optional[str] = ..., source: _Optional[str] = ..., target: _Optional[str] = ..., migration_id: _Optional[str] = ..., tries: _Optional[int] = ..., why: _Optional[str] = ..., error: _Optional[_Union[_types_pb2.ErrorDetail, _Mapping]] = ..., predicted_s: _Optional[float] = ..., predicted_downtime_s: _Optional[float] = ..., took_s: _Optional[float] = ..., downtime_s: _Optional[float] = ..., memory_bytes: _Optional[int] = ...) -> None: ...
