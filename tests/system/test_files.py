"""Files of containers from outside: copied in and out, exported, compared; and what a container does against it."""

from __future__ import annotations

import io
import os
import stat
import subprocess
import sys
import tarfile
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from agent.engine import adjust, local
from agent.engine.container import Engine
from agent.engine.files import Files, Reading
from agent.engine.spec import ContainerSpec, Limits, Mount
from agent.engine.visits import Visits
from agent.errors import AgentError, InvalidArgument, NotFound, StorageError, WrongState
from agent.filetree.paths import Source
from agent.filetree.place import Owner
from agent.linux import process
from tests.system.engine_host import IDS, EngineHost, until

pytestmark = pytest.mark.system

SECRET = b"only the host may read this"


@pytest.fixture(scope="module")
def secret(host: EngineHost) -> Iterator[Path]:
    """A file of the host that everybody may read, so that only the path keeps it from a container."""
    path = Path(f"/var/tmp/{host.cgroup_parent}.secret")
    path.mkdir()
    (path / "file").write_bytes(SECRET)
    yield path
    for one in path.iterdir():
        one.unlink()
    path.rmdir()


def running(host: EngineHost, engine: Engine, script: str = "", **changes: object) -> ContainerSpec:
    """A container that has run `script` and goes on."""
    spec = host.spec(f"{script}\ntouch /ready; exec sleep 1000", **changes)
    engine.create(spec, 1)
    engine.start(spec.id)
    until(lambda: (engine.store.directory(spec.id) / "layer/upper/ready").exists())
    return spec


def read(engine: Engine, spec: ContainerSpec, path: str, *, follow: bool = False) -> tarfile.TarFile:
    with Files(engine).copy_out(spec.id, path.encode(), follow=follow) as reading:
        return tarfile.open(fileobj=io.BytesIO(b"".join(reading)))


def content(engine: Engine, spec: ContainerSpec, path: str) -> bytes:
    with read(engine, spec, path, follow=True) as tar:
        file = tar.extractfile(tar.getmembers()[0])
        assert file is not None
        return file.read()


def tar_of(**files: bytes) -> bytes:
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w") as tar:
        for name, data in files.items():
            info = tarfile.TarInfo(name.replace("__", "/"))
            info.size, info.uid, info.gid, info.mode = len(data), 1000, 1000, 0o640
            tar.addfile(info, io.BytesIO(data))
    return buffer.getvalue()


def write(engine: Engine, spec: ContainerSpec, path: str, tar: bytes, owner: Owner = Owner.TAR) -> None:
    Files(engine).copy_in(spec.id, path.encode(), None, owner, [tar])


def test_a_directory_comes_out_with_the_containers_own_ids(host: EngineHost, engine: Engine) -> None:
    """Names as docker cp gives them; ids as in there; links, hard links and fifos stay what they are."""
    spec = running(
        host,
        engine,
        "mkdir -p /d/e; echo hi >/d/f; chown 1000:7 /d/f; chmod 640 /d/f; ln /d/f /d/g; ln -s /etc/passwd /d/l; mkfifo /d/p",
    )
    with read(engine, spec, "/d") as tar:
        assert tar.getnames() == ["d", "d/e", "d/f", "d/g", "d/l", "d/p"]
        file = tar.getmember("d/f")
        assert (file.uid, file.gid, file.mode, file.size) == (1000, 7, 0o640, 3)
        assert tar.getmember("d/g").islnk()
        assert tar.getmember("d/l").linkname == "/etc/passwd"
        assert tar.getmember("d/p").isfifo()
    with read(engine, spec, "/d/.") as tar:
        assert tar.getnames() == [".", "./e", "./f", "./g", "./l", "./p"]


