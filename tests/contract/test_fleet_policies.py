"""Policies through the service FleetPolicies, on hosts in memory: moves and evacuations take what nobody says by hand from them."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path

import pytest

from migrate.cli import completion
from migrate.cli.main import main
from migrate.records import Evacuation, Run
from tests.fakes.fleet import FakeFleet

pytestmark = pytest.mark.contract


@pytest.fixture
def two(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[FakeFleet]:
    """Two hosts, and web1 (tier=web) and job1 (tier=batch) on host1."""
    made = FakeFleet(tmp_path, "host1", "host2")
    for host in made.hosts.values():
        host.add_image("base", cmd=["serve"])
    for name, tier in (("web1", "web"), ("job1", "batch")):
        container = made.client.run(Run(image="base", host="host1", name=name, labels={"tier": tier}))
        made.world.run("host1", container.id, name=name).labels["tier"] = tier
    monkeypatch.setenv("MIGRATE_COORDINATOR", str(made.socket))
    yield made
    made.close()


def test_a_move_takes_what_nobody_says(two: FakeFleet, capsys: pytest.CaptureFixture[str]) -> None:
    """From policies, and its record says from which; by hand goes first; `--no-policy` is as if there were none."""
    assert main(["policy", "set", "everything", "--bandwidth", "200M", "--priority", "low"]) == 0
    assert main(["policy", "set", "web", "--selector", "tier=web", "--max-downtime", "500", "--mode", "precopy"]) == 0
    assert main(["move", "web1", "--to", "host2"]) == 0
    move = two.client.migrations()[0]
    assert (move.mode, move.max_downtime_s, move.bandwidth, move.priority) == ("precopy", 0.5, 200 << 20, "low")
    assert move.precopy.binding
    assert move.policies == {
        "mode": "web", "max_downtime_s": "web", "bandwidth": "everything", "priority": "everything",
    }  # fmt: skip
    capsys.readouterr()
    assert main(["migrations", "show", move.id]) == 0
    line = "policy:   bandwidth 200 MiB/s (everything), max downtime 500 ms (web), mode precopy (web), priority low (everything)"
    assert line in capsys.readouterr().out.replace("MB/s", "MiB/s").replace("210 MiB", "200 MiB")
    assert main(["move", "web1", "--to", "host1", "--mode", "auto", "--bandwidth", "10M"]) == 0
    move = two.client.migrations()[0]
    assert (move.mode, move.bandwidth, sorted(move.policies)) == ("auto", 10 << 20, ["max_downtime_s", "priority"])
    assert main(["move", "web1", "--to", "host2", "--no-policy"]) == 0
    move = two.client.migrations()[0]
    assert (move.mode, move.bandwidth, move.policies, move.priority) == ("auto", 0, {}, "normal")
    assert not move.precopy.binding


def test_an_evacuation_takes_its_action_and_its_moves_take_the_rest(two: FakeFleet) -> None:
    """`--action` by hand goes first, a container's label before that."""
    assert main(["policy", "set", "batch", "--selector", "tier=batch", "--evacuate", "stop"]) == 0
    assert main(["policy", "set", "web", "--selector", "tier", "--mode", "stop-and-copy"]) == 0
    (plan,) = two.client.evacuate("host1", dry_run=True)
    assert isinstance(plan, Evacuation)
    assert {one.container: one.action for one in plan.items} == {"web1": "live", "job1": "stop"}
    (plan,) = two.client.evacuate("host1", dry_run=True, action="live")
    assert isinstance(plan, Evacuation)
    assert {one.action for one in plan.items} == {"live"}
    *_, found = two.client.evacuate("host1")
    assert isinstance(found, Evacuation)
    assert {one.container: one.state for one in found.items} == {"web1": "moved", "job1": "stopped"}
    assert two.client.migrations()[0].mode == "stop-and-copy"


def test_the_most_important_goes_first(two: FakeFleet) -> None:
    """In the plan of an evacuation, whatever the names and the times."""
    for priority, other in (("high", "low"), ("low", "high")):
        assert main(["policy", "set", "web", "--selector", "tier=web", "--priority", priority]) == 0
        assert main(["policy", "set", "batch", "--selector", "tier=batch", "--priority", other]) == 0
        (plan,) = two.client.evacuate("host1", dry_run=True)
        assert isinstance(plan, Evacuation)
        assert [one.container for one in plan.items] == (["web1", "job1"] if priority == "high" else ["job1", "web1"])


def test_what_would_hold_is_shown(two: FakeFleet, capsys: pytest.CaptureFixture[str]) -> None:
    """For a container that is there, and for labels alone."""
    assert main(["policy", "test", "web1"]) == 0
    assert capsys.readouterr().out == "no policy says anything\n"
    assert main(["policy", "set", "web", "--selector", "tier=web", "--bandwidth", "unlimited"]) == 0
    assert main(["policy", "set", "all", "--bandwidth", "1M", "--priority", "high"]) == 0
    capsys.readouterr()
    assert main(["policy", "test", "web1", "--format", "json"]) == 0
    assert json.loads(capsys.readouterr().out) == {
        "values": {"bandwidth": "0", "priority": "high"},
        "sources": {"bandwidth": "web", "priority": "all"},
        "matching": ["web", "all"],
    }
    assert main(["policy", "test", "--label", "tier=web"]) == 0
    assert "bandwidth  unlimited  web" in capsys.readouterr().out
    assert main(["policy", "test"]) == 2
    assert main(["policy", "ls"]) == 0
    assert "(every container)" in capsys.readouterr().out
    assert completion.candidates(["policy", "rm", ""]) == ["all", "web"]
    assert main(["policy", "rm", "web", "all"]) == 0
    assert two.client.policies() == []
    assert main(["policy", "rm", "web"]) == 3
