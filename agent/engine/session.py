"""The agent's end of one session in a container: starts `enter.py`, holds the other ends of its stdio, speaks its
protocol.

Safe to use from threads: one may read output, one write input, one wait. The agent itself never enters a namespace.
"""

from __future__ import annotations

import errno
import fcntl
import os
import socket
import struct
import subprocess
import sys
import termios
import threading
from pathlib import Path
from typing import Any, Self

from agent.engine import enter, sync
from agent.errors import AgentError

_PACKAGE_ROOT = Path(__file__).resolve().parents[2]


class SessionError(AgentError):
    """The program could not be started; `step` and `errno` say where. Not found: step "exec", ENOENT."""

    code = "container.exec_failed"
    touched = "nothing"

    def __init__(self, step: str, number: int, text: str) -> None:
        super().__init__(f"cannot run the program: {step}: {text}", hint=_HINTS.get((step, number), ""))
        self.step = step
        self.errno = number


_HINTS = {
    ("exec", errno.ENOENT): "check the name; the container's PATH is what counts, not this host's",
    ("exec", errno.EACCES): "the file is there but is no program that this user may run",
    ("user", errno.ENOENT): "name a user of the image's /etc/passwd, or a number",
    ("enter", errno.ESRCH): "the container has ended",
}


class Session:
    """A program in a container. With a tty `stdout` is the terminal's master, `stdin` the same, and `stderr` -1."""

    def __init__(self, request: enter.Request, *, stdin: bool = True) -> None:
        """Start it; without `stdin` the program reads /dev/null. Raises SessionError when execve was not reached."""
        self.tty = request["tty"]
        self.stdin = self.stdout = self.stderr = -1
        self.pid = 0
        self._input_lock = threading.Lock()
        theirs = [] if self.tty else self._make_pipes(stdin)
        try:
            self._channel, end = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
            with end:
                argv = [sys.executable, "-I", "-S", enter.__file__, str(_PACKAGE_ROOT), str(end.fileno())]
                self._helper = subprocess.Popen(
                    argv, pass_fds=(end.fileno(),), stdin=subprocess.DEVNULL, start_new_session=True
                )
            sync.send(self._channel, dict(request), theirs)
        finally:
            for fd in theirs:
                os.close(fd)
        try:
            self._wait_until_started()
        except BaseException:
            self.close()
            raise

    def write(self, data: bytes) -> None:
        """Give input to the program; blocks while it does not read. OSError EPIPE or EIO: it reads no more."""
        view = memoryview(data)
        while view:
            view = view[os.write(self.stdin, view) :]

    def close_stdin(self) -> None:
        """End of input. A terminal has no end: it is told with ^D, which a program may read as it likes."""
        with self._input_lock:
            if self.tty:
                os.write(self.stdin, b"\x04")
            elif self.stdin >= 0:
                os.close(self.stdin)
                self.stdin = -1

    def resize(self, rows: int, columns: int) -> None:
        """Tell the terminal its size; nothing without a tty."""
        if self.tty:
            fcntl.ioctl(self.stdout, termios.TIOCSWINSZ, struct.pack("HHHH", rows, columns, 0, 0))

    def signal(self, number: int) -> None:
        """Send a signal to the program; nothing once it has ended."""
        try:
            sync.send(self._channel, {"type": "signal", "signal": number})
        except OSError as exc:
            if exc.errno not in (errno.EPIPE, errno.ECONNRESET, errno.EBADF):
                raise

    def wait(self) -> int:
        """The exit code, 128 + n for signal n, when the program has ended. Once only."""
        message = self._receive()
        if message is None or message["type"] != "exit":
            raise SessionError("session", 0, f"the helper died (status {self._helper.wait()})")
        return int(message["exit_code"])

    def close(self) -> None:
        """Let go: a program that still runs is hung up. The descriptors are closed; nobody may be using them."""
        self._channel.close()
        for fd in {self.stdin, self.stdout, self.stderr} - {-1}:
            os.close(fd)
        self.stdin = self.stdout = self.stderr = -1
        self._helper.wait(enter.HANG_UP_GRACE_S * 2)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def _make_pipes(self, stdin: bool) -> list[int]:
        if stdin:
            their_in, self.stdin = os.pipe()
        else:
            their_in = os.open("/dev/null", os.O_RDONLY | os.O_CLOEXEC)
        self.stdout, their_out = os.pipe()
        self.stderr, their_err = os.pipe()
        return [their_in, their_out, their_err]

    def _wait_until_started(self) -> None:
        while True:
            message = self._receive()
            if message is None:
                raise SessionError("session", 0, f"the helper died (status {self._helper.wait()})")
            if message["type"] == "error":
                raise SessionError(message["step"], message["errno"], message["text"])
            if message["type"] == "started":
                self.pid = int(message["pid"])
                return

    def _receive(self) -> dict[str, Any] | None:
        message, fds = sync.receive(self._channel)
        if message is not None and message["type"] == "tty":
            self.stdin = self.stdout = fds[0]
        return message
