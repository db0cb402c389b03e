r"""`--format '{{.ID}}: {{.Names}}'`: "table", "json", or a template as Docker's (migrate/cli/gotemplate.py); \t and \n; one that
begins with "table " has a line of headings.
"""

from __future__ import annotations

import argparse
import json
from collections.abc import Mapping, Sequence
from typing import Any

from migrate.cli import tables

HEADINGS = {"ID": "CONTAINER ID", "CreatedAt": "CREATED AT", "RunningFor": "CREATED"}


def form(text: str) -> str:
    """Checked, as typed: "table", "json", or a template."""
    if text in ("table", "json"):
        return text
    if "{{" not in text:
        raise argparse.ArgumentTypeError(f"{text!r} is neither table nor json nor a template such as '{{{{.ID}}}}'")
    from migrate.cli.gotemplate import Template, TemplateError  # here: most commands show a table

    try:
        Template(_body(text))
    except TemplateError as exc:
        raise argparse.ArgumentTypeError(f"template parsing error: {exc}") from exc
    return text


def add_option(
    parser: argparse.ArgumentParser,
    *flags: str,
    default: str = "table",
    text: str = "table, json, or a template as Docker's",
) -> None:
    """`--format`, or `flags`, checked when it is typed. `text`: for --help."""
    parser.add_argument(*(flags or ("--format",)), type=form, default=default, metavar="FORMAT", help=text)


def show(text: str, rows: Sequence[Mapping[str, Any]], headings: Mapping[str, str] | None = None) -> str:
    """A line for each of `rows`; with headings for a format that begins with "table ": of a field its own, else its name in
    capitals. Raises ArgumentTypeError for a field that there is not.
    """
    from migrate.cli.gotemplate import Heading, Template, TemplateError

    template = Template(_body(text))
    try:
        lines = [template.run(row) for row in rows]
        if not text.startswith("table "):
            return "\n".join(lines)
        head = template.run(Heading("", HEADINGS if headings is None else headings))
    except TemplateError as exc:
        raise argparse.ArgumentTypeError(str(exc)) from exc
    cells = [line.split("\t") for line in (head, *lines)]
    width = max(map(len, cells))
    padded = [[*row, *[""] * (width - len(row))] for row in cells]
    return tables.table(padded[0], padded[1:])


def line(text: str, fields: Mapping[str, Any]) -> str:
    """Of one."""
    return show(text, [fields])


def listing(
    text: str, rows: Sequence[Mapping[str, Any]], head: Sequence[str], cells: Sequence[Sequence[object]]
) -> str:
    """What a list shows in any of the three forms: `rows` for json and templates, `head` and `cells` for the table."""
    if text == "json":
        return json.dumps(rows, indent=2)
    if text == "table":
        return tables.table(head, cells)
    return show(text, rows)


def _body(text: str) -> str:
    return text.removeprefix("table ").replace("\\t", "\t").replace("\\n", "\n")
