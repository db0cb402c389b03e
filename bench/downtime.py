"""`python -m bench.downtime`: what a move costs, for each way of moving, beside plain CRIU by hand and CRIU's own floor in the same run.

A lab of two hosts, and in it two containers of the same kind from the same image: one of the engine's, one in namespaces made by
hand (`by_hand.py`). They take turns in moving to the other host and back, each under a client of its own outside, which asks on one
connection; what is in them is compared at the end. Cases: bench/cases.py; docs/bench.md says what is measured. Asserts nothing about
times; exit status 1 where a move of ours failed, a client got a wrong answer or something in a container is not what it was.
"""

from __future__ import annotations

import argparse
import contextlib
import dataclasses
import json
import os
import secrets
import shlex
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack
from functools import partial
from pathlib import Path

from bench import cases, cpu, in_lab, results, table
from bench.by_hand import ADDRESS, ByHand, HandMove
from bench.cases import Case
from bench.load import Load, look
from bench.table import Sample
from migrate.coordinator.migration import MODES
from migrate.errors import MigrateError
from migrate.lab import images, layout, nodes
from migrate.lab.demo import CONTAINER, PORT, RUN, keep_logs
from migrate.lab.demo_run import CheckFailed, Outside, RunningClient, Shell
from migrate.lab.layout import UPLINK, Lab

PREFIX = layout.prefix_from({"MIGRATE_LAB": os.environ.get("BENCH_LAB") or "mbench"})
SHAPES = Path(__file__).with_name("shapes.py")
FILES = "srv"  # where shapes.py writes
FLOOR_MOVES = 3
_READY_S = 180.0  # 100,000 files take a while
_BEFORE_S, _AFTER_S = 0.5, 1.5  # how long the client runs before a move begins and after it has ended
_ENGINE = ("host1", "host2", "controller")
_FAILURES = (CheckFailed, MigrateError, OSError, subprocess.SubprocessError)

Move = Callable[[str], Sample]  # to a host; what the mover itself knows of it


class Subject:
    """One container under its client and, where the case has one, its writer; it goes from host to host."""

    def __init__(self, lab: Lab, address: str, case: Case, groups: Sequence[str]) -> None:
        self._case, self._groups, self._lab, self._address = case, groups, lab, address
        self._outside = Outside(lab, address, PORT)
        self._seed = secrets.token_hex(8)
        self._on_host1, self.lost = True, False

    @contextlib.contextmanager
    def filled(self, rate: float) -> Iterator[None]:
        """Everything is in it; client and writer stand by."""
        self._outside.wait_for_server(_READY_S)
        half = 2 if self._case.dirty_mb_s else 1  # the other half is the writer's
        self._cold_mb = self._case.size_mb // half
        if self._cold_mb:
            self._outside.data("fill", self._cold_mb, self._seed)
        with ExitStack() as stack:
            self._load: Load | None = None
            if self._case.dirty_mb_s:
                hot_mb = self._case.size_mb - self._cold_mb
                load = Load(self._lab, self._address, PORT, size_mb=hot_mb, mb_per_s=self._case.dirty_mb_s)
                self._load = stack.enter_context(load)
            self._client: RunningClient = stack.enter_context(self._outside.client(rate))
            self._client.pause()
            yield

    def sample(self, move: Move) -> Sample:
        """One move under its client. A failed one is a sample too."""
        target = "host2" if self._on_host1 else "host1"
        used_s, wire_bytes = cpu.settled_s(self._lab, *self._groups), _wire_bytes(self._lab)
        self._client.resume()
        if self._load:
            self._load.resume()
        time.sleep(_BEFORE_S)
        self._client.report()
        if self._load:
            self._load.report()
        try:
            own = move(target)
            self._on_host1 = not self._on_host1
        except _FAILURES as exc:
            own = Sample(error=f"to {target}: {str(exc)[-300:]}")
        time.sleep(_AFTER_S)
        seen = self._client.report()
        dirty_mb_s = self._load.report()["mb_s"] if self._load else None
        self._client.pause()
        if self._load:
            self._load.pause()
        if seen.problems or not seen.replies:
            raise CheckFailed(f"to {target}: the client got {seen.replies} answers; {'; '.join(seen.problems)}")
        if own.error:
            return own
        return dataclasses.replace(
            own,
            gap_s=seen.longest_gap_s,
            wire_bytes=_wire_bytes(self._lab) - wire_bytes,
            cpu_s=cpu.settled_s(self._lab, *self._groups) - used_s,
            dirty_mb_s=dirty_mb_s,
        )

    def check(self) -> str:
        """What of its contents is not as it must be; "" = nothing."""
        found = []
        if self._cold_mb:
            seen = self._outside.data("verify", self._cold_mb, self._seed)
            found += [f"the data: {seen}"] if seen["missing"] or seen["wrong"] else []
        if self._load:
            self._load.resume()
            seen = self._load.report("verify")
            found += [f"the pages written: {seen}"] if seen["wrong"] else []
        if self._case.shape and (answer := look(self._lab, self._address, PORT)) != ":0":
            found.append(answer)
        return "; ".join(found)


