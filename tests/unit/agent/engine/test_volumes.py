"""The store of volumes and what a spec's mounts become, without mounting anything."""

from __future__ import annotations

from pathlib import Path

import pytest

from agent.engine import mounted
from agent.engine.spec import ContainerSpec, IdRange, Mount, Network
from agent.engine.volumes import Volume, Volumes
from agent.errors import AlreadyExists, InvalidArgument, NotFound, WrongState

pytestmark = pytest.mark.unit


def spec(*mounts: Mount, name: str = "web1", **changes: object) -> ContainerSpec:
    return ContainerSpec(
        id=name, name=name, image="i", image_digest="d", layers=(), argv=("a",), env=(), cwd="/", user="", hostname="h",
        ids=IdRange(base=65536), network=Network(address="", mac=""), mounts=mounts, **changes,  # type: ignore[arg-type]
    )  # fmt: skip


@pytest.fixture
def users() -> list[ContainerSpec]:
    return []


@pytest.fixture
def volumes(tmp_path: Path, users: list[ContainerSpec]) -> Volumes:
    return Volumes(tmp_path / "volumes", lambda: users)


DATA = Mount(kind="volume", source="data", target="/data")


def test_create_is_idempotent_and_durable(volumes: Volumes, tmp_path: Path) -> None:
    """The same name twice is the same volume; another object over the same directory knows it."""
    made = volumes.create("data", labels={"a": "b"})
    assert volumes.create("data") == made
    assert Volumes(tmp_path / "volumes", list).all() == [made]
    assert volumes.path(made).is_dir()


@pytest.mark.parametrize("name", ["", "../x", "a/b", ".hidden", "-x", "x" * 300, "a b"])
def test_names(volumes: Volumes, name: str) -> None:
    """A name is a directory's, and nothing else."""
    with pytest.raises(InvalidArgument):
        volumes.create(name)


def test_in_use_is_not_removed(volumes: Volumes, users: list[ContainerSpec]) -> None:
    """The refusal names the containers; force forgives only what is not there."""
    volumes.create("data")
    users.append(spec(DATA))
    with pytest.raises(WrongState, match="in use by web1"):
        volumes.remove("data", force=True)
    users.clear()
    volumes.remove("data")
    with pytest.raises(NotFound):
        volumes.remove("data")
    volumes.remove("data", force=True)


def test_half_made_and_half_removed_do_not_exist(volumes: Volumes, tmp_path: Path) -> None:
    """Without its record a volume is not there, and its name is free."""
    (tmp_path / "volumes/data/data/left").mkdir(parents=True)
    assert volumes.all() == []
    made = volumes.create("data")
    assert list(volumes.path(made).iterdir()) == []


def test_a_volume_that_comes_with_a_move(volumes: Volumes, users: list[ContainerSpec]) -> None:
    """Until the commit nobody else may have it, and an undo leaves nothing; after it, it is an ordinary one."""
    for undone in (True, False):
        volumes.arrive([Volume(name="data", labels={"a": "b"})], "m1")
        volumes.arrive([Volume(name="data", labels={"a": "b"})], "m1")
        for refused in (
            lambda: volumes.create("data"),
            lambda: volumes.remove("data"),
            lambda: volumes.ensure(spec(DATA)),
        ):
            with pytest.raises(WrongState, match="takes part in move m1"):
                refused()
        with pytest.raises(AlreadyExists, match="comes to this host with move m1"):
            volumes.arrive([Volume(name="data")], "m2")
        if undone:
            volumes.drop("m1")
            volumes.drop("m1")
            assert volumes.all() == []
    volumes.settle("m1")
    volumes.settle("m1")
    assert volumes.get("data").labels == {"a": "b"}
    volumes.drop("m1")
    assert volumes.get("data")
    assert volumes.ensure(spec(DATA)) == []


def test_what_is_there_is_not_overwritten_by_a_move(
    volumes: Volumes, users: list[ContainerSpec], tmp_path: Path
) -> None:
    """A volume of the name with files in it, or with a user, keeps a move away; an empty one that nobody uses gives way."""
    there = volumes.create("data")
    (volumes.path(there) / "file").touch()
    with pytest.raises(AlreadyExists, match="with files in it"):
        volumes.arrive([Volume(name="data")], "m1")
    (volumes.path(there) / "file").unlink()
    users.append(spec(DATA, name="db"))
    with pytest.raises(AlreadyExists, match="used by db"):
        volumes.arrive([Volume(name="data")], "m1")
    users.clear()
    volumes.arrive([Volume(name="data")], "m1")
    assert volumes.get("data").migration_id == "m1"


