"""The service FleetVolumes, and volumes of containers, through the client library and the command line: hosts in memory."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path

import pytest

from migrate.cli import main
from migrate.errors import InvalidArgument, NotFound, Unreachable, WrongState
from migrate.records import Mount, Run
from tests.fakes.fleet import FakeFleet

pytestmark = pytest.mark.contract


@pytest.fixture
def world(tmp_path: Path) -> Iterator[FakeFleet]:
    world = FakeFleet(tmp_path)
    for host in world.hosts.values():
        host.add_image("base", cmd=["serve"], volumes=["/var/lib/base", "/data/"])
    yield world
    world.close()


def test_create_list_inspect_remove(world: FakeFleet) -> None:
    """Without a host a volume is on every one; what is removed is gone from all."""
    assert [one.host for one in world.client.create_volume("data", labels={"a": "b"})] == ["host1", "host2"]
    world.client.create_volume("one", host="host2")
    assert [(one.name, one.host) for one in world.client.volumes()] == [
        ("data", "host1"), ("data", "host2"), ("one", "host2"),
    ]  # fmt: skip
    assert [dict(one.labels) for one in world.client.inspect_volume("data")] == [{"a": "b"}] * 2
    assert [one.host for one in world.client.remove_volume("data")] == ["host1", "host2"]
    with pytest.raises(NotFound, match="no volume data"):
        world.client.inspect_volume("data")
    with pytest.raises(NotFound):
        world.client.remove_volume("data")
    assert world.client.remove_volume("data", force=True) == []


def test_a_container_brings_its_volumes(world: FakeFleet) -> None:
    """A named one is made where the container is; the image's become anonymous ones, unless something is mounted there."""
    mounts = (Mount(kind="volume", source="data", target="/data"), Mount(kind="volume", target="/x", anonymous=True))
    container = world.client.run(Run(image="base", host="host1", name="web1", mounts=mounts))
    assert [(one.target, one.anonymous) for one in container.mounts] == [
        ("/data", False), ("/x", True), ("/var/lib/base", True),
    ]  # fmt: skip
    assert {len(one.source) for one in container.mounts if one.anonymous} == {64}
    (data,) = world.client.inspect_volume("data")
    assert (data.host, data.used_by) == ("host1", ("web1",))
    with pytest.raises(WrongState, match="in use by web1"):
        world.client.remove_volume("data")
    world.client.remove("web1", force=True, volumes=True)
    assert [one.name for one in world.client.volumes()] == ["data"]


def test_in_use_on_one_host_is_removed_from_none(world: FakeFleet) -> None:
    """Where one host refuses, the others keep theirs."""
    world.client.create_volume("data")
    world.client.run(
        Run(image="base", host="host2", name="db", mounts=(Mount(kind="volume", source="data", target="/d"),))
    )
    with pytest.raises(WrongState, match="in use by db"):
        world.client.remove_volume("data")
    assert len(world.client.inspect_volume("data")) == 2


def test_a_container_goes_where_its_volume_is(world: FakeFleet) -> None:
    """Without --host: where the named volumes are, if that is one host; refused where no host has them all."""
    world.client.create_volume("data", host="host2")
    world.client.create_volume("logs", host="host1")
    world.client.create_volume("both")
    mounts = {name: Mount(kind="volume", source=name, target=f"/{name}") for name in ("data", "logs", "both", "new")}
    wanted = (mounts["data"], mounts["both"], mounts["new"])
    assert world.client.run(Run(image="base", name="db", mounts=wanted)).host == "host2"
    with pytest.raises(InvalidArgument, match="data on host2; logs on host1"):
        world.client.run(Run(image="base", name="x", mounts=(mounts["data"], mounts["logs"])))
    world.client.cordon("host2")
    assert world.client.run(Run(image="base", name="x", mounts=(mounts["both"],))).host == "host1"
    with pytest.raises(WrongState, match="no host can take y") as caught:
        world.client.run(Run(image="base", name="y", mounts=(mounts["data"],)))
    assert "host1: the container's volumes are on host2" in caught.value.detail


def test_prune(world: FakeFleet) -> None:
    """Anonymous ones that nobody uses; with all, named ones too; labels choose."""
    world.client.run(Run(image="base", host="host1", name="web1"))
    world.client.remove("web1", force=True)
    world.client.create_volume("kept", labels={"keep": "me"}, host="host1")
    world.client.create_volume("gone", host="host1")
    removed, _ = world.client.prune_volumes()
    assert [one.anonymous for one in removed] == [True, True]
    assert world.client.prune_volumes()[0] == []
    assert [one.name for one in world.client.prune_volumes(all=True, labels=["keep=me"])[0]] == ["kept"]
    assert [one.name for one in world.client.prune_volumes(all=True)[0]] == ["gone"]


def test_a_silent_host_hides_nothing(world: FakeFleet) -> None:
    """List shows the others; a volume that may be on the silent host is not called missing."""
    world.client.create_volume("data", host="host1")
    world.hosts["host2"].stop()
    assert [one.name for one in world.client.volumes()] == ["data"]
    with pytest.raises(Unreachable):
        world.client.inspect_volume("other")


def test_the_command_line(world: FakeFleet, capsys: pytest.CaptureFixture[str]) -> None:
    """Create prints the name, ls a table or names or JSON, rm the names; errors have a hint and a status."""

    def migrate(*words: str) -> tuple[int, str, str]:
        status = main.main(["--coordinator", str(world.socket), *words])
        told = capsys.readouterr()
        return status, told.out, told.err

    assert migrate("volume", "create", "--label", "tier=web", "--host", "host1", "data") == (0, "data\n", "")
    assert len(migrate("volume", "create")[1].strip()) == 64
    assert migrate("volume", "ls", "-q", "-f", "name=data") == (0, "data\n", "")
    assert migrate("volume", "ls", "-q", "-f", "label=tier=db") == (0, "", "")
    assert "data         host1" in " ".join(
        migrate("volume", "ls", "-f", "host=host1", "-f", "name=data")[1].splitlines()
    )
    assert migrate("volume", "ls", "-f", "name=data", "--format", "{{.Name}} {{.Host}}") == (0, "data host1\n", "")
    mountpoint = str(world.hosts["host1"].volumes.places("data")[0])
    assert migrate("volume", "inspect", "-f", "{{.Mountpoint}}", "data") == (0, mountpoint + "\n", "")
    assert json.loads(migrate("volume", "inspect", "data")[1])[0]["labels"] == {"tier": "web"}
    status, out, err = migrate("volume", "rm", "data", "none")
    assert (status, out) == (3, "data\n")
    assert "no volume none" in err
    assert migrate("volume", "ls", "-f", "colour=red")[0] == 2
    assert "Total reclaimed space" in migrate("volume", "prune", "-a", "-f")[1]
    world.client.run(Run(image="base", host="host1", name="web1"))
    assert migrate("inspect", "-f", "{{json .Mounts}}", "web1")[1].count('"Type":"volume"') == 2  # as Go writes it
    world.client.remove("web1", force=True)
    assert migrate("prune", "-f", "--volumes")[1].count("removed volume") == 2
    with pytest.raises(SystemExit, match="2"):
        migrate("create", "--host", "host1", "-v", "here:there", "base")
    assert "mount path must be absolute" in capsys.readouterr().err
    assert migrate("create", "--host", "host1", "-v", "/a:/b", "--tmpfs", "/b", "base")[0] == 2
