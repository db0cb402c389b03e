"""Post-copy on the source: memory that was kept back goes on its way as soon as the freeze is over, whoever asks for it and when.

A process on the target that waits for a page must not wait for the coordinator too, so sending begins by itself; SendRest only waits
for its end, or begins it anew after the tunnel has broken.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import Future, TimeoutError
from typing import Any

from agent.transfer.commands import TransferProcess

LOOK_EVERY_S = 0.5

Progress = Callable[[Mapping[str, Any]], None]


class RestOfMemory:
    """Of all moves that leave this host. Thread-safe."""

    def __init__(self) -> None:
        self._guard = threading.Lock()
        self._sending: dict[str, tuple[TransferProcess, Future[dict[str, Any]], list[Mapping[str, Any]]]] = {}

    def begin(self, migration_id: str, sender: TransferProcess, pids: Sequence[int] = ()) -> None:
        """Returns at once. `pids`: of the frozen tasks, for a sender that did not freeze them."""
        done: Future[dict[str, Any]] = Future()
        last: list[Mapping[str, Any]] = []
        with self._guard:
            self._sending[migration_id] = sender, done, last

        def report(facts: Mapping[str, Any]) -> None:
            last[:] = [facts]

        def send() -> None:
            try:
                done.set_result(sender.request("later", report, pids=list(pids)))
            except Exception as exc:  # noqa: BLE001  it is raised where somebody waits
                done.set_exception(exc)

        threading.Thread(target=send, name=f"rest {migration_id}", daemon=True).start()

    def wait(
        self, migration_id: str, sender: TransferProcess, pids: Sequence[int], progress: Progress
    ) -> dict[str, Any]:
        """What the sender answers when the target has confirmed all. Raises its TransferError."""
        with self._guard:
            known = self._sending.get(migration_id)
        if known is None or known[0] is not sender:
            self.begin(migration_id, sender, pids)
        with self._guard:
            _, done, last = self._sending[migration_id]
        while True:
            try:
                answer = done.result(LOOK_EVERY_S)
                break
            except TimeoutError:
                for facts in last:
                    progress(facts)
        self.forget(migration_id)
        return {name: answer[name] for name in ("pages", "bytes", "asked")}

    def forget(self, migration_id: str) -> None:
        with self._guard:
            self._sending.pop(migration_id, None)
