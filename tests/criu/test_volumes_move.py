"""Mounts and volumes of a container that moves."""

from __future__ import annotations

import errno
import json
import shutil
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

import pytest

from agent.criu import mount_flags
from migrate.errors import MigrateError, PrecheckError
from migrate.lab import nodes
from migrate.records import Mount, Run
from tests.criu.moving_lab import MovingLab, program, wait_for

pytestmark = pytest.mark.criu

DATA = Mount(kind="volume", source="moving", target="/data")


def volume(fleet: MovingLab, host: str, name: str) -> Path:
    return fleet.lab.node_dir(host) / "var/volumes" / name


def said(fleet: MovingLab, host: str, name: str = "moving") -> dict[str, Any]:
    found: dict[str, Any] = json.loads((volume(fleet, host, name) / "data/mounts.json").read_text())
    return found


def later(fleet: MovingLab, host: str, name: str = "moving") -> dict[str, Any]:
    """What it says after this call began."""
    before = said(fleet, host, name)["count"]
    wait_for(lambda: said(fleet, host, name)["count"] > before)
    return said(fleet, host, name)


@contextmanager
def running(fleet: MovingLab, name: str, *mounts: Mount, workload: str = "mounts", **options: Any) -> Iterator[None]:
    fleet.client.run(Run(image="work", argv=program(workload), name=name, host="host1", mounts=mounts, **options))
    try:
        wait_for(lambda: (volume(fleet, "host1", mounts[0].source) / "data/mounts.json").exists())
        yield
    finally:
        fleet.client.remove(name, force=True, volumes=True)
        for one in fleet.client.volumes():
            if not one.used_by:
                fleet.client.remove_volume(one.name, host=one.host)


def _on(fleet: MovingLab, host: str, *command: str) -> str:
    """What it prints in the namespaces of a host of the lab."""
    return subprocess.run(nodes.command(fleet.lab, host, list(command)), capture_output=True, text=True).stdout


@pytest.fixture
def conf() -> Iterator[Path]:
    """A directory that both hosts have at the same place."""
    path = Path("/var/lib/vo-conf")
    path.mkdir()
    (path / "file").write_text("of the host")
    yield path
    shutil.rmtree(path)


def test_all_mounts_move_there_and_back(fleet: MovingLab, conf: Path) -> None:
    """A volume with all that was written until the freeze, mapped or without a name; a tmpfs; a bind; the read-only root."""
    mounts = (
        DATA,
        Mount(kind="bind", source=str(conf), target="/conf", read_only=True),
        Mount(kind="bind", source=str(conf / "file"), target="/etc/one"),
        Mount(kind="tmpfs", target="/run", size_bytes=8 << 20, mode=0o700),
        Mount(kind="volume", source="f" * 64, target="/srv/anonymous", anonymous=True),
        Mount(kind="tmpfs", target="/own", options=("exec", "uid=7", "gid=8")),
        Mount(kind="tmpfs", target="/outer"),
        Mount(kind="tmpfs", target="/outer/inner", read_only=True),
    )
    with running(fleet, "mounted", *mounts, read_only=True):
        there = "host1"
        script = "cp /bin/true /own/true; cp /bin/true /run/true; chown 5:6 /own/true; echo o > /outer/file"
        assert fleet.run("mounted", "/bin/sh", "-c", script)[0] == 0
        for other in ("host2", "host1", "host2"):
            before = later(fleet, there)
            assert fleet.move("mounted").state == "succeeded"
            assert not volume(fleet, there, "moving").exists()
            assert not volume(fleet, there, "f" * 64).exists()
            there = other
            told = later(fleet, there)
            assert told["count"] > before["count"]
            assert told["lines"] == told["count"]
            assert told["mapped"] == told["count"]
            assert (told["secret"], told["named_secret"], told["gone"]) == ("in memory", "in memory", "nameless")
            assert (told["root"], told["read_only"]) == (errno.EROFS, errno.EROFS)
            code, text = fleet.run(
                "mounted", "/bin/sh", "-c", "cat /etc/one; touch /srv/anonymous/x; df -k /run | tail -1"
            )
            assert code == 0, text
            assert "of the host" in text
            assert text.split()[-5] == "8192"
            script = (
                "stat -c %u:%g:%a /own /own/true /run; /own/true && echo ran; /run/true || echo no; cat /outer/file;"
                "echo x > /outer/inner/x || echo closed; dd if=/dev/zero of=/run/big bs=1M count=9 2>&1 | grep -c space; rm /run/big"
            )
            code, text = fleet.run("mounted", "/bin/sh", "-c", f"exec 2>/dev/null; {script}")
            assert text.split() == ["7:8:1777", "5:6:755", "0:0:700", "ran", "no", "o", "closed", "1"], text
            root = f"/var/lib/migrate/containers/{fleet.client.inspect('mounted').id}/rootfs/data"
            wait_for(lambda root=root, there=there: _on(fleet, there, "ls", root).find("map") >= 0)
            assert _on(fleet, there, "ls", "/run/migrate/mounts") == ""
            (seen,) = fleet.client.inspect_volume("moving")
            assert (seen.host, seen.used_by, seen.migration_id) == (there, ("mounted",), "")
        fleet.client.stop("mounted", timeout_s=0)
        (volume(fleet, there, "moving") / "data/mounts.json").unlink()  # the next life counts from 1
        fleet.client.start("mounted")
        wait_for(lambda: (volume(fleet, there, "moving") / "data/mounts.json").exists())
        assert later(fleet, there)["root"] == errno.EROFS
    assert fleet.client.volumes() == []


