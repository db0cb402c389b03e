"""Volumes and mounts of real containers, seen from inside and from the host."""

from __future__ import annotations

import stat
import subprocess
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from agent.engine.container import Engine
from agent.engine.spec import ContainerSpec, IdRange, Isolation, Mount
from agent.errors import AgentError, NotFound, WrongState
from tests.system.engine_host import IDS, EngineHost, engine_host

pytestmark = pytest.mark.system


@pytest.fixture(scope="module")
def host() -> Iterator[EngineHost]:
    with engine_host() as made:
        yield made


@pytest.fixture(scope="module")
def engine(host: EngineHost) -> Iterator[Engine]:
    made = host.engine()
    yield made
    for status in made.list():
        made.remove(status.spec.id, force=True)
    made.close()


def run(engine: Engine, spec: ContainerSpec) -> list[str]:
    """What it writes, after it has ended."""
    engine.create(spec, 1)
    engine.start(spec.id)
    engine.wait(spec.id, 20)
    return [entry.data.decode().rstrip("\n") for entry in engine.logs(spec.id)]


def told(host: EngineHost, script: str, **changes: object) -> ContainerSpec:
    """A container that runs a script whose errors come in their place among its output."""
    return host.spec(f"exec 2>&1; {script}", **changes)


def names(directory: Path) -> list[str]:
    return sorted(entry.name for entry in directory.iterdir())


def data(host: EngineHost, name: str) -> Path:
    return host.config.volumes_dir / name / "data"


def test_a_volume_outlives_its_container(host: EngineHost, engine: Engine) -> None:
    """What one container writes another reads; on the host's disk it is root's, whatever ids the container has."""
    mounts = (Mount(kind="volume", source="kept", target="/data"),)
    run(
        engine,
        first := told(host, "echo hello > /data/file; chown 1000:1000 /data/file; echo x > /data/root", mounts=mounts),
    )
    engine.remove(first.id)
    status = (data(host, "kept") / "file").stat()
    assert (status.st_uid, status.st_gid) == (1000, 1000)
    assert (data(host, "kept") / "root").stat().st_uid == 0
    other = told(
        host, "cat /data/file; stat -c %u:%g /data/file /data/root", mounts=mounts, ids=IdRange(base=2_000_000)
    )
    assert run(engine, other) == ["hello", "1000:1000", "0:0"]
    assert [each.name for each in engine.volumes.used_by("kept")] == [other.name]
    with pytest.raises(WrongState, match=f"in use by {other.name}"):
        engine.volumes.remove("kept")
    engine.remove(other.id)
    engine.volumes.remove("kept")
    assert not data(host, "kept").parent.exists()


def test_an_empty_volume_is_filled_from_the_image(host: EngineHost, engine: Engine) -> None:
    """Files, links, ids and modes of the image's directory; only once, only where it is empty, and not with nocopy."""
    mounts = (Mount(kind="volume", source="filled", target="/etc"),)
    assert run(engine, told(host, "cat /etc/passwd | head -1; rm /etc/group", mounts=mounts)) == [
        "root:x:0:0:root:/root:/bin/sh"
    ]
    assert (data(host, "filled") / "passwd").stat().st_uid == 0
    assert not (host.config.volumes_dir / "filled" / "filling").exists()
    assert run(engine, told(host, "ls /etc/group", mounts=mounts)) == ["ls: /etc/group: No such file or directory"]
    modes = (Mount(kind="volume", source="modes", target="/tmp"),)
    assert run(engine, told(host, "stat -c %a /tmp", mounts=modes)) == ["1777"]
    links = (Mount(kind="volume", source="links", target="/bin"),)
    assert run(engine, told(host, "readlink /bin/ls; ls -A /bin | wc -l", mounts=links))[0] == "busybox"
    assert (data(host, "links") / "busybox").stat().st_size == Path("/bin/busybox").stat().st_size
    bare = (Mount(kind="volume", source="bare", target="/etc", no_copy=True),)
    assert run(engine, told(host, "ls -A /etc", mounts=bare)) == []


def test_what_a_dead_filler_left_is_made_again(host: EngineHost, engine: Engine) -> None:
    """A volume with the marker of a copy under way is emptied and filled by the next container."""
    engine.volumes.create("half")
    (data(host, "half") / "rest").mkdir()
    (data(host, "half") / "rest" / "x").touch()
    (data(host, "half").parent / "filling").touch()
    mounts = (Mount(kind="volume", source="half", target="/etc"),)
    assert run(engine, told(host, "ls /etc", mounts=mounts)) == ["group", "hostname", "hosts", "passwd", "resolv.conf"]


