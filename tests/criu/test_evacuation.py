"""A host of a real lab is emptied and filled again, while the coordinator is killed, and one container cannot move at all."""

from __future__ import annotations

import json
import signal
from collections.abc import Iterable, Iterator
from contextlib import suppress
from pathlib import Path
from typing import Any

import pytest

from migrate.errors import MigrateError, Unreachable
from migrate.lab import nodes, processes
from migrate.records import Container, Evacuation, Isolation, Run
from tests.criu.moving_lab import Dialogue, MovingLab, program, wait_for

pytestmark = pytest.mark.criu

COUNTERS = ("ev-a", "ev-b", "ev-c")
LIMIT_S = 240.0  # of an evacuation with a restart of the coordinator in it; seconds on an idle machine


@pytest.fixture
def moving(fleet: MovingLab) -> Iterator[dict[str, Container]]:
    """On host1: three that count, a server with a connection, and one that shares the host's processes and so cannot move."""
    made: dict[str, Container] = {}
    try:
        for name in COUNTERS:
            made[name] = fleet.client.run(Run(image="work", name=name, host="host1", argv=program("counter")))
        made["ev-echo"] = fleet.client.run(
            Run(image="work", name="ev-echo", host="host1", argv=program("tcp_echo", "7311"))
        )
        made["ev-stays"] = fleet.client.run(
            Run(image="work", name="ev-stays", host="host1", argv=("sleep", "3600"), isolation=Isolation(pid="host"))
        )
        yield made
    finally:
        for name in made:
            with suppress(MigrateError):
                fleet.client.remove(name, force=True)
        fleet.client.uncordon("host1")


def kill_coordinator(fleet: MovingLab) -> None:
    """SIGKILL; returns when the next one answers."""

    def pid() -> int:
        programs = nodes.states(fleet.lab.state_dir)["controller"].programs
        return next(each.pid for each in programs if each.name == "coordinator")

    old = pid()
    process = processes.read(old)
    assert process is not None
    assert processes.send(process, signal.SIGKILL)
    wait_for(lambda: pid() not in (0, old), timeout_s=60)
    wait_for(lambda: answers(fleet), timeout_s=60)


def answers(fleet: MovingLab) -> bool:
    try:
        fleet.client.version()
    except MigrateError:
        return False
    return True


def killed_in_the_middle(fleet: MovingLab, events: Iterable[Any]) -> Evacuation:
    """The coordinator dies as soon as something moves; the record at the end, by whoever came after it."""
    found = ""
    with pytest.raises(Unreachable):
        for event in events:
            found = event.id if isinstance(event, Evacuation) else found
            if found and any(one.state == "running" for one in fleet.client.migrations(active=True)):
                kill_coordinator(fleet)
    assert found
    wait_for(lambda: fleet.client.evacuation(found).state != "running", timeout_s=LIMIT_S)
    return fleet.client.evacuation(found)


def where(fleet: MovingLab) -> dict[str, str]:
    return {one.name: one.host for one in fleet.client.containers() if one.name.startswith("ev-")}


def has(fleet: MovingLab, container: Container, host: str) -> bool:
    path: Path = fleet.lab.node_dir(host) / "var/containers" / container.id
    return path.exists()


def test_a_host_is_emptied_and_filled_again_while_the_coordinator_dies(
    fleet: MovingLab, moving: dict[str, Container]
) -> None:
    """Twice killed: each container is on the other host and then at home, once, with its memory and its connection; the one that cannot
    move is told and runs on.
    """
    tokens = {name: wait_for(lambda name=name: status(fleet, name, "counter")) for name in COUNTERS}
    wait_for(lambda: status(fleet, "ev-echo", "tcp_echo"))  # it listens
    dialogue = Dialogue(fleet.lab, moving["ev-echo"].address, 7311)
    try:
        assert dialogue.ask("one") == "1 one"
        away = killed_in_the_middle(fleet, fleet.client.evacuate("host1", reason="a test", max_parallel=2))
        states = {item.container: item.state for item in away.items}
        assert states == {**dict.fromkeys((*COUNTERS, "ev-echo"), "moved"), "ev-stays": "refused"}, away
        assert away.state == "incomplete"
        assert where(fleet) == {**dict.fromkeys((*COUNTERS, "ev-echo"), "host2"), "ev-stays": "host1"}
        assert dialogue.ask("two") == "2 two"
        refused = fleet.cli("run", "-d", "--host", "host1", "work", "true")
        assert refused.returncode != 0 and "host1 is cordoned (a test)" in refused.stderr
        home = killed_in_the_middle(fleet, fleet.client.restore_host("host1"))
        assert {item.state for item in home.items} == {"moved"}, home
        assert (home.state, len(home.items)) == ("succeeded", 4)
        assert set(where(fleet).values()) == {"host1"}
        assert dialogue.ask("three") == "3 three"
    finally:
        dialogue.close()
    for name, token in tokens.items():
        now = fleet.later(name, "counter")
        assert (now["token"], now["problems"]) == (token["token"], [])
        assert now["count"] > token["count"]
    for container in moving.values():
        assert fleet.client.inspect(container.name).state == "running"
        assert has(fleet, container, "host1") and not has(fleet, container, "host2")
        assert fleet.client.evacuations(active=True) == []


def status(fleet: MovingLab, name: str, workload: str) -> dict[str, Any] | None:
    try:
        return fleet.status(name, workload)
    except (FileNotFoundError, json.JSONDecodeError):
        return None
