"""Takes a layer in pieces, as they come from another host, while a thread unpacks it."""

from __future__ import annotations

import queue
import threading
from collections.abc import Callable, Iterator
from types import TracebackType
from typing import Self

from agent.errors import AgentError, StorageError

_QUEUED_CHUNKS = 8


class LayerWriter:
    """Takes one layer's stored archive; a thread unpacks it while more arrives.

    Leaving the context without `commit` drops everything. Two writers of the same layer are fine: the first one counts.
    """

    def __init__(self, receive: Callable[[Iterator[bytes]], None]) -> None:
        self._receive = receive
        self._queue: queue.Queue[bytes | None] = queue.Queue(_QUEUED_CHUNKS)
        self._aborted = False
        self._error: AgentError | None = None
        self._thread = threading.Thread(target=self._run, name="layer-unpack", daemon=True)

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, value: BaseException | None, traceback: TracebackType | None
    ) -> None:
        if self._thread.is_alive():
            self._aborted = True
            self._queue.put(None)
            self._thread.join()

    def write(self, chunk: bytes | bytearray | memoryview) -> None:
        """The next bytes, copied if they could change. Raises StorageError as soon as they cannot be that layer."""
        if self._error is not None:
            raise self._error
        if chunk:
            self._queue.put(bytes(chunk))

    def commit(self) -> None:
        """That was all: check the diff id, show the layer. Raises StorageError, leaving nothing, if it is another one."""
        self._queue.put(None)
        self._thread.join()
        if self._error is not None:
            raise self._error

    def _run(self) -> None:
        done = False

        def chunks() -> Iterator[bytes]:
            nonlocal done
            while (chunk := self._queue.get()) is not None:
                yield chunk
            done = True
            if self._aborted:
                raise StorageError("the layer was not sent to its end")

        try:
            self._receive(chunks())
        except AgentError as exc:
            self._error = exc
        except BaseException as exc:  # noqa: BLE001  # nobody else can report it: the thread has no caller
            self._error = StorageError(f"unpacking failed: {exc!r}")
            self._error.__cause__ = exc
        while not done:
            done = self._queue.get() is None  # so that the writer never blocks on a thread that has given up
