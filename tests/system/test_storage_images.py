"""Layers with what only root can make: unpacked as GNU tar would, and as OCI says of whiteouts."""

from __future__ import annotations

import os
import shutil
import stat
import subprocess
import tarfile
import time
from pathlib import Path

import pytest

from agent.errors import InvalidArgument, StorageError
from agent.storage import unpack
from agent.storage.images import ImageConfig, ImageStore
from agent.storage.layers import WritableLayer
from tests.system import strict_tree
from tests.system.tree_move import populate
from tests.unit.agent.storage.tars import DIR, LINK, make, member

pytestmark = pytest.mark.system


def archive(directory: Path, target: Path) -> None:
    options = ["--sparse", "--format=pax", "--sparse-version=1.0", "--xattrs", "--xattrs-include=*", "--numeric-owner"]
    # Sockets are never archived.
    command = ["tar", *options, "--exclude=./socket", "-cf", str(target), "-C", str(directory), "."]
    subprocess.run(command, check=True)


def unpacked(tmp_path: Path, data: bytes) -> Path:
    root = tmp_path / "root"
    root.mkdir()
    unpack.layer(iter([data]), root)
    return root


def test_everything_that_tar_can_hold(tmp_path: Path) -> None:
    """Devices, fifos, owners, setuid, ACLs, capabilities, hard links, times, odd names: equal to the archived tree."""
    original = tmp_path / "original"
    original.mkdir()
    populate(original)
    os.truncate(original / "sparse", 8 << 20)
    os.utime(original / "sparse", ns=(1, 1))
    archive(original, tmp_path / "a.tar")
    (original / "socket").unlink()
    os.utime(original, ns=(7, 11_000_000_013))
    image = ImageStore(tmp_path / "images").import_tar("a", ImageConfig(), [(tmp_path / "a.tar").read_bytes()])
    layer = ImageStore(tmp_path / "images").layer_path(image.layers[0])
    wanted, got = strict_tree.read(original), strict_tree.read(layer)
    for tree in (wanted, got):
        for name in (b"/gone", b"/gone-too"):
            del tree[name]["names"]  # tar knows no hard links between devices
        for facts in tree.values():
            if "data" in facts:  # tar takes runs of zeros for holes: only the contents must agree
                del facts["data"]
    assert strict_tree.differences(wanted, got) == []
    assert (layer / "sparse").stat().st_blocks * 512 < 1 << 16


def test_whiteouts_become_the_overlay_s(tmp_path: Path) -> None:
    """.wh.x is a character device 0:0 named x, .wh..wh..opq an opaque directory, aufs' bookkeeping is dropped."""
    root = unpacked(
        tmp_path,
        make(
            member("d", kind=DIR, mode=0o755),
            (member("d/.wh.gone"), b""),
            (member("e/.wh..wh..opq"), b""),
            (member("e/f"), b"x"),
            (member(".wh..wh.plnk"), b""),
            (member("was-dir/inside"), b"x"),
            (member(".wh.was-dir"), b""),
            (member(".wh.now-dir"), b""),
            (member("now-dir/inside"), b"x"),
            (member(".wh.file"), b""),
            (member("file"), b"mine"),
        ),
    )
    gone = (root / "d" / "gone").lstat()
    assert stat.S_ISCHR(gone.st_mode)
    assert gone.st_rdev == 0
    for name in ("e", "was-dir", "now-dir"):
        assert os.getxattr(root / name, "trusted.overlay.opaque") == b"y"
    assert (root / "file").read_bytes() == b"mine"
    assert sorted(path.name for path in root.iterdir()) == ["d", "e", "file", "now-dir", "was-dir"]