def test_what_is_forbidden_on_mounts_stays_so(fleet: MovingLab, conf: Path) -> None:
    """Flags of all mounts there as here, also where the other host forbids less: CRIU leaves those of a second bind to the host."""
    mounts = (
        DATA,
        *(Mount(kind="bind", source=str(conf), target=target) for target in ("/conf", "/etc/conf")),
        Mount(kind="bind", source=str(conf), target="/srv/conf", read_only=True),
        Mount(kind="tmpfs", target="/run"),
    )
    for host, options in (("host1", "nosuid,nodev,noexec"), ("host2", "nodev")):
        _on(fleet, host, "mount", "-t", "tmpfs", "-o", options, "none", str(conf))
    try:
        with running(fleet, "forbids", *mounts, read_only=True):
            before = _mount_flags(fleet, "forbids")
            assert before["/"] == ["ro"]
            assert before["/etc/conf"] == ["nosuid", "nodev", "noexec"]
            for _ in range(2):
                assert fleet.move("forbids").state == "succeeded"
                assert _mount_flags(fleet, "forbids") == before
    finally:
        for host in ("host1", "host2"):
            _on(fleet, host, "umount", str(conf))


def _mount_flags(fleet: MovingLab, name: str) -> dict[str, list[str]]:
    code, text = fleet.run(name, "/bin/cat", "/proc/1/mountinfo")
    assert code == 0
    return {point: sorted(names, key=list(mount_flags.ATTRIBUTES).index) for point, names in mount_flags.parse(text)}


def test_a_move_that_fails_leaves_the_volume(fleet: MovingLab) -> None:
    """A move that is called off in the freeze: the source's volume is as it was and goes on, the target's is gone, a second try works."""
    with running(fleet, "stays", DATA, Mount(kind="tmpfs", target="/run"), Mount(kind="tmpfs", target="/conf")):
        before = later(fleet, "host1")
        with pytest.raises(MigrateError):
            moving = fleet.client.move("stays", to="host2")
            for event in moving:
                if getattr(event, "step", "") == "freeze":
                    fleet.client.cancel(moving.migration_id)
            moving.result()
        assert later(fleet, "host1")["count"] > before["count"]
        wait_for(lambda: not volume(fleet, "host2", "moving").exists())
        assert fleet.move("stays").state == "succeeded"
        later(fleet, "host2")


