"""Post-copy: the container runs on the target while memory is still on the source, and whatever breaks in that time is gone on from.

dirty_memory.py knows what every page must hold and reads pages at random, so what came late, twice or not at all shows.
"""

from __future__ import annotations

import subprocess
import time
from collections.abc import Callable, Iterator

import pytest

from bench.fault_instants import Instant, JournalReader, hold
from bench.fault_scene import Scene, Victim
from migrate.errors import MigrateError, WrongState
from migrate.lab import processes
from migrate.records import Migration, Run, Step
from tests.criu.moving_lab import MovingLab, program, wait_for

pytestmark = [pytest.mark.criu, pytest.mark.needs("userfaultfd")]

SIZE_MB = 64
SLOW, FAST = 2 << 20, 0  # bytes per second: the least that a move takes; 0: no limit
CUT_S = 24  # longer than ssh waits for an answer: 15 to 20 s (agent/transfer/ssh.py)


@pytest.fixture
def dirty(fleet: MovingLab) -> Iterator[str]:
    fleet.client.run(Run(name="dirty", image="work", argv=program("dirty_memory", str(SIZE_MB), "30"), host="host1"))
    wait_for(lambda: fleet.run("dirty", "test", "-e", "/srv/dirty_memory.json")[0] == 0)
    fleet.later("dirty", "dirty_memory")
    yield "dirty"
    wait_for(lambda: not fleet.client.migrations(active=True), timeout_s=90)
    fleet.client.remove("dirty", force=True)


def whole(fleet: MovingLab, name: str) -> None:
    """It has read every page since, and each was right."""
    start = fleet.later(name, "dirty_memory")["checked"]
    wait_for(lambda: fleet.status(name, "dirty_memory")["checked"] > start + SIZE_MB * 256, timeout_s=120)
    assert fleet.status(name, "dirty_memory")["problems"] == []


def test_all_memory_follows(fleet: MovingLab, dirty: str) -> None:
    """Most of it after the pivot; the source is released when the target has all."""
    token = fleet.status(dirty, "dirty_memory")["token"]
    record = fleet.client.move(dirty, to="host2", mode="postcopy").result()
    facts = next(
        row.facts for row in fleet.client.migration(record.id).journal if (row.step, row.event) == ("rest", "done")
    )
    assert facts["later_bytes"] > 1 << 20
    whole(fleet, dirty)
    assert fleet.status(dirty, "dirty_memory")["token"] == token
    assert fleet.move(dirty).state == "succeeded"  # and back, by precopy: nothing of the first is in the way


def test_an_idle_one_leaves_nothing_behind(fleet: MovingLab) -> None:
    """Nothing was written after the round ahead but what the freeze itself needs: there may be little to follow, or nothing."""
    fleet.client.run(
        Run(name="idle", image="work", argv=("/usr/bin/python3", "-c", "import time; time.sleep(1e6)"), host="host1")
    )
    assert fleet.client.move("idle", to="host2", mode="postcopy").result().state == "succeeded"
    fleet.client.remove("idle", force=True)


def _kill(victim: Victim) -> Callable[[MovingLab, Scene], None]:
    def kill(_fleet: MovingLab, scene: Scene) -> None:
        process = scene.find(victim)
        assert process is not None, f"no {victim} while memory follows"
        assert processes.send(process, 9)

    return kill


def _cut(fleet: MovingLab, _scene: Scene) -> None:
    """The link of the source, for longer than ssh lives without it."""
    link = ["ip", "-n", fleet.lab.netns("host1"), "link", "set", "eth0"]
    subprocess.run([*link, "down"], check=True)
    try:
        subprocess.run(["sleep", str(CUT_S)], check=True)
    finally:
        subprocess.run([*link, "up"], check=True)


@pytest.mark.parametrize(
    "harm",
    [
        pytest.param(_kill(Victim.SENDER), id="sender killed"),
        pytest.param(_kill(Victim.RECEIVER), id="receiver killed"),
        pytest.param(_kill(Victim.SSH), id="ssh killed"),
        pytest.param(_kill(Victim.SOURCE_AGENT), id="source agent killed"),
        pytest.param(_kill(Victim.TARGET_AGENT), id="target agent killed"),
        pytest.param(_kill(Victim.COORDINATOR), id="coordinator killed"),
        pytest.param(_cut, id="link cut"),
    ],
)
def test_it_goes_on_from_what_is_missing(
    fleet: MovingLab, dirty: str, harm: Callable[[MovingLab, Scene], None]
) -> None:
    """The container stands where it needs a page, and goes on when the page comes: none is wrong, the move succeeds by itself."""
    scene, migration_id = _while_memory_follows(fleet, dirty)
    harm(fleet, scene)
    wait_for(lambda: _hurry(fleet, migration_id))
    ended = wait_for(lambda: _ended(fleet, migration_id), timeout_s=120)
    assert ended.state == "succeeded", ended.failure
    assert fleet.client.inspect(dirty).host == "host2"
    whole(fleet, dirty)