def test_what_is_mounted_in_a_running_container_is_seen(host: EngineHost, engine: Engine) -> None:
    """Its tmpfs, and single files of its /proc; the whole of /proc is not."""
    spec = running(host, engine, "echo shared >/dev/shm/x")
    assert content(engine, spec, "/dev/shm/x") == b"shared\n"
    assert b"PPid" in content(engine, spec, "/proc/1/status")
    with read(engine, spec, "/") as tar:
        names = tar.getnames()
    assert "./proc" in names
    assert not [name for name in names if name.startswith("./proc/")]
    write(engine, spec, "/dev/shm", tar_of(y=b"in memory"))
    began = engine.inspect(spec.id).started_unix_ns
    assert not [one for one in ("archive-path", "extract-to-dir") if engine.events.lacks(spec.id, one, began)]
    assert engine.events.lacks(spec.id, "export", began)
    assert content(engine, spec, "/dev/shm/y") == b"in memory"


@pytest.mark.parametrize("state", ["running", "paused", "exited", "created"])
def test_files_go_in_and_out_in_every_state(host: EngineHost, engine: Engine, state: str) -> None:
    """They are there for the container's processes too, with the ids that were asked for."""
    spec = host.spec("ls -ln /tmp >/seen; cat /tmp/in/a >>/seen; exec sleep 1000")
    engine.create(spec, 1)
    if state != "created":
        engine.start(spec.id)
        until(lambda: b"No such" in b"".join(e.data for e in engine.logs(spec.id)))
    if state == "paused":
        adjust.pause(engine, spec.id)
    elif state == "exited":
        engine.kill(spec.id)
        engine.wait(spec.id)
    write(engine, spec, "/tmp", tar_of(in__a=b"content"))
    assert content(engine, spec, "/tmp/in/a") == b"content"
    path = engine.store.directory(spec.id) / "layer/upper/tmp/in/a"
    assert (path.stat().st_uid, stat.S_IMODE(path.stat().st_mode)) == (1000, 0o640)
    write(engine, spec, "/tmp", tar_of(b=b"x"), Owner.ROOT)
    assert (engine.store.directory(spec.id) / "layer/upper/tmp/b").stat().st_uid == 0
    if state == "paused":
        adjust.unpause(engine, spec.id)
    if state in ("created", "exited"):
        engine.start(spec.id)
        until(lambda: content(engine, spec, "/seen").endswith(b"content"))
    assert not [line for line in host.mounts() if "overlay" in line and spec.id not in line]


@pytest.mark.parametrize("alive", [True, False], ids=["running", "exited"])
def test_links_lead_nowhere_but_into_the_container(host: EngineHost, engine: Engine, secret: Path, alive: bool) -> None:
    """Absolute ones, those with many .., in the middle and at the end, on the way in and on the way out."""
    up = "../" * 40
    spec = running(
        host,
        engine,
        f"ln -s {secret} /abs; ln -s {up}{secret} /rel; ln -s {secret}/file /end; ln -s /proc/1/root/{secret} /magic",
    )
    if not alive:
        engine.kill(spec.id)
        engine.wait(spec.id)
    for path in ("/abs/file", "/rel/file", "/end", "/magic/file", f"{up}{secret}/file"):
        with pytest.raises(AgentError):
            content(engine, spec, path)
    for path in ("/abs", "/rel", "/end", f"{up}{secret}"):
        with pytest.raises(AgentError):
            write(engine, spec, path, tar_of(file=b"overwritten"))
    for name in ("abs__file", "rel__file", "end__x"):
        with pytest.raises(AgentError):
            write(engine, spec, "/", tar_of(**{name: b"overwritten"}))
    with pytest.raises(InvalidArgument):
        write(engine, spec, "/", tar_of(**{f"{'..__' * 20}tmp__x": b""}))
    assert (secret / "file").read_bytes() == SECRET
    assert [one.name for one in secret.iterdir()] == ["file"]


