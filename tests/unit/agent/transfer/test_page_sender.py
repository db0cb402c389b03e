"""Pages on their way, from this process's own memory."""

from __future__ import annotations

import mmap
import os
import subprocess
import threading

import numpy as np
import pytest

from agent.memory.ranges import PAGE, ranges
from agent.transfer.frames import Kind, Reader
from agent.transfer.pages import PageSender
from agent.transfer.writer import Writer

pytestmark = pytest.mark.unit


def test_a_zero_page_over_a_version_that_could_not_be_read_again() -> None:
    """Sent, then gone for a round, then there again as zeros: the target has the first version still and must hear of it."""
    receive, send = os.pipe()
    kinds: list[Kind] = []

    def take() -> None:
        reader = Reader(receive)
        while (frame := reader.read()) is not None:
            kinds.append(frame.kind)

    thread = threading.Thread(target=take)
    thread.start()
    memory = mmap.mmap(-1, PAGE, flags=mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS)
    at = int(np.frombuffer(memory, np.uint64).ctypes.data)
    memory[:4] = b"here"
    writer = Writer(send)
    sender = PageSender(writer, 1, os.getpid(), lambda *_: None)
    assert sender.send(ranges([(at, at + PAGE)]), exact=True)[0] == 1
    gone = ranges([(at, at + PAGE)])
    with subprocess.Popen(["sleep", "60"]) as another:  # nothing at that address there
        pid, sender.pid = sender.pid, another.pid
        sender.send(gone, exact=False)
        another.kill()
    sender.pid = pid
    memory[:4] = bytes(4)
    count, reached = sender.send(gone, exact=True)
    assert (count, reached.tolist()) == (0, gone.tolist())
    writer.flush()
    writer.close()
    os.close(send)
    thread.join()
    os.close(receive)
    assert kinds == [Kind.MEMORY, Kind.ZERO]
