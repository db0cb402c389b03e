"""CRIU's images of shared memory that it was not shown, completed: by the classes of both versions of CRIU."""

from __future__ import annotations

import struct
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from agent.criu import images
from agent.criu.images import PAGE
from agent.errors import TransferError
from agent.transfer import shared_images
from tests.unit.agent.criu.test_images import NEW, OLD

pytestmark = pytest.mark.unit

RUNS = [[5 * PAGE, 2], [PAGE, 1]]


def written(directory: Path, pycriu: Any, entries: list[Any]) -> Path:
    """What CRIU has written of memory 77, and the source's list of it; the directory of the memory that came."""
    records = [pycriu.pagemap_pb2.pagemap_head(pages_id=3), *entries]
    body = b"".join(struct.pack("<I", record.ByteSize()) + record.SerializeToString() for record in records)
    (directory / "pagemap-shmem-77.img").write_bytes(struct.pack("<II", 0x54564319, 0x56084025) + body)
    shared_images.listing(directory, 77, 900).write_bytes(np.array(RUNS, np.uint64).tobytes())
    memory = directory / "memory"
    memory.mkdir()
    (memory / "900.mem").write_bytes(b"a" * PAGE + b"b" * PAGE)  # the last page is zeros: nothing of it came
    return memory


@pytest.mark.parametrize("pycriu", [NEW, OLD], ids=["4.2", "4.1"])
def test_the_file_that_came_is_what_criu_reads(tmp_path: Path, pycriu: Any) -> None:
    memory = written(tmp_path, pycriu, [])
    assert shared_images.complete(pycriu, tmp_path, memory) == 3 * PAGE
    assert (tmp_path / "pages-3.img").read_bytes() == b"a" * PAGE + b"b" * PAGE + bytes(PAGE)
    assert (tmp_path / "pages-3.img").stat().st_mode & 0o777 == 0o644  # a task without privileges here opens it
    _, *records = images._records(tmp_path / "pagemap-shmem-77.img")
    entries = [images._run(pycriu.pagemap_pb2.pagemap_entry.FromString(record)) for record in records]
    assert [[run.start, run.pages, run.flags] for run in entries] == [[*run, images.PRESENT] for run in RUNS]


def test_what_criu_has_seen_all_the_same_holds(tmp_path: Path) -> None:
    memory = written(tmp_path, OLD, [OLD.pagemap_pb2.pagemap_entry(vaddr=0, nr_pages=9, flags=images.PRESENT)])
    before = (tmp_path / "pagemap-shmem-77.img").read_bytes()
    assert shared_images.complete(OLD, tmp_path, memory) == 0
    assert (tmp_path / "pagemap-shmem-77.img").read_bytes() == before
    assert not (tmp_path / "pages-3.img").exists()


def test_memory_that_nobody_would_restore_ends_the_move(tmp_path: Path) -> None:
    memory = written(tmp_path, NEW, [])
    (tmp_path / "pagemap-shmem-77.img").unlink()
    with pytest.raises(TransferError, match="no page map for shared memory"):
        shared_images.complete(NEW, tmp_path, memory)
