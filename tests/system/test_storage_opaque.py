"""What lies below a path of the writable layer: two modules answer that without mounting anything, and the kernel is asked too."""

from __future__ import annotations

import itertools
import os
from pathlib import Path

import pytest

from agent.linux import mounts
from agent.storage import changes, layertar

pytestmark = pytest.mark.system

NAMES = ("a", "b", "c")
LAYERS = [
    (depth, opaque) for depth in range(4) for opaque in range(depth + 1)
]  # how deep a/b/c is, which of it is opaque; 0: none


def layer(top: Path, depth: int, opaque: int) -> Path:
    top.mkdir()
    place = top
    for number, name in enumerate(NAMES[:depth], 1):
        place = place / name
        place.mkdir()
        if number == opaque:
            os.setxattr(place, "trusted.overlay.opaque", b"y")
    return top


@pytest.mark.parametrize("first", LAYERS, ids=str)
def test_opaque_directories_on_the_way_hide_what_is_below(first: tuple[int, int], tmp_path: Path) -> None:
    """All ways in which three layers hold a/b/c, each directory of it opaque or not: archive, list of changes and overlayfs agree."""
    merged = tmp_path / "merged"
    merged.mkdir()
    for number, others in enumerate(itertools.product(LAYERS, repeat=2)):
        base = tmp_path / str(number)
        for name in ("", "upper", "work"):
            (base / name).mkdir()
        lower = [layer(base / str(index), *shape) for index, shape in enumerate((first, *others))]
        writer, comparison = layertar._Writer(lower, set(), steady=True), changes._Comparison(lower, set(), set())
        mounts.overlay(
            merged, lower=[str(path) for path in reversed(lower)], upper=str(base / "upper"), work=str(base / "work")
        )
        try:
            for depth in range(1, 4):
                path = "/".join(NAMES[:depth])
                shown = (merged / path).exists()
                archived, listed = writer._below(path.encode()), comparison._below(path.encode())
                assert (archived is not None, listed is not None) == (shown, shown), (first, others, path)
                assert (archived[0] if archived else None) == listed
        finally:
            mounts.umount(merged)
