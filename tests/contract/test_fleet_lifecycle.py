"""Restart, rename, restart policies and the ways of `run` through the fleet: the coordinator over hosts in memory."""

from __future__ import annotations

import threading
import time
from pathlib import Path

import pytest

from agent import errors
from migrate.cli.main import main
from migrate.coordinator import create
from migrate.coordinator.store import Desired
from migrate.errors import AlreadyExists, InvalidArgument, MigrateError, WrongState
from migrate.records import Run
from tests.fakes.fleet import FakeFleet, eventually

pytestmark = pytest.mark.contract


def test_a_restart_is_one_call_to_the_owner(fleet: FakeFleet) -> None:
    """With what was asked; afterwards the container is meant to run."""
    container = fleet.client.create(Run(image="base", name="web1", host="host1"))
    assert main(["restart", "-t", "3", "-s", "INT", "web1"]) == 0
    (asked,) = fleet.hosts["host1"].lifecycle.restarted
    assert (asked.id, asked.timeout_s, asked.signal, asked.default_timeout) == (container.id, 3.0, "SIGINT", False)
    assert fleet.store.container("web1").desired is Desired.RUNNING
    assert fleet.client.inspect("web1").state == "running"


def test_a_rename_is_the_fleets_and_the_hosts(fleet: FakeFleet) -> None:
    """Of a running one; the old name is free, the host knows the new one, the id is the same."""
    container = fleet.client.run(Run(image="base", name="web1", host="host1"))
    assert main(["rename", "web1", "web2"]) == 0
    assert fleet.hosts["host1"].containers[container.id].spec.name == "web2"
    assert fleet.client.inspect("web2").id == container.id
    assert create.spec_of(fleet.store.container("web2")).name == "web2"
    fleet.client.run(Run(image="base", name="web1", host="host2"))
    with pytest.raises(AlreadyExists, match="web1 is taken"):
        fleet.client.rename("web2", "web1")
    with pytest.raises(InvalidArgument, match="cannot be a container's name"):
        fleet.client.rename("web2", "no/name")


def test_a_rename_that_the_host_refuses_is_undone(fleet: FakeFleet) -> None:
    """The name in the fleet is the old one again; nothing is renamed while a move holds the container."""
    container = fleet.client.run(Run(image="base", name="web1", host="host1"))
    fleet.hosts["host1"].fail["Lifecycle.Rename"] = errors.StorageError("no room")
    with pytest.raises(MigrateError, match="no room") as caught:
        fleet.client.rename("web1", "web2")
    assert caught.value.touched == "undone"
    assert fleet.client.inspect("web1").id == container.id
    del fleet.hosts["host1"].fail["Lifecycle.Rename"]
    fleet.begin_move(container.id)
    with pytest.raises(WrongState, match="move abcdef"):
        fleet.client.rename("web1", "web2")
    assert fleet.client.inspect("web1").name == "web1"


def test_a_policy_is_changed_on_the_host_and_in_the_record(fleet: FakeFleet) -> None:
    """`update --restart` alone, and together with a limit; a wrong one is a wrong command line."""
    container = fleet.client.run(Run(image="base", name="web1", host="host1"))
    assert main(["update", "--restart", "on-failure:3", "--pids-limit", "9", "web1"]) == 0
    on_host = fleet.hosts["host1"].containers[container.id].spec
    assert (on_host.restart.name, on_host.restart.max_retries, on_host.limits.pids) == ("on-failure", 3, 9)
    assert create.spec_of(fleet.store.container("web1")).restart == on_host.restart
    with pytest.raises(SystemExit) as caught:
        main(["update", "--restart", "always:3", "web1"])
    assert caught.value.code == 2


def test_what_run_says_of_a_life_reaches_the_host(fleet: FakeFleet, tmp_path: Path) -> None:
    """Policy, health check, init, log options; the id is in --cidfile, which must not be there before."""
    file = tmp_path / "cid"
    words = ["run", "-d", "--name", "web1", "--host", "host1", "--cidfile", str(file), "--init"]
    words += ["--restart", "unless-stopped", "--health-cmd", "true", "--health-interval", "1m30s"]
    assert main([*words, "--log-opt", "max-size=1m", "--log-opt", "max-file=2", "base"]) == 0
    container = fleet.client.inspect(file.read_text())
    assert (container.name, container.init, container.restart.name) == ("web1", True, "unless-stopped")
    assert (container.health.test, container.health.interval_ns) == (("CMD-SHELL", "true"), 90 * 10**9)
    assert container.log_options == {"max-size": "1m", "max-file": "2"}
    assert main([*words[:3], "web2", *words[4:], "base"]) == 125
    with pytest.raises(MigrateError):
        fleet.client.inspect("web2")