class Bench:
    """One lab, and what is measured in it."""

    def __init__(self, lab: Lab, *, ways: Sequence[str], rate: float, repeat: int, peer: str) -> None:
        self._lab, self._ways, self._rate, self._repeat, self._peer = lab, ways, rate, repeat, peer
        self._shell = Shell(lab)
        self._images = {"redis": images.redis_rootfs(), "python": images.python_rootfs()}
        for host in ("host1", "host2"):  # by hand, too, it is there before
            for name, tar in self._images.items():
                self._shell.migrate("image", "import", str(tar), name, "--host", host)
        self._floor: list[Sample] = []

    def case(self, case: Case) -> results.Result:
        """Both containers are made, filled, moved in turns, looked at, removed. Big ones one after the other."""
        began, load_before = time.monotonic(), os.getloadavg()[0]
        samples: dict[str, list[Sample]] = {way: [] for way in self._ways}
        wrong: list[str] = []
        modes = [way for way in self._ways if way in MODES]
        hand = [way for way in self._ways if way == table.HAND]
        groups = [modes, hand] if case.size_mb > cases.BIG_MB else [[*modes, *hand]]
        for ways in groups:
            if not ways:
                continue
            try:
                wrong += self._turns(case, ways, samples)
            except CheckFailed as exc:
                wrong.append(str(exc))
                with contextlib.suppress(CheckFailed):
                    self._shell.migrate("logs", CONTAINER)  # it goes with the container
                with contextlib.suppress(CheckFailed):
                    self._shell.migrate("rm", "-f", CONTAINER)
        if hand:
            samples[table.FLOOR] = self._floors(case, samples)
        if self._peer and not case.shape and not case.dirty_mb_s:
            samples[table.PEER] = [_ask_peer(self._peer, case.size_mb) for _ in range(self._repeat)]
        wrong += [f"{way}: {one.error}" for way in modes for one in samples[way] if one.error]
        return results.Result(
            case=case.name,
            title=case.title,
            size_mb=case.size_mb,
            dirty_mb_s=case.dirty_mb_s,
            took_s=time.monotonic() - began,
            load_before=load_before,
            load_after=os.getloadavg()[0],
            samples=samples,
            wrong=wrong,
        )

    def _turns(self, case: Case, ways: Sequence[str], samples: dict[str, list[Sample]]) -> list[str]:
        with ExitStack() as stack:
            subjects: dict[str, Subject] = {}
            moves: dict[str, Move] = {}
            if modes := [way for way in ways if way in MODES]:
                ours = Subject(self._lab, stack.enter_context(self._container(case)), case, _ENGINE)
                stack.enter_context(ours.filled(self._rate))
                subjects |= dict.fromkeys(modes, ours)
                moves |= {mode: partial(self._engine_move, mode) for mode in modes}
            if table.HAND in ways:
                by_hand = stack.enter_context(self._by_hand(case))
                subjects[table.HAND] = Subject(self._lab, ADDRESS, case, (cpu.HAND,))
                stack.enter_context(subjects[table.HAND].filled(self._rate))
                moves[table.HAND] = partial(_hand_move, by_hand)
            for _ in range(self._repeat):
                for way in ways:
                    if subjects[way].lost:
                        continue
                    try:
                        sample = subjects[way].sample(moves[way])
                    except CheckFailed as exc:
                        if way != table.HAND:
                            raise
                        sample = Sample(error=str(exc)[-300:])
                    # By hand there is no way back.
                    subjects[way].lost = bool(sample.error) and way == table.HAND
                    samples[way].append(sample)
            wrong = []
            for name, subject in {id(each): (way, each) for way, each in subjects.items()}.values():
                if not subject.lost and (found := subject.check()):
                    wrong.append(f"{name}: after the moves: {found}")
            return wrong

    @contextlib.contextmanager
    def _container(self, case: Case) -> Iterator[str]:
        """The engine's; its address."""
        limit = ("--ulimit", "nofile=16384", "--pids-limit", "-1") if case.shape else ()
        words = ("run", "-d", "--name", CONTAINER, "--host", "host1", *limit, _image(case), *_program(case))
        self._shell.quietly(*words)
        yield self._shell.container(CONTAINER)["address"].partition("/")[0]
        self._shell.migrate("rm", "-f", CONTAINER)

    def _by_hand(self, case: Case) -> ByHand:
        files = FILES if case.shape else ""
        return ByHand(self._lab, self._images[_image(case)], _program(case), files=files)

    def _engine_move(self, mode: str, target: str) -> Sample:
        self._shell.quietly("move", CONTAINER, "--to", target, "--mode", mode, "--quiet")
        record = self._shell.last_migration(CONTAINER)
        ahead = [row.facts.get("text", "") for row in record.journal if (row.step, row.event) == ("precopy", "done")]
        facts = record.facts
        return Sample(frozen_s=facts.get("frozen_s"), total_s=facts.get("total_s"), note=ahead[0] if ahead else "")

    def _floors(self, case: Case, samples: dict[str, list[Sample]]) -> list[Sample]:
        """What CRIU takes for all but the memory: of a shape the same moves by hand, of a Redis those of an empty one."""
        if case.shape:
            return [Sample(frozen_s=one.floor_s) for one in samples[table.HAND] if one.floor_s is not None]
        if not self._floor:
            with self._by_hand(case) as empty:
                Outside(self._lab, ADDRESS, PORT).wait_for_server()
                moves = [empty.move("host1" if number % 2 else "host2") for number in range(FLOOR_MOVES)]
            self._floor = [Sample(frozen_s=move.criu_s) for move in moves]
        return self._floor


