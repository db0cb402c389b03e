"""Text for people: tables, sizes, spans of time. Plain characters, no library."""

from __future__ import annotations

import time
from collections.abc import Sequence


def table(header: Sequence[str], rows: Sequence[Sequence[object]]) -> str:
    """Columns as wide as their widest cell, two spaces between, no trailing spaces; ends without a newline."""
    cells = [[str(cell) for cell in row] for row in [header, *rows]]
    widths = [max(len(row[column]) for row in cells) for column in range(len(header))]
    return "\n".join(
        "  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip() for row in cells
    )


def size(count: float) -> str:
    """ "0 B", "999 B", "12.3 MB": powers of 1000, as Docker prints."""
    for unit in ("B", "kB", "MB", "GB", "TB"):
        if count < 999.95 or unit == "TB":
            return (
                f"{count:.0f} {unit}"
                if unit == "B"
                else f"{count:.3g} {unit}"
                if count < 99.95
                else f"{count:.0f} {unit}"
            )
        count /= 1000
    raise AssertionError("the last unit takes everything")


def seconds(span_s: float) -> str:
    """ "0.8 ms", "412 ms", "3.2 s", "4 min 05 s"."""
    if span_s < 0.01:
        return f"{span_s * 1000:.1f} ms"
    if span_s < 1:
        return f"{span_s * 1000:.0f} ms"
    if span_s < 59.95:
        return f"{span_s:.1f} s"
    minutes, rest = divmod(round(span_s), 60)
    return f"{minutes} min {rest:02d} s" if minutes < 60 else f"{minutes // 60} h {minutes % 60:02d} min"


def ago(unix_ns: int, now_ns: int | None = None) -> str:
    """ "3 minutes": the age of an instant in its largest unit, "-" for 0."""
    if not unix_ns:
        return "-"
    age_s = max(0, ((time.time_ns() if now_ns is None else now_ns) - unix_ns) / 1e9)
    for unit, length_s in (("day", 86400), ("hour", 3600), ("minute", 60)):
        if age_s >= length_s:
            count = int(age_s // length_s)
            return f"{count} {unit}{'s' if count > 1 else ''}"
    count = int(age_s)
    return f"{count} second{'' if count == 1 else 's'}"


def stamp(unix_ns: int) -> str:
    """ "2026-11-24T03:41:00.123456789Z"; "" for 0."""
    if not unix_ns:
        return ""
    whole, fraction = divmod(unix_ns, 10**9)
    return f"{time.strftime('%Y-%m-%dT%H:%M:%S', time.gmtime(whole))}.{fraction:09d}Z"


def short(identifier: str) -> str:
    """Twelve characters of an id or of a digest without its algorithm: enough to type."""
    return identifier.rpartition(":")[2][:12]
