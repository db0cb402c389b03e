"""A cancellation of one move while its thread waits for a stream: between messages, and where none come."""

from __future__ import annotations

import threading
from typing import Any


class Cancelling:
    """Thread-safe. `is_set`: somebody asked for it."""

    def __init__(self) -> None:
        self._guard = threading.Lock()
        self._asked = False
        self._replies: Any = None

    def is_set(self) -> bool:
        return self._asked

    def set(self) -> None:
        """The stream that is being read ends at once, with gRPC's error of a call that was cancelled."""
        with self._guard:
            self._asked = True
            _end(self._replies)

    def reading(self, replies: Any) -> None:
        """`replies`: of the stream that is being read from now on; None: of none."""
        with self._guard:
            self._replies = replies
            if self._asked:
                _end(replies)


def _end(replies: Any) -> None:
    if hasattr(replies, "cancel"):
        replies.cancel()