def test_whiteouts_work_in_an_overlay(tmp_path: Path) -> None:
    """Mounted above another layer, the files are gone and the opaque directory shows only its own."""
    lower = tmp_path / "lower"
    for path in ("d/gone", "d/stays", "e/hidden"):
        (lower / path).parent.mkdir(parents=True, exist_ok=True)
        (lower / path).touch()
    root = unpacked(tmp_path, make((member("d/.wh.gone"), b""), (member("e/.wh..wh..opq"), b""), (member("e/f"), b"x")))
    merged = tmp_path / "merged"
    merged.mkdir()
    subprocess.run(["mount", "-t", "overlay", "hstor", "-o", f"lowerdir={root}:{lower}", str(merged)], check=True)
    try:
        assert [path.name for path in (merged / "d").iterdir()] == ["stays"]
        assert [path.name for path in (merged / "e").iterdir()] == ["f"]
    finally:
        subprocess.run(["umount", str(merged)], check=True)


def test_overlay_marks_from_strangers_are_dropped(tmp_path: Path) -> None:
    """A layer cannot bring a redirect or a copy of metadata only; an opaque mark it can."""
    marks = {f"SCHILY.xattr.trusted.overlay.{name}": "y" for name in ("redirect", "metacopy", "origin", "opaque")}
    root = unpacked(tmp_path, make(member("d", kind=DIR, pax=marks)))
    assert os.listxattr(root / "d") == ["trusted.overlay.opaque"]


def test_devices_are_not_written_to(tmp_path: Path) -> None:
    """A file of the name of an earlier device or link replaces it: nothing goes into the device."""
    device = member("null", kind=tarfile.CHRTYPE, mode=0o666)
    device.devmajor, device.devminor = 1, 3
    root = unpacked(
        tmp_path, make(device, (member("null"), b"data"), member("l", kind=LINK, link="null"), (member("l"), b"x"))
    )
    assert (root / "null").read_bytes() == b"data"
    assert stat.S_ISREG((root / "l").lstat().st_mode)


def test_a_full_disk_leaves_nothing(tmp_path: Path) -> None:
    """When the file system is full the error says so, and the space is free again."""
    small = tmp_path / "small"
    small.mkdir()
    subprocess.run(["mount", "-t", "tmpfs", "-o", "size=4m", "hstor", str(small)], check=True)
    try:
        store = ImageStore(small / "images")
        with pytest.raises(StorageError, match="No space left") as caught:
            store.import_tar("web", ImageConfig(), [make((member("big"), os.urandom(3 << 20)))])
        assert caught.value.hint
        usage = shutil.disk_usage(small)
        assert usage.used < 1 << 17
    finally:
        subprocess.run(["umount", str(small)], check=True)


# ---------------------------------------------------------------- the writable layer


def test_a_new_layer_belongs_to_the_container_s_root(tmp_path: Path) -> None:
    """upper and work are 755 of root whatever the umask, and create may come twice."""
    layer = WritableLayer(tmp_path / "layer")
    before = os.umask(0o077)
    try:
        layer.create()
        layer.create()
    finally:
        os.umask(before)
    for path in (layer.upper, layer.work):
        status = path.stat()
        assert (stat.S_IMODE(status.st_mode), status.st_uid, status.st_gid) == (0o755, 0, 0)


def test_seeded_directories_look_as_in_the_image(tmp_path: Path) -> None:
    """Parents take owner, mode and time of the topmost layer that has them; without one, 755 of root."""
    base, top = tmp_path / "base", tmp_path / "top"
    for layer, mode in ((base, 0o711), (top, 0o750)):
        (layer / "etc").mkdir(parents=True)
        os.chown(layer / "etc", 5, 6)
        (layer / "etc").chmod(mode)
        os.utime(layer / "etc", ns=(3, 3))
    (base / "srv" / "deep").mkdir(parents=True)
    (base / "srv").chmod(0o1777)
    layer = WritableLayer(tmp_path / "layer")
    layer.create()
    before = os.umask(0o077)
    try:
        layer.seed({"/etc/hosts": b"h", "/etc/hostname": b"n", "/srv/new/file": b"f"}, lower=[base, top])
        layer.seed({"/etc/hosts": b"again"})
    finally:
        os.umask(before)
    etc = (layer.upper / "etc").stat()
    assert (stat.S_IMODE(etc.st_mode), etc.st_uid, etc.st_gid) == (0o750, 5, 6)
    assert stat.S_IMODE((layer.upper / "srv").stat().st_mode) == 0o1777
    assert stat.S_IMODE((layer.upper / "srv" / "new").stat().st_mode) == 0o755
    hosts = (layer.upper / "etc" / "hosts").stat()
    assert (stat.S_IMODE(hosts.st_mode), hosts.st_uid) == (0o644, 0)
    assert (layer.upper / "etc" / "hosts").read_bytes() == b"again"
    assert layer.size_bytes() == 5 + 1 + 1


