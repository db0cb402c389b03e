"""`python -m bench.soak --moves 20`: many moves back and forth under one client, and what they leave behind.

A lab of its own with two hosts, a Redis in a container, outside of them one client with one TCP connection that asks
as fast as it is answered. After some moves to warm up everything is counted (bench/soak_count.py); after the others
again. Exit status 1 for any wrong reply and any leak; the lab goes in any case.
"""

from __future__ import annotations

import argparse
import os
import secrets
import sys
import time
from dataclasses import dataclass

from bench import in_lab, soak_count
from bench.soak_count import Kind
from migrate.client import Client
from migrate.lab import images, observe
from migrate.lab.demo_run import CheckFailed, Outside, RunningClient, Seen
from migrate.lab.layout import Lab
from migrate.records import Migration, Run

CONTAINER = "web1"
PORT = 6379
SETTLE_S = 0.7  # how long the client goes on after a move, before it is asked for its longest gap
FILL_LIMIT_S = 60.0
SKELETON_BYTES = 16 << 20  # CRIU's own images of such a container are about 1 MB; more means that it copied its memory
REDIS = ("redis-server", "--bind", "0.0.0.0", "--protected-mode", "no", "--save", "", "--dir", "/tmp")


@dataclass(frozen=True, kw_only=True)
class Moved:
    """One move as the coordinator and the client saw it."""

    record: Migration
    seen: Seen

    def line(self, number: int) -> str:
        facts = self.record.facts
        return (
            f"{number:>5}  {self.record.source} to {self.record.target}  {facts.get('total_s', 0.0):6.2f} s"
            f"  {facts.get('frozen_s', 0.0) * 1000:6.0f} ms  {self.seen.longest_gap_s * 1000:6.0f} ms"
            f"  {self.seen.replies:>8}  {len(self.seen.problems):>5}  {self.images_bytes / 1e6:6.2f} MB"
        )

    @property
    def images_bytes(self) -> int:
        return self.record.sent_bytes.get("images", 0)


HEAD = "   no  route             in all   frozen  client gap   replies  wrong     images"


def soak(lab: Lab, moves: int, warm_up: int, size_mb: int) -> list[str]:
    """Everything, printed as it goes. Returns what is wrong, a line each. Raises CheckFailed and MigrateError."""
    wrong: list[str] = []
    with Client(lab.socket) as fleet:
        with images.redis_rootfs().open("rb") as tar:
            fleet.import_image(tar, "redis", host="host1")
        container = fleet.run(Run(image="redis", name=CONTAINER, host="host1", argv=REDIS))
        outside = Outside(lab, container.address.partition("/")[0], PORT)
        outside.wait_for_server()
        seed = secrets.token_hex(8)
        if size_mb:
            outside.data("fill", size_mb, seed)
        with outside.client() as client:
            print(f"{warm_up} moves to warm up\n{HEAD}")
            for number in range(1, warm_up + 1):
                _step(fleet, client, number, wrong)
            before, seen_before = _settled(lab, fleet), observe.snapshot(lab.prefix)
            print(f"{moves} moves\n{HEAD}")
            gaps = [_step(fleet, client, number, wrong).seen.longest_gap_s for number in range(1, moves + 1)]
            after, seen_after = _settled(lab, fleet), observe.snapshot(lab.prefix)
            last = client.report()
        if size_mb:
            found = outside.data("verify", size_mb, seed)
            print(f"{found['keys']} values read back: {found['missing']} missing, {found['wrong']} wrong")
            if found["missing"] or found["wrong"]:
                wrong.append(f"data: {found}")
    ordered = sorted(gaps)
    print(
        f"client gap: {ordered[0] * 1000:.0f} ms at best, {ordered[len(ordered) // 2] * 1000:.0f} ms in the middle,"
        f" {ordered[-1] * 1000:.0f} ms at worst; {last.value} replies on one connection, from port {last.port}"
    )
    wrong += compare(before, after)
    wrong += [f"left over: {line}" for line in observe.differences(seen_before, seen_after)]
    return wrong


def _step(fleet: Client, client: RunningClient, number: int, wrong: list[str]) -> Moved:
    source = fleet.inspect(CONTAINER).host
    client.report()
    record = fleet.move(CONTAINER, to="host2" if source == "host1" else "host1").result()
    time.sleep(SETTLE_S)
    moved = Moved(record=fleet.migration(record.id), seen=client.report())
    print(moved.line(number), flush=True)
    wrong += [f"move {number}: {problem}" for problem in moved.seen.problems]
    if moved.seen.replies == 0:
        wrong.append(f"move {number}: the client got no reply")
    if moved.images_bytes > SKELETON_BYTES:
        wrong.append(f"move {number}: CRIU's images have {moved.images_bytes} bytes: it copied memory (id {record.id})")
    return moved


def _settled(lab: Lab, fleet: Client) -> dict[Kind, int]:
    """Count when nothing of a move is under way any more. Raises CheckFailed when that does not come."""
    deadline = time.monotonic() + FILL_LIMIT_S
    while waiting := soak_count.waiting_moves(lab):
        if time.monotonic() > deadline:
            raise CheckFailed(f"a move's directory does not go in {FILL_LIMIT_S:.0f} s: {', '.join(waiting)}")
        time.sleep(0.1)
    time.sleep(1)  # the last processes end, ssh connections close
    return soak_count.count(lab, fleet.inspect(CONTAINER).pid)


def compare(before: dict[Kind, int], after: dict[Kind, int]) -> list[str]:
    """Print the table; returns the leaks, a line each."""
    leaks: list[str] = []
    names = {kind.name: kind for kind in (*before, *after)}
    print(f"\n{'what':<46} {'before':>9} {'after':>9} {'more':>7}  verdict")
    for name, kind in names.items():
        old, new = before.get(kind, 0), after.get(kind, 0)
        verdict = "ok"
        if kind.allowed is None:
            verdict = f"grows: {kind.why}"
        elif new - old > kind.allowed:
            verdict = "LEAK"
            leaks.append(f"leak: {name}: {old} before, {new} after")
        elif kind.allowed and new != old:
            verdict = f"ok, up to {kind.allowed}: {kind.why}"
        print(f"{name:<46} {old:>9} {new:>9} {new - old:>+7}  {verdict}")
    return leaks


def main(argv: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(prog="python -m bench.soak", description=(__doc__ or "").partition("\n\n")[0])
    parser.add_argument("--moves", type=_even, default=20, help="after the warm-up; even (20)")
    parser.add_argument("--warm-up", type=_even, default=4, help="moves before anything is counted; even (4)")
    parser.add_argument("--size-mb", type=int, default=20, help="data in the Redis (20)")
    parser.add_argument("--lab", default=f"msoak{os.getpid()}", help="the lab's name")
    args = parser.parse_args(argv)
    begun = time.monotonic()
    wrong = in_lab.judged(args.lab, hosts=2, run=lambda lab: soak(lab, args.moves, args.warm_up, args.size_mb))
    verdict = "NOT all is well" if wrong else f"no wrong reply and no leak in {args.moves} moves"
    print(f"{verdict}; {time.monotonic() - begun:.0f} s in all")
    return 1 if wrong else 0


def _even(text: str) -> int:
    """So that the container is on the same host at both counts."""
    value = int(text)
    if value < 0 or value % 2:
        raise argparse.ArgumentTypeError(f"{value} is not an even number")
    return value


if __name__ == "__main__":
    sys.exit(main())