def test_anonymous_volumes_go_with_rm_v_and_with_rm(host: EngineHost, engine: Engine) -> None:
    """`rm` keeps them, `rm -v` and --rm remove them; named ones stay."""
    for number, (removed, options) in enumerate(((False, {}), (True, {"volumes": True}))):
        mounts = (
            Mount(kind="volume", source=f"anon{number}", target="/a", anonymous=True),
            Mount(kind="volume", source="named", target="/n"),
        )
        spec = host.spec("true", mounts=mounts)
        run(engine, spec)
        engine.remove(spec.id, **options)
        assert data(host, f"anon{number}").exists() != removed
        assert data(host, "named").exists()
    mounts = (Mount(kind="volume", source="anon3", target="/a", anonymous=True),)
    spec = host.spec("true", mounts=mounts, remove_on_exit=True)
    engine.create(spec, 1)
    assert data(host, "anon3").exists()
    engine.start(spec.id)
    deadline = time.monotonic() + 10
    while data(host, "anon3").exists():
        assert time.monotonic() < deadline
        time.sleep(0.05)
    assert "anon0" in [each.name for each in engine.volumes.unused(named=False)]


def test_binds(host: EngineHost, engine: Engine, tmp_path: Path) -> None:
    """Root inside is root on disk; ro is ro; a single file; a missing source is made, or refused."""
    (tmp_path / "in").mkdir()
    (tmp_path / "file").write_text("one file\n")
    mounts = (
        Mount(kind="bind", source=str(tmp_path / "in"), target="/in"),
        Mount(kind="bind", source=str(tmp_path / "file"), target="/etc/one"),
        Mount(kind="bind", source=str(tmp_path), target="/all", read_only=True),
        Mount(kind="bind", source=str(tmp_path / "new/er"), target="/new", create_source=True),
    )
    said = run(
        engine, told(host, "echo x > /in/y; cat /etc/one; touch /all/z; touch /new/n; stat -c %u /in", mounts=mounts)
    )
    assert said == ["one file", "touch: /all/z: Read-only file system", "0"]
    assert (tmp_path / "in/y").stat().st_uid == 0
    assert (tmp_path / "new/er/n").exists()
    missing = host.spec("true", mounts=(Mount(kind="bind", source=str(tmp_path / "no"), target="/x"),))
    with pytest.raises(NotFound, match="does not exist"):
        engine.create(missing, 1)
    assert missing.id not in engine.store.ids()


def test_a_file_system_without_id_maps_says_so(host: EngineHost, engine: Engine) -> None:
    """Where the kernel cannot map the ids of a bind's source, the start says which source."""
    spec = host.spec("true", mounts=(Mount(kind="bind", source="/proc/sys", target="/x"),))
    engine.create(spec, 1)
    with pytest.raises(AgentError, match="file system of /proc/sys cannot be mounted"):
        engine.start(spec.id)
    assert host.mounts() == []


def test_tmpfs(host: EngineHost, engine: Engine) -> None:
    """Size, mode, ids and flags are the kernel's; nothing of it is on the disk; the default runs no programs."""
    mounts = (
        Mount(kind="tmpfs", target="/t", size_bytes=1 << 20, mode=0o700),
        Mount(kind="tmpfs", target="/plain"),
        Mount(kind="tmpfs", target="/own", options=("uid=1000", "gid=1000", "exec")),
        Mount(kind="tmpfs", target="/ro", read_only=True),
    )
    spec = told(
        host,
        "dd if=/dev/zero of=/t/big bs=64k count=32 2>&1 | grep -o 'No space left on device'; stat -c %s /t/big; stat -c %a /t /plain;"
        "stat -c %u:%g /own; cp /bin/busybox /plain/true; /plain/true; cp /bin/busybox /own/true; /own/true && echo ran; touch /ro/x",
        mounts=mounts,
    )
    assert run(engine, spec) == [
        "No space left on device", "1048576", "700", "1777", "1000:1000", "/bin/sh: /plain/true: Permission denied", "ran",
        "touch: /ro/x: Read-only file system",
    ]  # fmt: skip


def test_a_read_only_root(host: EngineHost, engine: Engine) -> None:
    """Nothing of the root can be written or mounted writable again; volumes, tmpfs, /dev/shm can."""
    mounts = (Mount(kind="volume", source="rw", target="/data"), Mount(kind="tmpfs", target="/run"))
    script = "for f in /x /etc/hosts /tmp/x; do echo x > $f; done; echo x > /data/x && echo x > /run/x && echo x > /dev/shm/x && echo ok;"
    script += "cat /etc/hostname"
    spec = told(host, script, mounts=mounts, read_only=True, cwd="/made/for/it")
    assert run(engine, spec) == [
        "/bin/sh: can't create /x: Read-only file system",
        "/bin/sh: can't create /etc/hosts: Read-only file system",
        "/bin/sh: can't create /tmp/x: Read-only file system",
        "ok",
        spec.hostname,
    ]


