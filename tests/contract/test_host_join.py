"""Hosts come and go, through the command line, the coordinator's service over gRPC, and a machine in memory."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from migrate.cli.main import main
from migrate.coordinator import hosts
from migrate.coordinator.host_records import Health, Pulse, set_pulse
from migrate.coordinator.store import Host
from migrate.errors import MigrateError, Unreachable, WrongState
from migrate.join import artefact
from migrate.records import Run
from migrate.tunnel import operator, transport
from migrate.tunnel.remote import Ran
from tests.fakes.fleet import FakeFleet, eventually
from tests.fakes.host import FakeHost
from tests.fakes.machine import KEY, OTHER_KEY, FakeMachine

pytestmark = pytest.mark.contract

ADD = ["host", "add", "host3", "root@10.0.0.3"]
PRINT = transport.fingerprint(KEY)


@pytest.fixture
def machine(fleet: FakeFleet, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[FakeMachine]:
    """Not a host yet, but its agent (host3's) is there to be asked once it is."""
    machine = FakeMachine("root@10.0.0.3")
    monkeypatch.setattr(operator, "show_host_key", machine.show_host_key)
    monkeypatch.setattr(operator, "log_in", machine.log_in)
    archive = tmp_path / "archive"
    archive.write_bytes(b"tar")
    monkeypatch.setattr(artefact, "make", lambda python, **_: artefact.Artefact(release=f"1-{python}", path=archive))
    fleet.hosts["host3"] = FakeHost("host3", tmp_path).serve()
    yield machine


def test_one_command_makes_a_host(fleet: FakeFleet, machine: FakeMachine, capsys: pytest.CaptureFixture[str]) -> None:
    """It trusts the fleet, runs the agent, has its key pinned and its labels; said again, nothing is carried."""
    words = [*ADD, "--fingerprint", PRINT, "--label", "disk=ssd"]
    assert main(words) == 0
    assert "host3 is a member of the fleet" in capsys.readouterr().out
    host = fleet.store.host("host3")
    assert (host.address, host.host_keys, host.labels, host.joined) == ("10.0.0.3", (KEY,), {"disk": "ssd"}, True)
    assert machine.trusted == fleet.client.authorities()
    assert (machine.host, machine.agent) == ("host3", "1-3.11")
    assert machine.steps == ["unpack", "release", "doctor", "setup"]
    machine.steps.clear()
    assert main([*ADD, "--label", "zone=a"]) == 0
    out = capsys.readouterr().out
    assert f"{PRINT}, which is pinned" in out
    assert "is a member already" in out
    assert "unpack" not in machine.steps
    assert fleet.store.host("host3").labels == {"disk": "ssd", "zone": "a"}
    told = [one.action for one in fleet.client.events(since_unix_ns=0, follow=False) if one.name == "host3"]
    assert told == ["joined"]


def test_a_dry_run_changes_nothing(fleet: FakeFleet, machine: FakeMachine, capsys: pytest.CaptureFixture[str]) -> None:
    """Neither there nor here."""
    assert main([*ADD, "--dry-run"]) == 0
    out = capsys.readouterr().out
    assert "bridge migrate0 with eth0 as its port" in out
    assert "nothing was changed" in out
    assert machine.steps == []
    assert len(fleet.store.hosts()) == 2


def test_nobody_s_key_is_pinned_unseen(
    fleet: FakeFleet, machine: FakeMachine, capsys: pytest.CaptureFixture[str]
) -> None:
    """Without a terminal to ask at, the fingerprint must be said; a wrong one, and another than the pinned one, are refused."""
    assert main(ADD) == 5
    assert f"--fingerprint {PRINT}" in capsys.readouterr().err
    assert main([*ADD, "--fingerprint", transport.fingerprint(OTHER_KEY)]) == 5
    assert "somebody is between" in capsys.readouterr().err
    assert main([*ADD, "--yes"]) == 0
    machine.host_key = OTHER_KEY
    capsys.readouterr()
    assert main([*ADD, "--yes"]) == 5
    assert f"pinned is {PRINT}" in capsys.readouterr().err
    assert main([*ADD, "--fingerprint", transport.fingerprint(OTHER_KEY)]) == 0
    assert fleet.store.host("host3").host_keys == (OTHER_KEY,)


def test_a_machine_that_cannot_be_a_host_is_left_alone(
    fleet: FakeFleet, machine: FakeMachine, capsys: pytest.CaptureFixture[str]
) -> None:
    """Unreachable, no python3, no root, too old: each by its own words and status."""
    machine.reachable = False
    assert main([*ADD, "-y"]) == 4
    assert "cannot be reached" in capsys.readouterr().err
    machine.reachable, machine.python3 = True, False
    assert main([*ADD, "-y"]) == 5
    assert "has no python3" in capsys.readouterr().err
    machine.python3, machine.facts = True, {"uid": 1000, "kernel": "5.10"}
    assert main([*ADD, "-y"]) == 5
    err = capsys.readouterr().err
    assert "only root can set up a host, and 1 more" in err and "5.19 is needed" in err
    assert machine.steps == []
    assert len(fleet.store.hosts()) == 2


@pytest.mark.parametrize("step", ["unpack", "release", "doctor", "setup"])
def test_an_installation_that_broke_is_gone_on_with(
    fleet: FakeFleet, machine: FakeMachine, step: str, capsys: pytest.CaptureFixture[str]
) -> None:
    """Whatever step it was: the error is that of the machine, and the same command ends well."""
    machine.fail[step] = Ran(status=1, out="", err="error: no room\nhint: make some\n")
    assert main([*ADD, "-y"]) == 1
    err = capsys.readouterr().err
    assert "no room" in err and "make some" in err
    assert len(fleet.store.hosts()) == 2
    assert main([*ADD, "-y"]) == 0
    assert machine.halves == []


def test_what_the_doctor_finds_missing_is_named(
    fleet: FakeFleet, machine: FakeMachine, capsys: pytest.CaptureFixture[str]
) -> None:
    """The agent is not started then."""
    machine.lacking = ["overlayfs", "criu"]
    assert main([*ADD, "-y"]) == 1
    err = capsys.readouterr().err
    assert "lacks overlayfs, criu" in err and "get overlayfs" in err
    assert machine.agent == ""


def test_a_host_whose_agent_is_another_s_is_not_taken_in(fleet: FakeFleet, machine: FakeMachine) -> None:
    """Nor one that does not answer; of one that was there nothing changes then."""
    fleet.hosts["host3"].facts = {"host": "host9"}
    with pytest.raises(WrongState, match="is that of host 'host9'"):
        fleet.client.join_host("host3", "10.0.0.3", host_keys=[KEY])
    fleet.hosts["host3"].facts = {}
    fleet.client.join_host("host3", "10.0.0.3", host_keys=[KEY])
    fleet.hosts["host3"].stop()
    with pytest.raises(Unreachable):
        fleet.client.join_host("host3", "10.0.0.4", host_keys=[KEY])
    assert fleet.store.host("host3").address == "10.0.0.3"
    with pytest.raises(WrongState, match=r"10.0.0.3 is host3 already"):
        fleet.client.join_host("host4", "10.0.0.3", host_keys=[KEY])


def test_a_host_without_tunnels_to_the_others_is_not_taken_in(fleet: FakeFleet, machine: FakeMachine) -> None:
    """Containers could not move there: the test's fake agents have no tunnels to measure."""
    set_pulse(fleet.store.database, "host1", Pulse(health=Health.UP))
    with pytest.raises(MigrateError, match="has no tunnel to"):
        fleet.client.join_host("host3", "10.0.0.3", host_keys=[KEY])
    assert len(fleet.store.hosts()) == 2


def test_a_host_leaves(fleet: FakeFleet, machine: FakeMachine, capsys: pytest.CaptureFixture[str]) -> None:
    """Not with containers, but by force; it trusts the fleet no more, and a configured one cannot leave this way."""
    assert main([*ADD, "-y"]) == 0
    fleet.hosts["host3"].add_image("base", cmd=["sleep"])
    fleet.client.run(Run(image="base", host="host3", name="web1"))
    assert main(["host", "rm", "host3"]) == 1
    assert "host3 still has web1" in capsys.readouterr().err
    assert main(["host", "rm", "host1"]) == 1
    assert "coordinator's configuration" in capsys.readouterr().err
    fleet.hosts["host3"].trusted = ["somebody"]
    assert main(["host", "rm", "host3", "--force"]) == 0
    assert "forgot web1: it runs on there unseen" in capsys.readouterr().out
    assert fleet.hosts["host3"].trusted == []
    assert [host.name for host in fleet.store.hosts()] == ["host1", "host2"]
    assert fleet.store.containers() == []


def test_a_host_is_purged(fleet: FakeFleet, machine: FakeMachine, capsys: pytest.CaptureFixture[str]) -> None:
    """A purge that fails leaves a member, so that it can be said again."""
    assert main([*ADD, "-y"]) == 0
    machine.fail["purge"] = Ran(status=1, out="", err="error: 1 containers are here: abc\n")
    assert main(["host", "rm", "host3", "--purge"]) == 1
    assert fleet.store.host("host3").cordon is not None
    assert main(["host", "rm", "host3", "--purge"]) == 0
    assert (machine.releases, machine.agent) == ([], "")
    assert "host3 has left the fleet" in capsys.readouterr().out


def test_a_host_that_is_silent_leaves_and_still_trusts(
    fleet: FakeFleet, machine: FakeMachine, capsys: pytest.CaptureFixture[str]
) -> None:
    """Which is said, with what to type there."""
    assert main([*ADD, "-y"]) == 0
    fleet.hosts["host3"].stop()
    assert main(["host", "rm", "host3"]) == 1
    assert "rm /etc/migrate/ca.pub" in capsys.readouterr().err
    assert len(fleet.store.hosts()) == 2


def test_members_outlive_the_configuration(fleet: FakeFleet, machine: FakeMachine) -> None:
    """A start of the coordinator removes what is no longer configured, and not what has joined."""
    assert main([*ADD, "-y"]) == 0
    hosts.put_configured(fleet.store, [Host(name="host1", address="10.9.9.1")])
    assert [host.name for host in fleet.store.hosts()] == ["host1", "host3"]


def test_an_upgrade_is_one_host_after_the_other(
    fleet: FakeFleet, machine: FakeMachine, capsys: pytest.CaptureFixture[str]
) -> None:
    """By the way it was added; the first that fails ends it."""
    assert main([*ADD, "-y"]) == 0
    machine.facts = {"python": "3.13"}
    assert main(["host", "upgrade", "host3"]) == 0
    assert "host3 runs 1-3.13" in capsys.readouterr().out
    assert machine.agent == "1-3.13"
    assert main(["host", "upgrade"]) == 2
    assert main(["host", "upgrade", "--all"]) == 5  # host1's pinned key is another
    assert machine.agent == "1-3.13"


def test_keys_are_rotated_and_a_failure_is_gone_on_with(fleet: FakeFleet, capsys: pytest.CaptureFixture[str]) -> None:
    """While a host does not answer the old authority signs and every other host trusts both; nobody is locked out."""
    (old,) = fleet.client.authorities()
    fleet.hosts["host2"].stop()
    assert main(["host", "rotate-keys"]) == 4
    assert "the old authority signs" in capsys.readouterr().err
    assert fleet.client.authorities()[0] == old
    assert fleet.hosts["host1"].trusted == fleet.client.authorities()
    fleet.hosts["host2"].serve(fleet.world.agents["host2"])
    eventually(lambda: main(["host", "rotate-keys"]) == 0)  # gRPC tries to connect again only so often
    (new,) = fleet.client.authorities()
    assert new != old
    assert fleet.hosts["host1"].trusted == fleet.hosts["host2"].trusted == [new]
    assert transport.fingerprint(new) in capsys.readouterr().out


def test_hosts_as_toml(
    fleet: FakeFleet, machine: FakeMachine, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """What is exported is there when it is imported; what has left joins again; a damaged file is refused whole."""
    assert main([*ADD, "-y", "--label", "zone/rack=a b"]) == 0
    fleet.client.cordon("host3", reason='a "new" disk')
    capsys.readouterr()
    assert main(["fleet", "export"]) == 0
    file = tmp_path / "fleet.toml"
    file.write_text(capsys.readouterr().out)
    assert main(["fleet", "import", str(file)]) == 0
    assert capsys.readouterr().out.count("is there, as it should be") == 3
    before = fleet.client.inspect_host("host3")
    fleet.client.leave_host("host3")
    assert main(["fleet", "import", str(file), "--dry-run"]) == 0
    assert "host3: joins" in capsys.readouterr().out
    assert len(fleet.store.hosts()) == 2
    fleet.hosts["host3"].stop()
    assert main(["fleet", "import", str(file)]) == 1
    assert "host3: error: " in capsys.readouterr().err
    assert main(["fleet", "import", str(file), "--untested"]) == 0
    after = fleet.client.inspect_host("host3")
    for name in ("address", "port", "host_keys", "labels", "login", "cordoned", "cordon_reason"):
        assert getattr(after, name) == getattr(before, name), name
    for damage in (
        "version = 1\n[[hosts]]\nname = 3\n",
        "version = 2\n",
        "[",
        'version = 1\n[[hosts]]\nname = "host4"\n',
    ):
        file.write_text(damage)
        assert main(["fleet", "import", str(file)]) == 2, damage
