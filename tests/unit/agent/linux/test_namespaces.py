import os
import signal
from pathlib import Path

import pytest

from agent.linux import namespaces

pytestmark = pytest.mark.unit


def test_write_id_maps_writes_users_and_groups(tmp_path: Path) -> None:
    """Both maps get the one line that maps 0 to the base."""
    (tmp_path / "7").mkdir()
    namespaces.write_id_maps(7, 131072, 65536, proc=tmp_path)
    assert {path.name: path.read_text() for path in (tmp_path / "7").iterdir()} == {
        "uid_map": "0 131072 65536\n",
        "gid_map": "0 131072 65536\n",
    }


def test_write_id_maps_of_a_process_that_is_gone_names_the_file(tmp_path: Path) -> None:
    """The error carries the path and what should have been written."""
    with pytest.raises(OSError, match="0 131072 65536") as caught:
        namespaces.write_id_maps(7, 131072, 65536, proc=tmp_path)
    assert caught.value.filename == str(tmp_path / "7/uid_map")


def test_unshare_with_nonsense_is_an_oserror() -> None:
    """The kernel's refusal arrives with the flags in the text."""
    with pytest.raises(OSError, match=r"unshare\(1\)"):
        namespaces.unshare(1)


def test_setns_to_something_else_than_a_namespace_is_an_oserror() -> None:
    """A descriptor that is no namespace is refused."""
    fd = os.open("/dev/null", os.O_RDONLY)
    try:
        with pytest.raises(OSError, match="setns"):
            namespaces.setns(fd, namespaces.CLONE_NEWUTS)
    finally:
        os.close(fd)


def test_clone_flags_do_not_overlap() -> None:
    """Every namespace has its own bit, and none is a signal number."""
    flags = [value for name, value in vars(namespaces).items() if name.startswith("CLONE_NEW")]
    assert len(flags) == 8
    assert sum(flags).bit_count() == 8
    assert all(flag > signal.NSIG for flag in flags)