@pytest.mark.parametrize("name", ["etc/hosts", "/../x", "/", "/etc/../../x"])
def test_seeds_stay_in_the_layer(tmp_path: Path, name: str) -> None:
    """Only absolute names without .. are written."""
    layer = WritableLayer(tmp_path / "layer")
    layer.create()
    with pytest.raises(InvalidArgument):
        layer.seed({name: b"x"})


def test_seeds_follow_no_links(tmp_path: Path) -> None:
    """A container that was stopped may have left a link where a seed goes: the host's file behind it is safe."""
    layer = WritableLayer(tmp_path / "layer")
    layer.create()
    (tmp_path / "victim").write_bytes(b"mine")
    (layer.upper / "hosts").symlink_to(tmp_path / "victim")
    (layer.upper / "etc").symlink_to(tmp_path)
    for name in ("/hosts", "/etc/victim"):
        with pytest.raises(StorageError):
            layer.seed({name: b"x"})
    assert (tmp_path / "victim").read_bytes() == b"mine"


def test_size_counts_data_once(tmp_path: Path) -> None:
    """Holes count nothing, hard links count once."""
    layer = WritableLayer(tmp_path / "layer")
    layer.create()
    (layer.upper / "f").write_bytes(bytes(100_000))
    os.link(layer.upper / "f", layer.upper / "g")
    (layer.upper / "sparse").touch()
    os.truncate(layer.upper / "sparse", 1 << 30)
    assert layer.size_bytes() == 100_000


def test_a_container_cannot_make_its_layer_unremovable(tmp_path: Path) -> None:
    """A chain of directories deeper than Python recurses and longer than any path: counted and removed like any other."""
    layer = WritableLayer(tmp_path / "layer")
    layer.create()
    fd = os.open(layer.upper, os.O_RDONLY)
    for _ in range(1500):
        os.mkdir("directory", dir_fd=fd)
        inner = os.open("directory", os.O_RDONLY, dir_fd=fd)
        os.close(fd)
        fd = inner
    os.close(os.open("f", os.O_CREAT | os.O_WRONLY, dir_fd=fd))
    os.close(fd)
    assert layer.size_bytes() == 0
    layer.remove()
    assert not (tmp_path / "layer").exists()


def test_remove_stops_at_mounts(tmp_path: Path) -> None:
    """What is mounted in a layer is not deleted with it: the error says so."""
    layer = WritableLayer(tmp_path / "layer")
    layer.create()
    mounted = layer.upper / "mnt"
    mounted.mkdir()
    subprocess.run(["mount", "-t", "tmpfs", "hstor", str(mounted)], check=True)
    try:
        (mounted / "precious").write_bytes(b"x")
        with pytest.raises(StorageError, match="busy"):
            layer.remove()
        assert (mounted / "precious").read_bytes() == b"x"
    finally:
        subprocess.run(["umount", str(mounted)], check=True)
    layer.remove()


def test_remove(tmp_path: Path) -> None:
    """remove takes everything, twice if need be."""
    layer = WritableLayer(tmp_path / "layer")
    layer.create()
    os.mknod(layer.upper / "gone", stat.S_IFCHR, 0)
    layer.remove()
    layer.remove()
    assert not (tmp_path / "layer").exists()


def test_thousands_of_small_files(tmp_path: Path) -> None:
    """Unpacking 3,000 files takes about a second of processor time: a Debian root has twice as many."""
    data = make(*((member(f"d{number % 50}/f{number}"), b"x" * 2000) for number in range(3000)))
    began = time.process_time()
    unpacked(tmp_path, data)
    took_s = time.process_time() - began
    print(f"3,000 files: {took_s:.2f} s of processor time")
    assert took_s < 5  # 0.7 on an idle machine; quadratic work would show
