"""Limits changed, pause, stats and top through the fleet: the coordinator over hosts in memory."""

from __future__ import annotations

import pytest

from migrate.cli.main import main
from migrate.coordinator import create
from migrate.errors import InvalidArgument, Unreachable, WrongState
from migrate.records import DeviceRate, Run
from tests.fakes.fleet import FakeFleet

pytestmark = pytest.mark.contract

DISK = "/var/lib/migrate"


def test_an_update_changes_what_it_names_and_nothing_else(fleet: FakeFleet) -> None:
    """On the host and in the coordinator's record; of device rates only those that are named."""
    rates = tuple(DeviceRate(path=DISK, what=what, rate=5) for what in ("read_bps", "write_bps"))
    fleet.client.run(Run(image="base", name="web1", host="host1", memory_bytes=1 << 30, pids=5, device_rates=rates))
    changes = (DeviceRate(path=DISK, what="read_bps", rate=0), DeviceRate(path="/x", what="read_iops", rate=2))
    container = fleet.client.update("web1", pids=0, cpus=1.5, device_rates=changes)
    assert (container.memory_bytes, container.pids, container.cpus) == (1 << 30, 0, 1.5)
    assert container.device_rates == (rates[1], changes[1])
    recorded = create.spec_of(fleet.store.container("web1"))
    assert recorded.limits == fleet.hosts["host1"].containers[container.id].spec.limits
    assert recorded.name == "web1"


def test_an_update_that_the_host_refuses_is_not_recorded(fleet: FakeFleet) -> None:
    """The agent's own error, and the record as it was."""
    from agent import errors

    fleet.client.run(Run(image="base", name="web1", host="host1", pids=5))
    fleet.hosts["host1"].fail["Containers.Update"] = errors.InvalidArgument("the kernel refuses 7")
    with pytest.raises(InvalidArgument, match="refuses 7"):
        fleet.client.update("web1", pids=7)
    assert create.spec_of(fleet.store.container("web1")).limits.pids == 5


def test_pause_and_back(fleet: FakeFleet, capsys: pytest.CaptureFixture[str]) -> None:
    """ps says so; a move of it is refused with the command that helps; unpause twice is an error."""
    fleet.client.run(Run(image="base", name="web1", host="host1"))
    assert main(["pause", "web1"]) == 0
    assert main(["ps"]) == 0
    assert "(paused)" in capsys.readouterr().out
    assert main(["unpause", "web1"]) == 0
    with pytest.raises(WrongState, match="not paused"):
        fleet.client.unpause("web1")


def test_nothing_is_adjusted_while_a_move_holds_it(fleet: FakeFleet) -> None:
    """Also while the move needs attention; the host is not even asked."""
    container = fleet.client.run(Run(image="base", name="web1", host="host1"))
    fleet.begin_move(container.id)
    fleet.hosts["host1"].calls.clear()
    for change in (lambda: fleet.client.pause("web1"), lambda: fleet.client.update("web1", pids=7)):
        with pytest.raises(WrongState, match="being moved: abcdef"):
            change()
    assert fleet.hosts["host1"].calls == []


def test_stats_ask_every_host_once(fleet: FakeFleet) -> None:
    """Without names all that run; a silent host is left out, but not for a container that was named."""
    for name, host in (("a", "host1"), ("b", "host1"), ("c", "host2")):
        fleet.client.run(Run(image="base", name=name, host=host))
    fleet.client.create(Run(image="base", name="d", host="host1"))
    fleet.hosts["host1"].calls.clear()
    found = fleet.client.stats()
    assert [(one.name, one.host, one.memory_bytes) for one in found] == [
        ("a", "host1", 7),
        ("b", "host1", 7),
        ("c", "host2", 7),
    ]
    assert fleet.hosts["host1"].calls.count("Containers.Usage") == 1
    assert [one.name for one in fleet.client.stats("c", "a")] == ["c", "a"]
    fleet.hosts["host2"].stop()
    assert [one.name for one in fleet.client.stats()] == ["a", "b"]
    with pytest.raises(Unreachable):
        fleet.client.stats("c")


def test_top_lists_processes(fleet: FakeFleet, capsys: pytest.CaptureFixture[str]) -> None:
    """The table, and an update without anything to change, which is a wrong command line."""
    fleet.client.run(Run(image="base", name="web1", host="host1"))
    assert main(["top", "web1"]) == 0
    assert "serve" in capsys.readouterr().out
    assert main(["update", "web1"]) == 2
    assert main(["update", "--pids-limit", "7", "web1"]) == 0
    assert fleet.client.inspect("web1").pids == 7
    assert main(["stats", "--no-stream", "--format", "json", "web1"]) == 0
    assert '"memory_bytes": 7' in capsys.readouterr().out
