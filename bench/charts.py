"""`python -m bench.charts`: the samples in docs/charts/downtime.json as tables in docs/bench.md and as SVG beside them.

The samples are what `python -m bench.downtime --save docs/charts/downtime.json` has put there. Needs the extra `bench` (pygal).
"""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Iterable, Sequence
from pathlib import Path

import pygal
from pygal.style import CleanStyle

from bench import results, table
from bench.results import Result

# It is for pygal's map plug-ins, and Python 3.11 warns of a finder of the old kind at each import after it.
sys.meta_path[:] = [finder for finder in sys.meta_path if type(finder).__name__ != "PluginImportFixer"]

DOCS = Path(__file__).resolve().parents[1] / "docs"
BEGIN, END = "<!-- bench.charts: begin -->", "<!-- bench.charts: end -->"
Bars = dict[str, list[float | None]]  # by way of moving, a figure a case


def figures(found: Sequence[Result], field: str, factor: float) -> Bars:
    """Medians; None where a way has no such figure in a case. Ways that have none at all are left out."""
    bars: Bars = {}
    for way in dict.fromkeys(way for result in found for way in result.samples):
        spreads = [table.spread(result.samples.get(way, ()), field) for result in found]
        if any(spreads):
            bars[way] = [None if each is None else each.median * factor for each in spreads]
    return bars


def chart(title: str, names: Iterable[str], bars: Bars, *, unit: str) -> bytes:
    """Horizontal groups of bars on a scale of powers: 10 MB by CRIU and 4 GB by hand are both to be seen."""
    drawn = pygal.HorizontalBar(
        title=title, x_title=unit, style=CleanStyle, logarithmic=True, js=(), disable_xml_declaration=False,
        legend_at_bottom=True, print_values=True, value_formatter=lambda value: f"{value:.3g}", no_prefix=True,
    )  # fmt: skip
    drawn.uuid = title.replace(" ", "-")  # else another picture each time
    drawn.x_labels = list(names)
    for way, values in bars.items():
        drawn.add(way, values)
    return bytes(drawn.render())


def charts(found: Sequence[Result]) -> dict[str, bytes]:
    """SVG by the name of its file; none without a case to draw."""
    kinds = {
        "idle": ("an idle Redis", [one for one in found if one.case.startswith("redis") and not one.dirty_mb_s]),
        "written": ("a Redis that is written to", [one for one in found if one.dirty_mb_s]),
        "shapes": ("other containers", [one for one in found if not one.case.startswith("redis")]),
    }
    made: dict[str, bytes] = {}
    for kind, (what, chosen) in kinds.items():
        if not chosen:
            continue
        names = [one.case for one in chosen]
        gaps = figures(chosen, "gap_s", 1e3)
        if floor := figures(chosen, "frozen_s", 1e3).get(table.FLOOR):
            gaps[table.FLOOR] = floor
        made[f"gap-{kind}.svg"] = chart(f"Longest wait of a client of {what}", names, gaps, unit="ms")
        cpu = figures(chosen, "cpu_s", 1.0)
        made[f"cpu-{kind}.svg"] = chart(f"CPU of both hosts for a move of {what}", names, cpu, unit="s")
    return made


def section(text: str, files: Iterable[str]) -> str:
    """What stands between the marks in docs/bench.md: where the figures come from, charts, tables."""
    document, found = json.loads(text), results.load(text)
    head = (
        f"{document['day']}, {document['cpus']} CPUs, {document['memory_bytes'] / 1e9:.0f} GB, "
        f"kernel {document['kernel']}, commit {document['commit']}:"
    )
    pictures = [f"![{name}](charts/{name})" for name in files]
    return "\n".join(
        [BEGIN, "", head, "", *pictures, "", "```", *results.lines(found, document["rate"]), "```", "", END]
    )


def replaced(page: str, part: str) -> str:
    """The page with `part` in the place of what stood between the marks. Raises ValueError where these are missing."""
    before, begin, rest = page.partition(BEGIN)
    _, end, after = rest.partition(END)
    if not begin or not end:
        raise ValueError(f"the page has no {BEGIN} and {END}")
    return before + part + after


def main(argv: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(prog="python -m bench.charts", description=(__doc__ or "").partition("\n\n")[0])
    parser.add_argument("--docs", type=Path, default=DOCS, metavar="DIR", help="with bench.md and charts/downtime.json")
    arguments = parser.parse_args(argv)
    folder = arguments.docs / "charts"
    try:
        text = (folder / "downtime.json").read_text()
    except FileNotFoundError as exc:
        print(f"error: {exc}\nhint: python -m bench.downtime --save {folder / 'downtime.json'}", file=sys.stderr)
        return 1
    made = charts(results.load(text))
    for name, picture in made.items():
        (folder / name).write_bytes(picture)
    page = arguments.docs / "bench.md"
    page.write_text(replaced(page.read_text(), section(text, made)))
    print(f"{page}, {len(made)} charts in {folder}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
