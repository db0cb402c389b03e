"""Plans over fleets that are too large for any machine here: `python -m bench.placement [--hosts 1000] [--containers 20000]`.

A fleet is made of random hosts and containers (many small ones, few large; some with constraints, anti-affinity and ports), filled by the
ranking itself, one container after the other. Then hosts are emptied: one, some, a tenth of them. A plan's quality is what it left out
that another way of planning would have placed: beside the product's packing stand first-fit in the order of names, which is what moving
one container after the other does, and a bound that no plan can pass (what no host could take alone is left out; all free memory is one
pool). Nothing is moved.

Pure: no hosts, no agents. The table says seconds of this process and how full the hosts are afterwards.
"""

from __future__ import annotations

import argparse
import dataclasses
import random
import statistics
import sys
import time
from collections.abc import Iterator, Sequence

from migrate.placement import filters, scores
from migrate.placement.filters import CHANGING, LASTING
from migrate.placement.labels import Constraint
from migrate.placement.model import HostState, Need, Room
from migrate.placement.packing import pack

GIB = 1 << 30
MIB = 1 << 20
ZONES = 4
CANDIDATES = 40  # hosts that are looked at for each container while the fleet is filled: all of them would take an hour
LIMIT_S = 600.0


@dataclasses.dataclass(frozen=True)
class Result:
    """One row: how many were to be placed, how many each way has placed, and how long ours took."""

    what: str
    wanted: int
    placed: int
    one_by_one: int
    bound: int
    seconds: float
    fullest: float
    spread: float


def hosts(count: int, random_: random.Random) -> list[HostState]:
    """Of three sizes, in zones, some with fast disks."""
    return [
        HostState(
            name=f"host{n:04}",
            labels={"zone": f"z{n % ZONES}", **({"disk": "ssd"} if random_.random() < 0.4 else {})},
            cpus=size // 4,
            memory_bytes=size * GIB,
            memory_free_bytes=size * GIB,
            disk_free_bytes=size * 8 * GIB,
        )
        for n, size in ((n, random_.choice((64, 128, 256))) for n in range(count))
    ]


def containers(count: int, memory_bytes: int, random_: random.Random) -> Iterator[Need]:
    """Sizes of a log-normal distribution, scaled so that all of them take `memory_bytes`."""
    sizes = [random_.lognormvariate(0, 1.2) for _ in range(count)]
    scale = memory_bytes / sum(sizes)
    for n, size in enumerate(sizes):
        service = f"s{random_.randrange(count // 8 + 1)}"
        constraints = (Constraint(key="disk", value="ssd"),) if random_.random() < 0.1 else ()
        if random_.random() < 0.05:
            constraints = (*constraints, Constraint(key="zone", value=f"z{random_.randrange(ZONES)}"))
        yield Need(
            container_id=f"c{n}",
            name=f"c{n:05}",
            memory_bytes=max(16 * MIB, int(size * scale)),
            disk_bytes=GIB,
            cpus=random_.choice((0.0, 0.5, 1.0, 2.0)),
            labels={"app": service},
            constraints=constraints,
            anti_affinity=(("app", service),) if random_.random() < 0.3 else (),
            ports=(("", random_.randrange(20000, 60000), "tcp"),) if random_.random() < 0.2 else (),
        )


def filled(
    states: Sequence[HostState], needs: Sequence[Need], random_: random.Random
) -> tuple[list[HostState], dict[str, list[Need]]]:
    """The fleet with its containers, each on the best of some hosts; those that fit on none of these are left away."""
    rooms = [Room(state) for state in states]
    there: dict[str, list[Need]] = {state.name: [] for state in states}
    for need in needs:
        some = random_.sample(rooms, min(CANDIDATES, len(rooms)))
        able = [room for room in some if filters.fits(need, room, (*LASTING, *CHANGING))]
        if able:
            best = max(able, key=lambda room: scores.total(scores.parts(need, room)))
            best.put(need)
            there[best.name].append(need)
    return [
        dataclasses.replace(
            room.host,
            memory_free_bytes=room.memory_free,
            disk_free_bytes=room.disk_free,
            residents=tuple(need.resident() for need in there[room.name]),
        )
        for room in rooms
    ], there


def one_by_one(needs: Sequence[Need], states: Sequence[HostState]) -> int:
    """How many the first host that can take it would take, in the order of names."""
    rooms = [Room(state) for state in states]
    placed = 0
    for need in sorted(needs, key=lambda one: one.name):
        room = next((one for one in rooms if filters.fits(need, one, (*LASTING, *CHANGING))), None)
        if room is not None:
            room.put(need)
            placed += 1
    return placed


