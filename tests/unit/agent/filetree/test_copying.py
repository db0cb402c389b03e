"""Trees as tars: where a copy goes, what is in it, what is refused. As an ordinary user; the rest is in tests/system/test_files.py."""

from __future__ import annotations

import bz2
import gzip
import io
import lzma
import os
import stat
import subprocess
import tarfile
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, cast

import pytest

from agent.filetree import pack, paths, place
from agent.filetree.paths import Misfit, Source

pytestmark = pytest.mark.unit


@pytest.fixture
def root(tmp_path: Path) -> Iterator[int]:
    """An open directory, `tmp_path`, that stands for "/"."""
    fd = os.open(tmp_path, os.O_PATH | os.O_DIRECTORY)
    yield fd
    os.close(fd)


def packed(root: int, path: str, *, follow: bool = False) -> bytes:
    located, what = paths.source(root, path.encode(), follow=follow)
    with located:
        return b"".join(pack.tree(located.parent, located.name, what.name))


def names(data: bytes) -> list[str]:
    with tarfile.open(fileobj=io.BytesIO(data)) as tar:
        return tar.getnames()


def placed(root: int, path: str, data: bytes, what: Source | None = None, *, strict: bool = False) -> place.Placed:
    with paths.destination(root, path.encode(), what) as where:
        tar = cast(Any, io.BytesIO(data))
        return place.members(tar, where, place.Owner.MINE, root=-1 if strict else root)


def tar_of(*members: tarfile.TarInfo | tuple[str, bytes]) -> bytes:
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w") as tar:
        for one in members:
            if isinstance(one, tuple):
                info = tarfile.TarInfo(one[0])
                info.size = len(one[1])
                tar.addfile(info, io.BytesIO(one[1]))
            else:
                tar.addfile(one)
    return buffer.getvalue()


def member(name: str, kind: bytes, link: str = "") -> tarfile.TarInfo:
    info = tarfile.TarInfo(name)
    info.type, info.linkname = kind, link
    return info


@pytest.mark.parametrize(
    ("path", "expected"),
    [
        ("/d", ["d", "d/f"]),
        ("d/", ["d", "d/f"]),
        ("/d/.", [".", "./f"]),
        ("d/./", [".", "./f"]),
        ("/d/../d/./f", ["f"]),
        ("../../../d/f", ["f"]),
        ("/link/", ["link", "link/f"]),
        ("/link/f", ["f"]),
        ("/link", ["link"]),
        ("/", [".", "./d", "./d/f", "./link"]),
        (".", [".", "./d", "./d/f", "./link"]),
    ],
)
def test_names_of_members_are_dockers(root: int, tmp_path: Path, path: str, expected: list[str]) -> None:
    """What is at the end of a path decides; nothing leads out of the root."""
    (tmp_path / "d").mkdir()
    (tmp_path / "d/f").touch()
    (tmp_path / "link").symlink_to("/d")
    assert names(packed(root, path)) == expected


def test_what_was_packed_is_placed_as_it_was(root: int, tmp_path: Path) -> None:
    """Modes, times, links, hard links, fifos, empty and large files, odd names, extended attributes."""
    source = tmp_path / "src"
    (source / "sub/empty").mkdir(parents=True)
    (source / "large").write_bytes(os.urandom(3_000_000))
    (source / "small").write_bytes(b"")
    (source / "small").chmod(0o604)
    os.link(source / "large", source / "sub/again")
    (source / "dangling").symlink_to("no\nwhere")
    os.mkfifo(source / "fifo")
    (source / os.fsdecode(b"\xff\n name")).write_text("odd")
    os.setxattr(source / "large", "user.x", b"\x00\xff")
    os.utime(source / "small", ns=(1, 1_500_000_000_123_456_789))
    os.utime(source / "sub", ns=(1, 1_400_000_000_000_000_001))
    (source / "sub").chmod(0o500)
    what = Source(name=b"src", mode=stat.S_IFDIR | 0o755)
    assert placed(root, "/copy", packed(root, "/src"), what).files == 6
    listing = [
        subprocess.run(
            ["find", ".", "-printf", "%P %y %m %T@ %s %l %n\n", "(", "-type", "d", "-o", "-true", ")"],
            cwd=tmp_path / one, capture_output=True, check=True,
        ).stdout
        for one in ("src", "copy")
    ]  # fmt: skip
    assert _lines(listing[0]) == _lines(listing[1])
    copy = tmp_path / "copy"
    assert (copy / "large").read_bytes() == (source / "large").read_bytes()
    assert (copy / "large").stat().st_ino == (copy / "sub/again").stat().st_ino
    assert (copy / "sub").stat().st_mtime_ns == 1_400_000_000_000_000_001
    assert os.getxattr(copy / "large", "user.x") == b"\x00\xff"
    (source / "sub").chmod(0o700)
    (copy / "sub").chmod(0o700)


