"""A move that holds: all is ready, rounds go on, the container runs, until somebody says that it may switch over."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Mapping
from typing import Any

PAUSE_S = 2.0  # between rounds: what is written meanwhile is what the freeze would have to send


def hold(
    switch: threading.Event,
    send_round: Callable[[], int],
    sent_bytes: Callable[[], int],
    progress: Callable[[Mapping[str, Any]], None],
) -> dict[str, Any]:
    """Until `switch` is set, and then one round more, so that the freeze has little left. `send_round` returns pages of memory."""
    began, first = time.monotonic(), sent_bytes()
    rounds = 0
    while True:
        last, before = switch.is_set(), sent_bytes()
        pages = send_round()
        rounds += 1
        facts = {
            "held_s": time.monotonic() - began,
            "held_rounds": rounds,
            "pages": pages,
            "sent_bytes": sent_bytes() - before,
        }
        done_bytes = sent_bytes() - first
        progress({"text": f"round {rounds} while it holds: {pages} pages", "done_bytes": done_bytes, "facts": facts})
        if last:
            return {"rounds": rounds, "held_s": facts["held_s"], "sent_bytes": done_bytes}
        switch.wait(PAUSE_S)
