"""Records as JSON."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from typing import Any


class Json:
    """Gives a dataclass `to_dict()`: what json.dumps takes, field by field."""

    def to_dict(self) -> dict[str, Any]:
        return {key: _plain(value) for key, value in _fields(self).items()}


def _fields(record: Any) -> dict[str, Any]:
    return {one.name: getattr(record, one.name) for one in dataclasses.fields(record)}


def _plain(value: Any) -> Any:
    if isinstance(value, Json):
        return value.to_dict()
    if isinstance(value, list | tuple):
        return [_plain(one) for one in value]
    if isinstance(value, Mapping):
        return {key: _plain(one) for key, one in value.items()}
    return value
