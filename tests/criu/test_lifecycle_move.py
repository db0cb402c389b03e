"""A container's life goes on after a move: its init, log, restart policy and count, health and name; nobody restarts a second copy."""

from __future__ import annotations

import os
import signal
import time
from itertools import pairwise

import pytest

from migrate.errors import MigrateError
from migrate.records import Container, Healthcheck, RestartPolicy, Run
from tests.criu.moving_lab import MovingLab, wait_for

pytestmark = pytest.mark.criu

LINES = """
trap 'exit 7' USR1
i=0
while :; do i=$((i+1)); echo line $i $RANDOM; sleep 0.01; done
"""
SECOND = 10**9
LOG_FILES = ["container.log", "container.log.1", "container.log.2"]


def start(fleet: MovingLab, name: str, line: str = LINES, **changes: object) -> Container:
    wanted = Run(image="work", name=name, host="host1", argv=("/bin/sh", "-c", line), **changes)  # type: ignore[arg-type]
    return fleet.client.run(wanted)


def numbers(fleet: MovingLab, name: str) -> list[int]:
    lines = b"".join(line.data for line in fleet.client.logs(name)).decode().splitlines()
    return [int(line.split()[1]) for line in lines if line.startswith("line ")]


def runs_again(fleet: MovingLab, name: str, restarts: int) -> bool:
    now = fleet.client.inspect(name)
    return (now.state, now.restarts) == ("running", restarts)


