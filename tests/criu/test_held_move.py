"""A real move that holds: ready, the container running, until somebody commits it; and the way back of one that is over."""

from __future__ import annotations

import json
from collections.abc import Iterator

import pytest

from migrate.errors import Cancelled
from migrate.records import Container, Run, Step
from tests.criu.moving_lab import MovingLab, program, wait_for

pytestmark = pytest.mark.criu


@pytest.fixture(scope="module")
def worker(fleet: MovingLab) -> Iterator[Container]:
    """It changes memory and files all the time, and checks what it knows of itself."""
    argv = program("kernel_objects", "/srv/kernel_objects.json", "threads")
    container = fleet.client.run(Run(image="work", name="worker", host="host1", argv=argv))
    wait_for(lambda: (fleet.upper(container) / "srv/kernel_objects.json").exists())
    yield container
    fleet.client.remove("worker", force=True)


def held(fleet: MovingLab, to: str) -> str:
    """The id of a move of it that holds."""
    moving = fleet.client.move("worker", to=to, hold=True)
    for event in moving:
        if isinstance(event, Step) and (event.step, event.event) == ("hold", "started"):
            break
    moving.close()
    return moving.migration_id


def test_cancelled_while_it_holds(fleet: MovingLab, worker: Container) -> None:
    """The container has not even stood still, and the other host has nothing of it."""
    move = held(fleet, "host2")
    before = fleet.later("worker", "kernel_objects")
    assert fleet.cli("cancel", move).returncode == 0
    with pytest.raises(Cancelled):
        fleet.client.watch(move).result()
    after, now = fleet.later("worker", "kernel_objects"), fleet.client.inspect("worker")
    assert (now.host, now.pid, now.epoch, after["token"]) == ("host1", worker.pid, worker.epoch, before["token"])
    assert after["problems"] == []
    assert not (fleet.lab.node_dir("host2") / "var/containers" / worker.id).exists()


def test_it_holds_for_rounds_and_switches_over_when_it_is_committed(fleet: MovingLab, worker: Container) -> None:
    """Meanwhile rounds go on; then it moves with all that it has; `undo` brings it back the same way."""
    move = held(fleet, "host2")
    shown = json.loads(fleet.cli("migrations", "--active", "--format", "json").stdout)
    assert [(one["id"], one["step"]) for one in shown] == [(move, "hold")]
    rounds: list[float] = []
    for event in fleet.client.watch(move):
        if not isinstance(event, Step) and event.phase == "hold":
            rounds.append(event.facts["held_rounds"])
            if len(rounds) == 3:
                break
    assert rounds == sorted(rounds)
    assert fleet.client.inspect("worker").state == "running"
    before = fleet.later("worker", "kernel_objects")
    said = fleet.cli("commit", move[:8])
    assert (said.returncode, "switches over to host2" in said.stdout) == (0, True), said.stderr
    record = fleet.client.watch(move).result()
    assert (record.state, record.precopy.hold) == ("succeeded", True)
    after = fleet.later("worker", "kernel_objects")
    assert (after["token"], after["problems"]) == (before["token"], [])
    assert fleet.client.inspect("worker").host == "host2"
    undone = fleet.cli("undo", move)
    assert undone.returncode == 0, undone.stderr
    assert "worker runs on host1" in undone.stdout
    again = fleet.later("worker", "kernel_objects")
    assert (again["token"], again["problems"]) == (before["token"], [])
    back = fleet.client.migrations(container="worker", limit=1)[0]
    assert back.reason == f"undo of {move}"
