"""An upper directory becomes a layer: names, order, whiteouts, links. What needs root is in tests/system/test_build.py."""

from __future__ import annotations

import io
import os
import tarfile
from pathlib import Path

import pytest

from agent.errors import StorageError
from agent.storage import layertar, unpack

pytestmark = pytest.mark.unit


def tar(upper: Path, *lower: Path, ignore: tuple[str, ...] = ()) -> dict[str, tarfile.TarInfo]:
    data = b"".join(layertar.write(upper, lower, ignore))
    with tarfile.open(fileobj=io.BytesIO(data)) as archive:
        return {member.name: member for member in archive.getmembers()}


@pytest.fixture
def upper(tmp_path: Path) -> Path:
    path = tmp_path / "upper"
    path.mkdir()
    return path


def test_the_same_files_give_the_same_bytes(upper: Path, tmp_path: Path) -> None:
    """Whatever order they were made in: members are sorted."""
    other = tmp_path / "other"
    other.mkdir()
    for directory, names in ((upper, "abc"), (other, "cab")):
        for name in names:
            (directory / name).write_text(name)
            os.utime(directory / name, ns=(5, 1_500_000_000_123_456_789))
    first, second = (b"".join(layertar.write(one, [])) for one in (upper, other))
    assert first == second
    assert list(tar(upper)) == ["a", "b", "c"]
    assert tar(upper)["a"].pax_headers["mtime"] == "1500000000.123456789"


def test_what_is_written_unpacks_as_it_was(upper: Path, tmp_path: Path) -> None:
    """Modes, sparse ends, hard and symbolic links, odd names survive the way through our own unpacker."""
    (upper / "d").mkdir(mode=0o710)
    (upper / "d/f").write_bytes(b"x" * 1000)
    (upper / "d/f").chmod(0o640)
    os.link(upper / "d/f", upper / "link")
    (upper / "s").symlink_to("../x")
    os.close(os.open(os.fsencode(upper) + b"/\xff" + b"n" * 150, os.O_CREAT, 0o600))
    root = tmp_path / "root"
    root.mkdir()
    unpack.layer(layertar.write(upper, []), root)
    assert (root / "d").stat().st_mode & 0o7777 == 0o710
    assert (root / "d/f").read_bytes() == b"x" * 1000
    assert (root / "link").stat().st_ino == (root / "d/f").stat().st_ino
    assert (root / "s").readlink() == Path("../x")
    assert sorted(map(bytes, root.iterdir())) == sorted(
        os.fsencode(root) + b"/" + bytes(one.relative_to(upper)) for one in upper.iterdir()
    )


def test_directories_on_the_way_are_left_out(upper: Path, tmp_path: Path) -> None:
    """One that looks as below and holds nothing is no change; one that holds something, or looks otherwise, is."""
    lower = tmp_path / "lower"
    for top in (lower, upper):
        (top / "same/inner").mkdir(parents=True)
        (top / "other").mkdir(mode=0o755)
    (lower / "other").chmod(0o700)
    (upper / "new").mkdir()
    assert list(tar(upper, lower)) == ["new", "other"]
    (upper / "same/inner/f").touch()
    assert list(tar(upper, lower)) == ["new", "other", "same", "same/inner", "same/inner/f"]
    assert not layertar.is_empty(upper, [lower])


def test_a_file_below_hides_what_is_further_down(upper: Path, tmp_path: Path) -> None:
    """A directory in place of a file is a change, though a deeper layer has the directory too."""
    bottom, top = tmp_path / "bottom", tmp_path / "top"
    (bottom / "x").mkdir(parents=True)
    top.mkdir()
    (top / "x").touch()
    (upper / "x").mkdir()
    assert list(tar(upper, bottom, top)) == ["x"]
    assert layertar.is_empty(upper, [bottom])


def test_ignored_paths(upper: Path) -> None:
    """What the engine wrote is not in the layer, and if nothing else is there, there is none."""
    (upper / "etc").mkdir()
    (upper / "etc/hosts").touch()
    assert list(tar(upper, ignore=("etc/hosts", "etc"))) == []
    assert layertar.is_empty(upper, [], ("etc",))


def test_what_changes_while_it_is_read(upper: Path) -> None:
    """An error, as nobody may write meanwhile; or, where that is allowed, left out and filled up."""
    for steady in (True, False):
        for name in "abc":
            (upper / name).write_bytes(b"x" * 3_000_000)
        pieces = layertar.write(upper, [], steady=steady)
        data = next(pieces)
        (upper / "a").write_bytes(b"x")
        (upper / "b").unlink()
        if steady:
            with pytest.raises(StorageError, match="shorter"):
                list(pieces)
            continue
        data += b"".join(pieces)
        with tarfile.open(fileobj=io.BytesIO(data)) as archive:
            assert [(one.name, one.size) for one in archive] == [("a", 3_000_000), ("c", 3_000_000)]