def test_all_of_it_goes_along(fleet: MovingLab) -> None:
    """There and back: process 1, log files without a gap, restarts, health with its results; and the policy acts where it is then."""
    container = start(
        fleet,
        "life1",
        init=True,
        restart=RestartPolicy(name="on-failure", max_retries=5),
        health=Healthcheck(test=("CMD-SHELL", "echo fine; test ! -e /sick"), interval_ns=SECOND // 5, retries=2),
        log_options={"max-size": "4k", "max-file": "3"},
    )
    try:
        wait_for(lambda: numbers(fleet, "life1"))  # a signal that process 1 does not expect yet is lost
        fleet.client.kill("life1", signal="SIGUSR1")  # to the init, which passes it on
        wait_for(lambda: runs_again(fleet, "life1", 1))
        wait_for(lambda: fleet.client.inspect("life1").health_now.status == "healthy")
        for there, count in (("host2", 1), ("host1", 2)):
            before = fleet.client.inspect("life1")
            assert fleet.move("life1").state == "succeeded"
            after = fleet.client.inspect("life1")
            assert (after.host, after.restarts, after.health_now.status) == (there, count, "healthy")
            assert after.started_unix_ns == before.started_unix_ns
            known = {one.started_unix_ns for one in before.health_now.log}
            assert known & {one.started_unix_ns for one in after.health_now.log}, "the results did not go along"
            code, words = fleet.run("life1", "/bin/sh", "-c", "tr '\\0' ' ' < /proc/1/cmdline")
            assert (code, words[:17]) == (0, "/.migrate-init --")
            seen = numbers(fleet, "life1")
            # 1: the beginning of a life; those before may still be in the log.
            assert all(number in (1, last + 1) for last, number in pairwise(seen)), seen
            kept = fleet.upper(after).parents[1]
            wait_for(lambda kept=kept: sorted(path.name for path in kept.glob("container.log*")) == LOG_FILES)
            fleet.client.kill("life1", signal="SIGUSR1")
            wait_for(lambda count=count: runs_again(fleet, "life1", count + 1))
            wait_for(lambda: fleet.client.inspect("life1").health_now.status == "healthy")
        assert fleet.client.inspect("life1").id == container.id
    finally:
        fleet.client.remove("life1", force=True)


def test_it_falls_ill_on_its_new_host(fleet: MovingLab) -> None:
    """Checks run there, and say what they see; a name that it got on the way is known."""
    health = Healthcheck(test=("CMD-SHELL", "test ! -e /sick"), interval_ns=SECOND // 5, retries=2)
    start(fleet, "life2", health=health)
    try:
        wait_for(lambda: fleet.client.inspect("life2").health_now.status == "healthy")
        fleet.client.rename("life2", "life2b")
        assert fleet.move("life2b").state == "succeeded"
        fleet.run("life2b", "/bin/touch", "/sick")
        wait_for(lambda: fleet.client.inspect("life2b").health_now.status == "unhealthy")
        fleet.restart_agents()
        assert fleet.client.inspect("life2b").health_now.status == "unhealthy"
    finally:
        name = "life2b" if any(one.name == "life2b" for one in fleet.client.containers(all=True)) else "life2"
        fleet.client.remove(name, force=True)


def test_a_probe_that_runs_does_not_hinder_a_move(fleet: MovingLab) -> None:
    """One that is always under way: it is ended, nothing of it is in the dump, and it runs again there."""
    health = Healthcheck(test=("CMD-SHELL", "sleep 100"), interval_ns=SECOND // 10, timeout_ns=200 * SECOND)
    start(fleet, "life3", health=health)
    try:
        for _ in range(2):
            wait_for(lambda: "sleep 100" in str([one.command for one in fleet.client.top("life3")]))
            assert fleet.move("life3").state == "succeeded"
            wait_for(lambda: "sleep 100" in str([one.command for one in fleet.client.top("life3")]))
    finally:
        fleet.client.remove("life3", force=True)


def test_one_that_exits_during_its_move_comes_back_where_it_was(fleet: MovingLab) -> None:
    """The move fails, is undone, and only then the policy acts, on the source; there is one copy."""
    start(fleet, "life4", restart=RestartPolicy(name="always"))
    try:
        pid = fleet.client.inspect("life4").pid
        moving = fleet.client.move("life4", to="host2")
        for event in moving:
            if getattr(event, "step", "") == "precopy":
                os.kill(pid, signal.SIGKILL)
                break
        with pytest.raises(MigrateError):
            moving.result()
        wait_for(lambda: fleet.client.inspect("life4").state == "running")
        now = fleet.client.inspect("life4")
        assert (now.host, now.restarts) == ("host1", 1)
        copies = [
            host for host in ("host1", "host2") if (fleet.lab.node_dir(host) / "var/containers" / now.id).exists()
        ]
        assert copies == ["host1"]
    finally:
        fleet.client.remove("life4", force=True)


def test_agents_that_start_anew_do_not_restart_what_has_moved_away(fleet: MovingLab) -> None:
    """After the move, and with the agents killed while it is under way: one container, on one host, in one process."""
    start(fleet, "life5", restart=RestartPolicy(name="always"))
    try:
        moving = fleet.client.move("life5", to="host2")
        for event in moving:
            if getattr(event, "step", "") == "precopy":
                fleet.restart_agents()
                break
        try:
            moving.result()
        except MigrateError:
            pass  # undone: allowed, as long as there is one copy
        wait_for(lambda: fleet.client.inspect("life5").state == "running")
        if fleet.client.inspect("life5").host == "host1":
            assert fleet.move("life5").state == "succeeded"
        fleet.restart_agents()
        time.sleep(1.5)
        now = fleet.client.inspect("life5")
        assert (now.host, now.state, now.restarts) == ("host2", "running", 0)
        assert not (fleet.lab.node_dir("host1") / "var/containers" / now.id).exists()
    finally:
        fleet.client.remove("life5", force=True)


def test_events_tell_of_a_life_on_two_hosts(fleet: MovingLab) -> None:
    """In one order: made, started, moved, ended, gone; each once."""
    began = time.time_ns()
    container = start(fleet, "life6")
    fleet.move("life6")
    fleet.restart_agents()
    fleet.client.remove("life6", force=True)
    told = [one for one in fleet.client.events(since_unix_ns=began, follow=False) if one.id == container.id]
    assert [one.action for one in told] == ["create", "start", "migrate-begin", "migrate-end", "die", "destroy"]
    assert [one.host for one in told] == ["host1"] * 3 + ["host2"] * 3


def test_frozen_tasks_that_somebody_kills_do_not_hold_up_the_end(fleet: MovingLab) -> None:
    """Past the freeze the source's copy is not needed: the move succeeds, and no policy starts it again there."""
    container = start(fleet, "life7", restart=RestartPolicy(name="always"))
    try:
        moving = fleet.client.move("life7", to="host2")
        for event in moving:
            if getattr(event, "step", "") == "restore" and container.pid:
                os.kill(container.pid, signal.SIGKILL)
                break
        assert moving.result().state == "succeeded"
        time.sleep(1.5)
        now = fleet.client.inspect("life7")
        assert (now.host, now.state, now.restarts) == ("host2", "running", 0)
        assert not (fleet.lab.node_dir("host1") / "var/containers" / now.id).exists()
    finally:
        fleet.client.remove("life7", force=True)
