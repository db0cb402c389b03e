"""How hosts were judged, for `--explain`; and what `run` and `create` take about placement. docs/fleet.md"""

from __future__ import annotations

import argparse
from typing import TYPE_CHECKING

from migrate.cli import tables

if TYPE_CHECKING:
    from migrate.records import Ranking

# The labels of containers that placement reads: migrate/placement/labels.py.
_LABELS = {
    "constraint": "migrate.constraints",
    "affinity": "migrate.affinity",
    "anti_affinity": "migrate.anti-affinity",
}


def add_options(parser: argparse.ArgumentParser) -> None:
    group = parser.add_argument_group("placement", "without --host, and for later moves too: docs/fleet.md")
    add = group.add_argument
    add(
        "--constraint",
        action="append",
        default=[],
        metavar="EXPR",
        help="of the host's labels, such as disk==ssd, zone!=b or gpu; repeatable",
    )
    add(
        "--affinity",
        action="append",
        default=[],
        metavar="KEY=VALUE",
        help="beside a container with this label; repeatable",
    )
    add(
        "--anti-affinity",
        action="append",
        default=[],
        metavar="KEY=VALUE",
        help="never beside a container with this label; repeatable",
    )
    add("--explain", action="store_true", help="print on stderr how each host was judged, and why it was refused")


def labels(args: argparse.Namespace) -> dict[str, str]:
    """What is kept with the container."""
    return {label: ",".join(texts) for name, label in _LABELS.items() if (texts := getattr(args, name))}


def explained(ranking: Ranking) -> str:
    """A table of the hosts that can take it, best first, and the reasons of the others."""
    able = [one for one in ranking.hosts if not one.refusals]
    lines: list[str] = []
    if able:
        names = sorted(able[0].parts)
        rows = [(one.host, f"{one.score:.3f}", *(f"{one.parts[name]:.2f}" for name in names)) for one in able]
        lines.append(tables.table(("HOST", "SCORE", *(name.upper() for name in names)), rows))
    for one in ranking.hosts:
        lines += [f"{one.host}: refused: {reason}" for reason in one.refusals]
    return "\n".join(lines)
