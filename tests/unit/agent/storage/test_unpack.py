"""Layers from strangers: unpacked exactly, inside their directory, or refused."""

from __future__ import annotations

import os
import stat
import tarfile
from pathlib import Path

import pytest

from agent.errors import StorageError
from agent.linux import remove
from agent.storage import unpack
from tests.unit.agent.storage import tars
from tests.unit.agent.storage.tars import DIR, FIFO, HARD, LINK, make, member

pytestmark = pytest.mark.unit


@pytest.fixture
def root(tmp_path: Path) -> Path:
    path = tmp_path / "jail" / "root"
    path.mkdir(parents=True)
    return path


def outside(root: Path) -> list[str]:
    """What lies beside the root."""
    return sorted(path.name for path in root.parent.iterdir() if path != root)


def put(root: Path, *members: tarfile.TarInfo | tuple[tarfile.TarInfo, bytes]) -> unpack.Unpacked:
    return unpack.layer(iter([make(*members)]), root)


@pytest.mark.parametrize(
    "name", ["../escaped", "a/../../escaped", "/../escaped", "./../escaped", "..", "a/..", "x/../../../escaped"]
)
def test_dot_dot_is_refused(root: Path, name: str) -> None:
    """A name with .. in it ends the import."""
    with pytest.raises(StorageError, match="leave the layer"):
        put(root, (member(name), b"x"))
    assert outside(root) == []


def test_absolute_names_start_at_the_layer(root: Path) -> None:
    """/etc/x is etc/x of the layer."""
    put(root, (member("/etc/x"), b"x"))
    assert (root / "etc" / "x").read_bytes() == b"x"


@pytest.mark.parametrize("target", ["/", "..", "../..", "/proc/self/root", "../../../../../../../.."])
def test_links_on_the_way_stay_inside(root: Path, target: str) -> None:
    """A symbolic link to the outside, used as a directory by later members, leads to the layer's own root or is refused."""
    (root.parent / "victim").mkdir()
    try:
        put(root, member("way", kind=LINK, link=target), (member(f"way{root.parent}/victim/file"), b"x"))
    except StorageError:
        pass
    assert list((root.parent / "victim").iterdir()) == []
    assert outside(root) == ["victim"]


def test_a_link_as_the_last_component_is_replaced(root: Path) -> None:
    """A file of the same name as an earlier link takes its place; nothing is written through the link."""
    victim = root.parent / "victim"
    victim.write_bytes(b"mine")
    put(root, member("f", kind=LINK, link=str(victim)), (member("f"), b"x"))
    assert victim.read_bytes() == b"mine"
    assert (root / "f").read_bytes() == b"x"
    assert not (root / "f").is_symlink()


def test_a_directory_does_not_describe_the_target_of_a_link(root: Path) -> None:
    """A link that is followed by a directory of its name is replaced; mode and time of the outside stay."""
    victim = root.parent / "victim"
    victim.mkdir(mode=0o700)
    put(root, member("d", kind=LINK, link=str(victim)), member("d", kind=DIR, mode=0o777), (member("d/f"), b"x"))
    assert stat.S_IMODE(victim.stat().st_mode) == 0o700
    assert list(victim.iterdir()) == []
    assert (root / "d" / "f").read_bytes() == b"x"


@pytest.mark.parametrize("target", ["../victim", "/../victim", "way/victim"])
def test_hard_links_to_the_outside_are_refused(root: Path, target: str) -> None:
    """No file of the host gets a name in a layer."""
    (root.parent / "victim").write_bytes(b"mine")
    with pytest.raises(StorageError):
        put(root, member("way", kind=LINK, link=".."), member("f", kind=HARD, link=target))
    assert (root.parent / "victim").stat().st_nlink == 1


def test_a_hard_link_to_a_link_names_the_link(root: Path) -> None:
    """Linking a symbolic link does not follow it."""
    victim = root.parent / "victim"
    victim.write_bytes(b"mine")
    put(root, member("l", kind=LINK, link=str(victim)), member("f", kind=HARD, link="l"), (member("f"), b"x"))
    assert victim.read_bytes() == b"mine"
    assert victim.stat().st_nlink == 1


def test_links_inside_the_layer_are_followed_as_in_the_container(root: Path) -> None:
    """usr-merged archives put files below a link to a directory."""
    put(root, member("usr/lib", kind=DIR), member("lib", kind=LINK, link="usr/lib"), (member("lib/x"), b"x"))
    put_absolute = (root / "usr" / "lib" / "x").read_bytes()
    assert put_absolute == b"x"
    assert (root / "lib").is_symlink()


def test_times_to_the_nanosecond_and_modes(root: Path) -> None:
    """pax times are exact, before 1970 too; directories keep theirs although files came after them; setuid survives."""
    put(
        root,
        member("d", kind=DIR, mode=0o1751, pax={"mtime": "1234567890.123456789"}),
        (member("d/f", mode=0o4755, pax={"mtime": "-5.25"}), b"x"),
        member("d/l", kind=LINK, link="f", pax={"mtime": "7.000000001"}),
        member("d/p", kind=FIFO, mode=0o600),
    )
    assert (root / "d").stat().st_mtime_ns == 1234567890123456789
    assert stat.S_IMODE((root / "d").stat().st_mode) == 0o1751
    assert (root / "d" / "f").stat().st_mtime_ns == -5_250_000_000
    assert stat.S_IMODE((root / "d" / "f").stat().st_mode) == 0o4755
    assert (root / "d" / "l").lstat().st_mtime_ns == 7_000_000_001
    assert stat.S_ISFIFO((root / "d" / "p").stat().st_mode)


