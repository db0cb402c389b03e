from google.protobuf.internal import containers as _containers
from google.protobuf import descriptor as _descriptor
from google.protobuf import message as _message
from collections.abc import Iterable as _Iterable, Mapping as _Mapping
from typing import ClassVar as _ClassVar, Optional as _Optional, Union as _Union

DESCRIPTOR: _descriptor.FileDescriptor

class RebalanceRequest(_message.Message):
    __slots__ = ("threshold", "cooldown_s", "max_moves")
    THRESHOLD_FIELD_NUMBER: _ClassVar[int]
    COOLDOWN_S_FIELD_NUMBER: _ClassVar[int]
    MAX_MOVES_FIELD_NUMBER: _ClassVar[int]
    threshold: float
    cooldown_s: float
    max_moves: int
    def __init__(self, threshold: _Optional[float] = ..., cooldown_s: _Optional[float] = ..., max_moves: _Optional[int] = ...) -> None: ...

class RebalancePlan(_message.Message):
    __slots__ = ("moves", "before", "after", "left")
    class BeforeEntry(_message.Message):
        __slots__ = ("key", "value")
        KEY_FIELD_NUMBER: _ClassVar[int]
        VALUE_FIELD_NUMBER: _ClassVar[int]
        key: str
        value: float
        def __init__(self, key: _Optional[str] = ..., value: _Optional[float] = ...) -> None: ...
    class AfterEntry(_message.Message):
        __slots__ = ("key", "value")
        KEY_FIELD_NUMBER: _ClassVar[int]
        VALUE_FIELD_NUMBER: _ClassVar[int]
        key: str
        value: float
        def __init__(self, key: _Optional[str] = ..., value: _Optional[float] = ...) -> None: ...
    class LeftEntry(_message.Message):
        __slots__ = ("key", "value")
        KEY_FIELD_NUMBER: _ClassVar[int]
        VALUE_FIELD_NUMBER: _ClassVar[int]
        key: str
        value: str
        def __init__(self, key: _Optional[str] = ..., value: _Optional[str] = ...) -> None: ...
    MOVES_FIELD_NUMBER: _ClassVar[int]
    BEFORE_FIELD_NUMBER: _ClassVar[int]
    AFTER_FIELD_NUMBER: _ClassVar[int]
    LEFT_FIELD_NUMBER: _ClassVar[int]
    moves: _containers.RepeatedCompositeFieldContainer[RebalanceMove]
    before: _containers.ScalarMap[str, float]
    after: _containers.ScalarMap[str, float]
    left: _containers.ScalarMap[str, str]
    def __init__(self, moves: _Optional[_Iterable[_Union[RebalanceMove, _Mapping]]] = ..., before: _Optional[_Mapping[str, float]] = ..., after: _Optional[_Mapping[str, float]] = ..., left: _Optional[_Mapping[str, str]] = ...) -> None: ...

class RebalanceMove(_message.Message):
    __slots__ = ("container_id", "container", "source", "target", "memory_bytes", "gain")
    CONTAINER_ID_FIELD_NUMBER: _ClassVar[int]
    CONTAINER_FIELD_NUMBER: _ClassVar[int]
    SOURCE_FIELD_NUMBER: _ClassVar[int]
    TARGET_FIELD_NUMBER: _ClassVar[int]
    MEMORY_BYTES_FIELD_NUMBER: _ClassVar[int]
    GAIN_FIELD_NUMBER: _ClassVar[int]
    container_id: str
    container: str
    source: str
    target: str
    memory_bytes: int
    gain: float
    def __init__(self, container_id: _Optional[str] = ..., container: _Optional[str] = ..., source: _Optional[str] = ..., target: _Optional[str] = ..., memory_bytes: _Optional[int] = ..., gain: _Optional[float] = ...) -> None: ...