def test_a_restore_that_memory_does_not_reach_is_given_up_at_once(fleet: MovingLab, dirty: str) -> None:
    """CRIU needs some of it before the pivot, when the source still has all: the container runs on there, and is not waited for."""
    scene = Scene(fleet.lab, fleet.client.inspect(dirty).id, "host1", "host2")
    moving = fleet.client.move(dirty, to="host2", mode="postcopy")
    for event in moving:
        if isinstance(event, Step) and (event.step, event.event) == ("freeze", "started"):
            fleet.client.set_migration(moving.migration_id, bandwidth=SLOW)
            break
    journal = JournalReader(fleet.lab)
    held = hold(scene, Instant.RESTORING, journal, lambda: _ended(fleet, moving.migration_id) is not None)
    assert held is not None
    try:
        _kill(Victim.SENDER)(fleet, scene)
        killed = time.monotonic()
    finally:
        held.let_go()
    ended = wait_for(lambda: _ended(fleet, moving.migration_id), timeout_s=120)
    assert time.monotonic() - killed < 60  # it was 110 s and what came after
    assert ended.state == "failed", ended
    assert ended.failure is not None
    assert "does not come: the stream has ended" in ended.failure.message
    assert fleet.client.inspect(dirty).host == "host1"
    whole(fleet, dirty)


def test_what_is_lost_with_the_source_is_said(fleet: MovingLab, dirty: str) -> None:
    """Its frozen tasks are killed while memory follows: the move needs attention and names every range; nothing reads zeros; what
    is typed then ends it.
    """
    scene, migration_id = _while_memory_follows(fleet, dirty)
    scene.kill_tasks("host1")
    ended = wait_for(lambda: _ended(fleet, migration_id), timeout_s=120)
    assert ended.state == "needs-attention", ended
    assert ended.failure is not None
    lost = next(row.facts["lost"] for row in reversed(ended.journal) if row.step == "rest" and row.event == "failed")
    assert sum(task["bytes"] for task in lost) > 1 << 20
    assert all(len(task["ranges"]) == task["range_count"] for task in lost)
    assert all(sum(end - start for start, end, _ in task["ranges"]) == task["bytes"] for task in lost)
    assert {task["program"] for task in lost} == {"python3"}
    first = lost[0]["ranges"][0]
    assert f"{first[0]:#x}-{first[1]:#x}, {(first[1] - first[0]) // 4096} pages" in ended.failure.detail
    problems = fleet.status(dirty, "dirty_memory")["problems"]
    assert fleet.client.repair(migration_id).result().state == "succeeded"
    assert fleet.status(dirty, "dirty_memory")["problems"] == problems == []
    assert scene.group("host2").populated
    fleet.client.remove(dirty, force=True)
    assert not scene.group("host2").populated
    fleet.client.run(Run(name=dirty, image="work", argv=program("dirty_memory", "1"), host="host1"))


def test_a_move_whose_time_is_up_ends_in_post_copy(fleet: MovingLab, dirty: str) -> None:
    """It writes faster than the link takes: when --timeout is over it is frozen, and the rest follows."""
    moving = fleet.client.move(
        dirty, to="host2", timeout_s=3.0, on_timeout="post-copy", bandwidth=8 << 20, compress="none"
    )
    for event in moving:
        if isinstance(event, Step) and (event.step, event.event) == ("rest", "started"):
            _hurry(fleet, moving.migration_id)
    record = fleet.client.migration(moving.migration_id)
    assert record.state == "succeeded", record.failure
    facts = {row.step: row.facts for row in record.journal if row.event == "done"}
    assert facts["precopy"]["rest_later"]
    assert "it follows later" in facts["precopy"]["text"]
    assert facts["rest"]["later_bytes"] > 1 << 20
    whole(fleet, dirty)


def _while_memory_follows(fleet: MovingLab, name: str) -> tuple[Scene, str]:
    """(who takes part, the move's id) of a move in post-copy that has slowed down."""
    scene = Scene(fleet.lab, fleet.client.inspect(name).id, "host1", "host2")
    moving = fleet.client.move(name, to="host2", mode="postcopy")
    for event in moving:
        if isinstance(event, Step) and (event.step, event.event) == ("freeze", "started"):
            fleet.client.set_migration(moving.migration_id, bandwidth=SLOW)
        if isinstance(event, Step) and (event.step, event.event) == ("rest", "started"):
            break
    assert fleet.client.migration(moving.migration_id).step == "rest"
    return scene, moving.migration_id


def _hurry(fleet: MovingLab, migration_id: str) -> bool:
    """As soon as there is somebody to tell."""
    try:
        fleet.client.set_migration(migration_id, bandwidth=FAST)
    except MigrateError as exc:
        return isinstance(exc, WrongState)  # it has ended
    return True


def _ended(fleet: MovingLab, migration_id: str) -> Migration | None:
    record = fleet.client.migration(migration_id)
    if record.state in ("succeeded", "failed", "needs-attention"):
        return record
    return None
