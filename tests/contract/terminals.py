"""The command line in a process of its own on a terminal."""

from __future__ import annotations

import ctypes
import os
import platform
import pty
import select
import signal
import subprocess
import sys
import termios
import time
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
SYS_TGKILL = {"x86_64": 234, "aarch64": 131}[platform.machine()]


class Terminal:
    """A `migrate` process whose three descriptors are a terminal."""

    def __init__(self, *argv: str) -> None:
        self.master, slave = pty.openpty()
        self.before = termios.tcgetattr(slave)
        self.slave = slave
        self.process = subprocess.Popen(
            [sys.executable, "-m", "migrate", *argv],
            stdin=slave,
            stdout=slave,
            stderr=slave,
            cwd=ROOT,
            start_new_session=True,
        )
        self.seen = b""

    def read_until(self, text: bytes, timeout_s: float = 15.0) -> bytes:
        end = time.monotonic() + timeout_s
        while text not in self.seen:
            assert time.monotonic() < end, f"{text!r} did not come; seen: {self.seen!r}"
            if select.select([self.master], [], [], 0.1)[0]:
                self.seen += os.read(self.master, 4096)
        return self.seen

    def is_raw(self) -> bool:
        return not termios.tcgetattr(self.slave)[3] & termios.ICANON

    def type(self, text: bytes) -> None:
        os.write(self.master, text)

    def interrupt_another_thread(self) -> None:
        """SIGINT to the process, taken by one of its threads that is not the main one."""
        sigint = 1 << (signal.SIGINT - 1)
        for task in Path(f"/proc/{self.process.pid}/task").iterdir():
            blocked = int((task / "status").read_text().split("SigBlk:")[1].split()[0], 16)
            if int(task.name) != self.process.pid and not blocked & sigint:
                assert ctypes.CDLL(None).syscall(SYS_TGKILL, self.process.pid, int(task.name), signal.SIGINT) == 0
                return
        raise AssertionError("every other thread blocks SIGINT")

    def wait(self) -> int:
        status = self.process.wait(15)
        assert termios.tcgetattr(self.slave) == self.before, "the terminal is not as it was"
        return status

    def close(self) -> None:
        self.process.kill()
        self.process.wait()
        os.close(self.master)
        os.close(self.slave)