def test_a_container_that_swaps_links_while_files_are_copied_gets_nothing_of_the_host(
    host: EngineHost, engine: Engine, secret: Path
) -> None:
    """CVE-2018-15664: a directory that becomes a link to the host and back, again and again, while cp walks through it."""
    script = f"""
        mkdir -p /race{secret} /race/real /hold; echo mine >/race{secret}/file; echo mine >/race/real/file
        ln -s {secret} /race/link; cp -a /race/real /race/x
        (while :; do mv -T /race/x /hold/a; mv -T /race/link /race/x; mv -T /race/x /race/link; mv -T /hold/a /race/x; done) &
    """
    spec = running(host, engine, script)
    began = time.monotonic()
    seen, refused = 0, 0
    while (spent_s := time.monotonic() - began) < 6 or seen < 5:  # not only of copies that were all refused
        assert spent_s < 60, f"{seen} copies worked, {refused} did not"
        for act in (
            lambda: content(engine, spec, "/race/x/file"),
            lambda: b"".join(_everything(engine, spec, "/race")),
            lambda: write(engine, spec, "/race/x", tar_of(file=b"mine\n")),
            lambda: write(engine, spec, "/race", tar_of(x__file=b"mine\n")),
        ):
            try:
                assert SECRET not in (act() or b"")
                seen += 1
            except AgentError:
                refused += 1
    assert (secret / "file").read_bytes() == SECRET


def _everything(engine: Engine, spec: ContainerSpec, path: str) -> Iterator[bytes]:
    with Files(engine).copy_out(spec.id, path.encode(), follow=False) as reading:
        yield from reading


def test_the_process_at_the_files_has_nothing_of_the_container_loaded_and_no_privilege(
    host: EngineHost, engine: Engine
) -> None:
    """CVE-2019-14271: it runs the host's files with the container's ids, and the container does not see it."""
    spec = running(host, engine, "dd if=/dev/zero of=/big bs=1M count=8")
    with Files(engine).copy_out(spec.id, b"/big", follow=False) as reading:
        next(iter(reading))
        assert reading._process is not None
        proc = Path(f"/proc/{reading._process.pid}")
        mapped = [line.split(None, 5) for line in (proc / "maps").read_text().splitlines()]
        files = {(fields[5], int(fields[4])) for fields in mapped if len(fields) > 5 and fields[5].startswith("/")}
        assert files
        for path, inode in files:  # in the container there is no such file, or another one
            assert Path(path).stat().st_ino == inode, path
        assert (proc / "root").readlink() == Path("/")
        ids = next(line for line in (proc / "status").read_text().splitlines() if line.startswith("Uid"))
        assert set(ids.split()[1:]) == {str(IDS.base)}
        init = Path(f"/proc/{engine.store.record(spec.id).pid}")
        assert (proc / "ns/user").readlink() == (init / "ns/user").readlink()
        assert (proc / "ns/pid").readlink() == Path("/proc/self/ns/pid").readlink()


def test_a_copy_that_is_cut_off_leaves_no_part_of_a_file(host: EngineHost, engine: Engine) -> None:
    """The files before it stay, and the next copy works; the process has gone."""
    spec = running(host, engine)

    def broken() -> Iterator[bytes]:
        yield tar_of(whole=b"1" * 1000, half=b"2" * 5_000_000)[:2_000_000]
        raise WrongState("the caller went away")

    with pytest.raises(WrongState, match="went away"):
        Files(engine).copy_in(spec.id, b"/tmp", None, Owner.TAR, broken())
    tmp = engine.store.directory(spec.id) / "layer/upper/tmp"
    assert [one.name for one in tmp.iterdir()] == ["whole"]
    write(engine, spec, "/tmp", tar_of(half=b"2"))
    assert sorted(one.name for one in tmp.iterdir()) == ["half", "whole"]


def test_a_wrong_destination_is_said_while_the_sender_is_still_silent(host: EngineHost, engine: Engine) -> None:
    """Nobody has to send a tar to learn that it cannot be placed."""
    spec = running(host, engine)
    never = threading.Event()

    def silent() -> Iterator[bytes]:
        never.wait(30)
        yield b""

    began = time.monotonic()
    try:
        with pytest.raises(InvalidArgument, match="must be a directory"):
            Files(engine).copy_in(spec.id, b"/etc/passwd", None, Owner.TAR, silent())
        with pytest.raises(NotFound):
            Files(engine).copy_in(spec.id, b"/no/such/place", Source(name=b"x", mode=stat.S_IFREG), Owner.TAR, silent())
    finally:
        never.set()
    assert time.monotonic() - began < 20


