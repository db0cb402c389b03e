"""What pull, push, load and save show: bars on a terminal, lines else."""

from __future__ import annotations

import io

import pytest

from migrate.cli.image_progress import Layers
from migrate.records import ImageProgress

pytestmark = pytest.mark.unit

LAYER = "sha256:" + "1" * 64
S = 10**9


class Terminal(io.StringIO):
    def isatty(self) -> bool:
        return True


def event(text: str, done: int, at_s: float, *, layer: str = LAYER, host: str = "host1") -> ImageProgress:
    return ImageProgress(
        host=host, layer=layer, text=text, done_bytes=done, total_bytes=10_000_000, unix_ns=int((1000 + at_s) * S)
    )


def test_into_a_pipe_a_line_for_each_change_and_one_in_five_seconds() -> None:
    """No bars and no control characters, and not a line a chunk."""
    out = io.StringIO()
    view = Layers(out)
    view.show(event("waiting", 0, 0))
    for tenth in range(60):
        view.show(event("fetching", tenth * 100_000, tenth / 10))
    view.show(event("done", 10_000_000, 6))
    lines = out.getvalue().splitlines()
    assert lines == [
        "host1: 111111111111 waiting   10 MB",
        "host1: 111111111111 fetching  0 B of 10 MB",
        "host1: 111111111111 fetching  5 MB of 10 MB  1 MB/s",
        "host1: 111111111111 done      10 MB",
    ]


def test_on_a_terminal_every_layer_has_a_bar_that_is_redrawn() -> None:
    """The lines of all layers move up and are written again; not more often than an eye can see."""
    out = Terminal()
    view = Layers(out)
    view.show(event("fetching", 0, 0))
    view.show(event("fetching", 0, 0, host="host2"))
    before = len(out.getvalue())
    view.show(event("fetching", 1, 0.01))
    assert len(out.getvalue()) == before
    view.show(event("fetching", 5_000_000, 1))
    last = out.getvalue()[before:]
    assert last.startswith("\x1b[2A")
    assert "[==========          ]  5 MB of 10 MB  5 MB/s" in last
    assert last.count("\n") == 2


def test_quiet_shows_nothing_and_names_are_not_cut() -> None:
    """Quiet is quiet; what is no digest keeps its colon."""
    out = io.StringIO()
    Layers(out, quiet=True).show(event("fetching", 0, 0))
    assert out.getvalue() == ""
    Layers(out).show(event("reading", 0, 0, layer="debian:12", host=""))
    assert out.getvalue().startswith("debian:12 ")
