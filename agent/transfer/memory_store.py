"""Memory that arrives at the target: one sparse file a task on the move's tmpfs, the page of address A at offset A.

So the order of arrival does not matter, a page that comes again replaces its older version, and nothing is copied when the final page
map is known. The filler (agent/criu/filler.py) reads it as it is; a restore without userfaultfd needs CRIU's own order: `assemble`.
"""

from __future__ import annotations

import dataclasses
import errno
import os
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import xxhash

from agent.criu import images
from agent.errors import TransferError
from agent.linux import mounts
from agent.memory.ranges import NOTHING, PAGE, Ranges, ranges, subtract, total_bytes, union
from agent.storage import rawfs
from agent.transfer import folios
from agent.transfer.frames import FRAME_BYTES, Frame, Kind
from agent.transfer.huge_pages import HugePages
from agent.transfer.kept import Kept
from agent.transfer.pages import page_addresses

_COPY_BYTES = 4 << 20
_TOP = 1 << 47  # user addresses end here on x86-64 without 5-level paging; a page above is no page of a task


class MemoryStore:
    """`directory` must be on a tmpfs: other file systems have no room for such offsets."""

    def __init__(self, directory: Path, kept: Kept | None = None) -> None:
        directory.mkdir(mode=0o700, exist_ok=True)
        self._directory = directory
        self._files: dict[int, int] = {}
        self._base: tuple[bytes, list[tuple[int, int]]] = b"", []  # of the DELTA that comes next
        self._kept = kept
        self._lacking: dict[int, list[tuple[int, int]]] = {}
        self._later: dict[int, Ranges] = {}  # what comes when the tasks run
        self._buffer = memoryview(bytearray(FRAME_BYTES))
        self._runs: list[tuple[int, int]] = []  # of the MEMORY that comes next
        stage = os.statvfs(directory)
        huge = mounts.options(directory) & {"huge=advise", "huge=always"}
        self._huge = HugePages(stage.f_blocks * stage.f_frsize) if huge else None
        self._folios = folios.opened(directory.parent) if "huge=advise" in huge else None

    def places(self, task: int, address: int, size: int) -> list[memoryview] | None:
        """Where the `size` bytes of the MEMORY frame that comes belong; None: they are to be given to take(). Raises TransferError."""
        if self._huge is None:
            return None
        runs = self._runs or [(address, address + size)]
        _check_named(runs)
        if sum(end - start for start, end in runs) != size:
            return None  # take() says what is wrong
        return self._huge.places(self._file(task), runs)

    def take(self, frame: Frame) -> bool:
        """Put a frame about memory where it belongs; False when it is about something else. Raises as write()."""
        if frame.kind == Kind.MEMORY:
            runs, self._runs = self._runs or [(frame.address, frame.address + len(frame.payload))], []
            if not frame.placed:
                self.write(frame.task, runs, frame.payload)
        elif frame.kind == Kind.RUNS:
            self._runs = frame.ranges()
        elif frame.kind == Kind.ZERO:
            self.zero(frame.task, frame.ranges())
        elif frame.kind in (Kind.KEPT, Kind.SAME):
            self._take_known(frame.kind, frame.task, bytes(frame.payload[:16]), frame.ranges(after=16))
        elif frame.kind == Kind.BASE:
            self._base = bytes(frame.payload[:16]), frame.ranges(after=16)
        elif frame.kind == Kind.DELTA:
            self._take_delta(frame.task, frame.payload)
        else:
            return False
        return True

    def lacking(self) -> dict[int, list[tuple[int, int]]]:
        """Ranges by task that were named as known and are not, since the last call."""
        found, self._lacking = self._lacking, {}
        return found

    def _take_known(self, kind: Kind, task: int, digest: bytes, runs: Sequence[tuple[int, int]]) -> None:
        _check_named(runs)
        data = self._read_kept(task, runs) if kind == Kind.KEPT else self._read(task, runs)
        if data is None or xxhash.xxh3_128_digest(data) != digest:
            self._lacking.setdefault(task, []).extend(runs)
        elif kind == Kind.KEPT:
            self.write(task, runs, data)

    def _take_delta(self, task: int, changes: memoryview) -> None:
        (digest, runs), self._base = self._base, (b"", [])
        _check_named(runs)
        base = self._read(task, runs)
        if len(base) != len(changes):
            raise TransferError(f"{len(changes)} bytes of changes came for {len(base)} bytes of pages")
        words = np.frombuffer(base, np.uint64)  # of our buffer: changed in place
        np.bitwise_xor(words, np.frombuffer(changes, np.uint64), out=words)
        if xxhash.xxh3_128_digest(base) != digest:
            self._lacking.setdefault(task, []).extend(runs)
        else:
            self.write(task, runs, base)

    def _read_kept(self, task: int, runs: Sequence[tuple[int, int]]) -> memoryview | None:
        return self._kept.read(task, page_addresses(ranges(runs))) if self._kept else None

    def _read(self, task: int, runs: Sequence[tuple[int, int]]) -> memoryview:
        filled = 0
        for start, end in runs:
            into = self._buffer[filled : filled + end - start]
            got = os.preadv(self._file(task), [into], start)
            into[got:] = bytes(len(into) - got)  # past the end of the file
            filled += end - start
        return self._buffer[:filled]

    def write(self, task: int, runs: Sequence[tuple[int, int]], data: memoryview) -> None:
        """Store whole pages, those of each (start, end) after those of the one before.

        Raises TransferError for what cannot be memory of a task, OSError when the tmpfs is full.
        """
        if sum(end - start for start, end in runs) != len(data):
            raise TransferError(f"{len(data)} bytes came for {len(runs)} ranges of another size")
        at = 0
        for start, end in runs:
            self._write(task, start, data[at : at + end - start])
            at += end - start
        if self._huge:
            self._huge.note(self._file(task), runs)

    def _write(self, task: int, address: int, data: memoryview) -> None:
        _check(address, len(data))
        fd = self._file(task)
        if self._folios:
            self._folios.write(fd, address, data)
            return
        done = 0
        while done < len(data):
            done += os.pwrite(fd, data[done:], address + done)

    def zero(self, task: int, runs: Sequence[tuple[int, int]]) -> None:
        for start, end in runs:
            _check(start, end - start)
            rawfs.punch_hole(self._file(task), start, end - start)
        if self._huge:
            self._huge.note(self._file(task), runs, gone=True)

    def keep_back(self, task: int, runs: Sequence[tuple[int, int]]) -> None:
        """Post-copy: pages of the task that come when it runs. An older version must not show where a zero page comes later."""
        self.zero(task, runs)
        self._later[task] = union(self._later.get(task, NOTHING), ranges(runs))

    def seal_lazy(self, pycriu: Any, images_dir: Path) -> int:
        """Write down, for the filler, which ranges each task lacks. Returns bytes."""
        total = 0
        for page_map, left in self._left_behind(pycriu, images_dir):
            (self._directory / f"{page_map.task}.ranges").write_bytes(left.tobytes())
            self._file(page_map.task)
            total += total_bytes(left)
        return total

    def assemble(self, pycriu: Any, images_dir: Path) -> int:
        """Complete the images so that CRIU restores without a filler: every page in pages-ID.img in its order. Returns bytes."""
        total = 0
        for page_map, left in self._left_behind(pycriu, images_dir):
            if not len(left):
                continue
            kept = [run for run in page_map.runs if not run.left_behind]
            stored = _stored(self._file(page_map.task), left)
            lazy = [images.Run(start, (end - start) // PAGE, images.LAZY) for start, end in stored]
            whole = dataclasses.replace(page_map, runs=tuple(sorted([*kept, *lazy], key=lambda run: run.start)))
            total += self._assemble_task(images_dir, whole)
            images.complete(pycriu, images_dir, whole)
        return total

    def close(self) -> None:
        for fd in self._files.values():
            os.close(fd)
        self._files.clear()
        if self._folios:
            self._folios.close()
        if self._kept:
            self._kept.close()
            self._kept = None

    def _left_behind(self, pycriu: Any, images_dir: Path) -> Iterator[tuple[images.PageMap, Ranges]]:
        """As _left_behind(), without what reads as zeros in a task's file though it is no hole: but that, too, where pages come later."""
        for page_map, left in _left_behind(pycriu, images_dir):
            task = page_map.task
            here = subtract(left, self._huge.gaps(self._file(task))) if self._huge else left
            yield page_map, union(here, self._later[task]) if task in self._later else here

    def _assemble_task(self, images_dir: Path, page_map: images.PageMap) -> int:
        target = images_dir / f"pages-{page_map.pages_id}.img"
        present = target.with_suffix(".present")
        if target.exists():
            target.rename(present)
        else:
            present.touch()
        total = 0
        memory = self._file(page_map.task)
        with present.open("rb") as old, target.open("wb") as new:
            for run in page_map.runs:
                if run.left_behind:
                    total += run.end - run.start
                    _copy_memory(memory, run.start, run.end, new.fileno())
                elif run.flags & images.PRESENT:
                    new.write(old.read(run.end - run.start))
                    new.flush()
        present.unlink()
        return total

    def _file(self, task: int) -> int:
        if task not in self._files:
            self._files[task] = os.open(self._directory / f"{task}.mem", os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
        return self._files[task]


def withheld_file(images_dir: Path, task: int | str) -> Path:
    """Which areas of a task the source's CRIU was not shown (agent/memory/withheld.py): Ranges, as they are in memory."""
    return images_dir / f"withheld-{task}.bin"


def _left_behind(pycriu: Any, images_dir: Path) -> Iterator[tuple[images.PageMap, Ranges]]:
    """(page map, what is in no image: pages and whole areas) of each task.

    Raises TransferError where CRIU would not restore lazily what it was not shown: nobody would restore that.
    """
    files = {path.name for path in images_dir.glob(withheld_file(images_dir, "*").name)}
    for page_map in images.page_maps(pycriu, images_dir):
        left = ranges((run.start, run.end) for run in page_map.left_behind())
        path = withheld_file(images_dir, page_map.task)
        if path.name in files:
            files.remove(path.name)
            left = union(left, _withheld(path, images_dir, page_map))
        yield page_map, left
    if files:
        raise TransferError(f"CRIU has written no page map for tasks whose memory it was not shown: {sorted(files)}")


def _withheld(path: Path, images_dir: Path, page_map: images.PageMap) -> Ranges:
    """What CRIU was not shown of a task; what it has seen all the same (another page of the same area) is in its images."""
    withheld = ranges(np.fromfile(path, np.uint64).reshape(-1, 2))
    strange = subtract(withheld, ranges(images.lazy_areas(images_dir, page_map.task)))
    if len(strange):
        raise TransferError(
            f"{total_bytes(strange)} bytes of memory of task {page_map.task} are not in CRIU's images, "
            "and CRIU does not restore them lazily"
        )
    return subtract(withheld, ranges((run.start, run.end) for run in page_map.runs if not run.left_behind))


def _stored(memory: int, areas: Ranges) -> Iterator[tuple[int, int]]:
    """(start, end) of what of `areas` has come: the rest reads as zeros without being restored."""
    size = os.fstat(memory).st_size
    for start, end in areas.tolist():
        at = start
        while at < min(end, size):
            try:
                first = os.lseek(memory, at, os.SEEK_DATA)
            except OSError as exc:
                if exc.errno == errno.ENXIO:
                    break
                raise
            if first >= end:
                break
            at = min(os.lseek(memory, first, os.SEEK_HOLE), end)
            yield first, at


def _copy_memory(memory: int, start: int, end: int, out: int) -> None:
    while start < end:
        data = os.pread(memory, min(_COPY_BYTES, end - start), start)
        if not data:  # past the end of the file: zero pages that were never sent
            data = bytes(min(_COPY_BYTES, end - start))
        start += os.write(out, data)  # less than asked on a file system that is nearly full


def _check_named(runs: Sequence[tuple[int, int]]) -> None:
    for start, end in runs:
        _check(start, end - start)
    if sum(end - start for start, end in runs) > FRAME_BYTES:
        raise TransferError("a frame names more pages than a frame can hold")


def _check(address: int, size: int) -> None:
    if address % images.PAGE or size % images.PAGE or size <= 0 or address + size > _TOP:
        raise TransferError(f"{size} bytes at {address:#x} cannot be pages of a task")