def test_dockers_rules_of_destinations(host: EngineHost, engine: Engine) -> None:
    """Existing and missing ones, files and directories, slashes and dots at the end."""
    spec = running(host, engine, "mkdir -p /dir /dir/was; echo old >/file; ln -s dir /link; ln -s nowhere /dangling")
    upper = engine.store.directory(spec.id) / "layer/upper"
    directory = {"mode": stat.S_IFDIR | 0o755}

    def put(path: str, tar: bytes, **what: object) -> None:
        Files(engine).copy_in(spec.id, path.encode(), Source(**what), Owner.ROOT, [tar])  # type: ignore[arg-type]

    a_file = {"name": b"f", "mode": stat.S_IFREG | 0o644}
    put("/new", tar_of(f=b"1"), **a_file)
    put("/file", tar_of(f=b"2"), **a_file)
    put("/dir", tar_of(f=b"3"), **a_file)
    put("/link/", tar_of(f2=b"4"), name=b"f2", mode=stat.S_IFREG | 0o644)
    put("/dangling", tar_of(f=b"5"), **a_file)
    assert [(upper / one).read_bytes() for one in ("new", "file", "dir/f", "dir/f2", "nowhere")] == [
        b"1",
        b"2",
        b"3",
        b"4",
        b"5",
    ]
    for path, words in (("/no/", "does not exist"), ("/no/way", "No such file"), ("/file/", "no directory")):
        with pytest.raises(AgentError, match=words):
            put(path, tar_of(f=b"x"), **a_file)
    put("/made", tar_of(d__in=b"6"), name=b"d", **directory)
    put("/dir", tar_of(d__in=b"7"), name=b"d", **directory)
    put("/dir", tar_of(in2=b"8"), name=b".", **directory)
    put("/made2", tar_of(in3=b"9"), name=b".", **directory)
    assert [(upper / one).read_bytes() for one in ("made/in", "dir/d/in", "dir/in2", "made2/in3")] == [
        b"6",
        b"7",
        b"8",
        b"9",
    ]
    with pytest.raises(AgentError, match="directory to the file"):
        put("/file", tar_of(d__in=b"x"), name=b"d", **directory)
    with pytest.raises(AgentError, match="overwrite the directory"):
        put("/dir", tar_of(was=b"x"), name=b"was", mode=stat.S_IFREG)


def test_files_are_refused_during_a_move_and_a_copy_keeps_the_container_from_moving(
    host: EngineHost, engine: Engine
) -> None:
    """In both orders; what only reads keeps nobody from anything."""
    spec = running(host, engine)
    began, go = threading.Event(), threading.Event()

    def slow() -> Iterator[bytes]:
        began.set()
        assert go.wait(30)
        yield tar_of(a=b"1")

    copying = threading.Thread(target=Files(engine).copy_in, args=(spec.id, b"/tmp", None, Owner.TAR, slow()))
    copying.start()
    assert began.wait(30)
    with pytest.raises(WrongState, match="being copied"):
        engine.roles.begin(spec.id, "m1", "source", 1)
    go.set()
    copying.join()
    with Files(engine).copy_out(spec.id, b"/tmp", follow=False) as reading:
        engine.roles.begin(spec.id, "m1", "source", 1)
        assert b"".join(reading)
    for act in (
        lambda: content(engine, spec, "/tmp/a"),
        lambda: write(engine, spec, "/tmp", tar_of(b=b"2")),
    ):
        with pytest.raises(WrongState, match="move m1"):
            act()
    engine.roles.end(spec.id, "m1", 1)
    assert content(engine, spec, "/tmp/a") == b"1"


def test_a_start_and_a_removal_do_not_wait_for_ever_for_a_silent_sender(host: EngineHost, engine: Engine) -> None:
    """rm -f cuts the copy off at once."""
    spec = host.spec("true")
    engine.create(spec, 1)
    never, errors = threading.Event(), []

    def silent() -> Iterator[bytes]:
        never.wait(60)
        yield b""

    def copy() -> None:
        try:
            Files(engine).copy_in(spec.id, b"/tmp", None, Owner.TAR, silent())
        except AgentError as exc:
            errors.append(exc)

    copying = threading.Thread(target=copy)
    copying.start()
    until(lambda: engine.visits.writing(spec.id))
    began = time.monotonic()
    engine.remove(spec.id, force=True)
    assert time.monotonic() - began < 15
    copying.join()
    never.set()
    assert [one.code for one in errors] == ["files.cut"]