def test_propagation(host: EngineHost, engine: Engine, tmp_path: Path) -> None:
    """A mount that the host makes below the source shows in rslave and rshared, not in the default; none comes out."""
    top = tmp_path / "top"
    (top / "sub").mkdir(parents=True)
    subprocess.run(["mount", "--bind", top, top], check=True)
    try:
        subprocess.run(["mount", "--make-shared", top], check=True)
        mounts = tuple(
            Mount(kind="bind", source=str(top), target=f"/{kind or 'plain'}", propagation=kind)
            for kind in ("", "rslave", "rshared", "private")
        )
        spec = told(
            host,
            "while ! [ -e /rslave/go ]; do sleep 0.05; done; ls /plain/sub /rslave/sub /rshared/sub /private/sub",
            mounts=mounts,
        )
        engine.create(spec, 1)
        engine.start(spec.id)
        subprocess.run(["mount", "-t", "tmpfs", "vo-sub", top / "sub"], check=True)
        (top / "sub" / "seen").touch()
        (top / "go").touch()
        engine.wait(spec.id, 20)
        said = [entry.data.decode().rstrip("\n") for entry in engine.logs(spec.id)]
        assert [line for line in said if line] == [
            "/plain/sub:",
            "/private/sub:",
            "/rshared/sub:",
            "seen",
            "/rslave/sub:",
            "seen",
        ]
        engine.remove(spec.id)
    finally:
        subprocess.run(["umount", "--lazy", "--recursive", top], check=False)


def test_targets_that_are_links_stay_inside(host: EngineHost, engine: Engine, tmp_path: Path) -> None:
    """A link that the container has put at the target leads to a place in its own root, at the next start too."""
    bad = tmp_path / "outside"
    bad.mkdir()
    mounts = (Mount(kind="volume", source="linked", target="/link/deep"),)
    spec = told(host, f"if [ -e /link/deep/mine ]; then ls {bad}/deep; else touch /link/deep/mine; fi", mounts=mounts)
    engine.create(spec, 1)
    layer = host.config.containers_dir / spec.id / "layer/upper"
    (layer / "link").symlink_to(f"../../../..{bad}")
    for _ in range(2):
        engine.start(spec.id)
        engine.wait(spec.id, 20)
    assert "mine" in [entry.data.decode().strip() for entry in engine.logs(spec.id)]
    assert (layer / str(bad).lstrip("/") / "deep").is_dir()
    assert names(data(host, "linked")) == ["mine"]
    assert list(bad.iterdir()) == []


def test_nested_mounts(host: EngineHost, engine: Engine) -> None:
    """Whatever order they were given in, the one above is mounted first."""
    mounts = (
        Mount(kind="volume", source="inner", target="/a/b"),
        Mount(kind="tmpfs", target="/a/t"),
        Mount(kind="volume", source="outer", target="/a"),
    )
    run(engine, told(host, "touch /a/out /a/b/in /a/t/tmp", mounts=mounts))
    assert names(data(host, "outer")) == ["b", "out", "t"]
    assert names(data(host, "inner")) == ["in"]
    assert names(data(host, "outer") / "t") == []
    assert stat.S_ISDIR((data(host, "outer") / "b").stat().st_mode)
    assert IDS.base not in {path.stat().st_uid for path in data(host, "outer").iterdir()}


def test_a_read_only_bind_stays_so_for_a_root_that_may_mount(host: EngineHost, engine: Engine, tmp_path: Path) -> None:
    """With CAP_SYS_ADMIN and no seccomp filter a container can neither remount a read-only bind writable nor uncover what is below."""
    (tmp_path / "kept").touch()
    mounts = (Mount(kind="bind", source=str(tmp_path), target="/ro", read_only=True),)
    script = "mount -o remount,bind,rw /ro; umount /ro; touch /ro/new; ls /ro"
    spec = told(
        host,
        script,
        mounts=mounts,
        capabilities=("CAP_SYS_ADMIN", "CAP_DAC_OVERRIDE", "CAP_CHOWN"),
        isolation=Isolation(seccomp="unconfined"),
    )
    said = run(engine, spec)
    assert said[-1] == "kept"
    assert any("touch: /ro/new: Read-only file system" in line for line in said)
    assert names(tmp_path) == ["kept"]
