"""`python -m bench`: what a move costs, beside plain CRIU done by hand on the same kind of container in the same run.

A lab of two hosts, and in it two Redis of the same size from the same image: one in a container of the engine, one in
namespaces made by hand (`by_hand.py`). They take turns in moving to the other host and back, each under a client of its own
outside, which sends INCR on one connection. See docs/bench.md. Asserts nothing about times; fails where a move fails or a
client gets a wrong answer.
"""

from __future__ import annotations

import argparse
import contextlib
import dataclasses
import json
import os
import secrets
import shlex
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Sequence
from pathlib import Path

from bench import cpu, table
from bench.by_hand import ADDRESS, ByHand
from migrate.errors import MigrateError
from migrate.lab import down, images, layout, nodes, up
from migrate.lab.demo import CONTAINER, PORT, RUN, keep_logs
from migrate.lab.demo_run import CheckFailed, Outside, RunningClient, Shell
from migrate.lab.layout import UPLINK, Lab
from migrate.lab.lock import lock

PREFIX = layout.prefix_from({"MIGRATE_LAB": os.environ.get("BENCH_LAB") or "mbench"})
_BEFORE_S, _AFTER_S = 0.5, 1.5  # how long the client runs before a move begins and after it has ended
_ENGINE = ("host1", "host2", "controller")

Move = Callable[[str], tuple[float | None, float | None]]  # to a host; seconds frozen and in all


@dataclasses.dataclass(frozen=True, kw_only=True)
class Result:
    """All moves of one size."""

    size_mb: int
    load_before: float
    load_after: float
    samples: dict[str, list[table.Sample]]


class Bench:
    """One lab, and what is measured in it."""

    def __init__(self, lab: Lab, *, rate: float, repeat: int, peer: str) -> None:
        self._lab, self._rate, self._repeat, self._peer = lab, rate, repeat, peer
        self._shell, self._image = Shell(lab), images.redis_rootfs()
        for host in ("host1", "host2"):  # by hand, too, it is there before
            self._shell.migrate("image", "import", str(self._image), "redis", "--host", host)

    def size(self, size_mb: int) -> Result:
        """See `_size`. Where it fails, what our container wrote is shown first: it goes with the lab."""
        try:
            return self._size(size_mb)
        except CheckFailed:
            with contextlib.suppress(CheckFailed):
                self._shell.migrate("logs", CONTAINER)
            raise

    def _size(self, size_mb: int) -> Result:
        """Make both containers, fill them, move them in turns, remove them."""
        load, seed = os.getloadavg()[0], secrets.token_hex(8)
        samples: dict[str, list[table.Sample]] = {table.OURS: [], table.HAND: []}
        self._shell.migrate("run", "-d", "--name", CONTAINER, "--host", "host1", "redis", *RUN)
        address = self._shell.container(CONTAINER)["address"].partition("/")[0]
        with ByHand(self._lab, self._image, RUN) as by_hand:

            def engine_move(target: str) -> tuple[float | None, float | None]:
                self._shell.migrate("move", CONTAINER, "--to", target, "--quiet")
                facts = self._shell.last_migration(CONTAINER).facts
                return facts.get("frozen_s"), facts.get("total_s")

            def hand_move(target: str) -> tuple[float | None, float | None]:
                done = by_hand.move(target)
                return done.frozen_s, done.total_s

            ours, hand = Outside(self._lab, address, PORT), Outside(self._lab, ADDRESS, PORT)
            for outside in (ours, hand):
                outside.wait_for_server()
                outside.data("fill", size_mb, seed)
            with ours.client(self._rate) as our_client, hand.client(self._rate) as hand_client:
                our_client.pause()
                hand_client.pause()
                for number in range(self._repeat):
                    target = "host1" if number % 2 else "host2"
                    samples[table.OURS].append(self._sample(engine_move, target, our_client, _ENGINE))
                    samples[table.HAND].append(self._sample(hand_move, target, hand_client, (cpu.HAND,)))
                    if self._peer:
                        samples.setdefault(table.PEER, []).append(_ask_peer(self._peer, size_mb))
            for name, outside in ((table.OURS, ours), (table.HAND, hand)):
                found = outside.data("verify", size_mb, seed)
                if found["missing"] or found["wrong"]:
                    raise CheckFailed(f"{name}: the data after the moves is not what it was: {found}")
        self._shell.migrate("rm", "-f", CONTAINER)
        return Result(size_mb=size_mb, load_before=load, load_after=os.getloadavg()[0], samples=samples)

    def _sample(self, move: Move, target: str, client: RunningClient, groups: Sequence[str]) -> table.Sample:
        """One move under a client that asks nothing before and after it."""
        used_s, wire_bytes = cpu.settled_s(self._lab, *groups), self._wire_bytes()
        client.resume()
        time.sleep(_BEFORE_S)
        client.report()
        frozen_s, total_s = move(target)
        time.sleep(_AFTER_S)
        seen = client.report()
        client.pause()
        if seen.problems or not seen.replies:
            raise CheckFailed(f"to {target}: the client got {seen.replies} answers; {'; '.join(seen.problems)}")
        return table.Sample(
            gap_s=seen.longest_gap_s,
            frozen_s=frozen_s,
            total_s=total_s,
            wire_bytes=self._wire_bytes() - wire_bytes,
            cpu_s=cpu.settled_s(self._lab, *groups) - used_s,
        )

    def _wire_bytes(self) -> int:
        """What both hosts have sent through their uplinks: headers and the client's answers too."""
        pids = nodes.supervisors(self._lab.state_dir)
        counters = (
            Path(f"/proc/{pids[host]}/root/sys/class/net/{UPLINK}/statistics/tx_bytes") for host in ("host1", "host2")
        )
        return sum(int(counter.read_text()) for counter in counters)