@pytest.mark.parametrize("alive", [True, False], ids=["running", "exited"])
def test_what_is_mounted_from_the_host_is_reached_and_not_exported(
    host: EngineHost, engine: Engine, secret: Path, alive: bool
) -> None:
    """A writable directory, and a file and a directory that are read-only."""
    data = host.directory / f"data-{alive}"
    data.mkdir()
    (data / "f").write_text("of the host")
    binds = (
        local.Bind(source=data, target="/data"),
        local.Bind(source=data, target="/ro", read_only=True),
        local.Bind(source=secret / "file", target="/file", read_only=True),
    )
    spec = host.spec("sleep 1000")
    engine.create(spec, 1, own=local.Local(binds=binds))
    engine.start(spec.id)
    if not alive:
        engine.kill(spec.id)
        engine.wait(spec.id)
    assert content(engine, spec, "/data/f") == b"of the host"
    assert content(engine, spec, "/file") == SECRET
    write(engine, spec, "/data", tar_of(new=b"x"))
    assert ((data / "new").read_bytes(), (data / "new").stat().st_uid) == (b"x", 1000)
    with pytest.raises(WrongState, match="Read-only"):
        write(engine, spec, "/ro", tar_of(no=b"x"))
    with pytest.raises(AgentError, match="Read-only"):
        write(engine, spec, "/", tar_of(file=b"x"))
    assert (secret / "file").read_bytes() == SECRET
    with Files(engine).export(spec.id) as reading, tarfile.open(fileobj=io.BytesIO(b"".join(reading))) as tar:
        names = tar.getnames()
    assert {"data", "file"} <= set(names)
    assert not [one for one in names if one.startswith("data/")]


def test_volumes_of_containers_that_do_not_run(host: EngineHost, engine: Engine) -> None:
    """Before the first start a new volume shows what the image has there; what is copied in is in the volume, before and after."""
    mounts = (
        Mount(kind="volume", source="etcetera", target="/etc"),
        Mount(kind="volume", source="data", target="/data"),
        Mount(kind="tmpfs", target="/scratch"),
    )
    spec = host.spec("ls /data >/seen; exec sleep 1000", mounts=mounts, read_only=False)
    engine.create(spec, 1)
    assert b"worker" in content(engine, spec, "/etc/passwd")
    write(engine, spec, "/data", tar_of(before=b"1"))
    assert content(engine, spec, "/data/before") == b"1"
    engine.start(spec.id)
    until(lambda: content(engine, spec, "/seen") == b"before\n")
    write(engine, spec, "/scratch", tar_of(t=b"2"))
    assert content(engine, spec, "/scratch/t") == b"2"
    engine.kill(spec.id)
    engine.wait(spec.id)
    write(engine, spec, "/data", tar_of(after=b"3"))
    with read(engine, spec, "/data") as tar:
        assert tar.getnames() == ["data", "data/after", "data/before"]
    upper = engine.store.directory(spec.id) / "layer/upper"
    assert list((upper / "data").iterdir()) == []


def test_a_read_only_root_is_read_only_for_cp_too(host: EngineHost, engine: Engine) -> None:
    """Running or not; a volume in it is not."""
    spec = host.spec("exec sleep 1000", mounts=(Mount(kind="volume", source="w", target="/w"),), read_only=True)
    engine.create(spec, 1)
    for _ in range(2):
        with pytest.raises(WrongState, match="Read-only"):
            write(engine, spec, "/", tar_of(x=b"1"))
        write(engine, spec, "/w", tar_of(x=b"1"))
        assert content(engine, spec, "/w/x") == b"1"
        if not engine.inspect(spec.id).pid:
            engine.start(spec.id)


