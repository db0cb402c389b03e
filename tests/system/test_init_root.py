"""The root of a container: id-mapped layers, unshifted ids on disk."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from agent.linux import mounts
from tests.system.small_container import IDS_BASE, ROOT, SmallContainer, busybox_like_layer, plan, run

pytestmark = pytest.mark.system


@pytest.fixture(scope="module")
def base(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return busybox_like_layer(tmp_path_factory.mktemp("base"))


def call_rootfs(code: str) -> subprocess.CompletedProcess[str]:
    """Run code with `rootfs` and `Path` in a single-threaded process, for mount_root() forks."""
    head = f"import sys; sys.path.insert(0, {str(ROOT)!r}); from pathlib import Path\n"
    head += "from agent.engine import rootfs; from agent.linux import mounts\n"
    return subprocess.run([sys.executable, "-I", "-S", "-c", head + code], capture_output=True, text=True)


def mount_root(layers: list[Path], directory: Path) -> subprocess.CompletedProcess[str]:
    for name in ("upper", "work"):
        (directory / "layer" / name).mkdir(parents=True, exist_ok=True)
    names = ", ".join(f"Path({str(layer)!r})" for layer in layers)
    return call_rootfs(
        f"rootfs.mount_root(layers=[{names}], writable=Path({str(directory / 'layer')!r}),"
        f" target=Path({str(directory / 'rootfs')!r}), ids_base={IDS_BASE}, ids_count=65536)"
    )


def unmount_root(directory: Path) -> None:
    assert call_rootfs(f"mounts.unmount_all(Path({str(directory / 'rootfs')!r}))").returncode == 0


def test_ids_on_disk_are_unshifted(tmp_path: Path, base: Path) -> None:
    """What root and users write inside lies on disk with their ids inside: portable as it is."""
    script = "touch /by-root /home/app/x; chown app:extra /by-root; mkdir /d; chmod 4755 /d; rm -f /etc/group 2>/dev/null; : > /etc/passwd"
    status, _ = run(tmp_path, [base], ["sh", "-c", script])
    upper = tmp_path / "layer/upper"
    owner = {path.name: (path.stat().st_uid, path.stat().st_gid) for path in upper.rglob("*")}
    assert status == 0
    assert owner["by-root"] == (1000, 2000)
    assert owner["d"] == owner["x"] == owner["passwd"] == (0, 0)
    assert owner["app"] == (1000, 1001)  # copied up with its owner


def test_later_layers_hide_earlier_ones(tmp_path: Path, base: Path) -> None:
    """Layers are given base first; whiteouts of a layer delete what is below it."""
    second, third = tmp_path / "l2", tmp_path / "l3"
    for layer, text in ((second, "second"), (third, "third")):
        (layer / "etc").mkdir(parents=True)
        (layer / "etc/name").write_text(text)
    os.mknod(third / "etc/group", 0o600 | 0o020000, os.makedev(0, 0))
    status, text = run(
        tmp_path / "c", [base, second, third], ["sh", "-c", "cat /etc/name; test -e /etc/group || echo gone"]
    )
    assert (status, text) == (0, "thirdgone\n")


def test_many_layers_fit(tmp_path: Path, base: Path) -> None:
    """The number of layers is bounded by the kernel, not by the length of their names."""
    layers = [base]
    for number in range(120):
        layer = tmp_path / ("a-long-name-for-a-layer-" * 3 + str(number))
        (layer / "n").mkdir(parents=True)
        (layer / "n" / str(number)).touch()
        layers.append(layer)
    assert run(tmp_path / "c", layers, ["sh", "-c", "ls /n | wc -l"]) == (0, "120\n")


def test_layers_are_never_written(tmp_path: Path, base: Path) -> None:
    """Overwriting a file of a layer goes to the writable layer."""
    before = (base / "etc/passwd").read_bytes()
    run(tmp_path, [base], ["sh", "-c", "echo changed > /etc/passwd"])
    assert (base / "etc/passwd").read_bytes() == before
    assert (tmp_path / "layer/upper/etc/passwd").read_text() == "changed\n"


def test_the_way_to_the_root_may_be_closed_to_others(tmp_path: Path, base: Path) -> None:
    """A container starts although nobody but root may walk to its files: set-uid files in there stay out of reach."""
    closed = tmp_path / "closed"
    closed.mkdir(mode=0o700)
    assert run(closed, [base], ["true"])[0] == 0
    assert closed.stat().st_mode & 0o777 == 0o700


def test_mounting_again_replaces_what_a_dead_monitor_left(tmp_path: Path, base: Path) -> None:
    """mount_root() over a mounted root leaves exactly one mount; unmount_all() may be called twice."""
    for _ in range(2):
        result = mount_root([base], tmp_path)
        assert result.returncode == 0, result.stderr
    with open("/proc/self/mountinfo") as lines:
        assert sum(f" {tmp_path / 'rootfs'} " in line for line in lines) == 1
    unmount_root(tmp_path)
    assert not mounts.is_mounted(tmp_path / "rootfs")
    unmount_root(tmp_path)


def test_a_missing_layer_is_named_and_nothing_stays_mounted(tmp_path: Path, base: Path) -> None:
    """The error says which layer, and the target is as it was."""
    result = mount_root([base, tmp_path / "gone"], tmp_path)
    assert result.returncode != 0
    assert "gone" in result.stderr
    assert not mounts.is_mounted(tmp_path / "rootfs")


def test_an_image_without_mount_points_gets_them_as_containers_root(tmp_path: Path, base: Path) -> None:
    """proc, sys and dev are made in the writable layer, owned by the container's root."""
    assert not (base / "proc").exists()
    with SmallContainer(tmp_path, [base], plan(tmp_path, argv=["true"])) as container:
        container.start()
    for name in ("proc", "sys", "dev"):
        status = (tmp_path / "layer/upper" / name).stat()
        assert (status.st_uid, status.st_gid, status.st_mode & 0o777) == (0, 0, 0o755)


