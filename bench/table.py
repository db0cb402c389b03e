"""Samples of several moves as one table. Pure."""

from __future__ import annotations

import statistics
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

HAND, FLOOR, PEER = "by hand", "floor", "peer"


@dataclass(frozen=True, kw_only=True)
class Sample:
    """One move. None: not known, or not measured by whoever did it. `error`: it failed, and how. `note`: why precopy ended."""

    gap_s: float | None = None  # longest time between two answers that the client outside got
    frozen_s: float | None = None
    total_s: float | None = None
    wire_bytes: float | None = None
    cpu_s: float | None = None
    dirty_mb_s: float | None = None  # what was really written meanwhile
    floor_s: float | None = None  # what CRIU alone took of it
    error: str = ""
    note: str = ""


@dataclass(frozen=True, kw_only=True)
class Row:
    """A figure of Sample and how it is shown: times `factor`, in `unit`."""

    field: str
    title: str
    unit: str
    factor: float
    digits: int


ROWS = (
    Row(field="gap_s", title="client's longest gap", unit="ms", factor=1e3, digits=0),
    Row(field="frozen_s", title="frozen", unit="ms", factor=1e3, digits=0),
    Row(field="total_s", title="total", unit="s", factor=1, digits=2),
    Row(field="wire_bytes", title="on the wire", unit="MB", factor=1e-6, digits=1),
    Row(field="cpu_s", title="CPU of both hosts", unit="s", factor=1, digits=2),
    Row(field="dirty_mb_s", title="really written", unit="MB/s", factor=1, digits=0),
)


@dataclass(frozen=True, kw_only=True)
class Spread:
    """Of one figure."""

    median: float
    low: float
    high: float


def spread(samples: Sequence[Sample], field: str) -> Spread | None:
    """None when none of the samples has the figure."""
    values = [value for sample in samples if (value := getattr(sample, field)) is not None]
    return Spread(median=statistics.median(values), low=min(values), high=max(values)) if values else None


def ratio(samples: Mapping[str, Sequence[Sample]], field: str) -> float | None:
    """Median of the first column over the median by hand: below 1 is better than by hand."""
    first = next(iter(samples.values()), ())
    ours, hand = spread(first, field), spread(samples.get(HAND, ()), field)
    return ours.median / hand.median if ours and hand and hand.median > 0 else None


def lines(title: str, samples: Mapping[str, Sequence[Sample]]) -> list[str]:
    """A table: the figures down, whose they are across. Medians, and the least and the most in brackets; then what failed."""
    whose = list(samples)
    cells = [(title, "", *(f"{name} ({_good(samples[name])})" for name in whose), f"{whose[0]}/{HAND}")]
    for row in ROWS:
        spreads = [spread(samples[name], row.field) for name in whose]
        if not any(spreads):
            continue
        factor = ratio(samples, row.field)
        figures = [_figure(values, row) for values in spreads]
        cells.append((row.title, row.unit, *figures, "-" if factor is None else f"{factor:.2f}"))
    remarks = {
        f"{name}: {sample.note}": None for name in whose for sample in samples[name] if sample.note
    }  # each once, in order
    failures = [f"{name} FAILED: {sample.error}" for name in whose for sample in samples[name] if sample.error]
    return [*align(cells, left=2), *remarks, *failures]


def _good(samples: Sequence[Sample]) -> int:
    return sum(not sample.error for sample in samples)


def align(cells: Sequence[Sequence[str]], *, left: int) -> list[str]:
    """Lines of equal columns; the first `left` of them to the left, the others to the right."""
    widths = [max(len(line[column]) for line in cells) for column in range(len(cells[0]))]
    return [
        "  ".join(
            cell.ljust(widths[column]) if column < left else cell.rjust(widths[column])
            for column, cell in enumerate(line)
        ).rstrip()
        for line in cells
    ]


def _figure(values: Spread | None, row: Row) -> str:
    if values is None:
        return "-"
    median, low, high = (f"{value * row.factor:.{row.digits}f}" for value in (values.median, values.low, values.high))
    return f"{median} ({low}-{high})"