def test_a_file_that_is_mounted_is_written_in_place(host: EngineHost, engine: Engine) -> None:
    """It stays mounted, and the host's file has the contents."""
    source = host.directory / "conf"
    source.write_text("before, and longer")
    spec = host.spec("touch /ready; exec sleep 1000")
    engine.create(spec, 1, own=local.Local(binds=(local.Bind(source=source, target="/etc/conf"),)))
    engine.start(spec.id)
    write(engine, spec, "/etc", tar_of(conf=b"after"))
    assert source.read_text() == "after"
    assert content(engine, spec, "/etc/conf") == b"after"


def test_without_a_user_namespace_the_process_has_only_what_copying_needs(tmp_path: Path) -> None:
    """As for a container that shares the host's: paths are still the root's, and most privileges are gone."""
    (tmp_path / "f").write_bytes(b"x" * 5_000_000)
    root = {"kind": "live", "pid": os.getpid(), "start_ticks": process.start_ticks(os.getpid())}
    request = {"verb": "copy-out", "path": str(tmp_path / "f"), "follow": False, "root": root}
    with Reading(request) as reading:
        reading.wait_for_source()
        assert reading._process is not None
        status = Path(f"/proc/{reading._process.pid}/status").read_text()
        effective = int(next(line.split()[1] for line in status.splitlines() if line.startswith("CapEff")), 16)
        assert not effective & 1 << process.capability_number("CAP_SYS_ADMIN")
        assert effective & 1 << process.capability_number("CAP_DAC_OVERRIDE")
        assert sum(map(len, reading)) > 5_000_000


def test_a_full_file_system_is_said_and_no_part_of_a_file_stays(host: EngineHost, engine: Engine) -> None:
    """Here the container's /dev/shm, of which the size is limited."""
    spec = running(host, engine, limits=Limits(shm_bytes=1 << 20))
    with pytest.raises(StorageError, match="No space left"):
        write(engine, spec, "/dev/shm", tar_of(small=b"1" * 1000, big=b"2" * 3_000_000))
    with read(engine, spec, "/dev/shm") as tar:
        assert tar.getnames() == ["shm", "shm/small"]


