"""What all records have in common: immutable values that compare, print, and become JSON.

They are dataclasses to whoever looks (`dataclasses.fields`, `replace`), but their methods stand here once. The ones that
`@dataclass` writes are compiled for each class in each process, a millisecond and more a class: 17 of `migrate ps`.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from typing import Any, ClassVar, dataclass_transform


@dataclass_transform(kw_only_default=True, frozen_default=True, field_specifiers=(dataclasses.field,))
class Record:
    """Base of every record; fields are given by name. Needs a docstring in each class, or dataclasses look for a signature."""

    __dataclass_fields__: ClassVar[dict[str, dataclasses.Field[Any]]]

    def __init_subclass__(cls) -> None:
        dataclasses.dataclass(init=False, repr=False, eq=False, kw_only=True)(cls)

    def __init__(self, **values: Any) -> None:
        mine = self.__dict__  # not through __setattr__, which refuses
        for name, one in self.__dataclass_fields__.items():
            if name in values:
                mine[name] = values.pop(name)
            elif one.default is not dataclasses.MISSING:
                mine[name] = one.default
            elif one.default_factory is not dataclasses.MISSING:
                mine[name] = one.default_factory()
            else:
                raise TypeError(f"{type(self).__name__} needs {name}")
        if values:
            raise TypeError(f"{type(self).__name__} has no {', '.join(values)}")

    def __setattr__(self, name: str, value: object) -> None:
        raise dataclasses.FrozenInstanceError(f"cannot assign to field {name!r}")

    def __delattr__(self, name: str) -> None:
        raise dataclasses.FrozenInstanceError(f"cannot delete field {name!r}")

    def __eq__(self, other: object) -> bool:
        return self.__dict__ == other.__dict__ if type(other) is type(self) else NotImplemented

    def __hash__(self) -> int:
        return hash(tuple(self.__dict__.values()))

    def __repr__(self) -> str:
        shown = (f"{one.name}={getattr(self, one.name)!r}" for one in dataclasses.fields(self) if one.repr)
        return f"{type(self).__name__}({', '.join(shown)})"


class Json(Record):
    """Gives a record `to_dict()`: what json.dumps takes, field by field."""

    def to_dict(self) -> dict[str, Any]:
        return {one.name: _plain(getattr(self, one.name)) for one in dataclasses.fields(self)}


def _plain(value: Any) -> Any:
    if isinstance(value, Json):
        return value.to_dict()
    if isinstance(value, list | tuple):
        return [_plain(one) for one in value]
    if isinstance(value, Mapping):
        return {key: _plain(one) for key, one in value.items()}
    return value
