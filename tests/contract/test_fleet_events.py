"""Events of the whole fleet in one stream: history, what comes, moves, hosts that go and come back, filters, formats."""

from __future__ import annotations

import json
import threading
import time
from collections.abc import Iterator

import pytest

from migrate.cli.main import main
from migrate.client import Client
from migrate.errors import MigrateError
from migrate.records import Happening
from tests.fakes.fleet import FakeFleet, eventually

pytestmark = pytest.mark.contract


def publish(fleet: FakeFleet, host: str, action: str, name: str = "web1", **attributes: str) -> None:
    fleet.hosts[host].lifecycle.events.publish("container", action, name * 8, name, attributes)


class Follower:
    """Reads events in a thread until it is closed."""

    def __init__(self, fleet: FakeFleet, since_unix_ns: int | None = None) -> None:
        self.seen: list[Happening] = []
        self._client = Client(fleet.socket)
        self._events = self._client.events(since_unix_ns=since_unix_ns)
        self._thread = threading.Thread(target=self._read, daemon=True)
        self._thread.start()

    def _read(self) -> None:
        try:
            self.seen.extend(iter(self._one, None))
        except (MigrateError, ValueError):  # the test closes the channel under it
            return

    def _one(self) -> Happening | None:
        return next(self._events, None)

    @property
    def actions(self) -> list[str]:
        return [event.action for event in self.seen]

    def close(self) -> None:
        self._client.close()
        self._thread.join(10)


@pytest.fixture
def follower(fleet: FakeFleet) -> Iterator[Follower]:
    made = Follower(fleet)
    eventually(lambda: all(host.calls.count("Lifecycle.Events") >= 2 for host in fleet.hosts.values()))
    yield made
    made.close()


def test_the_past_of_all_hosts_is_told_by_time(fleet: FakeFleet) -> None:
    """With `until` now it ends; since an instant only what is younger."""
    publish(fleet, "host1", "create")
    publish(fleet, "host2", "start", "web2")
    middle = time.time_ns()
    publish(fleet, "host1", "die", exitCode="3")
    told = list(fleet.client.events(since_unix_ns=0, until_unix_ns=time.time_ns(), follow=False))
    assert [(one.host, one.action) for one in told] == [("host1", "create"), ("host2", "start"), ("host1", "die")]
    assert told[2].attributes == {"exitCode": "3"}
    assert [one.action for one in fleet.client.events(since_unix_ns=middle, follow=False)] == ["die"]


def test_what_comes_is_told_and_the_past_is_not(fleet: FakeFleet) -> None:
    """Without `since` only from now on; of every host."""
    publish(fleet, "host1", "create")
    made = Follower(fleet)
    try:
        eventually(lambda: all(host.calls.count("Lifecycle.Events") >= 2 for host in fleet.hosts.values()))
        publish(fleet, "host1", "start")
        publish(fleet, "host2", "die", "web2")
        eventually(lambda: len(made.seen) == 2)
        assert sorted(made.actions) == ["die", "start"]
    finally:
        made.close()


def test_a_host_that_goes_and_comes_back_loses_nothing(fleet: FakeFleet, follower: Follower) -> None:
    """That it is away is an event, and what happened meanwhile comes with its return."""
    publish(fleet, "host1", "start")
    eventually(lambda: follower.actions == ["start"])
    fleet.hosts["host1"].stop()
    eventually(lambda: follower.actions[1:] == ["unreachable"])
    publish(fleet, "host1", "die")
    fleet.hosts["host1"].serve(fleet.world.agents["host1"])
    eventually(lambda: "die" in follower.actions)
    assert follower.actions == ["start", "unreachable", "reachable", "die"]


def test_a_move_begins_and_ends(fleet: FakeFleet, follower: Follower) -> None:
    """Once each, with where from and where to; in the history too."""
    fleet.run("web1")
    fleet.client.move("web1", to="host2").result()
    eventually(lambda: follower.actions.count("migrate-end") == 1)
    begin, end = (one for one in follower.seen if one.action.startswith("migrate"))
    assert (begin.host, end.host, end.attributes["state"]) == ("host1", "host2", "succeeded")
    told = [one.action for one in fleet.client.events(since_unix_ns=0, follow=False)]
    assert told.count("migrate-begin") == told.count("migrate-end") == 1


def test_the_command_filters_and_formats(fleet: FakeFleet, capsys: pytest.CaptureFixture[str]) -> None:
    """By event, container and label; as a line, as JSON, as a template; an unknown field is an error."""
    publish(fleet, "host1", "health_status: healthy", image="base", tier="web")
    publish(fleet, "host1", "die", image="base", exitCode="3")
    publish(fleet, "host2", "die", "web2")
    span = ["events", "--since", "10m", "--until", "0s"]
    assert main([*span, "--filter", "event=health_status"]) == 0
    (line,) = capsys.readouterr().out.splitlines()
    assert " container health_status: healthy " in line and "name=web1" in line and "host=host1" in line
    assert main([*span, "--filter", "event=die", "--filter", "container=web1", "--format", "json"]) == 0
    assert json.loads(capsys.readouterr().out)["attributes"] == {"image": "base", "exitCode": "3"}
    assert main([*span, "--filter", "label=tier=web", "--format", "{{.Actor.Attributes.name}} {{.Type}}"]) == 0
    assert capsys.readouterr().out == "web1 container\n"
    assert main([*span, "--format", "{{.Nothing}}"]) == 2
    assert "no field" in capsys.readouterr().err
