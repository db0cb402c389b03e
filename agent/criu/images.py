"""CRIU's image files, as far as a move reads or writes them: page maps. pycriu is imported here, in `options.py` and in `timers.py` only.

pagemap-N.img (N: the task's pid inside the container) lists runs of pages: PRESENT ones lie in pages-ID.img one after the other, LAZY ones
without PRESENT were left in the task by a skeleton dump.
"""

from __future__ import annotations

import importlib
import re
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

PAGE = 4096
LAZY, PRESENT = 2, 4
_COMMON_MAGIC = (0x54564319).to_bytes(4, "little")  # criu/include/magic.h: followed by the image's own
# mmap(2)'s flags of an area that CRIU restores lazily (criu/include/vma.h): private and anonymous, not locked, no huge pages
_LAZY_FLAGS, _LAZY_MASK = 0x22, 0x22 | 0x2000 | 0x40000
_PAGEMAP = re.compile(r"pagemap-(\d+)\.img")


@dataclass(frozen=True)
class Run:
    """`pages` pages from `start` on."""

    start: int
    pages: int
    flags: int

    @property
    def end(self) -> int:
        return self.start + self.pages * PAGE

    @property
    def left_behind(self) -> bool:
        """The pages are in no image: a skeleton dump left them in the task."""
        return bool(self.flags & LAZY) and not self.flags & PRESENT


@dataclass(frozen=True)
class PageMap:
    """One task's page map. `task`: its pid inside the container; `pages_id` names pages-ID.img."""

    task: int
    pages_id: int
    runs: tuple[Run, ...]

    def left_behind(self) -> list[Run]:
        return [run for run in self.runs if run.left_behind]


def load(pycriu_path: Path) -> Any:
    """pycriu.images. Its folder goes first: a distribution's older pycriu would shadow it."""
    if str(pycriu_path) not in sys.path:
        sys.path.insert(0, str(pycriu_path))
    return importlib.import_module("pycriu.images")


def page_maps(pycriu: Any, images_dir: Path) -> Iterator[PageMap]:
    """Every task's page map in `images_dir`, in the order of their pids."""
    found = ((int(m[1]), path) for path in images_dir.iterdir() if (m := _PAGEMAP.fullmatch(path.name)))
    for task, path in sorted(found):
        head, *entries = _records(path)
        pages_id = pycriu.pagemap_pb2.pagemap_head.FromString(head).pages_id
        entry = pycriu.pagemap_pb2.pagemap_entry.FromString
        yield PageMap(task, pages_id, tuple(_run(entry(record)) for record in entries))


def shared_pages(pycriu: Any, images_dir: Path, shmid: int) -> tuple[int, bool]:
    """Of shared memory: (pages_id, whether CRIU has listed any page). Raises FileNotFoundError."""
    head, *entries = _records(images_dir / f"pagemap-shmem-{shmid}.img")
    return pycriu.pagemap_pb2.pagemap_head.FromString(head).pages_id, bool(entries)


def list_shared_pages(pycriu: Any, images_dir: Path, shmid: int, runs: list[list[int]]) -> None:
    """List pages of shared memory as they lie in pages-ID.img, one run after the other. `runs`: [offset in bytes, pages]."""
    records = bytearray()
    for offset, pages in runs:
        entry = pycriu.pagemap_pb2.pagemap_entry(vaddr=offset, nr_pages=pages, flags=PRESENT)
        if "compat_nr_pages" in entry.DESCRIPTOR.fields_by_name:  # CRIU 4.2, as in _run()
            entry.compat_nr_pages = pages
        record = entry.SerializeToString()
        records += len(record).to_bytes(4, "little") + record
    with (images_dir / f"pagemap-shmem-{shmid}.img").open("ab") as file:
        file.write(records)


def drop_foreign_ping_range(images_dir: Path) -> None:
    """Take net.ipv4.ping_group_range out of the image of a network namespace where it is not the container's own: groups that it has no
    ids for, which CRIU saves as "-1 -1" and cannot write. It then stays what the monitor sets. pycriu must have been loaded.
    """
    message = importlib.import_module("pycriu.images.netdev_pb2").netns_entry
    for path in images_dir.glob("netns-*.img"):
        (record,) = _records(path)
        entry = message.FromString(record)
        if not any("-1" in one.sarg.split() for one in entry.ipv4_sysctl):
            continue
        entry.ClearField("ipv4_sysctl")  # CRIU has no other in it
        head = path.read_bytes()[: -len(record) - 4]
        record = entry.SerializeToString()
        path.write_bytes(head + len(record).to_bytes(4, "little") + record)


def lazy_areas(images_dir: Path, task: int) -> list[tuple[int, int]]:
    """(start, end) of the areas of a task that CRIU restores lazily. pycriu must have been loaded."""
    (record,) = _records(images_dir / f"mm-{task}.img")
    areas = importlib.import_module("pycriu.images.mm_pb2").mm_entry.FromString(record).vmas
    return [(area.start, area.end) for area in areas if area.flags & _LAZY_MASK == _LAZY_FLAGS]


def complete(pycriu: Any, images_dir: Path, page_map: PageMap) -> None:
    """Rewrite the page map of a task whose lazy pages now lie in pages-ID.img, in the order of `page_map.runs`: they become PRESENT."""
    path = images_dir / f"pagemap-{page_map.task}.img"
    with path.open("rb") as file:
        image = pycriu.load(file)
    head, *entries = image["entries"]
    listed = {int(entry["vaddr"]): entry for entry in entries}
    count = "compat_nr_pages" if any("compat_nr_pages" in entry for entry in entries) else "nr_pages"
    image["entries"] = [head]
    for run in page_map.runs:
        entry = listed.get(run.start) or {"vaddr": run.start, "flags": LAZY}
        entry[count] = run.pages
        if entry.get("flags", PRESENT) & LAZY:
            entry["flags"] |= PRESENT
        image["entries"].append(entry)
    with path.open("wb") as file:
        pycriu.dump(image, file)


def stats(pycriu: Any, path: Path) -> dict[str, float]:
    """CRIU's own counters of a dump or a restore; times in seconds, named *_s. Empty without the file."""
    try:
        with path.open("rb") as file:
            entry = pycriu.load(file)["entries"][0]
    except (OSError, LookupError):
        return {}
    counters: dict[str, Any] = entry.get("dump") or entry.get("restore") or {}
    return {
        (f"{name}_s" if name.endswith("_time") else name): (value / 1e6 if name.endswith("_time") else float(value))
        for name, value in counters.items()
        if isinstance(value, int)
    }


def _records(path: Path) -> list[bytes]:
    """The protobuf messages of an image file. pycriu's own reader makes dictionaries of them: ten times slower, and this is read frozen."""
    data = path.read_bytes()
    at = 8 if data[:4] == _COMMON_MAGIC else 4
    records = []
    while at < len(data):
        size = int.from_bytes(data[at : at + 4], "little")
        records.append(data[at + 4 : at + 4 + size])
        at += 4 + size
    return records


def _run(entry: Any) -> Run:
    # CRIU 4.2 moved the count to a wider field and renamed the old one; 4.1 knows the old one only.
    pages = entry.nr_pages or getattr(entry, "compat_nr_pages", 0)
    return Run(entry.vaddr, pages, entry.flags if entry.HasField("flags") else PRESENT)
