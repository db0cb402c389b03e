"""Verbs that Docker's and Podman's users type without a thought: the fleet as a whole, networks, exists, --all, wait --condition."""

from __future__ import annotations

import json
import threading
from collections.abc import Callable

import pytest

from migrate.cli import completion, lifecycle
from migrate.cli.main import main
from migrate.errors import NotFound
from tests.fakes.fleet import FakeFleet

pytestmark = pytest.mark.contract


def said(capsys: pytest.CaptureFixture[str], *words: str, status: int = 0) -> str:
    capsys.readouterr()
    assert main(list(words)) == status, capsys.readouterr().err
    return capsys.readouterr().out


def test_the_fleet_as_a_whole(fleet: FakeFleet, capsys: pytest.CaptureFixture[str]) -> None:
    """info and system info: counts, both hosts; Docker's names in JSON and templates."""
    fleet.run("web1")
    main(["create", "--name", "web2", "--host", "host1", "base"])
    shown = said(capsys, "info")
    assert "2: 1 running, 0 paused, 1 stopped" in shown
    assert "host1" in shown and "host2" in shown
    (found,) = json.loads(said(capsys, "system", "info", "--format", "json"))
    assert (found["Containers"], found["ContainersRunning"], found["ContainersStopped"]) == (2, 1, 1)
    assert said(capsys, "info", "-f", "{{.ContainersRunning}}/{{.Containers}}").strip() == "1/2"


def test_what_takes_space(fleet: FakeFleet, capsys: pytest.CaptureFixture[str]) -> None:
    """system df: three kinds; what a stopped container holds can be had back."""
    fleet.run("web1")
    main(["volume", "create", "--host", "host1", "data"])
    rows = {row["Type"]: row for row in json.loads(said(capsys, "system", "df", "--format", "json"))}
    assert list(rows) == ["Images", "Containers", "Local Volumes"]
    assert (rows["Containers"]["TotalCount"], rows["Containers"]["Active"]) == (1, 1)
    assert (rows["Local Volumes"]["TotalCount"], rows["Local Volumes"]["Active"]) == (1, 0)
    assert said(capsys, "system", "df", "--host", "host2", "--format", "{{.TotalCount}}").splitlines()[1] == "0"


def test_networks(fleet: FakeFleet, capsys: pytest.CaptureFixture[str]) -> None:
    """Three, which are listed and inspected; who is in one is there by id."""
    fleet.run("web1")
    container = fleet.client.inspect("web1")
    assert said(capsys, "network", "ls", "-q").split() == ["bridge", "host", "none"]
    assert [row["Containers"] for row in json.loads(said(capsys, "network", "ls", "--format", "json"))] == [1, 0, 0]
    (found,) = json.loads(said(capsys, "network", "inspect", "bridge"))
    assert found["Containers"][container.id]["IPv4Address"] == container.address
    assert found["Subnet"]
    said(capsys, "network", "exists", "bridge")
    said(capsys, "network", "exists", "mine", status=1)


def test_exists_and_nouns(fleet: FakeFleet, capsys: pytest.CaptureFixture[str]) -> None:
    """By the exit status alone; `image list` is `images`."""
    main(["volume", "create", "data"])
    for words, status in (
        (("image", "exists", "base"), 0),
        (("image", "exists", "nothing"), 1),
        (("volume", "exists", "data"), 0),
        (("volume", "exists", "nothing"), 1),
    ):
        assert said(capsys, *words, status=status) == ""
    assert said(capsys, "image", "list") == said(capsys, "images")
    assert {"ls", "build", "exists"} <= set(completion.candidates(["image", ""]))
    assert "web" not in completion.candidates(["container", "stop", "-"])
    assert "--time" in completion.candidates(["container", "stop", "--"])
    assert {"df", "info", "prune", "events"} <= set(completion.candidates(["system", ""]))


def test_all(fleet: FakeFleet, capsys: pytest.CaptureFixture[str]) -> None:
    """kill and stop of what runs, rm of everything; names and --all together, or neither, is a mistake."""
    for name in ("web1", "web2"):
        fleet.run(name)
    main(["create", "--name", "web3", "--host", "host1", "base"])
    assert sorted(said(capsys, "stop", "-t", "0", "--all").split()) == ["web1", "web2"]
    for words in (("kill",), ("kill", "--all", "web1")):
        said(capsys, *words, status=2)
    assert sorted(said(capsys, "rm", "-f", "--all").split()) == ["web1", "web2", "web3"]
    assert fleet.client.containers(all=True) == []


def test_ports_of_all(fleet: FakeFleet, capsys: pytest.CaptureFixture[str]) -> None:
    """A line each, with the container's name."""
    main(["run", "-d", "--name", "web1", "--host", "host1", "-p", "8080:80", "base"])
    assert said(capsys, "port", "--all") == "web1  80/tcp -> 0.0.0.0:8080\n"
    said(capsys, "port", status=2)


def test_wait_for_a_condition(fleet: FakeFleet, monkeypatch: pytest.MonkeyPatch) -> None:
    """Of a state at once where it holds, later where it comes; of a removal, when it is gone; of what is not there, NotFound."""
    monkeypatch.setattr(lifecycle, "LOOK_S", 0.01)
    fleet.run("web1")
    assert lifecycle.waited(fleet.client, "web1", "running") == "-1"

    def comes_with(condition: str, action: Callable[[], object]) -> None:
        answers: list[str] = []
        waiter = threading.Thread(target=lambda: answers.append(lifecycle.waited(fleet.client, "web1", condition)))
        waiter.start()
        assert answers == []
        action()
        waiter.join(10)
        assert answers == ["-1"]

    comes_with("paused", lambda: fleet.client.pause("web1"))
    comes_with("removed", lambda: fleet.client.remove("web1", force=True))
    with pytest.raises(NotFound):
        lifecycle.waited(fleet.client, "web1", "running")
