"""Follow a move to its end on the terminal, and what Ctrl-C does meanwhile."""

from __future__ import annotations

import contextlib
import os
import queue
import sys
import threading
from typing import TYPE_CHECKING

from migrate.cli import failures
from migrate.errors import MigrateError

if TYPE_CHECKING:
    from migrate.cli.progress import View
    from migrate.client import Client, Moving
    from migrate.records import Event

QUESTION = """
The move {id} goes on while you decide.
  c, or Ctrl-C again   cancel it: the container stays where it is
  d                    leave it alone and stop watching
  Enter                go on watching
> """


class Following:
    """Reads events in a thread of its own, so that Ctrl-C comes between two events and never inside gRPC."""

    def __init__(self, client: Client, moving: Moving, shown: View) -> None:
        self._client = client
        self._moving = moving
        self._shown = shown
        self._news: queue.SimpleQueue[Event | BaseException | None] = queue.SimpleQueue()
        self._asked = False
        self._cancelled = False
        self._wants_cancel = False
        self._leaving = False

    def to_the_end(self) -> int:
        """The exit status: 0, that of the move's error, or 130 after Ctrl-C."""
        threading.Thread(target=self._read, name="events", daemon=True).start()
        try:
            while not self._leaving:
                try:
                    if not self._step():
                        break
                except KeyboardInterrupt:
                    self._on_interrupt()
        finally:
            self._shown.pause()
        return 130 if self._cancelled or self._leaving or self._wants_cancel else 0

    def _read(self) -> None:
        try:
            for event in self._moving:
                self._news.put(event)
            self._news.put(None)
        except BaseException as exc:  # noqa: BLE001  # handed to the main thread, which raises it
            self._news.put(exc)

    def _step(self) -> bool:
        """Show one event; False at the end."""
        news = self._news.get()
        if news is None or isinstance(news, BaseException):
            record = self._moving.record
            if record is not None:
                self._shown.finish(record)
            self._shown.pause()
            if record is not None and record.state == "cancelled":
                self._cancelled = True
                print(f"cancelled: {record.container} runs on {record.source} as before", file=sys.stderr)
                return False
            if news is not None:
                raise news
            return False
        self._shown.show(news)
        if self._wants_cancel and not self._leaving:
            self._cancel()  # asked for before the move had an id; asking twice changes nothing
        return True

    def _on_interrupt(self) -> None:
        self._shown.pause()
        if not (os.isatty(0) and sys.stderr.isatty()):
            self._wants_cancel = True
            self._cancel()
            return
        answer = "c"
        with contextlib.suppress(KeyboardInterrupt):
            print(QUESTION.format(id=self._moving.migration_id), end="", file=sys.stderr, flush=True)
            line = sys.stdin.readline()
            answer = line.strip().lower() if line else "d"
        if answer.startswith("c"):
            self._wants_cancel = True
            self._cancel()
        elif answer.startswith("d"):
            self._leave("the move goes on")

    def _cancel(self) -> None:
        migration_id = self._moving.migration_id
        if not migration_id or self._asked:
            return
        self._asked = True
        try:
            _, text = self._client.cancel(migration_id)
            print(text or "cancelling: waiting until everything is undone", file=sys.stderr)
        except MigrateError as exc:
            failures.report(exc)
            self._leave("the move completes by itself")

    def _leave(self, why: str) -> None:
        self._leaving = True
        print(f"{why}; look again with: migrate migrations show {self._moving.migration_id}", file=sys.stderr)
        self._moving.close()
