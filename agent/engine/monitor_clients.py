"""The monitor's side of monitor.sock: who is connected, requests in, replies and events out. Standard library only.

A client that goes away changes nothing. One that does not read fills its queue and is cut off: the container never
waits for it.
"""

from __future__ import annotations

import json
import os
import socket
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from agent.engine import sync
from agent.engine.eventloop import Loop

QUEUE_BYTES = 4 << 20

Message = dict[str, Any]
Handler = Callable[["Client", Message, list[int]], None]


class Client:
    """One connection. `attached`: it wants the container's output."""

    def __init__(self, loop: Loop, connection: socket.socket, on_request: Handler, on_gone: Callable[[Client], None]):
        self.attached = False
        self._loop = loop
        self._socket = connection
        self._socket.setblocking(False)
        self._on_request = on_request
        self._on_gone = on_gone
        self._queue: deque[tuple[bytes, Sequence[int]]] = deque()
        self._queued_bytes = 0
        self._open = True
        loop.add_reader(connection.fileno(), self._readable)

    def answer(self, request: Message, fds: Sequence[int] = (), **fields: Any) -> None:
        """The request succeeded. `fds` stay the caller's; they must live until they are sent, so pass
        long-lived ones.
        """
        self._send({"seq": request.get("seq"), "ok": True, **fields}, fds)

    def fail(self, request: Message, step: str, number: int, text: str) -> None:
        """The request failed at `step` with errno `number` (0 = none)."""
        self._send({"seq": request.get("seq"), "ok": False, "step": step, "errno": number, "text": text}, ())

    def event(self, name: str, **fields: Any) -> None:
        self._send({"event": name, **fields}, ())

    def drain_requests(self) -> None:
        """Take what has arrived: closing a socket with unread data would throw away what the client has not
        read yet.
        """
        while self._open and self._receive():
            pass

    def close(self) -> None:
        if self._open:
            self._open = False
            self._loop.remove_reader(self._socket.fileno())
            self._loop.remove_writer(self._socket.fileno())
            self._socket.close()
            self._on_gone(self)

    def _readable(self) -> None:
        self._receive()

    def _receive(self) -> bool:
        try:
            request, fds = sync.receive(self._socket)
        except BlockingIOError:
            return False
        except (OSError, sync.ProtocolError):
            self.close()
            return False
        if request is None:
            self.close()
            return False
        self._on_request(self, request, fds)
        return True

    def _send(self, message: Message, fds: Sequence[int]) -> None:
        if not self._open:
            return
        data = json.dumps(message).encode()
        if self._queue or not self._try(data, fds):
            self._queue.append((data, fds))
            self._queued_bytes += len(data)
            if self._queued_bytes > QUEUE_BYTES:
                self.close()
            elif self._open:
                self._loop.add_writer(self._socket.fileno(), self._flush)

    def _try(self, data: bytes, fds: Sequence[int]) -> bool:
        """True when it has been sent, or never can be."""
        try:
            socket.send_fds(self._socket, [data], list(fds), socket.MSG_NOSIGNAL)
        except BlockingIOError:
            return False
        except OSError:
            self.close()
        return True

    def _flush(self) -> None:
        while self._open and self._queue:
            data, fds = self._queue[0]
            if not self._try(data, fds):
                return
            if self._queue:
                self._queue.popleft()
                self._queued_bytes -= len(data)
        if self._open:
            self._loop.remove_writer(self._socket.fileno())


class Server:
    """Every request of every client goes to `on_request`. `on_gone`: a client left."""

    def __init__(self, loop: Loop, on_request: Handler, on_gone: Callable[[], None]) -> None:
        self.clients: list[Client] = []
        self._loop = loop
        self._path: Path | None = None
        self._socket: socket.socket | None = None
        self._on_request = on_request
        self._on_gone = on_gone

    def add(self, connection: socket.socket) -> None:
        """Of a client that is connected already."""
        self.clients.append(Client(self._loop, connection, self._on_request, self._gone))

    def listen(self, path: Path) -> None:
        """For more clients, from now on. Raises OSError."""
        path.unlink(missing_ok=True)
        listening = socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET | socket.SOCK_NONBLOCK)
        with short_name(path) as name:
            listening.bind(name)
        path.chmod(0o600)
        listening.listen(16)
        self._path, self._socket = path, listening
        self._loop.add_reader(listening.fileno(), self._accept)

    def broadcast(self, name: str, *, attached_only: bool = False, **fields: Any) -> None:
        for client in list(self.clients):
            if client.attached or not attached_only:
                client.event(name, **fields)

    def close(self) -> None:
        """No new clients; those that are here read what was sent to them and then the end."""
        if self._path is not None and self._socket is not None:
            self._path.unlink(missing_ok=True)
            self._accept()
            self._loop.remove_reader(self._socket.fileno())
            self._socket.close()
        for client in list(self.clients):
            client.drain_requests()
            client.close()

    def _accept(self) -> None:
        assert self._socket is not None
        while True:
            try:
                connection, _ = self._socket.accept()
            except BlockingIOError:
                return
            self.add(connection)

    def _gone(self, client: Client) -> None:
        self.clients.remove(client)
        self._on_gone()


@contextmanager
def short_name(path: Path) -> Iterator[str]:
    """A name of `path` for bind and connect, whose 107 bytes a deep directory would exceed."""
    fd = os.open(path.parent, os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        yield f"/proc/self/fd/{fd}/{path.name}"
    finally:
        os.close(fd)