def bound(needs: Sequence[Need], states: Sequence[HostState]) -> int:
    """More than these no plan can place: those that some host could take if it were the only one, the smallest first, into all free memory
    as one pool.
    """
    rooms = [Room(state) for state in states]
    possible = [need for need in needs if any(filters.fits(need, room, (*CHANGING, *LASTING)) for room in rooms)]
    free, placed = sum(state.memory_free_bytes for state in states), 0
    for need in sorted(possible, key=lambda one: one.memory_bytes):
        if free < need.memory_bytes:
            break
        free -= need.memory_bytes
        placed += 1
    return placed


def emptied(what: str, leaving: Sequence[str], states: Sequence[HostState], there: dict[str, list[Need]]) -> Result:
    """The plan for all containers of the hosts `leaving`, checked."""
    gone = set(leaving)
    needs = [dataclasses.replace(need, source=name) for name in leaving for need in there[name]]
    targets = [state for state in states if state.name not in gone]
    begun = time.process_time()
    packing = pack(needs, targets)
    seconds = time.process_time() - begun
    _check(needs, targets, {cid: one.host for cid, one in packing.placed.items()})
    full = {state.name: state.memory_bytes - state.memory_free_bytes for state in targets}
    by_id = {need.container_id: need for need in needs}
    for cid, one in packing.placed.items():
        full[one.host] += by_id[cid].memory_bytes
    parts = [full[state.name] / state.memory_bytes for state in targets]
    return Result(
        what=what,
        wanted=len(needs),
        placed=len(packing.placed),
        one_by_one=one_by_one(needs, targets),
        bound=bound(needs, targets),
        seconds=seconds,
        fullest=max(parts),
        spread=statistics.pstdev(parts),
    )


def _check(needs: Sequence[Need], targets: Sequence[HostState], where: dict[str, str]) -> None:
    """Raises AssertionError where the plan breaks a rule: put one after the other in some order, each must fit."""
    rooms = {state.name: Room(state) for state in targets}
    for need in needs:
        if need.container_id in where:
            room = rooms[where[need.container_id]]
            assert filters.fits(need, room, (*LASTING, *CHANGING)), (need.name, filters.refusals(need, room))
            room.put(need)


def simulate(host_count: int, container_count: int, used: float, seed: int) -> list[Result]:
    random_ = random.Random(seed)
    states = hosts(host_count, random_)
    capacity = sum(state.memory_bytes for state in states)
    needs = list(containers(container_count, int(capacity * used), random_))
    states, there = filled(states, needs, random_)
    names = [state.name for state in states]
    rows = []
    for what, count in (("1 host", 1), ("1 % of the hosts", host_count // 100), ("a tenth", host_count // 10)):
        if count:
            rows.append(emptied(f"{used:.0%} full, {what}", names[:count], states, there))
    return rows


def table(rows: Sequence[Result]) -> str:
    """Markdown."""
    lines = [
        "| fleet, emptied | containers | placed | one by one | bound | CPU-s | fullest host | deviation of fullness |",
        "|---|---:|---:|---:|---:|---:|---:|---:|",
    ]
    lines += [
        f"| {row.what} | {row.wanted} | {row.placed} | {row.one_by_one} | {row.bound} | {row.seconds:.2f} |"
        f" {row.fullest:.1%} | {row.spread:.3f} |"
        for row in rows
    ]
    return "\n".join(lines)


def main(argv: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(prog="python -m bench.placement", description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--hosts", type=int, default=1000)
    parser.add_argument("--containers", type=int, default=20_000)
    parser.add_argument("--used", type=float, nargs="+", default=[0.5, 0.75, 0.9], help="parts of all memory in use")
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--limit", type=float, default=LIMIT_S, help="seconds after which no further fleet is begun")
    args = parser.parse_args(argv)
    begun, rows = time.monotonic(), list[Result]()
    for used in args.used:
        if time.monotonic() - begun > args.limit:
            sys.stderr.write(f"the limit of {args.limit:g} s is over: fleets from {used:.0%} on are left out\n")
            break
        rows += simulate(args.hosts, args.containers, used, args.seed)
    sys.stdout.write(f"{args.hosts} hosts, {args.containers} containers, seed {args.seed}\n\n{table(rows)}\n")
    return 0


if __name__ == "__main__":
    sys.exit(main())
