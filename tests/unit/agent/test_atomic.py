"""Files that are the old one or the new one."""

from __future__ import annotations

from pathlib import Path

import pytest

from agent import atomic

pytestmark = pytest.mark.unit


def test_atomic_write_replaces_whole_and_leaves_no_temporary_file(tmp_path: Path) -> None:
    """A second write replaces the first, with the asked-for mode and nothing beside it."""
    path = tmp_path / "file"
    atomic.write(path, "long first contents")
    atomic.write(path, b"second", mode=0o640)
    assert path.read_bytes() == b"second"
    assert path.stat().st_mode & 0o777 == 0o640
    assert [entry.name for entry in tmp_path.iterdir()] == ["file"]


def test_failed_atomic_write_keeps_the_old_file(tmp_path: Path) -> None:
    """When the rename fails the old contents stay and the temporary file goes."""
    path = tmp_path / "file"
    path.mkdir()
    (path / "kept").touch()
    with pytest.raises(OSError):
        atomic.write(path, "new")
    assert [entry.name for entry in tmp_path.iterdir()] == ["file"]
    assert (path / "kept").exists()
