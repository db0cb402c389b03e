import os
from pathlib import Path

import pytest

from agent.engine import rootfs
from agent.linux import mounts

pytestmark = pytest.mark.unit


def test_unmounting_what_was_never_mounted_is_fine(tmp_path: Path) -> None:
    """unmount_all() may be called at any time, also for a directory that does not exist."""
    mounts.unmount_all(tmp_path / "nothing")
    if os.geteuid() == 0:
        mounts.unmount_all(tmp_path)


def test_options_leave_nothing_in_the_writable_layer_that_is_wrong_elsewhere() -> None:
    """The overlay features that write host-dependent marks are off."""
    assert dict(rootfs.OPTIONS) == {"xino": "off", "redirect_dir": "off", "metacopy": "off", "index": "off"}