def test_a_volume_that_goes_with_a_move(volumes: Volumes, users: list[ContainerSpec]) -> None:
    """From the commit on it is nobody's, also after a crash before it is removed; one that another container uses stays."""
    volumes.create("data")
    volumes.create("both")
    mine = spec(DATA, Mount(kind="volume", source="both", target="/both"))
    users += [mine, spec(Mount(kind="volume", source="both", target="/b"), name="other")]
    volumes.leave(mine, "m1")
    assert volumes.get("data").migration_id == "m1"
    users.remove(mine)
    volumes.drop("m1")
    assert [each.name for each in volumes.all()] == ["both"]


def test_nobody_joins_a_volume_whose_container_moves(volumes: Volumes, users: list[ContainerSpec]) -> None:
    """A new container that wants it is refused with the move's id; one with a volume of its own is not."""
    volumes.create("data")
    users += [spec(DATA, name="moving"), new := spec(DATA, name="new")]
    with pytest.raises(WrongState, match="used by moving, which is being moved: m1"):
        volumes.refuse_moving(new, lambda user: "m1" if user.name == "moving" else "")
    volumes.refuse_moving(new, lambda _user: "")
    volumes.refuse_moving(spec(Mount(kind="volume", source="own", target="/o")), lambda _user: "m1")


def test_shared_volumes(volumes: Volumes, users: list[ContainerSpec], tmp_path: Path) -> None:
    """Their files are the directory that is the same everywhere; a move neither copies nor removes them."""
    with pytest.raises(InvalidArgument, match="is no directory on this host"):
        volumes.create("data", shared=str(tmp_path / "nfs"))
    (tmp_path / "nfs").mkdir()
    made = volumes.create("data", shared=str(tmp_path / "nfs"))
    assert volumes.path(made) == tmp_path / "nfs"
    users.append(mine := spec(DATA))
    volumes.leave(mine, "m1")
    volumes.drop("m1")
    users.clear()
    (tmp_path / "nfs/file").touch()
    volumes.arrive([made], "m2")
    volumes.remove("data")
    assert (tmp_path / "nfs/file").exists()
    assert "not on this host" in volumes.why_not_arrive(Volume(name="x", shared="/nonexistent/nfs"))


@pytest.mark.parametrize(
    ("mounts", "why"),
    [
        ((Mount(kind="bind", source="a", target="/b"),), "source of a bind mount is an absolute path"),
        ((Mount(kind="bind", source="/a", target="b"),), "absolute path, not 'b'"),
        ((Mount(kind="bind", source="/a", target="/b/../.."),), "absolute path"),
        ((Mount(kind="tmpfs", target="/"),), "nothing can be mounted at /"),
        ((Mount(kind="tmpfs", target="/proc/x"),), "nothing can be mounted at /proc/x"),
        ((Mount(kind="bind", source="/a", target="/dev/x"),), "nothing can be mounted at /dev/x"),
        ((DATA, Mount(kind="tmpfs", target="/data/")), "two mounts have the target"),
        (
            (Mount(kind="tmpfs", target="/t"), Mount(kind="volume", source="v", target="/t/v")),
            "lies in the tmpfs at /t",
        ),
        ((Mount(kind="tmpfs", target="/t", options=("size=1,uid=0",)),), "is no option"),
        ((Mount(kind="nfs", target="/t"),), "no kind of a mount"),
        ((Mount(kind="bind", source="/a", target="/b", propagation="up"),), "no propagation"),
    ],
)
def test_what_cannot_be_mounted(mounts: tuple[Mount, ...], why: str) -> None:
    """A spec with such mounts never comes to be, whoever sent it."""
    with pytest.raises(InvalidArgument, match=why):
        mounted.check(spec(*mounts))


def test_the_plan(tmp_path: Path) -> None:
    """What is above is mounted first; Docker's flags of a tmpfs; only what never ran fills its volumes."""
    mounts = (
        Mount(kind="volume", source="inner", target="/a/b/c"),
        Mount(kind="bind", source="/srv", target="/a", read_only=True, propagation="rslave"),
        Mount(kind="tmpfs", target="/dev/shm/x", options=("exec", "uid=1"), read_only=True),
    )

    def places(name: str) -> tuple[Path, Path]:
        return Path("/v", name), Path("/m", name)

    found = mounted.plan(spec(*mounts, read_only=True), places, Path("/s"), fresh=True)
    assert [bind["target"] for bind in found["binds"]] == ["/a", "/a/b/c"]
    assert [bind["fill"] for bind in found["binds"]] == ["", "/m/inner"]
    assert [bind["propagation"] for bind in found["binds"]] == ["slave", "private"]
    assert found["scratch"] == [
        {"target": "/dev/shm/x", "size_bytes": 0, "mode": 0o1777, "flags": ["nodev", "nosuid", "ro"], "data": ["uid=1"]}
    ]
    assert found["read_only"]
    assert mounted.plan(spec(*mounts), places, Path("/s"), fresh=False)["binds"][1]["fill"] == ""
    assert mounted.plan(spec(), places, Path("/s"), fresh=True) == {"staging": "/s"}  # for /dev/shm, when it moves
