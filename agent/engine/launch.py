"""The agent's side of a monitor: connect to it, ask it. Threads are welcome here; nothing forks.

MonitorClient(a connection of pool.take())  or  MonitorClient.connect()
client.request("create", plan=...)  ──►  reply, or an error with step and errno
"""

from __future__ import annotations

import contextlib
import errno
import itertools
import json
import os
import socket
import threading
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from agent.engine import sync
from agent.engine.monitor_clients import short_name
from agent.errors import AgentError, InvalidArgument, StartError

REQUEST_LIMIT_S = 60.0
ENDED = "somebody or the kernel has killed it: look (migrate ps --all; dmesg), then give the command again"


class MonitorError(AgentError):
    """The monitor refused, or does not answer. `step` and `errno` are its own words; errno 0: none."""

    code = "monitor"

    def __init__(self, message: str, *, step: str = "", errno: int = 0, hint: str = "", detail: str = "") -> None:
        super().__init__(message, hint=hint, detail=detail)
        self.step = step
        self.errno = errno


class ContainerStartError(StartError):
    """A StartError with the step that failed and its errno."""

    def __init__(self, message: str, *, step: str, errno: int, hint: str = "") -> None:
        super().__init__(message, hint=hint)
        self.step = step
        self.errno = errno


@dataclass(kw_only=True)
class Reply:
    """What a request was answered with. The caller owns `fds` (CLOEXEC)."""

    fields: dict[str, Any]
    fds: list[int]

    def __getitem__(self, name: str) -> Any:
        return self.fields[name]


@dataclass(kw_only=True)
class _Pending:
    done: threading.Event = field(default_factory=threading.Event)
    reply: Reply | None = None


