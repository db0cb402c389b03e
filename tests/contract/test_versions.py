"""Coordinators, agents and commands of different versions: they work together, or say no before anything is touched."""

from __future__ import annotations

from pathlib import Path

import pytest

from migrate.cli.main import main
from migrate.client import Client
from migrate.coordinator.agents import AgentPool
from migrate.errors import MigrateError, PrecheckError
from migrate.rpc import channels
from migrate.rpc.version import MAJOR, OURS, IncompatibleVersion, Peer
from tests.fakes.fleet import FakeFleet

pytestmark = pytest.mark.contract

OLDER = Peer(version="0.0.9", major=MAJOR - 1, minor=7)
NEWER = Peer(version="9.0.0", major=MAJOR + 1, minor=0)
LESS, MORE = Peer(version="0.0.9", major=MAJOR, minor=0), Peer(version="0.9.0", major=MAJOR, minor=OURS.minor + 5)


def becomes(fleet: FakeFleet, host: str, *, agent: Peer = OURS, coordinator: Peer = OURS) -> None:
    """The agent of `host` is upgraded, or downgraded, in place, and so is the coordinator as far as this host knows."""
    fake = fleet.hosts[host]
    fake.stop()
    fake.speaks, fake.hears = agent, coordinator
    fake.serve(fleet.world.agents[host])
    fleet.pool.close()
    fleet.go_away()
    fleet.pool = AgentPool(fleet.store.host, lambda one: fleet.hosts[one.name].tunnel())
    fleet.come_back()


@pytest.mark.parametrize(("agent", "old"), [(OLDER, "the agent of host2"), (NEWER, "the coordinator")])
def test_an_agent_of_another_major_version(
    fleet: FakeFleet, capsys: pytest.CaptureFixture[str], agent: Peer, old: str
) -> None:
    """Each call is refused with both versions and what to upgrade; nothing reaches a handler; the other host works on."""
    container = fleet.run("web1")
    becomes(fleet, "host2", agent=agent)
    fleet.hosts["host2"].calls.clear()
    for words in (
        ["move", "web1", "--to", "host2"],
        ["check", "web1", "--to", "host2"],
        ["rehearse", "web1", "--to", "host2"],
    ):
        assert main(words) == 5, words
        said = capsys.readouterr().err
        assert str(agent) in said, said
        assert str(OURS) in said, said
        assert f"upgrade {old} to migrate" in said, said
    assert fleet.hosts["host2"].calls == []
    assert fleet.world.states(container.id) == {"host1": "running"}
    assert not fleet.world.agents["host2"].moves
    there = {host.name: host for host in fleet.client.hosts()}
    assert (there["host1"].reachable, there["host2"].reachable) == (True, False)
    assert agent.version in there["host2"].error
    fleet.client.stop("web1")


@pytest.mark.parametrize("coordinator", [OLDER, NEWER])
def test_a_coordinator_of_another_major_version(fleet: FakeFleet, coordinator: Peer) -> None:
    """This version's agent refuses it: an old coordinator need not know that it is old."""
    fleet.run("web1")
    becomes(fleet, "host1", coordinator=coordinator)
    fleet.hosts["host1"].calls.clear()
    with pytest.raises(MigrateError, match="do not understand each other") as refused:
        fleet.client.stop("web1")
    assert refused.value.code == IncompatibleVersion.code
    assert (str(coordinator) in refused.value.message, str(OURS) in refused.value.message) == (True, True)
    assert fleet.hosts["host1"].calls == []


@pytest.mark.parametrize("peer", [LESS, MORE])
def test_another_minor_version_works(fleet: FakeFleet, peer: Peer) -> None:
    """On either side; what an older agent lacks is refused by name, before anything is touched."""
    container = fleet.run("web1")
    becomes(fleet, "host2", agent=peer, coordinator=peer)
    if peer is LESS:
        with pytest.raises(PrecheckError, match=r"0\.0\.9 \(protocol 2\.0\), and this needs 2\.1") as refused:
            fleet.client.rehearse("web1", to="host2").result()
        assert refused.value.hint.startswith("upgrade the agent of host2")
        with pytest.raises(PrecheckError, match=r"0\.0\.9 \(protocol 2\.0\), and this needs 2\.2"):
            fleet.client.move("web1", to="host2", end_exec=True).result()
        assert not fleet.world.agents["host2"].moves
    else:
        assert fleet.client.rehearse("web1", to="host2").result().state == "rehearsed"
    assert fleet.client.move("web1", to="host2").result().state == "succeeded"
    assert fleet.world.states(container.id) == {"host2": "running"}


def test_a_peer_that_does_not_say_is_of_the_first_version(fleet: FakeFleet) -> None:
    """From before they said it: those understand this version."""
    fleet.run("web1")
    becomes(fleet, "host1", coordinator=Peer(version="", major=MAJOR, minor=0))
    assert fleet.client.move("web1", to="host2").result().state == "succeeded"


@pytest.mark.parametrize(("command", "old"), [(OLDER, "this command"), (NEWER, "the coordinator")])
def test_a_command_of_another_major_version(
    fleet: FakeFleet, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], command: Peer, old: str
) -> None:
    """`migrate` from another package than the coordinator: exit status 5 and which of them to upgrade."""
    fleet.run("web1")
    plain = channels.unix_channel

    def other(path: Path, **options: object) -> object:
        return plain(path, own=command, **options)  # type: ignore[arg-type]

    monkeypatch.setattr("migrate.client.channels.unix_channel", other)
    assert main(["ps"]) == 5
    assert f"upgrade {old} to migrate" in capsys.readouterr().err
    with Client(fleet.socket) as client, pytest.raises(MigrateError, match="do not understand"):
        next(client.move("web1", to="host2"))
