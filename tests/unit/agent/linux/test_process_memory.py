"""Reading another process's memory, here our own: many ranges in one call."""

from __future__ import annotations

import ctypes
import errno
import os

import numpy as np
import pytest

from agent.linux import process_memory

pytestmark = pytest.mark.unit


def read(into: int, size: int, ranges: list[tuple[int, int]]) -> int:
    remote = np.array(ranges, np.uint64)
    return process_memory.read(os.getpid(), into, size, remote.ctypes.data, len(remote))


def test_scattered_ranges_arrive_in_order() -> None:
    """Several ranges arrive one after the other in one buffer."""
    memory = ctypes.create_string_buffer(b"abcdefghij")
    address = ctypes.addressof(memory)
    room = ctypes.create_string_buffer(5)
    assert read(ctypes.addressof(room), 5, [(address + 7, 3), (address, 2)]) == 5
    assert room.raw == b"hijab"


def test_a_part_of_a_buffer_is_written_where_it_lies() -> None:
    memory = ctypes.create_string_buffer(b"xyz")
    room = ctypes.create_string_buffer(6)
    assert read(ctypes.addressof(room) + 2, 3, [(ctypes.addressof(memory), 3)]) == 3
    assert room.raw == b"\0\0xyz\0"


def test_an_unmapped_address_is_efault() -> None:
    """Where nothing can be read the errno is EFAULT."""
    room = ctypes.create_string_buffer(8)
    with pytest.raises(OSError) as caught:
        read(ctypes.addressof(room), 8, [(4096, 8)])
    assert caught.value.errno == errno.EFAULT