def test_unnamed_parents_are_the_same_everywhere(root: Path) -> None:
    """Directories that the archive does not describe get mode 755 and a fixed time."""
    put(root, (member("a/b/c"), b"x"))
    for path in (root, root / "a", root / "a" / "b"):
        assert stat.S_IMODE(path.stat().st_mode) == 0o755
        assert path.stat().st_mtime_ns == 0


def test_later_members_replace_earlier_ones(root: Path) -> None:
    """The last of several members of one name counts, whatever they are, and the size counts once."""
    result = put(
        root,
        (member("a/deep/f"), b"12345"),
        member("a", kind=LINK, link="elsewhere"),
        member("a", kind=DIR),
        (member("a/g"), b"123"),
        (member("b"), b"1"),
        (member("b"), b"12"),
    )
    assert sorted(path.name for path in root.rglob("*")) == ["a", "b", "g"]
    assert (root / "b").read_bytes() == b"12"
    assert result.size_bytes == 3 + 2 or result.size_bytes == 3 + 2 + 5  # what a removed directory held may count


def test_sparse_members_keep_their_holes(root: Path, tmp_path: Path) -> None:
    """What GNU tar stores as sparse, in each of its formats, is sparse again."""
    source = tmp_path / "sparse"
    with source.open("wb") as file:
        file.seek(1 << 20)
        file.write(b"island")
        file.truncate(8 << 20)
    for number, options in enumerate(
        (["--format=gnu"], ["--format=pax", "--sparse-version=1.0"], ["--format=pax", "--sparse-version=0.1"])
    ):
        archive = tmp_path / f"{number}.tar"
        os.spawnlp(os.P_WAIT, "tar", "tar", "--sparse", *options, "-cf", str(archive), "-C", str(tmp_path), "sparse")
        target = root / str(number)
        target.mkdir()
        unpack.layer(iter([archive.read_bytes()]), target)
        assert (target / "sparse").read_bytes() == source.read_bytes()
        assert (target / "sparse").stat().st_blocks * 512 < 1 << 17


@pytest.mark.parametrize(
    "text",
    [
        {"GNU.sparse.map": "0,5,99999999,5", "GNU.sparse.size": "10"},
        {"GNU.sparse.map": "0,99999999", "GNU.sparse.size": "99999999999"},
        {"GNU.sparse.map": "-5,5", "GNU.sparse.size": "10"},
        {"GNU.sparse.map": "x", "GNU.sparse.size": "10"},
        {"size": "99999999999999"},
        {"size": "-1"},
        {"mtime": "noon"},
        {"mtime": "9" * 40},
        {"uid": "4294967295"},
        {"uid": "-1"},
        {"path": "a\0b"},
    ],
    ids=str,
)
def test_nonsense_in_headers_is_refused(root: Path, text: dict[str, str]) -> None:
    """Numbers that no archiver writes end the import with StorageError, not with a crash or a huge file."""
    with pytest.raises(StorageError):
        put(root, (member("f", pax=text), b"0123456789"))


def test_a_huge_header_does_not_fill_the_memory(root: Path) -> None:
    """A pax header that announces a gigabyte is refused before it is read."""
    info = member("f", kind=tarfile.XHDTYPE)
    info.size = 1 << 30
    with pytest.raises(StorageError, match="1073741824"):
        unpack.layer(iter([info.tobuf(tarfile.USTAR_FORMAT), bytes(2048)]), root)


def test_many_levels(root: Path) -> None:
    """Deep paths need no recursion."""
    deep = "/".join(["d"] * 1500)
    put(root, (member(f"{deep}/f"), b"x"))
    assert (root / deep / "f").read_bytes() == b"x"
    remove.tree(root)  # pytest cannot
    assert not root.exists()


def test_a_deep_directory_is_replaced(root: Path) -> None:
    """A member that replaces a deep tree removes it without recursion."""
    put(root, (member("/".join(["d"] * 1500)), b"x"), (member("d"), b"file"))
    assert (root / "d").read_bytes() == b"file"


def test_names_that_are_no_utf8(root: Path) -> None:
    """Bytes of names and link targets are kept."""
    odd = b"\xff\xfe\n".decode("utf-8", "surrogateescape")
    info = tarfile.TarInfo(odd)
    info.uid, info.gid = os.geteuid(), os.getegid()
    link = tars.member("l", kind=LINK, link=odd)
    data = info.tobuf(tarfile.GNU_FORMAT, "utf-8", "surrogateescape") + link.tobuf(
        tarfile.GNU_FORMAT, "utf-8", "surrogateescape"
    )
    unpack.layer(iter([data + bytes(1024)]), root)
    assert b"\xff\xfe\n" in {os.fsencode(path.name) for path in root.iterdir()}
    assert (root / "l").readlink() == Path(odd)