def _image(case: Case) -> str:
    return "python" if case.shape else "redis"


def _program(case: Case) -> tuple[str, ...]:
    return ("python3", "-c", SHAPES.read_text(), *case.shape) if case.shape else RUN


def _hand_move(by_hand: ByHand, target: str) -> Sample:
    done: HandMove = by_hand.move(target)
    return Sample(frozen_s=done.frozen_s, total_s=done.total_s, floor_s=done.criu_s)


def _wire_bytes(lab: Lab) -> int:
    """What both hosts have sent through their uplinks: headers and the client's answers too."""
    pids = nodes.supervisors(lab.state_dir)
    counters = (
        Path(f"/proc/{pids[host]}/root/sys/class/net/{UPLINK}/statistics/tx_bytes") for host in ("host1", "host2")
    )
    return sum(int(counter.read_text()) for counter in counters)


def _ask_peer(command: str, size_mb: int) -> Sample:
    """Run somebody else's move: `COMMAND SIZE_MB` prints one JSON object with gap_s and what else of Sample it knows."""
    done = subprocess.run([*shlex.split(command), str(size_mb)], capture_output=True, text=True, check=False)
    try:
        return Sample(**json.loads(done.stdout))
    except (ValueError, TypeError) as exc:
        return Sample(error=f"status {done.returncode}, {exc}: {(done.stderr or done.stdout)[-300:]}")


def _run(arguments: argparse.Namespace, found: list[results.Result]) -> tuple[int, None]:
    """Fills `found` as far as it gets; whatever happens, the lab goes."""
    try:
        with in_lab.standing(PREFIX, hosts=2) as lab:
            try:
                bench = Bench(
                    lab, ways=arguments.ways, rate=arguments.rate, repeat=arguments.repeat, peer=arguments.peer
                )
                for case in arguments.cases:
                    print(f"== {case.title}", flush=True)
                    found.append(bench.case(case))
                    print(f"   {found[-1].took_s:.0f} s", flush=True)
                    if arguments.save:
                        results.save(arguments.save, found[-1], arguments.rate)
            except BaseException:
                print(f"the logs of all nodes: {keep_logs(lab)}")
                raise
    except KeyboardInterrupt:
        return 130, None
    except _FAILURES as exc:
        print(f"FAILED: {exc}\n{exc.detail if isinstance(exc, MigrateError) else ''}")
        return 1, None
    return int(any(result.wrong for result in found)), None


def _cases(text: str) -> list[Case]:
    try:
        return cases.choose(text.split(","))
    except ValueError as exc:
        raise argparse.ArgumentTypeError(str(exc)) from exc


def _ways(text: str) -> list[str]:
    known = (*MODES, table.HAND)
    ways = [table.HAND if word == "hand" else word for word in text.split(",")]
    if wrong := [way for way in ways if way not in known]:
        raise argparse.ArgumentTypeError(f"no way {wrong[0]!r}; there are {', '.join(MODES)}, hand")
    return ways


def main(argv: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(
        prog="python -m bench.downtime", description="What a move costs, for each way of moving, beside CRIU by hand."
    )
    parser.add_argument(
        "--cases",
        type=_cases,
        default=cases.choose(["quick"]),
        metavar="CASE,...",
        help="names, patterns such as redis-200*, quick (default), full; `--cases ?` lists them",
    )
    parser.add_argument(
        "--ways",
        type=_ways,
        default=["auto", "stop-and-copy", table.HAND],
        metavar="WAY,...",
        help=f"of {', '.join(MODES)}, hand (default: auto,stop-and-copy,hand)",
    )
    parser.add_argument("--repeat", type=int, default=2, metavar="N", help="moves of each way a case (default: 2)")
    parser.add_argument(
        "--rate", type=float, default=200.0, metavar="N", help="the client's requests a second, 0 = no limit (200)"
    )
    parser.add_argument("--peer", default="", metavar="CMD", help="CMD SIZE_MB prints a sample as JSON: a column more")
    parser.add_argument("--save", type=Path, metavar="FILE", help="put each case's samples into this file as it ends")
    parser.add_argument("--format", choices=("table", "json"), default="table")
    arguments = parser.parse_args(argv)
    found: list[results.Result] = []
    status, _ = in_lab.alone(PREFIX, lambda: _run(arguments, found))
    if arguments.format == "json":
        print(json.dumps(results.document(found, arguments.rate)))
    else:
        print(*results.lines(found, arguments.rate), sep="\n")
    return status


if __name__ == "__main__":
    sys.exit(main())
