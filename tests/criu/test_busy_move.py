"""A container that writes faster than the link: within its --max-downtime or not at all, and it always has its processor time back."""

from __future__ import annotations

import json
import os
import signal
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from migrate.records import Container, Run
from tests.criu.moving_lab import MovingLab, program, wait_for

pytestmark = [pytest.mark.criu, pytest.mark.timeout(180)]

NAME = "busy"
SLOW_LINK = ("--bandwidth", "30M", "--compress", "none")


@pytest.fixture
def busy(fleet: MovingLab) -> Iterator[Container]:
    """64 MB, all of it written anew several times a second."""
    fleet.client.run(Run(image="work", name=NAME, host="host1", argv=program("write_memory", "64", "300")))
    status = fleet.upper(fleet.client.inspect(NAME)) / "srv/write_memory.json"
    wait_for(lambda: status.exists() and json.loads(status.read_text())["mb_s"] > 100)
    yield fleet.client.inspect(NAME)
    fleet.client.remove(NAME, force=True)


def quota(fleet: MovingLab) -> str:
    return fleet.control_file(fleet.client.inspect(NAME), "cpu", "cpu.cfs_quota_us", "cpu.max").split()[0]


def rounds(fleet: MovingLab) -> list[dict[str, Any]]:
    """Of the last move, as --format json has them."""
    record = fleet.client.migrations(limit=1)[0]
    shown = json.loads(fleet.cli("migrations", "show", record.id, "--format", "json").stdout)
    rows = [row for row in shown["journal"] if row["step"] == "precopy" and row["event"] in ("done", "failed")]
    found: list[dict[str, Any]] = rows[-1]["facts"]["each_round"]
    return found


def test_given_up_where_it_is_not_to_be_met(fleet: MovingLab, busy: Container) -> None:
    """Exit status 6, the reason and what to type; the container runs on; the page has every round, the last with the verdict."""
    done = fleet.cli("move", NAME, "--to", "host2", "--max-downtime", "300", *SLOW_LINK, timeout_s=120)
    assert done.returncode == 6, done.stdout + done.stderr
    assert "rounds gain nothing" in done.stderr
    assert "--on-timeout pause" in done.stderr
    assert (fleet.client.inspect(NAME).host, fleet.client.inspect(NAME).state) == ("host1", "running")
    fleet.later(NAME, "write_memory")
    each = rounds(fleet)
    assert len(each) >= 3
    assert each[-1]["verdict"].startswith("abort: ")
    assert each[-1]["predicted_downtime_s"] > 0.3
    page = fleet.cli("migrations", "show", fleet.client.migrations(limit=1)[0].id).stdout
    assert "--max-downtime 300 ms is a limit, then abort" in page
    assert each[-1]["verdict"] in page


def test_paused_where_its_user_wants_that(fleet: MovingLab, busy: Container) -> None:
    """The time is up in the middle of a round: it is frozen all the same, and says so."""
    done = fleet.cli(
        "move", NAME, "--to", "host2", "--max-downtime", "300", "--timeout", "4s", "--on-timeout", "pause", *SLOW_LINK, timeout_s=120
    )  # fmt: skip
    assert done.returncode == 0, done.stdout + done.stderr
    assert fleet.client.inspect(NAME).host == "host2"
    fleet.later(NAME, "write_memory")
    assert rounds(fleet)[-1]["verdict"].startswith("freeze: the time is up after ")


def test_throttled_until_it_fits(fleet: MovingLab, busy: Container) -> None:
    """It gets less and less processor time, is moved, and has all of it again on the other host."""
    before = quota(fleet)
    done = fleet.cli("move", NAME, "--to", "host2", "--max-downtime", "1200", "--throttle", *SLOW_LINK, timeout_s=150)
    assert done.returncode == 0, done.stdout + done.stderr
    each = rounds(fleet)
    shares = [one["cpu_share"] for one in each]
    assert shares == sorted(shares, reverse=True)
    assert shares[-1] < 1.0
    assert each[-1]["verdict"].startswith("freeze: ")
    assert quota(fleet) == before
    fleet.later(NAME, "write_memory")


@pytest.mark.parametrize("victims", [("agent",), ("agent", "sender")])
def test_the_quota_is_given_back_when_they_are_killed(
    fleet: MovingLab, busy: Container, victims: tuple[str, ...]
) -> None:
    """By the sender when its agent dies, by the next agent when both do."""
    before = quota(fleet)
    words = ("move", NAME, "--to", "host2", "--max-downtime", "300", "--throttle", "--timeout", "100", *SLOW_LINK)
    moving = threading.Thread(target=fleet.cli, args=words, kwargs={"timeout_s": 170.0})
    moving.start()
    wait_for(lambda: quota(fleet) != before, timeout_s=60)
    try:
        agent = fleet._agent("host1")
        pids = [agent] + ([_sender_of(agent)] if "sender" in victims else [])
        for pid in pids:
            os.kill(pid, signal.SIGKILL)
        wait_for(lambda: quota(fleet) == before, timeout_s=30)
        wait_for(lambda: fleet._agent("host1") not in (0, agent))
    finally:
        moving.join()
    assert quota(fleet) == before
    assert fleet.client.inspect(NAME).state == "running"
    fleet.later(NAME, "write_memory")


def _sender_of(agent: int) -> int:
    children = [
        int(word) for task in Path(f"/proc/{agent}/task").iterdir() for word in (task / "children").read_text().split()
    ]
    found = [pid for pid in children if b"agent.transfer.sender" in _command_line(pid)]
    assert len(found) == 1, found
    return found[0]


def _command_line(pid: int) -> bytes:
    return Path(f"/proc/{pid}/cmdline").read_bytes()
