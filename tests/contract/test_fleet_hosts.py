"""Single hosts through the service FleetHosts and the command line: labels and cordons, kept in the store."""

from __future__ import annotations

import json
import threading
from pathlib import Path

import pytest

from agent import errors as agent_errors
from migrate.cli.main import main
from migrate.coordinator import hosts
from migrate.coordinator.health import Heartbeats, Limits
from migrate.coordinator.store import Host, Store
from migrate.errors import InvalidArgument, MigrateError, NotFound, WrongState
from migrate.records import Run
from tests.fakes.fleet import FakeFleet, eventually

pytestmark = pytest.mark.contract


def test_a_cordoned_host_takes_nothing_new_and_what_runs_there_goes_on(fleet: FakeFleet) -> None:
    """Neither run nor create nor move gets there, each says why and what to type; uncordon ends it."""
    fleet.run("web1", "host1")
    fleet.run("web2", "host2")
    host = fleet.client.cordon("host2", reason="new disk")
    assert (host.cordoned, host.cordon_reason) == (True, "new disk")
    for call in (
        lambda: fleet.client.run(Run(image="base", host="host2")),
        lambda: fleet.client.create(Run(image="base", host="host2")),
        lambda: fleet.client.move("web1", to="host2").result(),
    ):
        with pytest.raises(WrongState, match=r"host2 is cordoned \(new disk\)") as caught:
            call()
        assert caught.value.code == "cordoned.wrong_state"
        assert "migrate host uncordon host2" in caught.value.hint
    assert len(fleet.store.containers()) == 2
    assert fleet.client.migrations() == []
    assert fleet.client.inspect("web2").state == "running"
    assert fleet.client.stop("web2").state == "exited" and fleet.client.start("web2").state == "running"
    assert fleet.client.move("web2", to="host1").result().state == "succeeded"
    assert not fleet.client.uncordon("host2").cordoned
    assert fleet.client.move("web1", to="host2").result().state == "succeeded"


def test_a_create_that_was_before_the_cordon_comes_to_its_end(fleet: FakeFleet) -> None:
    """The allocation is the gate: who has passed it goes on."""
    entered, go = threading.Event(), threading.Event()
    original = fleet.hosts["host1"].called

    def called(name: str) -> None:
        if name == "Containers.Create":
            entered.set()
            assert go.wait(60)
        original(name)

    fleet.hosts["host1"].called = called  # type: ignore[method-assign]
    made = threading.Thread(target=lambda: fleet.client.run(Run(image="base", host="host1", name="early")))
    made.start()
    assert entered.wait(60)
    fleet.client.cordon("host1")
    go.set()
    eventually(lambda: not made.is_alive())
    assert fleet.client.inspect("early").state == "running"


def test_labels_and_cordons_outlive_the_coordinator_and_its_configuration(fleet: FakeFleet) -> None:
    """Another Store over the same file has them, also after put_host, which every start of the coordinator calls."""
    fleet.client.label_host("host1", {"disk": "ssd", "zone": "a"})
    assert fleet.client.label_host("host1", {"zone": "b"}, remove=["disk"]).labels == {"zone": "b"}
    fleet.client.cordon("host1", reason="rack moves")
    store = Store(fleet.store.database.path)
    hosts.put_configured(store, [Host(name=name, address=f"10.9.9.{n}") for n, name in enumerate(fleet.hosts)])
    again = store.host("host1")
    assert (again.labels, again.address) == ({"zone": "b"}, "10.9.9.0")
    assert again.cordon is not None
    assert again.cordon.reason == "rack moves"
    store.database.close()


def test_a_cordon_can_be_said_again(fleet: FakeFleet) -> None:
    """The first time stays; a new reason replaces the old one, none keeps it."""
    first = fleet.client.cordon("host1", reason="one")
    assert fleet.client.cordon("host1").cordon_reason == "one"
    again = fleet.client.cordon("host1", reason="two")
    assert (again.cordon_reason, again.cordoned_unix_ns) == ("two", first.cordoned_unix_ns)
    fleet.client.uncordon("host1")
    assert not fleet.client.uncordon("host1").cordoned


def test_wrong_names_and_keys_are_refused(fleet: FakeFleet) -> None:
    """Unknown hosts by each verb, and what is no key."""
    for call in (fleet.client.inspect_host, fleet.client.cordon, fleet.client.uncordon):
        with pytest.raises(NotFound, match="host9"):
            call("host9")
    with pytest.raises(NotFound, match="host9"):
        fleet.client.label_host("host9", {"a": "b"})
    with pytest.raises(InvalidArgument, match="no key of a label"):
        fleet.client.label_host("host1", {"a b": "c"})
    assert fleet.client.inspect_host("host1").labels == {}


