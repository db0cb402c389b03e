"""A protobuf message as the dataclass that has its fields, by their names and types."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from functools import cache
from typing import Any, TypeVar, cast, get_args, get_origin, get_type_hints

from google.protobuf.message import Message

_Record = TypeVar("_Record")


def record(kind: type[_Record], message: Message) -> _Record:
    """`kind` with every field of `message` that has the same name. A `tuple[X, ...]` is made of a
    repeated field, a dict of a map, a dataclass of a message; `X | None` is None where the message does not have the field.
    """
    fields: dict[str, Any] = _hints(cast("Any", kind))
    return kind(**{name: _value(hint, message, name) for name, hint in fields.items()})


@cache
def _hints(kind: Any) -> dict[str, Any]:
    hints = get_type_hints(kind)
    return {one.name: hints[one.name] for one in dataclasses.fields(kind)}


def _value(hint: Any, message: Message, name: str) -> Any:
    value = getattr(message, name)
    if type(None) in get_args(hint):
        if not message.HasField(name):
            return None
        hint = next(one for one in get_args(hint) if one is not type(None))
    return _converted(hint, value)


def _converted(hint: Any, value: Any) -> Any:
    if get_origin(hint) is tuple:
        inner = get_args(hint)[0]
        return tuple(_converted(inner, one) for one in value)
    if get_origin(hint) in (dict, Mapping):
        return dict(value)
    if dataclasses.is_dataclass(hint) and isinstance(hint, type):
        return record(hint, value)
    return value
