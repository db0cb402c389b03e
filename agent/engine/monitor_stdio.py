"""A container's stdin, stdout and stderr, as the monitor holds them. Standard library only.

    without a tty   two pipes out; in: /dev/null, or a pipe with stdin_open
    with a tty      one pty of the container's own devpts (terminal.py): init makes it, or CRIU makes it anew, and its master comes here

Output is always read, whether somebody is attached or not: a container never waits for a reader. A restore makes new
pipes with the same class and hands them to CRIU.
"""

from __future__ import annotations

import errno
import fcntl
import os
from collections.abc import Callable
from dataclasses import dataclass

from agent.engine import terminal
from agent.engine.eventloop import Loop
from agent.engine.logs import LogWriter
from agent.linux import pipes

PIPE_BYTES = 1 << 20
READ_BYTES = 1 << 16
_END_OF_INPUT = b"\x04"


@dataclass(frozen=True, kw_only=True)
class ContainerEnds:
    """What becomes descriptors 0, 1 and 2 of init; /dev/null of one that has a terminal."""

    stdin: int
    stdout: int
    stderr: int

    def fds(self) -> tuple[int, int, int]:
        return self.stdin, self.stdout, self.stderr


class Stdio:
    """`on_output(stream, data)` is called for each piece; a terminal is one stream, "stdout"."""

    def __init__(self, loop: Loop, log: LogWriter, on_output: Callable[[str, bytes], None]) -> None:
        self._loop = loop
        self._log = log
        self._on_output = on_output
        self._streams: dict[str, int] = {}  # read ends that have not ended yet
        self._master = -1
        self._stdin = -1  # where input goes: the write end of a pipe, or the master
        self._input: list[tuple[memoryview, Callable[[], None]]] = []
        self._close_after_input = False
        self._ends: ContainerEnds | None = None
        self._said_lost = False
        self._keys: dict[str, str] = {}

    def make(self, *, tty: bool, stdin_open: bool) -> ContainerEnds:
        """Make new ends and begin to read. Call close_container_ends once they are inherited. With `tty` take_terminal() is still
        to come.
        """
        if tty:
            null = os.open(os.devnull, os.O_RDWR | os.O_CLOEXEC)
            self._ends = ContainerEnds(stdin=null, stdout=null, stderr=null)
            return self._ends
        self._ends = self._make_pipes(stdin_open)
        self._keys = {"stdout": _pipe_key(self._ends.stdout), "stderr": _pipe_key(self._ends.stderr)}
        self._keys["stdin"] = _pipe_key(self._ends.stdin) if stdin_open else ""
        return self._ends

    def take_terminal(self, master: int) -> None:
        """Read from it, and give it input, from now on. It becomes ours."""
        self._master = self._stdin = master
        self._read("stdout", master)

    def adopt(self, outputs: list[int], *, tty: bool) -> None:
        """Read from ends that are there already: stdout's and stderr's, or a master. A stdin that was a pipe stays closed."""
        if tty:
            self.take_terminal(*outputs)
            return
        for stream, fd in zip(("stdout", "stderr"), outputs, strict=False):
            self._keys[stream] = _pipe_key(fd)
            self._read(stream, fd)

    def keys(self) -> dict[str, str]:
        """CRIU's names of what the container has from us: "stdin", "stdout" and "stderr"; "" = nothing (any more)."""
        closed = {"stdin": ""} if self._stdin < 0 else {}
        return {"stdin": "", "stdout": "", "stderr": ""} | self._keys | closed

    def owner(self) -> tuple[int, int]:
        """Host ids of whose the container's ends are: its program's user, since init gave them away. (-1, -1) when all have ended."""
        if self._master >= 0:
            return -1, -1  # CRIU knows
        for fd in self._streams.values():
            status = os.fstat(fd)  # one inode with the end that the container has
            return status.st_uid, status.st_gid
        return -1, -1

    def unread_input(self) -> bytes:
        """What waits in the container's stdin pipe, left where it is. CRIU drops it, for the pipe is not its own."""
        if self._stdin < 0 or self._stdin == self._master:
            return b""
        reader = os.open(f"/proc/self/fd/{self._stdin}", os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC)
        try:
            return pipes.peek(reader)
        finally:
            os.close(reader)

    def settle_log(self) -> None:
        """The tasks are frozen: everything they have said goes into the log, half a line too."""
        self.drain()
        for stream in ("stdout", "stderr"):
            self._log.end(stream)

    def close_container_ends(self) -> None:
        """Close our copies of the container's ends: end of file then means that its last task is done with them."""
        if self._ends:
            for fd in set(self._ends.fds()):
                os.close(fd)
            self._ends = None

    def read_ends(self) -> list[int]:
        """The descriptors that output is read from: stdout and stderr, or the master. Still ours."""
        return list(self._streams.values())

    def write(self, data: bytes, done: Callable[[], None]) -> None:
        """Give `data` to the container; `done()` when all of it has been taken or thrown away. OSError EBADF
        when its stdin is not open.
        """
        if self._stdin < 0 or self._close_after_input:
            raise OSError(errno.EBADF, "the container's stdin is not open")
        self._input.append((memoryview(data), done))
        self._pump_input()

    def close_input(self) -> None:
        """End of file once what was written has been taken. A terminal gets its end-of-input character instead."""
        if self._stdin < 0:
            return
        if self._stdin == self._master:
            self.write(_END_OF_INPUT, lambda: None)
            return
        self._close_after_input = True
        self._pump_input()

    def resize(self, rows: int, columns: int) -> None:
        """Set the terminal's size; the kernel tells its foreground group. OSError ENOTTY without a terminal."""
        if self._master < 0:
            raise OSError(errno.ENOTTY, "the container has no terminal")
        terminal.resize(self._master, rows, columns)

    @property
    def ended(self) -> bool:
        """Every stream has reached its end."""
        return not self._streams

    def drain(self) -> None:
        """Read what is there now, without waiting: the last words of tasks that are dead."""
        for stream in list(self._streams):
            while self._pump(stream):
                pass

    def close(self) -> None:
        """Let go of everything. What waits for a newline goes into the log."""
        self.close_container_ends()
        for stream in list(self._streams):
            self._end(stream)
        self._drop_input()

    def _make_pipes(self, stdin_open: bool) -> ContainerEnds:
        out_r, out_w = _big_pipe()
        err_r, err_w = _big_pipe()
        if stdin_open:
            stdin, self._stdin = os.pipe2(os.O_CLOEXEC)
            os.set_blocking(self._stdin, False)
        else:
            stdin = os.open(os.devnull, os.O_RDONLY | os.O_CLOEXEC)
        self._read("stdout", out_r)
        self._read("stderr", err_r)
        return ContainerEnds(stdin=stdin, stdout=out_w, stderr=err_w)

    def _read(self, stream: str, fd: int) -> None:
        os.set_blocking(fd, False)
        self._streams[stream] = fd
        self._loop.add_reader(fd, lambda: self._pump(stream))

    def _pump(self, stream: str) -> bool:
        """One read. False when there is nothing (more) to read."""
        fd = self._streams.get(stream, -1)
        if fd < 0:
            return False
        try:
            data = os.read(fd, READ_BYTES)
        except BlockingIOError:
            return False
        except OSError as exc:
            if exc.errno != errno.EIO:  # EIO: a master whose last slave was closed
                raise
            data = b""
        if not data:
            self._end(stream)
            return False
        try:
            self._log.write(stream, data)
        except OSError as exc:
            if not self._said_lost:  # a full disk must not stop the container
                os.write(2, f"monitor: output lost, this is said once: {exc}\n".encode())
            self._said_lost = True
        self._on_output(stream, data)
        return True

    def _end(self, stream: str) -> None:
        fd = self._streams.pop(stream)
        self._loop.remove_reader(fd)
        if fd == self._master:
            self._drop_input()
            self._master = -1
        os.close(fd)
        self._log.end(stream)

    def _pump_input(self) -> None:
        while self._input:
            view, done = self._input[0]
            try:
                written = os.write(self._stdin, view)
            except BlockingIOError:
                self._loop.add_writer(self._stdin, self._pump_input)
                return
            except OSError:  # EPIPE: the container has closed its end; it will never read this
                self._drop_input()
                return
            if written < len(view):
                self._input[0] = (view[written:], done)
            else:
                self._input.pop(0)
                done()
        self._loop.remove_writer(self._stdin)
        if self._close_after_input:
            self._drop_input()

    def _drop_input(self) -> None:
        if self._stdin >= 0:
            self._loop.remove_writer(self._stdin)
            if self._stdin != self._master:
                os.close(self._stdin)
            self._stdin = -1
        waiting, self._input = self._input, []
        for _, done in waiting:
            done()


def _pipe_key(fd: int) -> str:
    return f"pipe:[{os.fstat(fd).st_ino}]"


def _big_pipe() -> tuple[int, int]:
    read, write = os.pipe2(os.O_CLOEXEC)
    try:
        fcntl.fcntl(write, fcntl.F_SETPIPE_SZ, PIPE_BYTES)
    except OSError:
        pass  # fs.pipe-max-size or the user's quota forbids it: 64 KiB do too, with more wake-ups
    return read, write