def test_layers_without_a_place_make_the_same_root_as_those_with_one(tmp_path: Path, base: Path) -> None:
    """The overlay of detached layers, which Linux takes from 6.15 on, and the one for older kernels: same files, owners, mount points."""
    code = f"""
import os
from agent.linux import namespaces
userns = namespaces.userns_fd({IDS_BASE}, 65536)
def look(name, mount):
    place = Path({str(tmp_path)!r}) / name
    for part in ("layer/upper", "layer/work", "rootfs"):
        (place / part).mkdir(parents=True)
    fd = mount([Path({str(base)!r})], place / "layer", place / "rootfs")
    mounts.move_mount(fd, place / "rootfs")
    found = sorted((path.relative_to(place / "rootfs").as_posix(), path.lstat().st_uid, oct(path.lstat().st_mode))
                   for path in (place / "rootfs").rglob("*"))
    mounts.unmount_all(place / "rootfs")
    made = sorted((path.name, path.stat().st_uid) for path in (place / "layer/upper").iterdir())
    return found, made
new = look("new", lambda layers, writable, _target: rootfs._mount_detached(layers, writable, userns, {IDS_BASE})[0])
old = look("old", lambda layers, writable, target: rootfs._mount_staged(layers, writable, target, userns, {IDS_BASE}))
assert new == old, (new, old)
assert new[1] == [("dev", 0), ("proc", 0), ("sys", 0)], new[1]
assert ("bin/sh", {IDS_BASE}) in [entry[:2] for entry in new[0]], new[0]
"""
    release = tuple(int(part) for part in os.uname().release.split(".")[:2])
    if release < (6, 15):
        pytest.skip("missing capability: an overlay of detached layers; the other way is the only one")
    result = call_rootfs(code)
    assert result.returncode == 0, result.stderr


def test_an_image_whose_proc_is_a_link_is_refused(tmp_path: Path, base: Path) -> None:
    """An image cannot send the mount of /proc somewhere else."""
    layer = tmp_path / "evil"
    layer.mkdir()
    (layer / "proc").symlink_to("/etc")
    result = mount_root([base, layer], tmp_path)
    assert result.returncode != 0
    assert "/proc" in result.stderr
    assert not mounts.is_mounted(tmp_path / "rootfs")
