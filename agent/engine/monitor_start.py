"""A container's birth as the monitor sees it: a stage with the namespaces forked ahead of need, init forked from it into the container's
cgroup once that is known, and the news whether execve has worked. sync.py draws it.
"""

from __future__ import annotations

import os
import socket
from collections.abc import Callable
from pathlib import Path
from typing import NoReturn

from agent.engine import init, program, rlimits, sync
from agent.engine.eventloop import Loop
from agent.engine.program import step
from agent.linux import namespaces

Failed = Callable[[str, int, str], None]  # step, errno, text


class Birth:
    """One conversation: map_ids(), make_init(), create(), start(). `ready(pid)` of create(), then `running()` of start() are called once,
    unless `failed` is, after which nothing is.
    """

    def __init__(self, loop: Loop, flags: int = init.AHEAD) -> None:
        self.flags = flags
        self._loop = loop
        self._on_ready: Callable[[int], None] | None = None
        self._on_running: Callable[[], None] | None = None
        self._on_failed: Failed | None = None
        self._error: tuple[str, int, str] | None = None  # before anybody wanted to know
        self._waiting = self._ready = False
        self._pid = 0
        self.terminal = -1  # once it is ready, of a container with one: its master, whoever takes it owns it
        self._channel, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        self._stage = os.fork()
        if self._stage == 0:
            _become_stage(loop, self._channel, theirs, flags)
        self._channel.setblocking(False)
        theirs.close()  # ours, or the end of file that means "execve worked" never comes
        loop.on_exit(self._stage, self._stage_exited)
        loop.add_reader(self._channel.fileno(), self.drain)

    @property
    def over(self) -> bool:
        """It has failed, or init has become the program."""
        return self._channel.fileno() < 0

    def stage(self) -> int:
        """Until make_init(), the pid on the host of who has the namespaces; waits for them. Raises StepError."""
        self._listen_until(lambda: self._waiting)
        return self._stage

    def map_ids(self, base: int, count: int) -> int:
        """Before make_init(): give its user namespace these host ids; returns a descriptor of it, the caller's. Raises OSError."""
        pid = self.stage()
        namespaces.write_id_maps(pid, base, count)
        return os.open(f"/proc/{pid}/ns/user", os.O_RDONLY | os.O_CLOEXEC)

    def make_init(self, cgroup: Path) -> None:
        """Have init made in this directory of the version 2 hierarchy: pid() waits for it. Raises StepError."""
        with step("init"):
            sync.send(self._channel, {"type": "fork", "cgroup": str(cgroup)})

    def pid(self) -> int:
        """Init's, on the host; waits for the stage. Raises StepError."""
        self._listen_until(lambda: bool(self._pid))
        return self._pid

    def create(
        self, plan: init.Plan, root: int, stdio: tuple[int, int, int], *, ready: Callable[[int], None], failed: Failed
    ) -> None:
        """Make init the container's, whose root is the descriptor `root`. The descriptors stay the caller's."""
        self._on_ready, self._on_failed = ready, failed
        try:
            admit(plan, self.pid(), stdio)
            with step("plan"):
                sync.send(self._channel, {"type": "plan", "plan": plan}, [root, *stdio])
        except program.StepError as exc:
            self._fail(exc.step, exc.errno or 0, exc.strerror or str(exc))

    def start(self, *, running: Callable[[], None]) -> None:
        """Let init become the program, as soon as it is ready. Raises OSError when init is gone and has not said why."""
        self._on_running = running
        try:
            sync.send(self._channel, {"type": "start"})
        except OSError:
            self.drain()
            if not self.over:
                raise

    def discard(self) -> None:
        """Nobody needs it: a stage that waits ends, and an init that has no plan yet."""
        self._close()

    def drain(self) -> None:
        """Take what the dead have said."""
        while not self.over and self._message():
            pass

    def _listen_until(self, heard: Callable[[], bool]) -> None:
        """Blocks. Raises StepError where it has failed."""
        if not heard() and not self.over:
            self._channel.setblocking(True)
            while not heard() and not self.over:
                self._message()
            if not self.over:
                self._channel.setblocking(False)
        if self.over:
            raise program.StepError(*(self._error or ("init", 0, "ended without a word")))

    def _message(self) -> bool:
        """Take one message; False when there was none."""
        try:
            message, fds = sync.receive(self._channel)
        except BlockingIOError:
            return False
        except ConnectionResetError:
            message, fds = None, []  # it went with a message of ours unread
        except (OSError, sync.ProtocolError) as exc:
            self._fail("protocol", 0, str(exc))
            return True
        if message is not None and message.get("type") == "ready" and fds:
            self.terminal = fds.pop()
        for fd in fds:
            os.close(fd)
        if message is None:
            self._end_of_file()
            return True
        kind = message.get("type")
        if kind == "waiting":
            self._waiting = True
        elif kind == "created":
            self._pid = int(message["pid"])
        elif kind == "ready":
            self._ready = True
            ready, self._on_ready = self._on_ready, None
            if ready:
                ready(self._pid)
        elif kind == "error":
            self._fail(str(message["step"]), int(message["errno"]), str(message["text"]))
        else:
            self._fail("protocol", 0, f"unexpected message {message!r}")
        return True

    def _end_of_file(self) -> None:
        self._close()
        if self._on_running and self._ready:
            running, self._on_running, self._on_failed = self._on_running, None, None
            running()
        else:
            self._fail("init", 0, "ended without a word before it was ready")

    def _stage_exited(self, _code: int) -> None:
        """Its messages say everything; this only reaps it."""

    def _fail(self, step: str, number: int, text: str) -> None:
        self._close()
        self._error = self._error or (step, number, text)
        failed, self._on_failed, self._on_running = self._on_failed, None, None
        if failed:
            failed(step, number, text)

    def _close(self) -> None:
        if not self.over:
            self._loop.remove_reader(self._channel.fileno())
            self._channel.close()


def admit(plan: init.Plan, pid: int, stdio: tuple[int, int, int]) -> None:
    """What only the host's root can do for an init that becomes this container's. Raises StepError."""
    with step("limits"):
        Path(f"/proc/{pid}/oom_score_adj").write_text(str(plan["oom_score_adj"]))
        rlimits.raise_hard(plan["rlimits"], pid)
    with step("stdio"):
        program.give_stdio(stdio, plan["ids_base"], plan["ids_base"])


def _become_stage(loop: Loop, ours: socket.socket, theirs: socket.socket, flags: int) -> NoReturn:
    try:
        loop.after_fork()
        ours.close()
        init.run_stage(theirs, flags)
    finally:
        os._exit(1)  # run_stage never returns; nothing here may ever run the monitor's code
