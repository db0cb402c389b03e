"""The agent's end of one session in a container: starts `enter.py`, holds the other ends of its stdio, speaks its protocol.

One thread iterates for output; any number of others may give input, resize and send signals meanwhile, and `hang_up` from
anywhere ends them all. The agent itself never enters a namespace.
"""

from __future__ import annotations

import contextlib
import errno
import fcntl
import os
import select
import signal
import socket
import struct
import subprocess
import sys
import termios
import threading
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any, NoReturn, Self

from agent.engine import enter, hostfiles, interpreter, plan, rlimits, sync
from agent.engine.attach import Output
from agent.engine.spec import ContainerSpec
from agent.errors import AgentError, InvalidArgument
from agent.linux import process

PACKAGE_ROOT = Path(__file__).resolve().parents[2]
READ_BYTES = 65536
DRAIN_MS = (
    500  # how long after the program's end its output may be silent: what it left behind may hold the pipe for ever
)
_END_OF_INPUT = b"\x04"
_HINTS = {
    ("exec", errno.ENOENT): "check the name; the container's PATH is what counts, not this host's",
    ("exec", errno.EACCES): "the file is there but is no program that this user may run",
    ("user", errno.ENOENT): "name a user of the image's /etc/passwd, or a number",
    ("enter", errno.ESRCH): "the container has ended",
    ("cgroup", errno.ENOENT): "the container has ended",
    ("stdio", errno.ENOENT): "the container has ended",
    ("session", 0): "give the command again; what it had begun in the container was ended",
}


class SessionError(AgentError):
    """The program could not be started; `step` and `errno` say where. Not found: step "exec", ENOENT."""

    code = "container.exec_failed"
    touched = "nothing"

    def __init__(self, step: str, number: int, text: str) -> None:
        super().__init__(f"cannot run the program: {step}: {text}", hint=_HINTS.get((step, number), ""))
        self.step = step
        self.errno = number


def request(
    spec: ContainerSpec,
    *,
    pid: int,
    start_ticks: int,
    cgroups: Sequence[Path],
    argv: Sequence[str],
    env: Sequence[str] = (),
    cwd: str = "",
    user: str = "",
    tty: bool = False,
    rows: int = 0,
    columns: int = 0,
    seccomp: str = "",
    privileged: bool = False,
) -> enter.Request:
    """What to run in the container whose init is `pid`. Empty `cwd` and `user` are the container's; `env` adds to its own.
    `seccomp`: the file of its filter. `privileged`: every capability, which ends at the user namespace. Raises InvalidArgument where the
    container has none of its own.
    """
    if privileged and spec.isolation.user == "host":
        raise InvalidArgument(
            f"exec --privileged in container {spec.name} would be the host's root: its users are the host's",
            hint="leave --privileged out, or run it without --userns host",
        )
    return {
        "pid": pid,
        "start_ticks": start_ticks,
        "cgroups": [str(path) for path in cgroups],
        "argv": list(argv),
        "env": [*spec.env, *env],
        "cwd": cwd or spec.cwd,
        "user": user or spec.user,
        "capabilities": list(process.CAPABILITIES if privileged else spec.capabilities),
        "hostname": hostfiles.name_of(spec),
        "rlimits": rlimits.plan(spec.limits),
        "oom_score_adj": spec.limits.oom_score_adj,
        "seccomp": seccomp,
        "new_privileges": spec.isolation.new_privileges,
        "groups": list(spec.groups),
        "umask": plan.umask(spec),
        "tty": tty,
        "rows": rows,
        "columns": columns,
    }


