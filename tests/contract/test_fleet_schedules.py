"""Schedules through the service FleetSchedules, on hosts in memory: times, windows, missed runs, rolling, restarts."""

from __future__ import annotations

import datetime
import json
from collections.abc import Iterator
from pathlib import Path

import pytest

from migrate.cli import completion
from migrate.cli.main import main
from migrate.errors import AlreadyExists, InvalidArgument, NotFound, WrongState
from migrate.records import Run
from migrate.records_schedules import ScheduleJob, ScheduleRun
from tests.fakes.fleet import FakeFleet, eventually

pytestmark = pytest.mark.contract

BERLIN = "Europe/Berlin"


class Clock:
    """The time as the schedules see it: set by the test, far ahead of the real one, which evacuations compare deadlines with."""

    def __init__(self, text: str) -> None:
        self.set(text)

    def set(self, text: str) -> None:
        self.ns = int(datetime.datetime.fromisoformat(text).timestamp() * 1e9)

    def __call__(self) -> int:
        return self.ns


@pytest.fixture
def clock() -> Clock:
    return Clock("2050-10-28T12:00+02:00")


@pytest.fixture
def three(tmp_path: Path, clock: Clock, monkeypatch: pytest.MonkeyPatch) -> Iterator[FakeFleet]:
    """Three hosts, labelled by rack, with the image `base`, and a clock of the test's."""
    made = FakeFleet(tmp_path, "host1", "host2", "host3")
    made.go_away()
    made.now_ns = clock
    made.come_back()
    for name, host in made.hosts.items():
        host.add_image("base", cmd=["serve"])
        made.client.label_host(name, {"rack": "b" if name == "host3" else "a"})
    monkeypatch.setenv("MIGRATE_COORDINATOR", str(made.socket))
    yield made
    made.close()


def start(fleet: FakeFleet, *names: str, host: str = "host1") -> None:
    for name in names:
        container = fleet.client.run(Run(image="base", host=host, name=name))
        fleet.world.run(host, container.id, name=name)


def owners(fleet: FakeFleet) -> dict[str, str]:
    return {one.name: one.owner for one in fleet.store.containers()}


def job(**changes: object) -> ScheduleJob:
    usual = {"name": "nightly", "kind": "evacuate", "host": "host1", "cron": "30 2 * * *", "tz": BERLIN}
    return ScheduleJob(**{**usual, **changes})  # type: ignore[arg-type]


def newest(fleet: FakeFleet, name: str = "nightly") -> ScheduleRun:
    return fleet.client.schedule(name).runs[0]


def ended(fleet: FakeFleet, name: str = "nightly") -> ScheduleRun:
    """The newest run, when it is over."""
    eventually(lambda: fleet.client.schedule(name).runs and newest(fleet, name).state != "running")
    return fleet.client.schedule_run(newest(fleet, name).id)


def test_it_runs_at_its_time_and_once_where_an_hour_comes_twice(three: FakeFleet, clock: Clock) -> None:
    """At half past two of the night that has two of them: the first time only; then it is due on the next day."""
    start(three, "a")
    made = three.client.add_schedule(job())
    assert made.next_local == "2050-10-29T02:30:00+02:00"
    three.schedules.tick()
    assert three.client.schedule("nightly").runs == ()
    clock.set("2050-10-30T02:30:01+02:00")
    three.schedules.tick()
    run = ended(three)
    assert (run.state, run.cause, run.legs[0].state) == ("succeeded", "due", "done")
    assert owners(three)["a"] != "host1"
    cordon = three.store.host("host1").cordon
    assert cordon is not None and cordon.reason == "schedule nightly"
    clock.set("2050-10-30T02:30:01+01:00")
    three.schedules.tick()
    found = three.client.schedule("nightly")
    assert len(found.runs) == 1
    assert found.next_local == "2050-10-31T02:30:00+01:00"


def test_one_in_the_hour_that_is_missing_runs_after_it(three: FakeFleet, clock: Clock) -> None:
    """In spring: at three, once."""
    clock.set("2051-03-26T01:00+01:00")
    assert three.client.add_schedule(job()).next_local == "2051-03-26T03:00:00+02:00"
    clock.set("2051-03-26T03:00:01+02:00")
    three.schedules.tick()
    assert ended(three).cause == "due"
    assert three.client.schedule("nightly").next_local == "2051-03-27T02:30:00+02:00"