class MonitorClient:
    """One connection to a monitor; any number of threads may ask at once. A thread of its own reads and calls
    `on_event` and `on_close`.

    `on_event(message)` sees every event in order and may block: then the monitor queues, and cuts us off at 4 MiB.
    `on_close()` comes last, once, also after close().
    """

    def __init__(
        self,
        connection: socket.socket,
        *,
        on_event: Callable[[dict[str, Any]], None] = lambda _message: None,
        on_close: Callable[[], None] = lambda: None,
        name: str = "monitor",
    ) -> None:
        self._socket = connection
        self._on_event = on_event
        self._on_close = on_close
        self._name = name
        self._numbers = itertools.count(1)
        self._guard = threading.Lock()
        self._sending = threading.Lock()
        self._pending: dict[int, _Pending] = {}
        self._closed = False
        self._thread = threading.Thread(target=self._read, name=f"monitor-{name}", daemon=True)
        self._thread.start()

    @classmethod
    def connect(
        cls,
        runtime_dir: Path,
        *,
        on_event: Callable[[dict[str, Any]], None] = lambda _message: None,
        on_close: Callable[[], None] = lambda: None,
    ) -> MonitorClient:
        """Connect to the monitor of `runtime_dir`. Raises MonitorError when none listens there."""
        path = runtime_dir / "monitor.sock"
        connection = socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        try:
            with short_name(path) as name:
                connection.connect(name)
        except OSError as exc:
            connection.close()
            raise MonitorError(
                f"no monitor answers at {path}: {exc.strerror}", step="connect", errno=exc.errno or 0
            ) from exc
        return cls(connection, on_event=on_event, on_close=on_close, name=runtime_dir.name[:12])

    @property
    def closed(self) -> bool:
        return self._closed

    def request(
        self, cmd: str, *, timeout_s: float | None = REQUEST_LIMIT_S, fds: Sequence[int] = (), **fields: Any
    ) -> Reply:
        """Ask and wait for the answer. `fds` stay the caller's. Raises as begin(), and as what that returns."""
        return self.begin(cmd, timeout_s=timeout_s, fds=fds, **fields)()

    def begin(
        self, cmd: str, *, timeout_s: float | None = REQUEST_LIMIT_S, fds: Sequence[int] = (), **fields: Any
    ) -> Callable[[], Reply]:
        """Ask; what is returned waits for the answer, and is to be called once.

        Raises ContainerStartError when "make-stage", "fork", "create" or "start" is refused, MonitorError for every other refusal, a
        monitor that is gone (its errno is EPIPE's kind or 0) and the time limit (step "timeout").
        """
        pending = _Pending()
        with self._guard:
            if self._closed:
                raise MonitorError(f"the monitor of {self._name} is gone", step="connect")
            number = next(self._numbers)
            self._pending[number] = pending
        message = {"cmd": cmd, "seq": number, **fields}
        if (size := len(json.dumps(message))) > sync.MAX_MESSAGE_BYTES:
            self._forget(number)
            raise InvalidArgument(
                f"{cmd} takes {size} bytes, a monitor at most {sync.MAX_MESSAGE_BYTES}",
                hint="shorten the command line or the environment",
            )
        try:
            with self._sending:
                sync.send(self._socket, message, fds)
        except OSError as exc:
            self._forget(number)
            raise MonitorError(
                f"the monitor of {self._name} is gone: {exc.strerror}", step=cmd, errno=exc.errno or 0, hint=ENDED
            ) from exc

        def answer() -> Reply:
            if not pending.done.wait(timeout_s):
                self._forget(number)
                limit = f"{timeout_s:g} s"
                raise MonitorError(f"the monitor of {self._name} did not answer {cmd} in {limit}", step="timeout")
            if pending.reply is None:
                raise MonitorError(f"the monitor of {self._name} ended during {cmd}", step=cmd, hint=ENDED)
            if pending.reply.fields.get("ok"):
                return pending.reply
            raise _refusal(cmd, pending.reply)

        return answer

    def close(self) -> None:
        """Disconnect; the monitor goes on. Threads that wait for an answer get MonitorError."""
        with contextlib.suppress(OSError):  # gone already
            self._socket.shutdown(socket.SHUT_RDWR)
        if threading.current_thread() is not self._thread:
            self._thread.join()

    def _forget(self, number: int) -> None:
        with self._guard:
            self._pending.pop(number, None)

    def _read(self) -> None:
        try:
            while (received := self._receive()) is not None:
                message, fds = received
                if "event" in message:
                    self._on_event(message)
                    continue
                with self._guard:
                    pending = self._pending.pop(message.get("seq", 0), None)
                if pending is None:  # its asker gave up
                    for fd in fds:
                        os.close(fd)
                    continue
                pending.reply = Reply(fields=message, fds=fds)
                pending.done.set()
        finally:
            with self._guard:
                self._closed = True
                left = list(self._pending.values())
                self._pending.clear()
            for pending in left:
                pending.done.set()
            self._socket.close()
            self._on_close()

    def _receive(self) -> tuple[dict[str, Any], list[int]] | None:
        for _ in range(2):
            try:
                message, fds = sync.receive(self._socket)
            except ConnectionResetError:
                continue  # it went with a request of ours unread; what it had sent before is still to be read
            except (OSError, sync.ProtocolError):
                return None
            return None if message is None else (message, fds)
        return None


def _refusal(cmd: str, reply: Reply) -> AgentError:
    step, number, text = (reply.fields.get(name) for name in ("step", "errno", "text"))
    for fd in reply.fds:
        os.close(fd)
    if cmd in ("make-stage", "fork", "create", "start"):
        hint = "check the command and the image" if step == "exec" else ""
        # Not refused, but init is gone: its pipe, its files in /proc, its namespaces.
        gone = number in (0, errno.EPIPE, errno.EBUSY, errno.ESRCH) or (
            number == errno.ENOENT and "/proc/" in str(text)
        )
        if gone or (step, number) == ("network", errno.ENOENT):
            hint = ENDED
        return ContainerStartError(f"{step}: {text}", step=str(step), errno=int(number or 0), hint=hint)
    hint = ENDED if number == errno.EBADF else ""  # its init ended between two requests
    return MonitorError(f"{cmd}: {text}", step=str(step), errno=int(number or 0), hint=hint)
