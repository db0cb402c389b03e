from protos import types_pb2 as _types_pb2
from google.protobuf.internal import containers as _containers
from google.protobuf import descriptor as _descriptor
from google.protobuf import message as _message
from collections.abc import Iterable as _Iterable, Mapping as _Mapping
from typing import ClassVar as _ClassVar, Optional as _Optional, Union as _Union

DESCRIPTOR: _descriptor.FileDescriptor

class SchedulesRequest(_message.Message):
    __slots__ = ()
    def __init__(self) -> None: ...

class RemovedSchedule(_message.Message):
    __slots__ = ()
    def __init__(self) -> None: ...

class ScheduleRequest(_message.Message):
    __slots__ = ("name", "runs")
    NAME_FIELD_NUMBER: _ClassVar[int]
    RUNS_FIELD_NUMBER: _ClassVar[int]
    name: str
    runs: int
    def __init__(self, name: _Optional[str] = ..., runs: _Optional[int] = ...) -> None: ...

class ScheduleRunRequest(_message.Message):
    __slots__ = ("id",)
    ID_FIELD_NUMBER: _ClassVar[int]
    id: str
    def __init__(self, id: _Optional[str] = ...) -> None: ...

class ScheduleJob(_message.Message):
    __slots__ = ("name", "kind", "host", "group", "cron", "tz", "blackouts", "window_s", "missed", "to", "action", "max_parallel", "bandwidth", "deadline_s", "selector", "reason", "hook", "hook_timeout_s", "reboots", "host_timeout_s")
    class SelectorEntry(_message.Message):
        __slots__ = ("key", "value")
        KEY_FIELD_NUMBER: _ClassVar[int]
        VALUE_FIELD_NUMBER: _ClassVar[int]
        key: str
        value: str
        def __init__(self, key: _Optional[str] = ..., value: _Optional[str] = ...) -> None: ...
    NAME_FIELD_NUMBER: _ClassVar[int]
    KIND_FIELD_NUMBER: _ClassVar[int]
    HOST_FIELD_NUMBER: _ClassVar[int]
    GROUP_FIELD_NUMBER: _ClassVar[int]
    CRON_FIELD_NUMBER: _ClassVar[int]
    TZ_FIELD_NUMBER: _ClassVar[int]
    BLACKOUTS_FIELD_NUMBER: _ClassVar[int]
    WINDOW_S_FIELD_NUMBER: _ClassVar[int]
    MISSED_FIELD_NUMBER: _ClassVar[int]
    TO_FIELD_NUMBER: _ClassVar[int]
    ACTION_FIELD_NUMBER: _ClassVar[int]
    MAX_PARALLEL_FIELD_NUMBER: _ClassVar[int]
    BANDWIDTH_FIELD_NUMBER: _ClassVar[int]
    DEADLINE_S_FIELD_NUMBER: _ClassVar[int]
    SELECTOR_FIELD_NUMBER: _ClassVar[int]
    REASON_FIELD_NUMBER: _ClassVar[int]
    HOOK_FIELD_NUMBER: _ClassVar[int]
    HOOK_TIMEOUT_S_FIELD_NUMBER: _ClassVar[int]
    REBOOTS_FIELD_NUMBER: _ClassVar[int]
    HOST_TIMEOUT_S_FIELD_NUMBER: _ClassVar[int]
    name: str
    kind: str
    host: str
    group: str
    cron: str
    tz: str
    blackouts: _containers.RepeatedScalarFieldContainer[str]
    window_s: float
    missed: str
    to: _containers.RepeatedScalarFieldContainer[str]
    action: str
    max_parallel: int
    bandwidth: int
    deadline_s: float
    selector: _containers.ScalarMap[str, str]
    reason: str
    hook: str
    hook_timeout_s: float
    reboots: bool
    host_timeout_s: float
    def __init__(self, name: _Optional[str] = ..., kind: _Optional[str] = ..., host: _Optional[str] = ..., group: _Optional[str] = ..., cron: _Optional[str] = ..., tz: _Optional[str] = ..., blackouts: _Optional[_Iterable[str]] = ..., window_s: _Optional[float] = ..., missed: _Optional[str] = ..., to: _Optional[_Iterable[str]] = ..., action: _Optional[str] = ..., max_parallel: _Optional[int] = ..., bandwidth: _Optional[int] = ..., deadline_s: _Optional[float] = ..., selector: _Optional[_Mapping[str, str]] = ..., reason: _Optional[str] = ..., hook: _Optional[str] = ..., hook_timeout_s: _Optional[float] = ..., reboots: bool = ..., host_timeout_s: _Optional[float] = ...) -> None: ...

