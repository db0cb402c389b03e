"""Follow a move to its end on the terminal, and what Ctrl-C does meanwhile."""

from __future__ import annotations

import enum
import os
import queue
import sys
import threading
from typing import TYPE_CHECKING

from migrate.cli import failures
from migrate.cli.interrupts import Interrupts
from migrate.cli.sight import Sight
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
LOOK_S = 0.2  # how long Ctrl-C may go unnoticed where it came right before a wait, or to another thread


class _Sign(enum.Enum):
    """What is waited for besides events and the error that ends them."""

    END = enum.auto()
    INTERRUPT = enum.auto()


class Following:
    """Follows a move through the end and the return of the coordinator too: migrate/cli/sight.py.

    Reads events in a thread of its own, so that Ctrl-C comes between two events and never inside gRPC.
    """

    def __init__(self, client: Client, moving: Moving, shown: View) -> None:
        self._client = client
        self._shown = shown
        self._news: queue.SimpleQueue[Event | str | BaseException | _Sign] = queue.SimpleQueue()  # str: for people
        self._moving = Sight(client, moving, self._news.put)
        self._interrupts = Interrupts(lambda: self._news.put(_Sign.INTERRUPT))
        self._answered = 0  # interrupts up to this one
        self._asked = False
        self._cancelled = False
        self._wants_cancel = False
        self._leaving = False

    def to_the_end(self) -> int:
        """The exit status: 0, that of the move's error, or 130 after Ctrl-C."""
        threading.Thread(target=self._read, name="events", daemon=True).start()
        with self._interrupts:
            try:
                while not self._leaving and self._step():
                    pass
            finally:
                self._shown.pause()
        return 130 if self._cancelled or self._leaving or self._wants_cancel else 0

    def _read(self) -> None:
        try:
            for event in self._moving:
                self._news.put(event)
            self._news.put(_Sign.END)
        except BaseException as exc:  # noqa: BLE001  # handed to the main thread, which raises it
            self._news.put(exc)

    def _step(self) -> bool:
        """Show one event, or answer Ctrl-C; False at the end."""
        try:
            news = self._news.get(timeout=LOOK_S)
        except queue.Empty:
            return True
        if news is _Sign.INTERRUPT:
            if self._interrupts.count > self._answered:  # not one that has been the answer to a question
                self._on_interrupt()
            return True
        if isinstance(news, (_Sign, BaseException)):
            self._end(news)
            return False
        if isinstance(news, str):
            self._shown.pause()
            print(news, file=sys.stderr)
            return True
        self._shown.show(news)
        if self._wants_cancel and not self._leaving:
            self._cancel()  # asked for before the move had an id; asking twice changes nothing
        return True

    def _end(self, news: BaseException | _Sign) -> None:
        record = self._moving.record
        if record is not None:
            self._shown.finish(record)
        self._shown.pause()
        if record is not None and record.state == "cancelled":
            self._cancelled = True
            print(f"cancelled: {record.container} runs on {record.source} as before", file=sys.stderr)
        elif isinstance(news, BaseException):
            raise news

    def _on_interrupt(self) -> None:
        self._shown.pause()
        answer: str | None = None
        if os.isatty(0) and sys.stderr.isatty():
            answer = self._interrupts.ask(QUESTION.format(id=self._moving.migration_id))
        self._answered = self._interrupts.count
        if answer is None or answer.strip().lower().startswith("c"):
            self._wants_cancel = True
            self._cancel()
        elif not answer or answer.strip().lower().startswith("d"):
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
