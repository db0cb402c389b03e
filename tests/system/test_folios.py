"""Memory that arrives at a file's end in large pages of the kernel's: what was written is there, and no more memory is taken."""

from __future__ import annotations

import os
import random
from collections.abc import Iterator
from pathlib import Path

import pytest

from agent.linux import mounts
from agent.memory.ranges import PAGE
from agent.transfer import folios
from agent.transfer.folios import PIECE_BYTES, Folios

pytestmark = pytest.mark.system

HIGH = 0x7F00 << 32


@pytest.fixture
def stage(tmp_path: Path) -> Iterator[Path]:
    """A tmpfs as a move's."""
    place = tmp_path / "stage"
    place.mkdir()
    mounts.mount("hp-stage", place, "tmpfs", mounts.MS_NOSUID | mounts.MS_NODEV, "size=64m,huge=advise")
    yield place
    mounts.umount(place, mounts.MNT_DETACH)


@pytest.mark.parametrize("seed", range(8))
def test_what_is_written_is_there_and_takes_no_more_than_its_pages(stage: Path, seed: int) -> None:
    """Runs of any length, most at the end of the file and some below it, over what is there or beside it."""
    choose = random.Random(seed)
    files = [os.open(stage / name, os.O_RDWR | os.O_CREAT) for name in ("one", "two")]
    written: list[dict[int, bytes]] = [{}, {}]
    ends, large = [HIGH, HIGH], Folios(stage)
    for _ in range(60):
        which = choose.randrange(2)
        count = choose.choice((1, 2, 16, 63, 64, 65, 130, 256))
        if choose.random() < 0.7:
            start = ends[which] + choose.choice((0, 0, 1, 5, 64, 600)) * PAGE
        else:
            start = HIGH + choose.randrange(ends[which] - HIGH + PAGE) // PAGE * PAGE
        data = choose.randbytes(count * PAGE)
        large.write(files[which], start, memoryview(data))
        for number in range(count):
            written[which][start + number * PAGE] = data[number * PAGE : (number + 1) * PAGE]
        ends[which] = max(ends[which], start + len(data))
    large.close()
    for fd, pages in zip(files, written, strict=True):
        assert all(os.pread(fd, PAGE, address) == data for address, data in pages.items())
        assert os.fstat(fd).st_blocks * 512 == len(pages) * PAGE
        os.close(fd)
    assert "huge=advise" in mounts.options(stage)


def test_what_a_killed_one_has_left_is_put_right(stage: Path) -> None:
    """Its mount option would cost the next one 2 MiB for a page."""
    mounts.mount(None, stage, None, mounts.MS_REMOUNT | mounts.MS_NOSUID | mounts.MS_NODEV, "huge=within_size")
    fd = os.open(stage / "file", os.O_RDWR | os.O_CREAT)
    os.ftruncate(fd, HIGH)
    large = Folios(stage)
    large.write(fd, HIGH - 4 * PIECE_BYTES, memoryview(bytes(PAGE)))
    assert os.fstat(fd).st_blocks * 512 == PAGE
    os.close(fd)


def test_no_stage_is_no_error(tmp_path: Path) -> None:
    """A directory that is no mount of its own, or one that cannot do this: memory goes there as ever."""
    assert folios.opened(tmp_path) is None
