"""`python -m bench.cycles --cycles 2000 --at-once 200`: many short lives on one host, and what they leave behind.

A lab of its own with one host and one container that stays. Lives of four kinds go on side by side: run to the end and
remove, `--rm`, create and remove, killed while it runs. After some to warm up everything is counted (bench/soak_count.py);
after the others again. Then many containers run at once. Exit status 1 for any failure and any leak; the lab goes in any case.
"""

from __future__ import annotations

import argparse
import itertools
import os
import statistics
import sys
import time
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor

from bench import in_lab, soak_count
from bench.soak import compare
from bench.soak_count import Kind
from migrate.client import Client
from migrate.errors import MigrateError
from migrate.lab import images, observe
from migrate.lab.layout import Lab
from migrate.records import Run

ANCHOR = "stays"
IMAGE = "redis"  # has a busybox
SETTLE_S = 2.0  # namespaces and links go a little after the call that ended them
_numbers = itertools.count(1)


def _wanted(*argv: str, remove: bool = False) -> Run:
    return Run(image=IMAGE, name=f"c{next(_numbers)}", host="host1", argv=("busybox", *argv), remove_on_exit=remove)


def run_and_remove(fleet: Client) -> None:
    container = fleet.run(_wanted("true"))
    ended = fleet.wait(container.id)
    if ended.exit_code != 0:
        raise MigrateError(f"{container.name} ended with {ended.exit_code}: {ended.error}")
    fleet.remove(container.id)


def run_with_rm(fleet: Client) -> None:
    container = fleet.run(_wanted("sleep", "0.05", remove=True))
    try:
        fleet.wait(container.id)
    except MigrateError as exc:
        if (
            exc.code.rpartition(".")[2] != "not_found"
        ):  # it was faster; the agent says so, or the coordinator, who has heard of it
            raise


def create_and_remove(fleet: Client) -> None:
    fleet.remove(fleet.create(_wanted("true")).id)


def kill_and_remove(fleet: Client) -> None:
    fleet.remove(fleet.run(_wanted("sleep", "60")).id, force=True)


LIVES: Sequence[Callable[[Client], None]] = (run_and_remove, run_with_rm, create_and_remove, kill_and_remove)


def live(fleet: Client, count: int, workers: int) -> list[str]:
    """`count` lives, `workers` at a time. Returns what failed, a line each; prints how long each kind took."""
    times: dict[str, list[float]] = {kind.__name__: [] for kind in LIVES}
    wrong: list[str] = []

    def one(number: int) -> None:
        kind = LIVES[number % len(LIVES)]
        begun = time.monotonic()
        try:
            kind(fleet)
        except MigrateError as exc:
            wrong.append(f"{kind.__name__}: {exc}")
        times[kind.__name__].append(time.monotonic() - begun)

    with ThreadPoolExecutor(max_workers=workers) as pool:
        for done, _ in enumerate(pool.map(one, range(count)), start=1):
            if done % 200 == 0:
                print(f"  {done} lives", flush=True)
    for name, seconds in times.items():
        if seconds:
            print(
                f"  {name:<18} median {statistics.median(seconds) * 1000:6.0f} ms  worst {max(seconds) * 1000:6.0f} ms"
            )
    return wrong


def at_once(fleet: Client, count: int, workers: int) -> list[str]:
    """`count` containers that run at the same time, then none of them. Returns what is wrong, a line each."""
    begun = time.monotonic()
    with ThreadPoolExecutor(max_workers=workers) as pool:
        made = list(pool.map(lambda _: fleet.run(_wanted("sleep", "1000")), range(count)))
        started_s = time.monotonic() - begun
        begun = time.monotonic()
        running = [one for one in fleet.containers() if one.state == "running"]
        listed_s = time.monotonic() - begun
        addresses = {one.address for one in made}
        begun = time.monotonic()
        list(pool.map(lambda one: fleet.remove(one.id, force=True), made))
    print(
        f"{count} at once: started in {started_s:.1f} s, listed in {listed_s * 1000:.0f} ms, "
        f"removed in {time.monotonic() - begun:.1f} s"
    )
    wrong = []
    if len(running) != count + 1:
        wrong.append(f"{len(running)} containers run instead of {count + 1}")
    if len(addresses) != count:
        wrong.append(f"{count} containers have {len(addresses)} addresses")
    return wrong


def _settled(lab: Lab, fleet: Client) -> dict[Kind, int]:
    time.sleep(SETTLE_S)
    return soak_count.count(lab, fleet.inspect(ANCHOR).pid)


def cycles(lab: Lab, count: int, warm_up: int, many: int, workers: int) -> list[str]:
    """Everything, printed as it goes. Returns what is wrong, a line each. Raises MigrateError."""
    with Client(lab.socket) as fleet:
        with images.redis_rootfs().open("rb") as tar:
            fleet.import_image(tar, IMAGE, host="host1")
        fleet.run(Run(image=IMAGE, name=ANCHOR, host="host1", argv=("busybox", "sleep", "100000")))
        print(f"{warm_up} lives to warm up")
        wrong = live(fleet, warm_up, workers)
        if many:
            wrong += at_once(fleet, min(many, 20), workers)
        before, seen_before = _settled(lab, fleet), observe.snapshot(lab.prefix)
        print(f"{count} lives")
        begun = time.monotonic()
        wrong += live(fleet, count, workers)
        print(f"{count} lives in {time.monotonic() - begun:.0f} s, {workers} at a time")
        if many:
            wrong += at_once(fleet, many, workers)
        wrong += compare(before, _settled(lab, fleet))
        wrong += [f"left over: {line}" for line in observe.differences(seen_before, observe.snapshot(lab.prefix))]
    return wrong


def main(argv: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(prog="python -m bench.cycles", description=(__doc__ or "").partition("\n\n")[0])
    parser.add_argument("--cycles", type=int, default=2000, help="lives after the warm-up (2000)")
    parser.add_argument("--warm-up", type=int, default=100, help="lives before anything is counted (100)")
    parser.add_argument("--at-once", type=int, default=200, help="containers that run at the same time, 0 = none (200)")
    parser.add_argument("--workers", type=int, default=4, help="calls at a time (4)")
    parser.add_argument("--lab", default=f"mcyc{os.getpid()}", help="the lab's name")
    args = parser.parse_args(argv)
    begun = time.monotonic()
    wrong = in_lab.judged(
        args.lab, hosts=1, run=lambda lab: cycles(lab, args.cycles, args.warm_up, args.at_once, args.workers)
    )
    print(f"{'NOT all is well' if wrong else 'no failure and no leak'}; {time.monotonic() - begun:.0f} s in all")
    return 1 if wrong else 0


if __name__ == "__main__":
    sys.exit(main())