def test_a_cidfile_of_nothing_does_not_stay(fleet: FakeFleet, tmp_path: Path) -> None:
    """Where the container was not made its file is gone, so that the next try can write it."""
    file = tmp_path / "cid"
    assert main(["run", "-d", "--host", "host1", "--pull", "never", "--cidfile", str(file), "nothing"]) == 125
    assert not file.exists()


def test_rm_and_a_policy_exclude_each_other(fleet: FakeFleet, capsys: pytest.CaptureFixture[str]) -> None:
    """As in Docker, before anything is made."""
    assert main(["run", "-d", "--rm", "--restart", "always", "--host", "host1", "base"]) == 125
    assert "--rm and --restart" in capsys.readouterr().err
    assert fleet.client.containers(all=True) == []


def test_an_image_that_is_not_here_is_pulled(fleet: FakeFleet, capsys: pytest.CaptureFixture[str]) -> None:
    """To the host that is named; only the id is on stdout; with `always` also one that is here."""
    assert main(["run", "-d", "--name", "web1", "--host", "host1", "registry/app", "serve"]) == 0
    assert capsys.readouterr().out.strip() == fleet.client.inspect("web1").id
    fleet.hosts["host1"].calls.clear()
    assert main(["create", "--host", "host1", "--pull", "always", "base", "serve"]) == 0
    assert "Images.Pull" in fleet.hosts["host1"].calls


def test_an_image_that_no_host_has_is_pulled_to_the_host_that_is_chosen(
    fleet: FakeFleet, capsys: pytest.CaptureFixture[str]
) -> None:
    """And nowhere else; where no host can take the container each says why, and nothing is pulled."""
    fleet.client.cordon("host1", reason="new disk")
    assert main(["run", "-d", "--name", "web1", "registry/app", "serve"]) == 0
    out, err = capsys.readouterr()
    assert out.strip() == fleet.client.inspect("web1").id and "to host2" in err
    assert fleet.client.inspect("web1").host == "host2"
    assert "Images.Pull" not in fleet.hosts["host1"].calls
    assert main(["create", "--pull", "always", "--name", "web2", "registry/app", "serve"]) == 0
    assert fleet.hosts["host2"].calls.count("Images.Pull") == 2
    fleet.client.cordon("host2")
    capsys.readouterr()
    assert main(["run", "-d", "registry/other", "serve"]) == 125
    err = capsys.readouterr().err
    assert "cannot be pulled: no host can take the container" in err and "new disk" in err
    assert fleet.hosts["host2"].calls.count("Images.Pull") == 2


def test_logs_between_two_instants(fleet: FakeFleet, capsys: pytest.CaptureFixture[str]) -> None:
    """--until leaves out what is younger, and --tail counts what is left."""
    container = fleet.client.run(Run(image="base", name="web1", host="host1"))
    now = time.time_ns()
    for age_s in (300, 200, 100, 10):
        fleet.hosts["host1"].write(container.id, f"{age_s}\n", unix_ns=now - age_s * 10**9)
    assert main(["logs", "--since", "250s", "--until", "50s", "web1"]) == 0
    assert capsys.readouterr().out == "200\n100\n"
    assert main(["logs", "--until", "50s", "--tail", "1", "web1"]) == 0
    assert capsys.readouterr().out == "100\n"


def test_start_shows_and_ends_as_the_container(fleet: FakeFleet) -> None:
    """`start -a`: with its exit code; of two containers it is refused."""
    container = fleet.client.create(Run(image="base", name="web1", host="host1"))
    done: list[int] = []
    starting = threading.Thread(target=lambda: done.append(main(["start", "-a", "--sig-proxy=false", "web1"])))
    starting.start()
    eventually(lambda: fleet.client.inspect("web1").state == "running")
    fleet.hosts["host1"].exit(container.id, 5)
    starting.join(20)
    assert done == [5]
    assert main(["start", "-a", "web1", "web1"]) == 2
