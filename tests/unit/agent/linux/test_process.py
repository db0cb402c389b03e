import os
import signal
import time
from pathlib import Path

import pytest

from agent.linux import process

pytestmark = pytest.mark.unit


def test_capability_numbers_are_the_kernels() -> None:
    """Names map to the numbers of linux/capability.h."""
    expected = {"CAP_CHOWN": 0, "CAP_NET_RAW": 13, "CAP_SYS_ADMIN": 21, "CAP_SETFCAP": 31, "CAP_CHECKPOINT_RESTORE": 40}
    assert {name: process.capability_number(name) for name in expected} == expected


def test_unknown_capability_is_a_value_error() -> None:
    """A name that does not exist is refused by name."""
    with pytest.raises(ValueError, match="CAP_FLY"):
        process.capability_number("CAP_FLY")


def test_pidfd_getfd_is_the_same_open_file() -> None:
    """The copy shares its offset with the original and is closed on exec."""
    original = os.memfd_create("hinit")
    pidfd = process.pidfd_open(os.getpid())
    copy = process.pidfd_getfd(pidfd, original)
    try:
        os.write(original, b"12345")
        assert os.lseek(copy, 0, os.SEEK_CUR) == 5
        assert not os.get_inheritable(copy)
    finally:
        for fd in (original, pidfd, copy):
            os.close(fd)


def test_pidfd_send_signal_reaches_the_process() -> None:
    """A signal sent through a pidfd ends the child that it names."""
    pid = os.fork()
    if pid == 0:
        signal.pause()
        os._exit(0)
    pidfd = process.pidfd_open(pid)
    process.pidfd_send_signal(pidfd, signal.SIGKILL)
    os.close(pidfd)
    assert os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]) == -signal.SIGKILL


def test_no_new_privileges_and_parent_death_signal_take_effect() -> None:
    """A child that asks for both has NoNewPrivs, and dies with its parent."""
    read_end, write_end = os.pipe()
    middle = os.fork()
    if middle == 0:
        inner = os.fork()
        if inner == 0:
            process.set_parent_death_signal(signal.SIGKILL)
            process.set_no_new_privileges()
            status = Path("/proc/self/status").read_text()
            os.write(write_end, status.partition("NoNewPrivs:")[2].split()[0].encode())
            signal.pause()
        time.sleep(0.3)
        os._exit(0)
    os.waitpid(middle, 0)
    os.close(write_end)
    with open(read_end, "rb") as file:
        assert file.read() == b"1"  # end of file: the inner child is dead too
