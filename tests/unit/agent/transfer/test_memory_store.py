"""Memory that has arrived: what the filler is told, and that memory which CRIU would lose is noticed before anything is restored."""

from __future__ import annotations

import struct
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from agent.criu import images
from agent.criu.images import PAGE, PageMap, Run
from agent.errors import TransferError
from agent.transfer.memory_store import MemoryStore, withheld_file

pytestmark = pytest.mark.unit


@pytest.fixture
def dump(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Images of one task: of pages 1 to 3 CRIU left two behind, it restores pages 0 to 100 lazily, and 10 to 20 were withheld."""
    runs = (Run(PAGE, 2, images.LAZY), Run(3 * PAGE, 1, images.PRESENT))
    monkeypatch.setattr(images, "page_maps", lambda _pycriu, _directory: iter([PageMap(7, 1, runs)]))
    monkeypatch.setattr(images, "lazy_areas", lambda _directory, _task: [(0, 50 * PAGE), (50 * PAGE, 100 * PAGE)])
    np.array([[10 * PAGE, 20 * PAGE]], np.uint64).tofile(withheld_file(tmp_path, 7))
    return tmp_path


def test_filler_is_told_what_is_left_behind_and_what_was_withheld(dump: Path) -> None:
    """Sorted pairs of addresses, and the bytes in all."""
    store = MemoryStore(dump / "memory")
    assert store.seal_lazy(None, dump) == 12 * PAGE
    found = list(struct.iter_unpack("=QQ", (dump / "memory" / "7.ranges").read_bytes()))
    assert found == [(PAGE, 3 * PAGE), (10 * PAGE, 20 * PAGE)]
    store.close()


@pytest.mark.parametrize("areas", [[], [(0, 15 * PAGE)], [(15 * PAGE, 100 * PAGE)]])
def test_withheld_memory_that_is_not_restored_lazily(
    dump: Path, monkeypatch: pytest.MonkeyPatch, areas: list[tuple[int, int]]
) -> None:
    """Nobody would restore it: the move ends here."""
    monkeypatch.setattr(images, "lazy_areas", lambda _directory, _task: areas)
    store = MemoryStore(dump / "memory")
    with pytest.raises(TransferError, match="does not restore them lazily"):
        store.seal_lazy(None, dump)
    store.close()


def test_images_for_a_restore_without_filler(dump: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Of a withheld area only what has come is written; pages lie in the order of their addresses."""
    (dump / "pages-1.img").write_bytes(b"c" * PAGE)
    completed: list[PageMap] = []

    def complete(_pycriu: Any, _directory: Path, page_map: PageMap) -> None:
        completed.append(page_map)

    monkeypatch.setattr(images, "complete", complete)
    store = MemoryStore(dump / "memory")
    for page, letter in ((1, b"a"), (2, b"b"), (12, b"d"), (13, b"e")):
        store.write(7, [(page * PAGE, page * PAGE + PAGE)], memoryview(letter * PAGE))
    store.assemble(None, dump)
    store.close()
    runs = [(run.start // PAGE, run.pages) for run in completed[0].runs]
    assert runs == [(1, 2), (3, 1), (12, 2)]
    assert (dump / "pages-1.img").read_bytes() == b"".join(letter * PAGE for letter in (b"a", b"b", b"c", b"d", b"e"))