def test_a_missed_run(three: FakeFleet, clock: Clock) -> None:
    """Late within its window; not when that is over; not where the job says skip. Several that were missed are one."""
    three.client.add_schedule(job(window_s=2 * 3600.0))
    three.client.add_schedule(job(name="strict", host="host2", missed="skip"))
    clock.set("2050-11-01T04:00+01:00")
    three.schedules.tick()
    late = ended(three)
    assert (late.cause, late.state) == ("missed", "succeeded")
    assert late.due_unix_ns == int(datetime.datetime.fromisoformat("2050-11-01T02:30+01:00").timestamp() * 1e9)
    skipped = ended(three, "strict")
    assert (skipped.state, skipped.why) == ("skipped", "missed: it was found 5400 s late")
    clock.set("2050-11-02T04:45+01:00")
    three.schedules.tick()
    over = ended(three)
    assert (over.state, over.why) == ("skipped", "missed: its window was over 900 s ago")
    assert [len(three.client.schedule(name).runs) for name in ("nightly", "strict")] == [2, 2]
    assert three.client.schedule("nightly").next_local == "2050-11-03T02:30:00+01:00"


def test_a_paused_one_is_not_due(three: FakeFleet, clock: Clock, capsys: pytest.CaptureFixture[str]) -> None:
    """And what it would have done meanwhile is no missed run when it is resumed."""
    three.client.add_schedule(job())
    assert main(["schedule", "pause", "nightly"]) == 0
    clock.set("2050-11-01T02:31+01:00")
    three.schedules.tick()
    assert main(["schedule", "ls"]) == 0
    assert "paused" in capsys.readouterr().out
    assert main(["schedule", "resume", "nightly"]) == 0
    three.schedules.tick()
    found = three.client.schedule("nightly")
    assert (found.runs, found.next_local) == ((), "2050-11-02T02:30:00+01:00")


def test_never_two_runs_of_one(three: FakeFleet, clock: Clock) -> None:
    """What is due while one goes on is skipped and says so; `run-now` is refused; it cannot be removed meanwhile."""
    three.client.add_schedule(job(group="rack==a", cron="* * * * *"))
    three.client.cordon("host2", reason="new disk")
    begun = three.client.run_schedule("nightly")
    eventually(lambda: newest(three).legs[0].why == "waits: host2 is cordoned (new disk)")
    with pytest.raises(WrongState, match=f"run {begun.id} went on"):
        three.client.run_schedule("nightly")
    clock.set("2050-10-28T12:01:01+02:00")
    three.schedules.tick()
    with pytest.raises(WrongState, match="goes on"):
        three.client.remove_schedule("nightly")
    three.client.cancel_schedule("nightly")
    eventually(lambda: three.client.schedule_run(begun.id).state == "cancelled")
    with pytest.raises(WrongState, match="no run of nightly goes on"):
        three.client.cancel_schedule("nightly")
    states = sorted(one.state for one in three.client.schedule("nightly").runs)
    assert states == ["cancelled", "skipped", "skipped"]
    assert three.client.evacuations() == []
    three.client.remove_schedule("nightly")
    assert three.client.schedules() == []


def test_one_at_a_time_waits_for_the_others_until_its_window_ends(three: FakeFleet, clock: Clock) -> None:
    """It goes on when the other host is uncordoned; a host of another rack holds up nobody."""
    three.client.cordon("host3")
    three.client.cordon("host2")
    three.client.add_schedule(job(group="rack==a"))
    three.client.run_schedule("nightly")
    eventually(lambda: newest(three).legs[0].why == "waits: host2 is cordoned")
    three.client.uncordon("host2")
    assert ended(three).state == "succeeded"
    three.client.add_schedule(job(name="second", host="host2", group="rack==a", window_s=3600.0))
    three.client.run_schedule("second")
    eventually(lambda: "host1 is cordoned (schedule nightly)" in newest(three, "second").legs[0].why)
    clock.set("2050-10-28T13:00:01+02:00")
    late = ended(three, "second")
    assert (late.state, late.legs[0].state) == ("incomplete", "late")
    assert three.store.host("host2").cordon is None


