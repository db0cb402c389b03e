"""`python -m bench.trees`: what the last delta of a tree of files costs, in which the container stands still.

Three trees, each sent from one directory to another by the product's two ends in one process: many small files of which few change, a
big sparse file, a big file in which single blocks change. No CRIU, no network: processor time and bytes, which on this machine say more
than lone wall times. See docs/trees.md.
"""

from __future__ import annotations

import argparse
import json
import os
import random
import shutil
import sys
import tempfile
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from agent.storage.tree import TreeSource, TreeTarget

BLOCK_BYTES = 4096
QUIET_S = 0.2  # longer than the source distrusts times


@dataclass(frozen=True, kw_only=True)
class Cost:
    """Of one round, both sides in one process."""

    wall_s: float
    source_cpu_s: float
    target_cpu_s: float
    sent_bytes: int


def send(source: TreeSource, target: TreeTarget, *, last: bool) -> Cost:
    """One round."""
    sent, taken, began, cpu = 0, 0.0, time.monotonic(), time.process_time()
    for frame in source.delta(last=last):
        before = time.process_time()
        target.apply(frame)
        taken += time.process_time() - before
        sent += len(frame)
    return Cost(
        wall_s=time.monotonic() - began,
        source_cpu_s=time.process_time() - cpu - taken,
        target_cpu_s=taken,
        sent_bytes=sent,
    )


def many_files(root: Path, count: int) -> Callable[[], None]:
    """`count` files of 100 bytes in directories of 100; 1 % of them change."""
    for number in range(count):
        if number % 100 == 0:
            (root / str(number // 100)).mkdir()
        (root / str(number // 100) / str(number)).write_bytes(b"%099d\n" % number)

    def change() -> None:
        for number in random.sample(range(count), count // 100):
            (root / str(number // 100) / str(number)).write_bytes(b"%098d!\n" % number)

    return change


def sparse_file(root: Path, size: int) -> Callable[[], None]:
    """`size` bytes with an island of 4 KiB in each GB; one of them changes."""
    path = root / "sparse"

    def island(place: int) -> None:
        with path.open("r+b") as file:
            file.seek(place)
            file.write(os.urandom(BLOCK_BYTES))

    path.touch()
    os.truncate(path, size)
    for place in range(0, size, 1 << 30):
        island(place)
    return lambda: island(0)


def big_file(root: Path, size: int) -> Callable[[], None]:
    """`size` random bytes, of which 256 blocks of 4 KiB change, anywhere."""
    path = root / "big"
    with path.open("wb") as file:
        for _ in range(size >> 20):
            file.write(os.urandom(1 << 20))

    def change() -> None:
        with path.open("r+b") as file:
            for _ in range(256):
                file.seek(random.randrange(size // BLOCK_BYTES) * BLOCK_BYTES)
                file.write(os.urandom(BLOCK_BYTES))

    return change


def measure(
    directory: Path, make: Callable[[Path, int], Callable[[], None]], size: int, *, watch: bool
) -> dict[str, Cost]:
    """First round, one that follows a change, the last one after another change."""
    upper, copy = directory / "source" / "upper", directory / "target" / "upper"
    for path in (upper, copy):
        path.mkdir(parents=True)
    change = make(upper, size)
    time.sleep(QUIET_S)
    source, target = TreeSource(upper, watch=watch), TreeTarget(copy)
    try:
        costs = {"first": send(source, target, last=False)}
        change()
        time.sleep(QUIET_S)
        costs["round"] = send(source, target, last=False)
        change()
        costs["last"] = send(source, target, last=True)
        if source.digest() != target.finish():
            raise SystemExit("the trees differ")
    finally:
        source.close()
        target.close()
    return costs


def main() -> None:
    parser = argparse.ArgumentParser(prog="bench.trees", description=__doc__.splitlines()[0])
    parser.add_argument("--files", type=int, default=100_000)
    parser.add_argument("--sparse-gb", type=int, default=10)
    parser.add_argument("--big-mb", type=int, default=2000)
    parser.add_argument("--directory", type=Path, default=Path("/var/tmp"), help="where the trees are made")
    parser.add_argument(
        "--scan", action="store_true", help="look at everything in each round, as where fanotify is refused"
    )
    parser.add_argument("--format", choices=("table", "json"), default="table")
    arguments = parser.parse_args()
    trees: list[tuple[str, Callable[[Path, int], Callable[[], None]], int]] = [
        (f"{arguments.files} files, 1 % change", many_files, arguments.files),
        (f"{arguments.sparse_gb} GB sparse", sparse_file, arguments.sparse_gb << 30),
        (f"{arguments.big_mb} MB, 256 blocks of 4 KiB change", big_file, arguments.big_mb << 20),
    ]
    found: dict[str, dict[str, Cost]] = {}
    for title, make, size in trees:
        directory = Path(tempfile.mkdtemp(prefix="bench-trees-", dir=arguments.directory))
        try:
            found[title] = measure(directory, make, size, watch=not arguments.scan)
        finally:
            shutil.rmtree(directory)
    if arguments.format == "json":
        json.dump(
            {title: {name: vars(cost) for name, cost in costs.items()} for title, costs in found.items()}, sys.stdout
        )
        return
    for title, costs in found.items():
        for name, cost in costs.items():
            print(
                f"{title:45} {name:6} wall {cost.wall_s:7.3f} s  source {cost.source_cpu_s:7.3f} CPU-s  "
                f"target {cost.target_cpu_s:7.3f} CPU-s  {cost.sent_bytes / 1e6:10.3f} MB"
            )


if __name__ == "__main__":
    main()
