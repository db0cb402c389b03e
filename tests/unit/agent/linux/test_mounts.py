import errno
from pathlib import Path

import pytest

from agent.linux import mounts

pytestmark = pytest.mark.unit


def test_proc_is_mounted_and_a_plain_directory_is_not(tmp_path: Path) -> None:
    """is_mounted() tells a mount point from a directory, and follows symbolic links."""
    link = tmp_path / "link"
    link.symlink_to("/proc")
    assert mounts.is_mounted(Path("/proc"))
    assert mounts.is_mounted(link)
    assert not mounts.is_mounted(tmp_path)


def test_umount_of_a_plain_directory_says_which(tmp_path: Path) -> None:
    """The error of umount() carries errno and path."""
    with pytest.raises(OSError) as caught:
        mounts.umount(tmp_path)
    assert caught.value.errno in (errno.EINVAL, errno.EPERM)
    assert str(tmp_path) in str(caught.value)


@pytest.mark.parametrize("name", ["a:b", "a,b", "a\\b"])
def test_overlay_refuses_names_that_its_option_string_cannot_hold(tmp_path: Path, name: str) -> None:
    """A separator in a layer's name is an error, never another layer."""
    with pytest.raises(OSError) as caught:
        mounts.overlay(tmp_path, lower=["l", name], upper="u", work="w")
    assert caught.value.errno == errno.EINVAL


def test_open_tree_names_the_path_that_is_missing(tmp_path: Path) -> None:
    """A failed call shows what it was asked for."""
    with pytest.raises(OSError, match=r"open_tree.*nowhere") as caught:
        mounts.open_tree(tmp_path / "nowhere", 0)
    assert caught.value.errno == errno.ENOENT