def _lines(listing: bytes) -> list[bytes]:
    """Sorted; of directories the size and the number of names mean nothing."""
    return sorted(b" ".join(line.split(b" ")[:4]) if b" d " in line else line for line in listing.split(b"\n"))


@pytest.mark.parametrize("compress", [bytes, gzip.compress, bz2.compress, lzma.compress])
def test_tars_may_be_compressed(root: int, tmp_path: Path, compress: Callable[[bytes], bytes]) -> None:
    """gzip, bzip2 and xz, told by how they begin."""
    assert placed(root, "/", compress(tar_of(("d/f", b"x" * 100_000)))).bytes == 100_000
    assert (tmp_path / "d/f").read_bytes() == b"x" * 100_000


@pytest.mark.parametrize(
    "data",
    [
        b"no tar at all" * 100,
        tar_of(("a", b"1" * 5000))[:3000],
        gzip.compress(tar_of(("a", os.urandom(5000))))[:-2000],
        b"\x1f\x8b\x08" + b"x" * 600,
    ],
)
def test_damaged_tars_leave_no_part_of_a_file(root: int, tmp_path: Path, data: bytes) -> None:
    """The error says what it is."""
    with pytest.raises(Misfit):
        placed(root, "/", data)
    assert list(tmp_path.iterdir()) == []


class _ByteByByte:
    """A stream that looks at `there`, once it has given 2000 bytes."""

    def __init__(self, data: bytes, there: Path | None) -> None:
        self._data, self._there, self._position = data, there, 0

    def read(self, _size: int, /) -> bytes:
        self._position += 1
        if self._position == 2000 and self._there is not None:
            assert self._there.read_bytes() == b"1"
        return self._data[self._position - 1 : self._position]


def test_members_are_placed_as_they_come(root: int, tmp_path: Path) -> None:
    """A sender that is silent after a file does not keep that file away; bytes may come one by one."""
    data = tar_of(("a", b"1"), ("b", b"2"))
    for stream in (_ByteByByte(data, tmp_path / "a"), _ByteByByte(gzip.compress(data), None)):
        with paths.destination(root, b"/", None) as where:
            assert place.members(stream, where, place.Owner.MINE).files == 2


def test_hostile_headers_are_refused(root: int, tmp_path: Path) -> None:
    """Headers in headers, a header that would fill the memory, numbers that are none."""
    nested = tarfile.TarInfo._create_pax_generic_header({"a": "b"}, tarfile.XHDTYPE, "utf-8")  # type: ignore[attr-defined]
    huge = member("x", tarfile.XHDTYPE)
    huge.size = 1 << 40
    odd = tarfile.TarInfo("x")
    odd.pax_headers = {"mtime": "soon"}
    for data in (
        nested * 3000 + tar_of(("f", b"")),
        huge.tobuf() + b"x" * 2048,
        odd.tobuf(tarfile.PAX_FORMAT) + bytes(1024),
    ):
        with pytest.raises(Misfit):
            placed(root, "/", data)
    assert list(tmp_path.iterdir()) == []


def test_no_member_leads_out_of_the_destination(root: int, tmp_path: Path) -> None:
    """Neither by its name nor by a link of the tar's own; at this machine's end no link on the way is followed at all."""
    (tmp_path / "in").mkdir()
    (tmp_path / "in/real").mkdir()
    (tmp_path / "in/link").symlink_to("../..")
    for name in ("../out", "a/../../out", "/../out"):
        with pytest.raises(Misfit, match="lead out"):
            placed(root, "/in", tar_of((name, b"")))
    up = "../" * 30 + "var/tmp"
    with pytest.raises(Misfit, match="no directory"):
        placed(root, "/in", tar_of(member("x", tarfile.SYMTYPE, up), ("x/out", b"")), strict=True)
    with pytest.raises(Misfit, match="no directory"):
        placed(root, "/in", tar_of(("link/out", b"")), strict=True)
    with pytest.raises(OSError, match="No such file"):
        placed(root, "/in", tar_of(member("h", tarfile.LNKTYPE, "etc/passwd")), strict=True)
    # Where links are followed they stay in the root.
    placed(root, "/in", tar_of(("link/inside", b"")))
    assert (tmp_path / "inside").exists()


