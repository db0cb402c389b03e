import ctypes
import errno
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


def test_process_vm_readv_reads_scattered_ranges_in_order() -> None:
    """Several ranges arrive one after the other in one buffer."""
    memory = ctypes.create_string_buffer(b"abcdefghij")
    address = ctypes.addressof(memory)
    room = bytearray(5)
    assert process.process_vm_readv(os.getpid(), room, [(address + 7, 3), (address, 2)]) == 5
    assert bytes(room) == b"hijab"


def test_process_vm_readv_into_a_part_of_a_buffer() -> None:
    """A memoryview slice is written where it lies."""
    memory = ctypes.create_string_buffer(b"xyz")
    room = bytearray(6)
    assert process.process_vm_readv(os.getpid(), memoryview(room)[2:5], [(ctypes.addressof(memory), 3)]) == 3
    assert bytes(room) == b"\0\0xyz\0"


def test_process_vm_readv_of_an_unmapped_address_is_efault() -> None:
    """Where nothing can be read the errno is EFAULT."""
    with pytest.raises(OSError) as caught:
        process.process_vm_readv(os.getpid(), bytearray(8), [(4096, 8)])
    assert caught.value.errno == errno.EFAULT


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
