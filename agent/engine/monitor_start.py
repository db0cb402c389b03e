"""A container's birth as the monitor sees it: fork the stage, answer it, and know when execve has worked. sync.py
draws it.
"""

from __future__ import annotations

import os
import socket
from collections.abc import Callable
from typing import NoReturn, cast

from agent.engine import init, sync
from agent.engine.eventloop import Loop
from agent.linux import namespaces

Failed = Callable[[str, int, str], None]  # step, errno, text


class Birth:
    """One conversation. Exactly one of `ready(pid)` and `failed` is called, then, after start(), one of its
    `running()` and `failed`.
    """

    def __init__(
        self,
        loop: Loop,
        plan: dict[str, object],
        stdio: tuple[int, int, int],
        *,
        ready: Callable[[int], None],
        failed: Failed,
    ) -> None:
        self._loop = loop
        self._plan = plan
        self._on_ready = ready
        self._on_running: Callable[[], None] | None = None
        self._on_failed: Failed | None = failed
        self._pid = 0
        self._ready = False
        self._channel, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        self._stage = os.fork()
        if self._stage == 0:
            _become_stage(loop, self._channel, plan, theirs, stdio)
        self._channel.setblocking(False)
        theirs.close()  # ours, or the end of file that means "execve worked" never comes
        loop.on_exit(self._stage, self._stage_exited)
        loop.add_reader(self._channel.fileno(), self.drain)

    def start(self, *, running: Callable[[], None], failed: Failed) -> None:
        """Let init become the program. Raises OSError when init is gone."""
        self._on_running, self._on_failed = running, failed
        sync.send(self._channel, {"type": "start"})

    def drain(self) -> None:
        """Take what the dead have said."""
        while self._channel.fileno() >= 0 and self._message():
            pass

    def _message(self) -> bool:
        """Take one message; False when there was none."""
        try:
            message, fds = sync.receive(self._channel)
        except BlockingIOError:
            return False
        except (OSError, sync.ProtocolError) as exc:
            self._fail("protocol", 0, str(exc))
            return True
        for fd in fds:
            os.close(fd)
        if message is None:
            self._end_of_file()
            return True
        kind = message.get("type")
        if kind == "userns":
            self._map_ids()
        elif kind == "created":
            self._pid = int(message["pid"])
            self._check_ready()
        elif kind == "ready":
            self._ready = True
            self._check_ready()
        elif kind == "error":
            self._fail(str(message["step"]), int(message["errno"]), str(message["text"]))
        else:
            self._fail("protocol", 0, f"unexpected message {message!r}")
        return True

    def _map_ids(self) -> None:
        try:
            namespaces.write_id_maps(
                self._stage, cast(int, self._plan["ids_base"]), cast(int, self._plan["ids_count"])
            )  # fmt: skip
            sync.send(self._channel, {"type": "mapped"})
        except OSError as exc:
            self._fail("map", exc.errno or 0, str(exc))

    def _check_ready(self) -> None:
        if self._pid and self._ready:
            self._on_failed = None
            self._on_ready(self._pid)

    def _end_of_file(self) -> None:
        self._close()
        if self._on_running:
            running, self._on_running, self._on_failed = self._on_running, None, None
            running()
        else:
            self._fail("init", 0, "ended without a word before it was ready")

    def _stage_exited(self, _code: int) -> None:
        """Its messages say everything; this only reaps it."""

    def _fail(self, step: str, number: int, text: str) -> None:
        self._close()
        failed, self._on_failed, self._on_running = self._on_failed, None, None
        if failed:
            failed(step, number, text)

    def _close(self) -> None:
        if self._channel.fileno() >= 0:
            self._loop.remove_reader(self._channel.fileno())
            self._channel.close()


def _become_stage(
    loop: Loop, ours: socket.socket, plan: dict[str, object], theirs: socket.socket, stdio: tuple[int, int, int]
) -> NoReturn:
    try:
        loop.after_fork()
        ours.close()
        init.run_stage(cast(init.Plan, plan), theirs, stdio)
    finally:
        os._exit(1)  # run_stage never returns; nothing here may ever run the monitor's code