def test_refusals(fleet: MovingLab) -> None:
    """Each mount that cannot go along is named before anything happens: a bind, a propagation, a volume of two, a name that is taken."""
    mounts = (
        DATA,
        Mount(kind="bind", source="/run/vo-only", target="/only", create_source=True),
        Mount(kind="bind", source="/usr", target="/usr2", propagation="rslave"),
    )
    with running(fleet, "bound", *mounts):
        fleet.client.create(Run(image="work", argv=("true",), name="friend", host="host1", mounts=(DATA,)))
        fleet.client.create(Run(image="work", argv=("true",), name="taken", host="host2", mounts=(DATA,)))
        try:
            with pytest.raises(PrecheckError) as caught:
                fleet.client.move("bound", to="host2").result()
            detail = caught.value.detail
            assert "bind source /run/vo-only is not on this host" in detail
            assert "receives mounts of this host (rslave)" in detail
            assert "volume moving is used by friend too" in detail
            assert "another volume moving is on this host already, used by taken" in detail
        finally:
            fleet.client.remove("friend")
            fleet.client.remove("taken")


def test_a_shared_volume_is_not_copied(fleet: MovingLab, conf: Path) -> None:
    """Two containers may have it, and one of them moves; both go on in the same directory."""
    fleet.client.create_volume("moving", shared=str(conf))
    mounts = (DATA, Mount(kind="tmpfs", target="/run"), Mount(kind="tmpfs", target="/conf"))
    fleet.client.run(Run(image="work", argv=program("mounts"), name="sharing", host="host1", mounts=mounts))
    fleet.client.create(Run(image="work", argv=("true",), name="friend", host="host1", mounts=(DATA,)))
    try:
        wait_for(lambda: (conf / "mounts.json").exists())
        assert fleet.move("sharing").state == "succeeded"
        before = json.loads((conf / "mounts.json").read_text())["count"]
        wait_for(lambda: json.loads((conf / "mounts.json").read_text())["count"] > before)
        assert {one.host for one in fleet.client.inspect_volume("moving")} == {"host1", "host2"}
    finally:
        fleet.client.remove("sharing", force=True)
        fleet.client.remove("friend", force=True)
        fleet.client.remove_volume("moving")
    assert (conf / "file").exists()


@pytest.mark.parametrize(
    ("step", "mode"), [("precopy", "auto"), ("freeze", "stop-and-copy"), ("restore", "auto"), ("release", "auto")]
)
def test_agents_die_in_the_middle(fleet: MovingLab, step: str, mode: str) -> None:
    """Whenever both agents are killed, the volume is on the host where its container runs on, whole, and on no other."""
    with running(fleet, "killed", DATA, Mount(kind="tmpfs", target="/run"), Mount(kind="tmpfs", target="/conf")):
        before = later(fleet, "host1")["count"]
        moving = fleet.client.move("killed", to="host2", mode=mode)
        with suppress(MigrateError):
            for event in moving:
                if getattr(event, "step", "") == step and getattr(event, "event", "") == "started":
                    fleet.restart_agents()
        wait_for(
            lambda: fleet.client.migration(moving.migration_id).state in ("succeeded", "failed", "cancelled"),
            timeout_s=90,
        )
        host = fleet.client.inspect("killed").host
        assert host == ("host2" if fleet.client.migration(moving.migration_id).state == "succeeded" else "host1")
        other = "host1" if host == "host2" else "host2"
        told = later(fleet, host)
        assert told["count"] > before
        assert told["lines"] == told["mapped"] == told["count"]
        assert [(one.host, one.migration_id) for one in fleet.client.inspect_volume("moving")] == [(host, "")]
        assert not volume(fleet, other, "moving").exists()


def test_shared_memory_moves_as_files_do(fleet: MovingLab) -> None:
    """64 MB in /dev/shm, a mapping two processes share, one of a file without a name, a semaphore: whole right after each move, which does
    not stand still for a gzip of it.
    """
    with running(fleet, "shm", DATA, workload="shared_memory", shm_bytes=100 << 20):
        for there, host in (("host1", "host2"), ("host2", "host1")):
            before = later(fleet, there)
            assert before["big"] and before["one_inode"] and before["named"] == before["gone"] == before["count"]
            move = fleet.move("shm")
            after = later(fleet, host)
            assert after["count"] > before["count"]
            assert {**after, "count": 0, "named": 0, "gone": 0} == {**before, "count": 0, "named": 0, "gone": 0}
            assert after["named"] == after["gone"] == after["count"]
            # What was in it did not go through CRIU's images: 64 MB that no gzip makes smaller.
            assert move.sent_bytes["images"] < 8 << 20
