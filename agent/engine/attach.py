"""Somebody at the stdio of a container's first process: output as it comes, input, window size. One connection to the
monitor each.
"""

from __future__ import annotations

import base64
import queue
import threading
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from agent.engine.launch import MonitorClient
from agent.errors import WrongState

_PIECE_BYTES = 32768  # of input: its base64 fits a packet
_QUEUED_EVENTS = 256


@dataclass(frozen=True, kw_only=True)
class Output:
    """stream: "stdout" or "stderr"."""

    stream: str
    data: bytes


class Attachment:
    """Iterate for Output until the container ends or close(); then `exit_code` is its exit code, or None when it was
    cut off. Made before the container starts it misses nothing: Engine.start connects it before the program runs.
    Until then input waits, and a window size is kept.
    """

    def __init__(self) -> None:
        self.exit_code: int | None = None
        self._events: queue.Queue[dict[str, Any] | None] = queue.Queue(_QUEUED_EVENTS)
        self._closing = False
        self._client: MonitorClient | None = None
        self._size: tuple[int, int] | None = None
        self._settled = threading.Event()  # connected, or it never will be

    def connect(self, runtime_dir: Path) -> None:
        """For the engine. Raises MonitorError."""
        self._client = MonitorClient.connect(runtime_dir, on_event=self._put, on_close=self.end)
        self._client.request("attach")
        if self._size is not None:
            self._client.request("resize", rows=self._size[0], columns=self._size[1])
        self._settled.set()

    def end(self) -> None:
        """For the engine: no more output will come."""
        self._settled.set()
        self._put(None)

    def __iter__(self) -> Iterator[Output]:
        while (event := self._events.get()) is not None:
            if event["event"] == "output":
                yield Output(stream=event["stream"], data=base64.b64decode(event["data"]))
            elif event["event"] == "exit":
                self.exit_code = int(event["exit_code"])
                return  # everything that it wrote has come before

    def write(self, data: bytes) -> None:
        """Returns when the container has taken all of it. Raises MonitorError when its stdin is not open."""
        for start in range(0, len(data), _PIECE_BYTES):
            piece = base64.b64encode(data[start : start + _PIECE_BYTES]).decode()
            self._connected().request("stdin", data=piece, timeout_s=None)

    def close_stdin(self) -> None:
        self._connected().request("close-stdin")

    def resize(self, rows: int, columns: int) -> None:
        self._size = rows, columns
        if self._settled.is_set():
            self._connected().request("resize", rows=rows, columns=columns)

    def close(self) -> None:
        """Detach. The container goes on; an iteration ends."""
        self._closing = True
        self._settled.set()
        if self._client is not None:
            self._client.close()  # its reader is gone after this: nobody else puts
        while True:
            try:
                self._events.put_nowait(None)
                return
            except queue.Full:
                self._events.get_nowait()

    def _connected(self) -> MonitorClient:
        self._settled.wait()
        if self._client is None:
            raise WrongState("the container has not started")
        return self._client

    def _put(self, event: dict[str, Any] | None) -> None:
        while not self._closing:
            try:
                self._events.put(event, timeout=0.5)
                return
            except queue.Full:
                continue  # the monitor queues meanwhile