def test_the_end_of_the_window_is_a_deadline(three: FakeFleet, clock: Clock) -> None:
    """Of the evacuation: no move is begun after it, however long --deadline is."""
    three.client.add_schedule(job(window_s=7200.0, deadline_s=86400.0))
    begun = three.client.run_schedule("nightly")
    run = ended(three)
    stored = three.evacuations._evacuations.get(run.legs[0].evacuation_id)
    assert stored.options.deadline_unix_ns == begun.window_end_unix_ns == clock.ns + 7200 * 10**9


def test_rolling_takes_one_host_after_the_other(
    three: FakeFleet, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """Each is empty and cordoned while its hook runs, and has its containers back before the next one leaves."""
    start(three, "a", "b")
    start(three, "c", host="host2")
    three.client.cordon("host3", reason="being built")
    three.client.label_host("host3", {"rack": "a"})
    three.client.uncordon("host3")
    log = tmp_path / "hook.log"
    command = f"echo $MIGRATE_HOST $MIGRATE_ADDRESS $MIGRATE_SCHEDULE >> {log}; echo upgraded $MIGRATE_HOST"
    before = owners(three)
    assert main(["schedule", "rolling", "rack==a", "--hook", command]) == 0
    out = capsys.readouterr().out
    assert "host1: done, hook: status 0" in out and "run " in out
    assert [line.split()[0] for line in log.read_text().splitlines()] == ["host1", "host2", "host3"]
    assert owners(three) == before
    assert all(host.cordon is None for host in three.store.hosts())
    assert three.world.violations == []
    run = newest(three, "rolling-rack-a")
    assert (run.state, run.cause, [leg.hook_output for leg in run.legs]) == ("succeeded", "by hand", ["", "", ""])
    assert main(["schedule", "show", "rolling-rack-a", "--run", run.id[:8]]) == 0
    assert "    | upgraded host2" in capsys.readouterr().out
    moves = [one for one in three.client.migrations() if one.state == "succeeded"]
    assert len(moves) >= 6


def test_a_hook_that_fails_ends_the_run(three: FakeFleet, capsys: pytest.CaptureFixture[str]) -> None:
    """Its host stays cordoned and empty; the others are not begun; the record says what to type."""
    start(three, "a")
    assert main(["schedule", "rolling", "all", "--hook", "echo no disk; exit 9", "--name", "up"]) == 1
    out = capsys.readouterr().out
    assert "host1: failed, hook: status 9" in out and "migrate restore host1" in out
    assert "host2: skipped: not begun: host1 failed" in out
    assert three.store.host("host1").cordon is not None and owners(three)["a"] != "host1"
    assert three.store.host("host2").cordon is None
    assert main(["schedule", "run-now", "up", "--format", "json"]) == 1
    legs = json.loads(capsys.readouterr().out)["legs"]
    assert legs[0]["why"] == "it was cordoned before (schedule up)"


def test_a_host_that_cannot_be_emptied_gets_its_containers_back(three: FakeFleet, tmp_path: Path) -> None:
    """No hook runs where a container still is."""
    start(three, "a", "stuck")
    stuck = three.store.container("stuck").id
    three.world.agents["host1"].containers[stuck].spec.isolation.pid = "host"
    marker = tmp_path / "ran"
    three.client.add_schedule(job(name="up", kind="rolling", host="", group="all", cron="", hook=f"touch {marker}"))
    three.client.run_schedule("up")
    run = ended(three, "up")
    assert (run.state, run.legs[0].state) == ("incomplete", "failed")
    assert "could not be emptied" in run.legs[0].why
    assert not marker.exists()
    assert owners(three) == {"a": "host1", "stuck": "host1"}
    assert three.store.host("host1").cordon is None


def test_a_host_that_restarts_is_waited_for(three: FakeFleet, clock: Clock, tmp_path: Path) -> None:
    """Until its kernel is another one: an answer of the old one, still going down, is none. One that stays away ends the run."""
    start(three, "a")
    facts = three.hosts["host1"].facts
    facts["boot_id"] = "old"
    three.client.add_schedule(
        job(name="up", kind="rolling", host="", group="rack==a", cron="", hook="true", reboots=True)
    )
    begun = three.client.run_schedule("up")
    eventually(lambda: newest(three, "up").legs[0].state == "awaited")
    three.hosts["host1"].stop()
    three.hosts["host1"].serve(three.world.agents["host1"])
    assert newest(three, "up").legs[0].state == "awaited"
    facts["boot_id"] = "new"
    eventually(lambda: three.client.schedule_run(begun.id).legs[1].state == "awaited")
    assert owners(three) == {"a": "host1"}
    clock.ns += 3600 * 10**9
    run = ended(three, "up")
    assert run.legs[0].state == "done"
    assert "not back after 900 s: it has not restarted" in run.legs[1].why
    assert three.store.host("host2").cordon is not None


def test_a_coordinator_that_dies_goes_on_with_the_run(three: FakeFleet, tmp_path: Path) -> None:
    """In the middle of a hook, which goes on meanwhile and is not begun again; each container has moved twice in all."""
    start(three, "a")
    log, go = tmp_path / "hook.log", tmp_path / "go"
    command = f"echo $MIGRATE_HOST >> {log}; while [ ! -e {go} ]; do sleep 0.05; done"
    three.client.add_schedule(job(name="up", kind="rolling", host="", group="rack==a", cron="", hook=command))
    begun = three.client.run_schedule("up")
    for _ in range(2):
        eventually(lambda: newest(three, "up").legs[0].state == "hook" and log.exists())
        three.go_away()
        three.come_back()
    go.touch()
    eventually(lambda: three.client.schedule_run(begun.id).state != "running")
    run = three.client.schedule_run(begun.id)
    assert (run.state, [leg.state for leg in run.legs]) == ("succeeded", ["done", "done"])
    assert log.read_text() == "host1\nhost2\n"
    assert len([one for one in three.client.migrations() if one.container == "a"]) in (2, 4)
    assert owners(three) == {"a": "host1"}
    assert len(three.client.schedule("up").runs) == 1


def test_what_makes_no_sense_is_refused(three: FakeFleet) -> None:
    """Before it is kept."""
    for changes, error, text in (
        ({"cron": "0 2 * *"}, InvalidArgument, "4 fields"),
        ({"tz": "Mars/Olympus"}, InvalidArgument, "no time zone"),
        ({"blackouts": ("01-01..12-31",)}, InvalidArgument, "never comes"),
        ({"host": "host9"}, NotFound, "host9"),
        ({"group": "rack==z"}, NotFound, "no host is in the group"),
        ({"action": "fly"}, InvalidArgument, "fly"),
        ({"missed": "perhaps"}, InvalidArgument, "perhaps"),
        ({"window_s": 8 * 86400.0}, InvalidArgument, "window"),
        ({"kind": "rolling", "host": ""}, InvalidArgument, "needs a group"),
        ({"name": "a b"}, InvalidArgument, "cannot name"),
        ({"to": ("host1",)}, InvalidArgument, "cannot be a target"),
    ):
        with pytest.raises(error, match=text):
            three.client.add_schedule(job(**changes))
    assert three.client.schedules() == []
    three.client.add_schedule(job())
    with pytest.raises(AlreadyExists, match="nightly"):
        three.client.add_schedule(job())
    assert completion.candidates(["schedule", "show", ""]) == ["nightly"]


def test_the_command_line(three: FakeFleet, capsys: pytest.CaptureFixture[str]) -> None:
    """As the documentation has it."""
    assert main(["schedule", "evacuate", "host1", "--cron", "0 2 * * SAT", "--window", "4h", "--tz", BERLIN]) == 0
    assert capsys.readouterr().out == "evacuate-host1: due 2050-10-29T02:00:00+02:00\n"
    assert main(["schedule", "ls"]) == 0
    assert "evacuate host1  0 2 * * SAT  Europe/Berlin  2050-10-29 02:00:00+02:00" in capsys.readouterr().out
    assert main(["schedule", "run-now", "evacuate-host1"]) == 0
    assert "host1: done" in capsys.readouterr().out
    assert main(["schedule", "show", "evacuate-host1"]) == 0
    out = capsys.readouterr().out
    assert "window: 4" in out and "succeeded, by hand" in out
    assert main(["schedule", "rm", "evacuate-host1"]) == 0
    assert main(["schedule", "show", "evacuate-host1"]) == 3