def _ask_peer(command: str, size_mb: int) -> table.Sample:
    """Run somebody else's move: `COMMAND SIZE_MB` prints one JSON object with gap_s and what else of Sample it knows."""
    done = subprocess.run([*shlex.split(command), str(size_mb)], capture_output=True, text=True, check=False)
    try:
        return table.Sample(**json.loads(done.stdout))
    except (ValueError, TypeError) as exc:
        raise CheckFailed(f"--peer: status {done.returncode}, {exc}: {(done.stderr or done.stdout)[-500:]}") from exc


def _show(results: Sequence[Result], rate: float, *, as_json: bool) -> None:
    if as_json:
        print(json.dumps({"rate": rate, "cpus": os.cpu_count(), "results": [dataclasses.asdict(r) for r in results]}))
        return
    pace = f"{rate:g} requests a second" if rate else "as fast as it can"
    print(f"\none client, {pace}; {os.cpu_count()} CPUs; median (least-most); the number of moves is in the head")
    for result in results:
        title = f"{result.size_mb} MB"
        print("", *table.lines(title, result.samples), sep="\n")
        print(f"load average before {result.load_before:.1f}, after {result.load_after:.1f}")


def _run(arguments: argparse.Namespace, results: list[Result]) -> int:
    """Fills `results` as far as it gets; whatever happens, the lab goes."""
    # A second Ctrl-C must not stop the clearing away, nor a SIGTERM skip it.
    signal.signal(signal.SIGTERM, signal.default_int_handler)
    status = 1
    try:
        down.down(PREFIX, force=True)  # what an earlier run may have left when the machine crashed
        lab = up.up(PREFIX, hosts=2, criu="", say=print)
        bench = Bench(lab, rate=arguments.rate, repeat=arguments.repeat, peer=arguments.peer)
        for size_mb in arguments.sizes:
            print(f"== {size_mb} MB", flush=True)
            results.append(bench.size(size_mb))
        status = 0
    except KeyboardInterrupt:
        status = 130
    except (CheckFailed, MigrateError, OSError, subprocess.SubprocessError) as exc:
        print(f"FAILED: {exc}\n{exc.detail if isinstance(exc, MigrateError) else ''}")
        print(f"the logs of all nodes: {keep_logs(layout.Lab(prefix=PREFIX, hosts=2))}")
    finally:
        for number in (signal.SIGINT, signal.SIGTERM):
            signal.signal(number, signal.SIG_IGN)
        down.down(PREFIX, force=True)
    return status


def _sizes(text: str) -> list[int]:
    sizes = [int(word) for word in text.split(",")]
    if min(sizes) < 1:
        raise ValueError(f"not a size in MB: {min(sizes)}")
    return sizes


def main(argv: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(prog="python -m bench", description="What a move costs, beside CRIU by hand.")
    parser.add_argument("--sizes", type=_sizes, default=[10, 200, 1000], metavar="MB,MB", help="default: 10,200,1000")
    parser.add_argument("--repeat", type=int, default=3, metavar="N", help="moves of each kind a size (default: 3)")
    parser.add_argument(
        "--rate", type=float, default=0.0, metavar="N", help="requests a second (default: 0, as fast as it can)"
    )
    parser.add_argument("--peer", default="", metavar="CMD", help="CMD SIZE_MB prints a sample as JSON: a column more")
    parser.add_argument("--format", choices=("table", "json"), default="table")
    arguments = parser.parse_args(argv)
    if os.geteuid() != 0:
        print("error: a lab needs root\nhint: run it with sudo", file=sys.stderr)
        return 1
    results: list[Result] = []
    try:
        # What goes on is told on stderr: stdout is for the result.
        with lock(f"{PREFIX}-bench", wait=False), contextlib.redirect_stdout(sys.stderr):
            status = _run(arguments, results)
    except MigrateError as exc:
        print(f"error: {exc}", file=sys.stderr)
        status = 1
    _show(results, arguments.rate, as_json=arguments.format == "json")
    return status


if __name__ == "__main__":
    sys.exit(main())