class Schedule(_message.Message):
    __slots__ = ("job", "paused", "next_unix_ns", "created_unix_ns", "runs", "next_local")
    JOB_FIELD_NUMBER: _ClassVar[int]
    PAUSED_FIELD_NUMBER: _ClassVar[int]
    NEXT_UNIX_NS_FIELD_NUMBER: _ClassVar[int]
    CREATED_UNIX_NS_FIELD_NUMBER: _ClassVar[int]
    RUNS_FIELD_NUMBER: _ClassVar[int]
    NEXT_LOCAL_FIELD_NUMBER: _ClassVar[int]
    job: ScheduleJob
    paused: bool
    next_unix_ns: int
    created_unix_ns: int
    runs: _containers.RepeatedCompositeFieldContainer[ScheduleRun]
    next_local: str
    def __init__(self, job: _Optional[_Union[ScheduleJob, _Mapping]] = ..., paused: bool = ..., next_unix_ns: _Optional[int] = ..., created_unix_ns: _Optional[int] = ..., runs: _Optional[_Iterable[_Union[ScheduleRun, _Mapping]]] = ..., next_local: _Optional[str] = ...) -> None: ...

class ScheduleList(_message.Message):
    __slots__ = ("schedules",)
    SCHEDULES_FIELD_NUMBER: _ClassVar[int]
    schedules: _containers.RepeatedCompositeFieldContainer[Schedule]
    def __init__(self, schedules: _Optional[_Iterable[_Union[Schedule, _Mapping]]] = ...) -> None: ...

class ScheduleRun(_message.Message):
    __slots__ = ("id", "schedule", "cause", "state", "why", "due_unix_ns", "window_end_unix_ns", "started_unix_ns", "finished_unix_ns", "legs", "cancelled")
    ID_FIELD_NUMBER: _ClassVar[int]
    SCHEDULE_FIELD_NUMBER: _ClassVar[int]
    CAUSE_FIELD_NUMBER: _ClassVar[int]
    STATE_FIELD_NUMBER: _ClassVar[int]
    WHY_FIELD_NUMBER: _ClassVar[int]
    DUE_UNIX_NS_FIELD_NUMBER: _ClassVar[int]
    WINDOW_END_UNIX_NS_FIELD_NUMBER: _ClassVar[int]
    STARTED_UNIX_NS_FIELD_NUMBER: _ClassVar[int]
    FINISHED_UNIX_NS_FIELD_NUMBER: _ClassVar[int]
    LEGS_FIELD_NUMBER: _ClassVar[int]
    CANCELLED_FIELD_NUMBER: _ClassVar[int]
    id: str
    schedule: str
    cause: str
    state: str
    why: str
    due_unix_ns: int
    window_end_unix_ns: int
    started_unix_ns: int
    finished_unix_ns: int
    legs: _containers.RepeatedCompositeFieldContainer[ScheduleLeg]
    cancelled: bool
    def __init__(self, id: _Optional[str] = ..., schedule: _Optional[str] = ..., cause: _Optional[str] = ..., state: _Optional[str] = ..., why: _Optional[str] = ..., due_unix_ns: _Optional[int] = ..., window_end_unix_ns: _Optional[int] = ..., started_unix_ns: _Optional[int] = ..., finished_unix_ns: _Optional[int] = ..., legs: _Optional[_Iterable[_Union[ScheduleLeg, _Mapping]]] = ..., cancelled: bool = ...) -> None: ...

class ScheduleLeg(_message.Message):
    __slots__ = ("host", "state", "evacuation_id", "restore_id", "hook_ended", "hook_status", "hook_output", "hook_took_s", "why", "error", "started_unix_ns", "finished_unix_ns")
    HOST_FIELD_NUMBER: _ClassVar[int]
    STATE_FIELD_NUMBER: _ClassVar[int]
    EVACUATION_ID_FIELD_NUMBER: _ClassVar[int]
    RESTORE_ID_FIELD_NUMBER: _ClassVar[int]
    HOOK_ENDED_FIELD_NUMBER: _ClassVar[int]
    HOOK_STATUS_FIELD_NUMBER: _ClassVar[int]
    HOOK_OUTPUT_FIELD_NUMBER: _ClassVar[int]
    HOOK_TOOK_S_FIELD_NUMBER: _ClassVar[int]
    WHY_FIELD_NUMBER: _ClassVar[int]
    ERROR_FIELD_NUMBER: _ClassVar[int]
    STARTED_UNIX_NS_FIELD_NUMBER: _ClassVar[int]
    FINISHED_UNIX_NS_FIELD_NUMBER: _ClassVar[int]
    host: str
    state: str
    evacuation_id: str
    restore_id: str
    hook_ended: bool
    hook_status: int
    hook_output: str
    hook_took_s: float
    why: str
    error: _types_pb2.ErrorDetail
    started_unix_ns: int
    finished_unix_ns: int
    def __init__(self, host: _Optional[str] = ..., state: _Optional[str] = ..., evacuation_id: _Optional[str] = ..., restore_id: _Optional[str] = ..., hook_ended: bool = ..., hook_status: _Optional[int] = ..., hook_output: _Optional[str] = ..., hook_took_s: _Optional[float] = ..., why: _Optional[str] = ..., error: _Optional[_Union[_types_pb2.ErrorDetail, _Mapping]] = ..., started_unix_ns: _Optional[int] = ..., finished_unix_ns: _Optional[int] = ...) -> None: ...
