"""Removing directory trees."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from agent.linux import remove

pytestmark = pytest.mark.unit


def deepen(directory: Path, levels: int) -> None:
    """`levels` directories inside each other, further than any path can name, with a file at the end."""
    fd = os.open(directory, os.O_RDONLY | os.O_DIRECTORY)
    for _ in range(levels):
        os.mkdir("d" * 100, dir_fd=fd)
        below = os.open("d" * 100, os.O_RDONLY | os.O_DIRECTORY, dir_fd=fd)
        os.close(fd)
        fd = below
    os.close(os.open("f", os.O_CREAT | os.O_WRONLY, dir_fd=fd))
    os.close(fd)


def test_it_follows_no_links(tmp_path: Path) -> None:
    """Removing a tree removes links, not what they lead to."""
    root, victim = tmp_path / "root", tmp_path / "victim"
    root.mkdir()
    victim.mkdir()
    (victim / "f").touch()
    for name in ("a", "b/c"):
        (root / name).parent.mkdir(exist_ok=True)
        (root / name).symlink_to(victim)
    remove.tree(root)
    assert (victim / "f").exists()
    (tmp_path / "way").symlink_to(victim)
    with pytest.raises(OSError, match=r"Not a directory|symbolic"):
        remove.tree(tmp_path / "way")
    assert (victim / "f").exists()


def test_a_tree_deeper_than_any_path(tmp_path: Path) -> None:
    """3,000 levels go, beside other files, with no recursion and no path."""
    (tmp_path / "root").mkdir()
    (tmp_path / "root/f").touch()
    deepen(tmp_path / "root", 3000)
    remove.tree(tmp_path / "root")
    assert list(tmp_path.iterdir()) == []
