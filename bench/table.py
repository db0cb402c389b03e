"""Samples of several moves as one table. Pure."""

from __future__ import annotations

import statistics
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

OURS, HAND, PEER = "migrate", "by hand", "peer"


@dataclass(frozen=True, kw_only=True)
class Sample:
    """One move. None: not known, or not measured by whoever did it."""

    gap_s: float  # longest time between two answers that the client outside got
    frozen_s: float | None = None
    total_s: float | None = None
    wire_bytes: float | None = None
    cpu_s: float | None = None


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
    """Median of ours over the median by hand: below 1 is better than by hand."""
    ours, hand = spread(samples.get(OURS, ()), field), spread(samples.get(HAND, ()), field)
    return ours.median / hand.median if ours and hand and hand.median > 0 else None


def lines(title: str, samples: Mapping[str, Sequence[Sample]]) -> list[str]:
    """A table: the figures down, whose they are across. Medians, and the least and the most in brackets."""
    whose = list(samples)
    head = (title, "", *(f"{name} ({len(samples[name])})" for name in whose), f"{OURS}/{HAND}")
    cells = [head]
    for row in ROWS:
        figures = [_figure(spread(samples[name], row.field), row) for name in whose]
        factor = ratio(samples, row.field)
        cells.append((row.title, row.unit, *figures, "-" if factor is None else f"{factor:.2f}"))
    return align(cells, left=2)


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
