"""A directory becomes the context of a build."""

from __future__ import annotations

import io
import os
import tarfile
from pathlib import Path

import pytest

from migrate import context
from migrate.errors import InvalidArgument

pytestmark = pytest.mark.unit


@pytest.fixture
def directory(tmp_path: Path) -> Path:
    top = tmp_path / "app"
    for name in ("a.txt", "b.log", "sub/c.txt", "sub/d.log", "node_modules/x/y.js", "node_modules/keep.js"):
        path = top / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(name)
    (top / "link").symlink_to("/etc/passwd")
    (top / "a.txt").chmod(0o750)
    return top


def members(directory: Path, dockerfile: Path | None = None) -> dict[str, tarfile.TarInfo]:
    data = b"".join(context.pack(directory, context.ignored(directory, dockerfile)))
    with tarfile.open(fileobj=io.BytesIO(data)) as tar:
        return {one.name: one for one in tar.getmembers()}


def test_everything_goes(directory: Path) -> None:
    """Files with their modes, links as links, sorted, owned by root."""
    found = members(directory)
    assert list(found) == sorted(found)
    assert (found["a.txt"].mode, found["a.txt"].uid, found["a.txt"].size) == (0o750, 0, 5)
    assert (found["link"].issym(), found["link"].linkname) == (True, "/etc/passwd")


def test_dockerignore(directory: Path) -> None:
    """Patterns take out files and whole directories; ! brings some back; comments do not count."""
    (directory / ".dockerignore").write_text("# no\n**/*.log\nnode_modules\n!node_modules/keep.js\n")
    assert [name for name in members(directory) if not name.startswith(".")] == [
        "a.txt", "link", "node_modules/keep.js", "sub", "sub/c.txt",
    ]  # fmt: skip


def test_a_dockerfile_may_have_its_own_list(directory: Path) -> None:
    """Beside it, with its name; then that of the context does not count."""
    (directory / ".dockerignore").write_text("*")
    own = directory.parent / "prod.Dockerfile"
    own.with_name("prod.Dockerfile.dockerignore").write_text("sub\nnode_modules\n*.log")
    assert [name for name in members(directory, own) if not name.startswith(".")] == ["a.txt", "link"]


def test_a_bad_pattern_names_its_file(directory: Path) -> None:
    """An unterminated bracket is told before anything is sent."""
    (directory / ".dockerignore").write_text("[a")
    with pytest.raises(InvalidArgument, match=r"\.dockerignore"):
        context.ignored(directory, None)


def test_big_files_come_in_pieces(directory: Path) -> None:
    """Nothing is held in memory whole, and sockets stay here."""
    (directory / "big").write_bytes(os.urandom(5 << 20))
    pieces = list(context.pack(directory, context.ignored(directory, None)))
    assert max(len(piece) for piece in pieces) <= 2 * context.CHUNK_BYTES
    with tarfile.open(fileobj=io.BytesIO(b"".join(pieces))) as tar:
        big = tar.extractfile("big")
        assert big is not None
        assert big.read() == (directory / "big").read_bytes()