class Session:
    """A program in a container. Iterate for Output until it ends; then `exit_code` is its exit code (128 + n for signal n),
    or None after `hang_up`. A terminal is one stream, "stdout".
    """

    def __init__(self, what: enter.Request, *, stdin: bool = True) -> None:
        """Start it; without `stdin` the program reads /dev/null. Raises SessionError when execve was not reached."""
        self.pid = 0
        self.exit_code: int | None = None
        self._tty = what["tty"]
        self._cgroups = [Path(path) for path in what["cgroups"]]
        self._stdin = self._stdout = self._stderr = -1
        self._hung_up = threading.Event()
        self._wake = os.eventfd(0, os.EFD_CLOEXEC | os.EFD_NONBLOCK)
        self._input = (
            threading.Lock()
        )  # held while stdin or the terminal is used; close() takes it before it closes them
        self._helper: subprocess.Popen[bytes] | None = None
        theirs = [] if self._tty else self._make_pipes(stdin)
        self._channel, end = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        try:
            argv = [sys.executable, "-I", "-S", enter.__file__, str(PACKAGE_ROOT), str(end.fileno())]
            self._helper = subprocess.Popen(
                argv,
                executable=interpreter.path(),
                pass_fds=(end.fileno(),),
                stdin=subprocess.DEVNULL,
                start_new_session=True,
            )
            end.close()  # ours, or the helper's death would go unseen
            try:
                sync.send(self._channel, dict(what), theirs)
            except (BrokenPipeError, ConnectionResetError):
                self._helper_died()
            self._wait_until_started()
        except BaseException:
            self.close()
            raise
        finally:
            end.close()
            for fd in theirs:
                os.close(fd)

    def __iter__(self) -> Iterator[Output]:
        streams = {fd: name for fd, name in ((self._stdout, "stdout"), (self._stderr, "stderr")) if fd >= 0}
        poller = select.poll()
        for fd in (*streams, self._channel.fileno(), self._wake):
            poller.register(fd, select.POLLIN)
        while streams or self.exit_code is None:
            ready = poller.poll(None if self.exit_code is None else DRAIN_MS)
            if not ready or self._hung_up.is_set():
                return
            for fd, _ in ready:
                if fd == self._channel.fileno():
                    poller.unregister(fd)
                    self._take_exit_code()
                elif fd in streams:
                    data = _read(fd)
                    if data:
                        yield Output(stream=streams[fd], data=data)
                    else:
                        poller.unregister(fd)
                        del streams[fd]

    def write(self, data: bytes) -> None:
        """Give input to the program; blocks while it does not read. OSError (EPIPE, EIO, EBADF): it reads no more."""
        view = memoryview(data)
        while view:
            with self._input:
                if self._stdin < 0:
                    raise OSError(errno.EBADF, "the program's stdin is not open")
                poller = select.poll()
                poller.register(self._stdin, select.POLLOUT)
                if poller.poll(100):  # and not for ever: close() waits for this lock
                    try:
                        view = view[os.write(self._stdin, view) :]
                    except BlockingIOError:
                        pass  # room for less than one atomic write

    def close_stdin(self) -> None:
        """End of input. A terminal has no end: it is told with ^D, which a program may read as it likes."""
        if self._tty:
            self.write(_END_OF_INPUT)
            return
        with self._input:
            if self._stdin >= 0:
                os.close(self._stdin)
                self._stdin = -1

    def resize(self, rows: int, columns: int) -> None:
        """Tell the terminal its size; nothing without a tty."""
        with self._input:
            if self._tty and self._stdout >= 0:
                fcntl.ioctl(self._stdout, termios.TIOCSWINSZ, struct.pack("HHHH", rows, columns, 0, 0))

    def signal(self, number: int) -> None:
        """Send a signal to the program; nothing once it has ended."""
        try:
            sync.send(self._channel, {"type": "signal", "signal": number})
        except OSError as exc:
            if exc.errno not in (errno.EPIPE, errno.ECONNRESET, errno.EBADF):
                raise

    def kill(self) -> None:
        """SIGKILL to the program and what it has started in its session; the iteration goes on to its end."""
        try:
            sync.send(self._channel, {"type": "kill"})
        except OSError as exc:
            if exc.errno not in (errno.EPIPE, errno.ECONNRESET, errno.EBADF):
                raise

    def hang_up(self) -> None:
        """Stop the iteration; the program ends with close(). From any thread, any number of times."""
        self._hung_up.set()
        with self._input:
            if self._wake >= 0:
                os.eventfd_write(self._wake, 1)

    def close(self) -> None:
        """Let go: a program that still runs gets SIGHUP, and SIGKILL after HANG_UP_GRACE_S. Not while another thread iterates."""
        self._hung_up.set()
        self._channel.close()
        with self._input:
            for fd in {self._stdin, self._stdout, self._stderr, self._wake} - {-1}:
                os.close(fd)
            self._stdin = self._stdout = self._stderr = self._wake = -1
        if self._helper is not None:
            self._helper.wait(enter.HANG_UP_GRACE_S * 2)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def _make_pipes(self, stdin: bool) -> list[int]:
        if stdin:
            their_in, self._stdin = os.pipe()
            os.set_blocking(self._stdin, False)
        else:
            their_in = os.open("/dev/null", os.O_RDONLY | os.O_CLOEXEC)
        self._stdout, their_out = os.pipe()
        self._stderr, their_err = os.pipe()
        return [their_in, their_out, their_err]

    def _wait_until_started(self) -> None:
        while True:
            message = self._receive()
            if message["type"] == "error":
                raise SessionError(message["step"], message["errno"], message["text"])
            if message["type"] == "started":
                self.pid = int(message["pid"])
                return

    def _take_exit_code(self) -> None:
        self.exit_code = int(self._receive()["exit_code"])

    def _receive(self) -> dict[str, Any]:
        try:
            message, fds = sync.receive(self._channel)
        except ConnectionResetError:  # it went with our request unread
            message, fds = None, []
        if message is None:
            self._helper_died()
        if message["type"] == "tty":
            self._stdin = self._stdout = fds[0]
            os.set_blocking(fds[0], False)
        return message

    def _helper_died(self) -> NoReturn:
        """Nobody else ends what it had begun: all of its session, which in that cgroup is no other's."""
        for path in self._cgroups[:1] if self.pid else ():
            for pid in map(int, (path / "cgroup.procs").read_text().split() if path.is_dir() else ()):
                with contextlib.suppress(ProcessLookupError):
                    if os.getsid(pid) == self.pid:
                        os.kill(pid, signal.SIGKILL)
        status = self._helper.wait() if self._helper else "none"
        raise SessionError("session", 0, f"its helper died (status {status})")


def _read(fd: int) -> bytes:
    """b"" at the end; a terminal says EIO there."""
    try:
        return os.read(fd, READ_BYTES)
    except OSError as exc:
        if exc.errno == errno.EIO:
            return b""
        raise
