"""Constraints on a host's labels ("disk==ssd", "zone!=b", "gpu") and affinity to labels of containers ("app=db")."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass

from migrate.errors import InvalidArgument

# Labels of containers that placement reads: they go along with every move. Lists have commas.
CONSTRAINTS = "migrate.constraints"
AFFINITY = "migrate.affinity"
ANTI_AFFINITY = "migrate.anti-affinity"

_KEY = r"[A-Za-z0-9](?:[A-Za-z0-9._/-]*[A-Za-z0-9])?"
_CONSTRAINT = re.compile(rf"({_KEY})\s*(?:(==|=|!=)\s*([^,=!]*))?")

Term = tuple[str, str]  # key and value of a container's label


@dataclass(frozen=True, kw_only=True)
class Constraint:
    """`value` None: the label must be there, whatever it says. `negated`: a host without the label meets it too."""

    key: str
    value: str | None
    negated: bool = False

    def met(self, labels: Mapping[str, str]) -> bool:
        if self.value is None:
            return self.key in labels
        return (labels.get(self.key) == self.value) != self.negated

    def __str__(self) -> str:
        return self.key if self.value is None else f"{self.key}{'!=' if self.negated else '=='}{self.value}"


def constraint(text: str) -> Constraint:
    """Raises InvalidArgument."""
    found = _CONSTRAINT.fullmatch(text.strip())
    if not found:
        raise InvalidArgument(f"{text!r} is no constraint", hint="such as disk==ssd, zone!=b, or gpu for any value")
    return Constraint(key=found[1], value=found[3].strip() if found[2] else None, negated=found[2] == "!=")


def constraints(texts: str) -> tuple[Constraint, ...]:
    """Of a list with commas."""
    return tuple(constraint(one) for one in texts.split(",") if one.strip())


def terms(texts: str) -> tuple[Term, ...]:
    """("app", "db") of "app=db"; of a list with commas. Raises InvalidArgument."""
    found: list[Term] = []
    for one in (text.strip() for text in texts.split(",")):
        key, equals, value = one.partition("=")
        if one and (not equals or not re.fullmatch(_KEY, key)):
            raise InvalidArgument(f"{one!r} is no label of a container", hint="such as app=db")
        if one:
            found.append((key, value))
    return tuple(found)
