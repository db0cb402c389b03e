"""How far a stream of bytes is, on stderr, where it takes long."""

from __future__ import annotations

import sys
import time
from typing import Self

_TERMINAL_S = 0.2  # between two looks on a terminal
_PLAIN_S = 5.0  # and elsewhere


class Counter:
    """A context manager: `add` what has come. `quiet`: says nothing."""

    def __init__(self, name: str, *, quiet: bool) -> None:
        self._name, self._size, self._shown = name, 0, False
        self._terminal = sys.stderr.isatty()
        self._interval_s = _TERMINAL_S if self._terminal else _PLAIN_S
        self._next = float("inf") if quiet else time.monotonic() + self._interval_s

    def add(self, count: int) -> None:
        self._size += count
        if time.monotonic() >= self._next:
            self._next = time.monotonic() + self._interval_s
            self._shown = True
            self._show()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        if self._shown:
            self._show()
            if self._terminal:
                print(file=sys.stderr)

    def _show(self) -> None:
        from migrate.cli import tables

        text = f"{self._name}: {tables.size(self._size)} copied"
        print(
            f"\r{text}\x1b[K" if self._terminal else text,
            end="" if self._terminal else "\n",
            file=sys.stderr,
            flush=True,
        )