def test_the_command_line_says_what_a_host_is(fleet: FakeFleet, capsys: pytest.CaptureFixture[str]) -> None:
    """`hosts` is `host ls`: labels, cordon and its reason; a silent host can be cordoned and labelled too."""
    fleet.hosts["host2"].stop()
    assert main(["host", "label", "host2", "disk=ssd", "zone=a"]) == 0
    assert capsys.readouterr().out == "disk=ssd\nzone=a\n"
    assert main(["host", "label", "host2", "zone"]) == 2
    assert "'zone' is not KEY=VALUE" in capsys.readouterr().err
    assert main(["host", "cordon", "host2", "--reason", "it smokes"]) == 0
    assert "host2 takes no new containers and no moves" in capsys.readouterr().out
    for words in (["host", "ls"], ["hosts"]):
        assert main(words) == 0
        out = capsys.readouterr().out
        assert "unreachable,cordoned" in out and "disk=ssd,zone=a" in out
        assert ": it smokes  (migrate host uncordon host2)" in out
    assert main(["host", "inspect", "host2"]) == 0
    (shown,) = json.loads(capsys.readouterr().out)
    assert (shown["labels"], shown["cordoned"], shown["reachable"]) == ({"disk": "ssd", "zone": "a"}, True, False)
    assert main(["host", "uncordon", "host2"]) == 0
    assert main(["run", "-d", "--host", "host9", "base"]) != 0
    capsys.readouterr()


def test_a_failed_create_on_a_host_that_was_cordoned_meanwhile_is_undone(fleet: FakeFleet) -> None:
    """Undoing is no new container."""
    fleet.hosts["host1"].fail["Containers.Start"] = agent_errors.StorageError("no room")
    with pytest.raises(MigrateError, match="no room"):
        fleet.client.run(Run(image="base", host="host1", name="web1"))
    assert fleet.store.containers() == []


def test_a_fleet_without_hosts_says_what_to_do_next(
    fleet: FakeFleet, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """Lists are empty; whatever needs a host says how one joins."""
    for name in fleet.hosts:
        fleet.store.remove_host(name)
    archive = tmp_path / "root.tar"
    archive.write_bytes(bytes(1024))
    assert main(["hosts"]) == 0
    assert "migrate host add host1" in capsys.readouterr().err
    for words in (["ps"], ["images"], ["volume", "ls"], ["migrations"], ["stats", "--no-stream"], ["prune", "-f"]):
        assert main(words) == 0, words
    for words in (
        ["run", "base"],
        ["run", "--pull", "always", "base"],
        ["create", "base"],
        ["pull", "base"],
        ["import", str(archive), "base"],
        ["load", "-i", str(archive)],
        ["rmi", "base"],
        ["tag", "base", "other"],
        ["save", "base", "-o", str(tmp_path / "saved.tar")],
        ["volume", "create", "data"],
    ):
        capsys.readouterr()
        assert main(words) == (125 if words[0] == "run" else 1), words
        assert "error: this fleet has no hosts yet\nhint: migrate host add" in capsys.readouterr().err, words


def test_a_host_that_falls_silent_and_comes_back(fleet: FakeFleet, capsys: pytest.CaptureFixture[str]) -> None:
    """Heartbeats over real calls: health with times in ls, inspect and events; its container stays its own."""
    beats = Heartbeats(fleet.store, fleet.pool, Limits(interval_s=0.05, suspect_s=0.3, down_s=1.0))
    fleet.run("web1", "host2")
    beats.start()
    try:
        eventually(lambda: fleet.client.inspect_host("host2").pulse.health == "up")
        fleet.hosts["host2"].stop()
        eventually(lambda: fleet.client.inspect_host("host2").pulse.health == "down")
        pulse = fleet.client.inspect_host("host2").pulse
        assert 0 < pulse.seen_unix_ns < pulse.since_unix_ns
        assert main(["host", "ls"]) == 0
        out = capsys.readouterr().out
        assert "down 0 seconds" in out or "down 1 second" in out
        assert "its containers may run there all the same" in out
        assert fleet.store.container("web1").owner == "host2"
        fleet.hosts["host2"].serve(fleet.world.agents["host2"])
        eventually(lambda: fleet.client.inspect_host("host2").pulse.health == "up")
    finally:
        beats.stop()
    said = fleet.client.events(since_unix_ns=0, follow=False)
    assert [one.action for one in said if one.type == "host" and one.name == "host2"] == ["up", "suspect", "down", "up"]
