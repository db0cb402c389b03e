"""Memory of a frozen task that CRIU is not shown: the large areas that a restore fills lazily. What CRIU sees it splices, lists and walks
through, a microsecond a page and more, although it writes none of it; what it does not see costs it nothing (docs/window.md).

An area is withheld when our own transfer process can carry all of it, and CRIU would restore it lazily: private, anonymous, not locked, not
executable (CRIU injects its parasite there), and not the page where a thread's stack ends, which CRIU wants to restore itself.
That the target's CRIU agrees is checked there, before anything is restored (agent/transfer/memory_store.py).
"""

from __future__ import annotations

import contextlib
import re
from collections.abc import Iterable
from pathlib import Path

import numpy as np

from agent.memory.areas import private_anonymous
from agent.memory.ranges import NOTHING, PAGE, Ranges, ranges, subtract

AREA_BYTES = 1 << 20  # what is smaller is left to CRIU: thousands of areas are the stacks and arenas of small programs
TASK_BYTES = 16 << 20  # of a task that has less, CRIU sees everything: it costs 5 ms at most
_RESIDENT = re.compile(r"^RssAnon:\s*(\d+) kB", re.MULTILINE)
_LOCKED = re.compile(r"^VmLck:\s*([1-9]\d*) kB", re.MULTILINE)


def look(pid: int, *, area_bytes: int = AREA_BYTES, task_bytes: int = TASK_BYTES) -> Ranges:
    """The areas of a task that stands still which CRIU need not see. Nothing where it is not worth it, or where memory is locked.

    `area_bytes`, `task_bytes`: what is worth it. Raises OSError when the task is gone.
    """
    status = Path(f"/proc/{pid}/status").read_text()
    resident = _RESIDENT.search(status)
    if _LOCKED.search(status) or not resident or int(resident[1]) << 10 < task_bytes:
        return NOTHING  # which areas are locked would have to be read from smaps: as slow as what is saved
    large = ranges((s, e) for s, e in private_anonymous(pid, executable=False) if e - s >= area_bytes)
    return subtract(large, ranges((page, page + PAGE) for page in _stack_pages(pid)))


def listing(areas: dict[int, Ranges], shared: Iterable[tuple[int, int, int]] = ()) -> bytes:
    """What agent/criu/withheld.c reads, from {pid: areas}: u64 triples pid, start, end. `shared`: rows of shared memory, which go first."""
    rows = [np.array([*shared], np.uint64).reshape(-1, 3)]
    rows += [np.column_stack((np.full(len(of_pid), pid, np.uint64), of_pid)) for pid, of_pid in sorted(areas.items())]
    return b"".join(np.ascontiguousarray(each, np.uint64).tobytes() for each in rows)


def _stack_pages(pid: int) -> list[int]:
    """The page that each thread's stack pointer is in."""
    found = []
    for thread in Path(f"/proc/{pid}/task").iterdir():
        with contextlib.suppress(OSError, ValueError):
            *_, pointer, _counter = (thread / "syscall").read_text().split()
            found.append(int(pointer, 16) // PAGE * PAGE)
    return found