def test_a_link_is_replaced_and_never_written_through(root: int, tmp_path: Path) -> None:
    """A member of the name of a link takes its place."""
    (tmp_path / "target").write_text("kept")
    (tmp_path / "d").mkdir()
    (tmp_path / "d/f").symlink_to("../target")
    placed(root, "/d", tar_of(("f", b"new")))
    assert (tmp_path / "target").read_text() == "kept"
    assert (tmp_path / "d/f").read_text() == "new"


def test_files_and_directories_do_not_replace_each_other(root: int, tmp_path: Path) -> None:
    """Docker's noOverwriteDirNonDir; a directory that is there keeps its look."""
    (tmp_path / "d").mkdir(mode=0o711)
    (tmp_path / "f").touch()
    with pytest.raises(Misfit, match="overwrite the directory"):
        placed(root, "/", tar_of(("d", b"x")))
    with pytest.raises(Misfit, match="with a directory"):
        placed(root, "/", tar_of(member("f", tarfile.DIRTYPE)))
    placed(root, "/", tar_of(member("d", tarfile.DIRTYPE), ("d/x", b"")))
    assert stat.S_IMODE((tmp_path / "d").stat().st_mode) == 0o711


def test_devices_are_left_out_and_named(root: int, tmp_path: Path) -> None:
    """What is beside them is placed."""
    done = placed(root, "/", tar_of(member("dev/null", tarfile.CHRTYPE), ("f", b"x")))
    assert (done.files, done.skipped, done.skipped_count) == (1, ["dev/null"], 1)


def test_a_file_that_changes_while_it_is_packed(root: int, tmp_path: Path) -> None:
    """Shorter: filled up with zeros; gone: left out; the tar is whole all the same."""
    for name in "abc":
        (tmp_path / name).write_bytes(b"x" * 3_000_000)
    located, what = paths.source(root, b"/.", follow=False)
    with located:
        pieces = pack.tree(located.parent, located.name, what.name)
        data = next(pieces)
        (tmp_path / "a").write_bytes(b"x")
        (tmp_path / "b").unlink()
        data += b"".join(pieces)
    with tarfile.open(fileobj=io.BytesIO(data)) as tar:
        assert [(one.name, one.size) for one in tar] == [(".", 0), ("./a", 3_000_000), ("./c", 3_000_000)]


def test_files_without_a_size_are_read(root: int) -> None:
    """Those of /proc say that they are empty."""
    del root
    slash = os.open("/", os.O_PATH | os.O_DIRECTORY)
    try:
        data = packed(slash, "/proc/self/status".replace("self", str(os.getpid())))
    finally:
        os.close(slash)
    with tarfile.open(fileobj=io.BytesIO(data)) as tar:
        assert tar.getmembers()[0].size > 100


def test_a_fifo_in_place_of_a_file_holds_nobody_up(root: int, tmp_path: Path) -> None:
    """Whoever swaps them while the tree is read is not waited for."""
    (tmp_path / "d").mkdir()
    stop = threading.Event()

    def swap() -> None:
        while not stop.is_set():
            (tmp_path / "x").write_text("x")
            (tmp_path / "x").replace(tmp_path / "d/x")
            os.mkfifo(tmp_path / "x")
            (tmp_path / "x").replace(tmp_path / "d/x")

    thread = threading.Thread(target=swap)
    thread.start()
    deadline = time.monotonic() + 1
    while time.monotonic() < deadline:
        names(packed(root, "/d"))
    stop.set()
    thread.join()


def test_a_loop_of_links_is_an_error(root: int, tmp_path: Path) -> None:
    """ELOOP, as the kernel says."""
    (tmp_path / "a").symlink_to("b")
    (tmp_path / "b").symlink_to("a")
    with pytest.raises(OSError, match="Too many levels"):
        paths.locate(root, b"/a", follow=True)
