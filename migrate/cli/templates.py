r"""`--format '{{.ID}}: {{.Names}}'`: the part of Go's templates that people use with Docker.

{{.Field}}, {{.Field.Inner}}, {{json .}}, {{json .Field}}, {{.Label "key"}}, {{upper .Field}}, {{lower .Field}}, {{len .Field}};
\t and \n; a format that begins with "table " has a line of headings. Names are looked up as given, then without regard to case.
"""

from __future__ import annotations

import argparse
import json
import re
from collections.abc import Mapping, Sequence
from typing import Any

from migrate.cli import tables

# Compiled when a template is looked at.
_ACTION = r"(?s)\{\{-?\s*(.*?)\s*-?\}\}"
_PARTS = r'(?:(json|upper|lower|len|println)\s+)?(\.[\w.]*)(?:\s+"([^"]*)")?'
_FUNCTIONS = {"upper": str.upper, "lower": str.lower}


def form(text: str) -> str:
    """Checked, as typed: "table", "json", or a template."""
    if text in ("table", "json"):
        return text
    body = text.removeprefix("table ")
    if "{{" not in body:
        raise argparse.ArgumentTypeError(f"{text!r} is neither table nor json nor a template such as '{{{{.ID}}}}'")
    for action in re.findall(_ACTION, body):
        if not re.fullmatch(_PARTS, action):
            raise argparse.ArgumentTypeError(
                f'{{{{{action}}}}} is not understood: {{{{.Field}}}}, {{{{json .Field}}}}, {{{{.Label "key"}}}}'
            )
    return text


def show(text: str, rows: Sequence[Mapping[str, Any]]) -> str:
    """A line for each of `rows`; with headings for a format that begins with "table ". Raises ArgumentTypeError for a field that
    none of them has.
    """
    with_head, body = text.startswith("table "), text.removeprefix("table ").replace("\\t", "\t").replace("\\n", "\n")
    lines = [_filled(body, row) for row in rows]
    if not with_head:
        return "\n".join(lines)
    head = re.sub(_ACTION, lambda found: _heading(found[1]), body)
    cells = [line.split("\t") for line in (head, *lines)]
    width = max(map(len, cells))
    padded = [[*row, *[""] * (width - len(row))] for row in cells]
    return tables.table(padded[0], padded[1:])


def line(text: str, fields: Mapping[str, Any]) -> str:
    """Of one."""
    return show(text, [fields])


def _filled(body: str, row: Mapping[str, Any]) -> str:
    return re.sub(_ACTION, lambda found: _value(found[1], row), body)


def _value(action: str, row: Mapping[str, Any]) -> str:
    found = re.fullmatch(_PARTS, action)
    assert found is not None, "form() has checked it"
    function, path, key = found[1], found[2], found[3]
    value: Any = row
    for name in filter(None, path.split(".")):
        value = _field(value, name, path)
    if key is not None:
        value = value.get(key, "") if isinstance(value, Mapping) else ""
    if function == "json":
        return json.dumps(value)
    if function == "len":
        return str(len(value))
    text = _text(value)
    return _FUNCTIONS[function](text) if function in _FUNCTIONS else text


def _field(value: Any, name: str, path: str) -> Any:
    if isinstance(value, Mapping):
        if name in value:
            return value[name]
        plain = name.lower().replace("_", "")
        for key, one in value.items():
            if key.lower().replace("_", "") == plain:
                return one
    known = ", ".join(sorted(value)) if isinstance(value, Mapping) else "none"
    raise argparse.ArgumentTypeError(f"there is no field {path!r}; fields are {known}")


def _text(value: Any) -> str:
    if isinstance(value, bool):
        return str(value).lower()
    if value is None:
        return ""
    return json.dumps(value) if isinstance(value, dict | list | tuple) else str(value)


def _heading(action: str) -> str:
    found = re.fullmatch(_PARTS, action)
    name = (found[3] or found[2].rpartition(".")[2]) if found else action
    return {"ID": "CONTAINER ID", "CreatedAt": "CREATED AT", "RunningFor": "CREATED"}.get(name, name.upper())
