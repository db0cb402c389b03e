"""What `bench.downtime` moves: Redis of several sizes, idle and written to, and containers of other shapes. Pure."""

from __future__ import annotations

import fnmatch
from collections.abc import Sequence
from dataclasses import dataclass

SIZES_MB = (10, 200, 1000, 4000)
DIRTY_MB_S = (1, 20, 100, 300)
BIG_MB = 1500  # from here on two such containers do not stand in the lab at once


@dataclass(frozen=True, kw_only=True)
class Case:
    """A Redis with `size_mb` of data, half of it rewritten at `dirty_mb_s`; or, with `shape`, bench/shapes.py with these words."""

    name: str
    size_mb: int = 0
    dirty_mb_s: float = 0.0
    shape: tuple[str, ...] = ()

    @property
    def title(self) -> str:
        if self.shape:
            return self.name
        load = f"{self.dirty_mb_s:g} MB/s written" if self.dirty_mb_s else "idle"
        return f"Redis {self.size_mb} MB, {load}"


def redis(size_mb: int, dirty_mb_s: float = 0.0) -> Case:
    load = f"-dirty-{dirty_mb_s:g}" if dirty_mb_s else ""
    return Case(name=f"redis-{size_mb}{load}", size_mb=size_mb, dirty_mb_s=dirty_mb_s)


SHAPES = (
    Case(name="tree-50", shape=("tree", "50")),
    Case(name="threads-1000", shape=("threads", "1000")),
    Case(name="fds-5000", shape=("fds", "5000")),
    Case(name="files-100000", shape=("files", "100000")),
    Case(name="sparse-10g", shape=("sparse", "10")),
)
FULL = (*(redis(size, rate) for size in SIZES_MB for rate in (0, *DIRTY_MB_S)), *SHAPES)
QUICK = (redis(10), redis(200), redis(200, 20), SHAPES[0])
_GROUPS = {"quick": QUICK, "full": FULL}


def choose(words: Sequence[str]) -> list[Case]:
    """Names, patterns ("redis-200*"), "quick", "full"; each case once. Raises ValueError for a word that means none.

    "redis-SIZE" and "redis-SIZE-dirty-RATE" may be any numbers.
    """
    found: dict[str, Case] = {}
    for word in words:
        cases = _GROUPS.get(word) or [case for case in FULL if fnmatch.fnmatchcase(case.name, word)] or _numbers(word)
        if not cases:
            raise ValueError(f"no case {word!r}; there are quick, full, {', '.join(case.name for case in FULL)}")
        found.update((case.name, case) for case in cases)
    return list(found.values())


def _numbers(word: str) -> list[Case]:
    parts = word.split("-")
    if parts[0] != "redis" or len(parts) not in (2, 4) or parts[2:3] not in ([], ["dirty"]):
        return []
    try:
        case = redis(int(parts[1]), float(parts[3]) if len(parts) == 4 else 0.0)
    except ValueError:
        return []
    return [case] if case.size_mb > 0 and case.dirty_mb_s >= 0 else []
