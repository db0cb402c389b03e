"""The options of `run`, `create` and `update` that limit what a container may use; named as Docker's. docs/limits.md."""

from __future__ import annotations

import argparse
import re
from argparse import ArgumentTypeError
from collections.abc import Callable
from typing import Any

from migrate.cli import values
from migrate.records import DeviceRate, Ulimit

RATES = {
    "--device-read-bps": ("read_bps", "bytes a second read"),
    "--device-write-bps": ("write_bps", "bytes a second written"),
    "--device-read-iops": ("read_iops", "reads a second"),
    "--device-write-iops": ("write_iops", "writes a second"),
}


def add_options(parser: argparse.ArgumentParser, *, fixed: bool) -> None:
    """`fixed`: also what a container has for life, which `update` cannot change."""
    group = parser.add_argument_group("limits", "0 = none; what each means: docs/limits.md")

    def add(*flags: str, to: str, type: Callable[[str], object], metavar: str, help: str) -> None:
        # Options that are not given leave no trace: `update` changes only what was said.
        group.add_argument(*flags, dest=f"limit_{to}", default=argparse.SUPPRESS, type=type, metavar=metavar, help=help)

    add("-m", "--memory", to="memory_bytes", type=values.size, metavar="SIZE", help="memory, such as 512m")
    add(
        "--memory-swap",
        to="memory_swap_bytes",
        type=size_or_unlimited,
        metavar="SIZE",
        help="memory and swap together; -1 = all the swap there is (default: as --memory, so no swap)",
    )
    add(
        "--memory-reservation",
        to="memory_reservation_bytes",
        type=values.size,
        metavar="SIZE",
        help="memory that is kept for it",
    )
    add("--cpus", to="cpus", type=cpus, metavar="N", help="processors, such as 1.5")
    add(
        "-c",
        "--cpu-shares",
        to="cpu_shares",
        type=number,
        metavar="N",
        help="share of busy processors; others have 1024",
    )
    add(
        "--cpu-period", to="cpu_period_us", type=number, metavar="US", help="period of --cpu-quota (default: 100000 µs)"
    )
    add("--cpu-quota", to="cpu_quota_us", type=number, metavar="US", help="time on processors in each period")
    add(
        "--cpuset-cpus",
        to="cpuset_cpus",
        type=str,
        metavar="LIST",
        help='processors to run on, such as 0-2,5; "" = all',
    )
    add("--cpuset-mems", to="cpuset_mems", type=str, metavar="LIST", help='memory nodes, such as 0-1; "" = all')
    add("--pids-limit", to="pids", type=pids, metavar="N", help="processes and threads; -1 = no limit")
    add("--blkio-weight", to="blkio_weight", type=number, metavar="N", help="share of a busy disk, 10 to 1000")
    for flag, (what, text) in RATES.items():
        group.add_argument(
            flag,
            dest="limit_device_rates",
            action="append",
            default=argparse.SUPPRESS,
            type=rate_of(what),
            metavar="PATH:RATE",
            help=f"{text}, of the disk that PATH is or lies on; repeatable",
        )
    if not fixed:
        return
    group.add_argument(
        "--ulimit",
        dest="limit_ulimits",
        action="append",
        default=argparse.SUPPRESS,
        type=ulimit,
        metavar="NAME=SOFT[:HARD]",
        help="limit of each process, such as nofile=1024:4096; repeatable",
    )
    add(
        "--storage-opt",
        to="storage_bytes",
        type=storage,
        metavar="size=SIZE",
        help="size of the writable layer, such as size=10g: a write past it gets ENOSPC",
    )
    add("--shm-size", to="shm_bytes", type=values.size, metavar="SIZE", help="size of /dev/shm (default: 64m)")
    add(
        "--memory-swappiness",
        to="memory_swappiness",
        type=swappiness,
        metavar="N",
        help="0 to 100: how readily its memory is swapped out; hosts with version 1 of cgroups only",
    )
    group.add_argument(
        "--oom-kill-disable",
        dest="limit_oom_kill_disable",
        nargs="?",
        const=True,
        default=argparse.SUPPRESS,
        type=values.boolean,
        metavar="BOOL",
        help="at its -m its processes wait for memory instead of being killed; hosts with version 1 of cgroups only",
    )
    add(
        "--oom-score-adj",
        to="oom_score_adj",
        type=score,
        metavar="N",
        help="-1000 to 1000: the higher, the sooner it is killed",
    )


def fields(args: argparse.Namespace) -> dict[str, Any]:
    """The fields of records.Limits that were given."""
    given = {name.removeprefix("limit_"): value for name, value in vars(args).items() if name.startswith("limit_")}
    return {name: tuple(value) if isinstance(value, list) else value for name, value in given.items()}


def size_or_unlimited(text: str) -> int:
    return -1 if text == "-1" else values.size(text)


def number(text: str) -> int:
    if not text.isdigit():
        raise ArgumentTypeError(f"{text!r} is not a number")
    return int(text)


def cpus(text: str) -> float:
    return 0.0 if text == "0" else values.cpus(text)


def swappiness(text: str) -> int | None:
    """Docker's -1 is its default."""
    if text == "-1":
        return None
    if not text.isdigit() or int(text) > 100:
        raise ArgumentTypeError(f"{text!r} is not a number from 0 to 100")
    return int(text)


def pids(text: str) -> int:
    """Docker's -1 and 0 both mean no limit."""
    return 0 if text == "-1" else number(text)


def storage(text: str) -> int:
    """Bytes of size=10g, the only option there is."""
    key, equals, value = text.partition("=")
    if key != "size" or not equals:
        raise ArgumentTypeError(f"{text!r} is not size=SIZE such as size=10g")
    return values.size(value)


def score(text: str) -> int:
    if not re.fullmatch(r"-?\d{1,4}", text) or not -1000 <= int(text) <= 1000:
        raise ArgumentTypeError(f"{text!r} is not a number from -1000 to 1000")
    return int(text)


def rate_of(what: str) -> Callable[[str], DeviceRate]:
    """/dev/sda:10mb, or /var/lib/migrate:1000."""

    def rate(text: str) -> DeviceRate:
        path, colon, value = text.rpartition(":")
        if not colon or not path.startswith("/"):
            raise ArgumentTypeError(f"{text!r} is not PATH:RATE such as /dev/sda:10mb")
        return DeviceRate(path=path, what=what, rate=values.size(value) if what.endswith("bps") else number(value))

    return rate


def ulimit(text: str) -> Ulimit:
    """nofile=1024 or nofile=1024:4096; -1 or "unlimited" for no limit."""
    found = re.fullmatch(r"([a-z]+)=(-1|unlimited|\d+)(?::(-1|unlimited|\d+))?", text)
    if not found:
        raise ArgumentTypeError(f"{text!r} is not NAME=SOFT[:HARD] such as nofile=1024:4096")
    soft, hard = (-1 if value == "unlimited" else int(value) for value in (found[2], found[3] or found[2]))
    return Ulimit(name=found[1], soft=soft, hard=hard)
