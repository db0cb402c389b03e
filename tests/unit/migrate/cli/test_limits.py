"""The options that limit, as fields of records.Limits; and what stats computes."""

from __future__ import annotations

import argparse
import dataclasses

import pytest

from migrate.cli import limits, stats
from migrate.records import DeviceRate, Limits, Ulimit, Usage

pytestmark = pytest.mark.unit

EVERY = (
    "-m 64m --memory-swap -1 --memory-reservation 32m --cpus 1.5 -c 512 --cpu-period 50000 --cpu-quota 25000 --cpuset-cpus 0-1"
    " --pids-limit 9 --blkio-weight 300 --device-read-bps /dev/sda:1mb --device-write-iops /srv:100 --ulimit nofile=10:20"
    " --ulimit core=unlimited --shm-size 1m --oom-score-adj -5 --storage-opt size=1g"
    " --cpuset-mems 0 --memory-swappiness 0 --oom-kill-disable"
)


def parsed(line: str, *, fixed: bool = True) -> dict[str, object]:
    parser = argparse.ArgumentParser(exit_on_error=False)
    limits.add_options(parser, fixed=fixed)
    return limits.fields(parser.parse_args(line.split()))


def test_every_option_has_its_field() -> None:
    """Docker's names and short forms, units and all."""
    assert Limits(**parsed(EVERY)) == Limits(  # type: ignore[arg-type]
        memory_bytes=64 << 20,
        memory_swap_bytes=-1,
        memory_reservation_bytes=32 << 20,
        cpus=1.5,
        cpu_shares=512,
        cpu_period_us=50000,
        cpu_quota_us=25000,
        cpuset_cpus="0-1",
        pids=9,
        blkio_weight=300,
        device_rates=(
            DeviceRate(path="/dev/sda", what="read_bps", rate=1 << 20),
            DeviceRate(path="/srv", what="write_iops", rate=100),
        ),
        ulimits=(Ulimit(name="nofile", soft=10, hard=20), Ulimit(name="core", soft=-1, hard=-1)),
        shm_bytes=1 << 20,
        oom_score_adj=-5,
        storage_bytes=1 << 30,
        cpuset_mems="0",
        memory_swappiness=0,
        oom_kill_disable=True,
    )
    assert {one.name for one in dataclasses.fields(Limits)} == set(parsed(EVERY))


def test_what_was_not_said_leaves_no_trace() -> None:
    """`update` changes only what was given; 0 and -1 pids are given, and mean no limit."""
    assert parsed("", fixed=False) == {}
    assert parsed("--pids-limit -1 --cpus 0 -m 0", fixed=False) == {"pids": 0, "cpus": 0.0, "memory_bytes": 0}


@pytest.mark.parametrize(
    "line",
    [
        "--device-read-bps sda:1mb",
        "--device-read-bps /dev/sda",
        "--device-write-iops /dev/sda:1mb",
        "--ulimit nofile",
        "--ulimit nofile=a",
        "--oom-score-adj 1001",
        "--cpu-shares many",
        "--memory-swap -2",
        "--storage-opt 1g",
    ],
)
def test_what_makes_no_sense_is_refused(line: str) -> None:
    """With the option's name, before anything is asked."""
    with pytest.raises((argparse.ArgumentError, SystemExit)):
        parsed(line)


def usage(**changes: object) -> Usage:
    zero = {one.name: 0 for one in dataclasses.fields(Usage)} | {"id": "a" * 32, "name": "web1", "host": "host1"}
    return Usage(**(zero | changes))  # type: ignore[arg-type]


def test_the_share_of_processors_is_one_of_time() -> None:
    """100 % is one processor; there is none over a move, after a restart, or without an earlier sample."""
    before, now = usage(unix_ns=10**9, cpu_ns=10**9), usage(unix_ns=3 * 10**9, cpu_ns=4 * 10**9)
    assert stats.cpu_percent(before, now) == 150.0
    assert stats.cpu_percent(None, now) is None
    assert stats.cpu_percent(before, dataclasses.replace(now, host="host2")) is None
    assert stats.cpu_percent(dataclasses.replace(before, cpu_ns=5 * 10**9), now) is None
    assert stats.as_json(before, now)["cpu_percent"] == 150.0


def test_a_row_of_stats() -> None:
    """Use of limit, and both directions of network and disks."""
    now = usage(memory_bytes=50_000_000, memory_limit_bytes=100_000_000, network_received_bytes=1000, tasks=3)
    assert stats.row(None, now) == (
        "a" * 12, "web1", "host1", "-", "50 MB / 100 MB", "50.00%", "1 kB / 0 B", "0 B / 0 B", 3,
    )  # fmt: skip


def test_swappiness_and_the_oom_killer() -> None:
    """0 is a value; Docker's -1 is its default; the switch may have a value."""
    parser = argparse.ArgumentParser()
    limits.add_options(parser, fixed=True)
    given = limits.fields(parser.parse_args(["--memory-swappiness", "0", "--oom-kill-disable", "--cpuset-mems", "0"]))
    assert given == {"memory_swappiness": 0, "oom_kill_disable": True, "cpuset_mems": "0"}
    assert limits.swappiness("-1") is None
    assert limits.fields(parser.parse_args(["--oom-kill-disable=false"])) == {"oom_kill_disable": False}