def test_a_container_does_not_start_again_under_a_copy_into_its_life_before(
    host: EngineHost, engine: Engine, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Two overlays of one writable layer are undefined: the copy is cut off; one that only reads goes on."""
    monkeypatch.setattr(Visits.settle, "__defaults__", (0.5,))
    spec = running(host, engine, "dd if=/dev/zero of=/big bs=1M count=8")
    never, errors = threading.Event(), []

    def silent() -> Iterator[bytes]:
        yield tar_of(first=b"x")
        never.wait(60)

    def copy() -> None:
        try:
            Files(engine).copy_in(spec.id, b"/tmp", None, Owner.TAR, silent())
        except AgentError as exc:
            errors.append(exc.code)

    copying = threading.Thread(target=copy)
    copying.start()
    tmp = engine.store.directory(spec.id) / "layer/upper/tmp"
    until(lambda: (tmp / "first").exists())
    with Files(engine).copy_out(spec.id, b"/big", follow=False) as reading:
        pieces = iter(reading)
        size = len(next(pieces))
        engine.kill(spec.id)
        engine.wait(spec.id)
        engine.start(spec.id)
        copying.join()
        never.set()
        assert errors == ["files.cut"]
        assert size + sum(map(len, pieces)) > 8 << 20
    write(engine, spec, "/tmp", tar_of(second=b"x"))
    assert content(engine, spec, "/tmp/second") == b"x"


def test_file_capabilities_and_foreign_ids(host: EngineHost, engine: Engine) -> None:
    """What makes a program privileged inside goes in and out as it is; an id that the container does not have is refused."""
    spec = running(host, engine, "cp /bin/busybox /ping")
    value = bytes.fromhex("0100000200200000000000000000000000000000")  # cap_net_raw=ep, version 2
    os.setxattr(engine.store.directory(spec.id) / "layer/upper/ping", "security.capability", value)
    with Files(engine).copy_out(spec.id, b"/ping", follow=False) as reading:
        data = b"".join(reading)
    with tarfile.open(fileobj=io.BytesIO(data)) as tar:
        header = tar.getmembers()[0].pax_headers["SCHILY.xattr.security.capability"]
        assert header.encode("utf-8", "surrogateescape") == value
    write(engine, spec, "/tmp", data)
    found = os.getxattr(engine.store.directory(spec.id) / "layer/upper/tmp/ping", "security.capability")
    assert found[4:20] == value[4:20]
    foreign = tarfile.TarInfo("x")
    foreign.uid = 70_000
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w") as tar:
        tar.addfile(foreign)
    with pytest.raises(InvalidArgument, match="70000:0, which is nobody there"):
        write(engine, spec, "/tmp", buffer.getvalue())


def test_an_export_has_all_of_the_root_and_nothing_that_is_mounted_in_it(host: EngineHost, engine: Engine) -> None:
    """Running and exited alike: image and changes merged, deleted files gone, ids as inside, file capabilities too."""
    spec = running(host, engine, "rm /etc/group; mkdir /d; echo x >/d/f; chown 5:6 /d/f; echo t >/dev/shm/t")
    exports = []
    for _ in range(2):
        with Files(engine).export(spec.id) as reading:
            exports.append(b"".join(reading))
        engine.kill(spec.id) if engine.inspect(spec.id).pid else None
        engine.wait(spec.id)
    opened = [tarfile.open(fileobj=io.BytesIO(data)) for data in exports]  # noqa: SIM115  # in memory
    for tar in opened:
        names = set(tar.getnames())
        assert {"bin/busybox", "etc/passwd", "d/f", "proc", "dev", "sys", "ready"} <= names
        assert not [name for name in names if name.startswith(("proc/", "dev/", "sys/"))]
        assert "etc/group" not in names
        assert (tar.getmember("d/f").uid, tar.getmember("d/f").gid) == (5, 6)
        assert tar.getmember("bin/busybox").uid == 0
    assert not engine.events.lacks(spec.id, "export", engine.inspect(spec.id).started_unix_ns)
    assert opened[0].getnames() == opened[1].getnames()


_AGENT = """
import os, sys, time
sys.path.insert(0, {package!r})
from agent.engine.files import Reading, _Writing
from agent.linux import process
root = {{"kind": "live", "pid": os.getpid(), "start_ticks": process.start_ticks(os.getpid())}}
if {writes}:
    request = {{"verb": "copy-in", "path": {path!r}, "source": None, "owner": "tar", "root": root}}
    helper = _Writing(request)
    print(helper._process.pid, flush=True)
    def tar():
        yield sys.stdin.buffer.read()
        time.sleep(60)
    helper.send(tar())
else:
    helper = Reading({{"verb": "copy-out", "path": {path!r}, "follow": False, "root": root}})
    print(helper._process.pid, flush=True)
    time.sleep(60)
"""


@pytest.mark.parametrize("writes", [False, True], ids=["out", "in"])
def test_nothing_is_left_of_a_copy_whose_agent_is_killed(tmp_path: Path, writes: bool) -> None:
    """The process ends by itself, and takes a file of which only a part came with it."""
    (tmp_path / "d").mkdir()
    (tmp_path / "big").write_bytes(bytes(8 << 20))
    path = str(tmp_path / ("d" if writes else "big"))
    script = _AGENT.format(package=str(Path(__file__).parents[2]), path=path, writes=writes)
    with subprocess.Popen([sys.executable, "-c", script], stdin=subprocess.PIPE, stdout=subprocess.PIPE) as agent:
        assert agent.stdin is not None
        assert agent.stdout is not None
        helper = Path(f"/proc/{int(agent.stdout.readline())}")
        if writes:
            agent.stdin.write(tar_of(whole=b"1" * 1000, half=b"2" * 5_000_000)[:2_000_000])
            agent.stdin.close()
            until(lambda: (tmp_path / "d/half").exists())
        assert helper.exists()
        agent.kill()
    until(lambda: not helper.exists(), timeout_s=10)
    if writes:
        assert [one.name for one in (tmp_path / "d").iterdir()] == ["whole"]
