"""What pull, push, load and save show while they run: a bar a layer on a terminal, plain lines else."""

from __future__ import annotations

import shutil
import sys
from typing import TYPE_CHECKING, TextIO

from migrate.cli import tables

if TYPE_CHECKING:
    from migrate.records import ImageProgress

BAR = 20
REDRAW_NS = 50_000_000  # at most so often, but for a change of state
PLAIN_NS = 5_000_000_000  # into a file or a pipe: a line about a layer that is still under way
MOVING = ("fetching", "reading", "sending", "writing")  # with bytes; the other words are states


class Layers:
    """Lines of layers, each of one host. On a terminal all are redrawn in place; else a line for each change of state."""

    def __init__(self, file: TextIO | None = None, *, quiet: bool = False) -> None:
        self._file = file or sys.stderr
        self._quiet = quiet
        self._redraw = self._file.isatty()
        self._latest: dict[tuple[str, str], ImageProgress] = {}
        self._started_ns: dict[tuple[str, str], int] = {}
        self._drawn = 0
        self._drawn_ns = 0
        self._printed_ns: dict[tuple[str, str], int] = {}

    def show(self, event: ImageProgress) -> None:
        key = (event.host, event.layer)
        before = self._latest.get(key)
        self._latest[key] = event
        if event.text in MOVING:
            self._started_ns.setdefault(key, event.unix_ns)
        if self._quiet:
            return
        changed = before is None or before.text != event.text
        if self._redraw:
            if changed or event.unix_ns - self._drawn_ns >= REDRAW_NS:
                self._drawn_ns = event.unix_ns
                self._draw()
        elif changed or event.unix_ns - self._printed_ns[key] >= PLAIN_NS:
            self._printed_ns[key] = event.unix_ns
            print(self._line(key), file=self._file, flush=True)

    def finish(self) -> None:
        """Leave the lines as they are; what comes next is written below them."""
        self._drawn = 0

    def _draw(self) -> None:
        size = shutil.get_terminal_size()
        # More lines than the screen has cannot be redrawn: what is finished is left out first.
        keys = list(self._latest)
        if len(keys) > size.lines - 2:
            keys = [key for key in keys if self._latest[key].text in MOVING][: size.lines - 2]
        up = f"\x1b[{self._drawn}A" if self._drawn else ""
        lines = "".join(f"\r\x1b[K{self._line(key)[: size.columns - 1]}\n" for key in keys)
        print(f"{up}{lines}\x1b[J", end="", file=self._file, flush=True)
        self._drawn = len(keys)

    def _line(self, key: tuple[str, str]) -> str:
        event = self._latest[key]
        name = tables.short(event.layer) if event.layer.startswith("sha256:") else event.layer
        parts = [f"{event.host + ': ' if event.host else ''}{name:<12} {event.text:<8}"]
        if event.text in MOVING:
            if event.total_bytes and self._redraw:
                full = min(BAR, BAR * event.done_bytes // event.total_bytes)
                parts.append(f"[{'=' * full}{' ' * (BAR - full)}]")
            if event.total_bytes:
                parts.append(f"{tables.size(event.done_bytes)} of {tables.size(event.total_bytes)}")
            elif event.done_bytes:
                parts.append(tables.size(event.done_bytes))
            span_s = (event.unix_ns - self._started_ns.get(key, event.unix_ns)) / 1e9
            if event.done_bytes and span_s > 0.2:
                parts.append(f"{tables.size(event.done_bytes / span_s)}/s")
        elif event.total_bytes:
            parts.append(tables.size(event.total_bytes))
        return "  ".join(parts).rstrip()
