"""A process's stdio on this terminal: raw mode, window size, signals, and everything put back on all paths."""

from __future__ import annotations

import contextlib
import os
import select
import signal
import sys
import termios
import threading
import tty
from collections.abc import Callable, Iterator
from types import FrameType
from typing import TYPE_CHECKING, Any

from migrate.errors import InvalidArgument, MigrateError, NotFound

if TYPE_CHECKING:
    from migrate.client import Client, Session
    from migrate.records import Container

DETACH_KEYS = b"\x10\x11"  # ctrl-p ctrl-q, as Docker's
STREAMS = frozenset({"stdin", "stdout", "stderr"})
ENOUGH = 3  # SIGINT or SIGTERM so often: stop forwarding and leave
FORWARDED = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP, signal.SIGQUIT, signal.SIGUSR1, signal.SIGUSR2)


class Detached(Exception):  # not an error: somebody typed the keys
    """The detach keys were typed."""


class DetachKeys:
    """Finds the detach keys in what is typed, also when they come in several reads; without keys nothing is one."""

    def __init__(self, keys: bytes = DETACH_KEYS) -> None:
        self._keys = keys
        self._held = b""

    def feed(self, data: bytes) -> tuple[bytes, bool]:
        """What to pass on, and whether the keys were typed. A beginning of them is held until the next key."""
        data = self._held + data
        self._held = b""
        if not self._keys:
            return data, False
        before, found, _ = data.partition(self._keys)
        if found:
            return before, True
        for length in range(min(len(self._keys) - 1, len(data)), 0, -1):
            if data.endswith(self._keys[:length]):
                self._held = data[-length:]
                return data[:-length], False
        return data, False


def window_size() -> tuple[int, int]:
    """(rows, columns) of the terminal, (0, 0) where there is none."""
    for fd in (0, 1, 2):
        try:
            size = os.get_terminal_size(fd)
        except OSError:
            continue  # this one is a pipe or a file
        return size.lines, size.columns
    return 0, 0


@contextlib.contextmanager
def raw_mode(fd: int) -> Iterator[None]:
    """Keys go through as typed; the terminal is as before at the end, whatever the end is."""
    if not os.isatty(fd):
        yield
        return
    before = termios.tcgetattr(fd)
    try:
        tty.setraw(fd)
        yield
    finally:
        with contextlib.suppress(termios.error):  # hung up: no terminal left to restore
            termios.tcsetattr(fd, termios.TCSADRAIN, before)


@contextlib.contextmanager
def handlers(action: Callable[[int], None], *numbers: int) -> Iterator[None]:
    """`action(number)` for each of these signals while inside."""

    def handle(number: int, _frame: FrameType | None) -> None:
        action(number)

    before: dict[int, Any] = {number: signal.signal(number, handle) for number in numbers}
    try:
        yield
    finally:
        for number, previous in before.items():
            signal.signal(number, previous)


def converse(
    session: Session,
    *,
    interactive: bool,
    is_tty: bool,
    detach_keys: bytes = DETACH_KEYS,
    sig_proxy: bool = True,
    streams: frozenset[str] = STREAMS,
) -> int:
    """Copy both ways until the process ends; returns its exit code. What is not of `streams` is not copied. Raises Detached."""
    detached = threading.Event()
    asked: list[int] = []
    done_read, done_write = os.pipe()

    def resize(_number: int) -> None:
        session.resize(*window_size())

    def forward(number: int) -> None:
        asked.append(number)
        if len([one for one in asked if one in (signal.SIGINT, signal.SIGTERM)]) >= ENOUGH:
            raise KeyboardInterrupt  # whoever asks again and again wants to leave
        session.signal(signal.Signals(number).name)

    def leave(number: int) -> None:
        raise SystemExit(128 + number)  # not the default action, which would leave the terminal raw

    def on_detach() -> None:
        detached.set()
        session.close()

    reader = threading.Thread(
        target=_copy_stdin,
        args=(session, done_read, DetachKeys(detach_keys) if is_tty else None, on_detach),
        name="stdin",
        daemon=True,
    )
    with contextlib.ExitStack() as stack:
        stack.callback(os.close, done_read)
        stack.callback(os.close, done_write)
        if is_tty:
            stack.enter_context(handlers(resize, signal.SIGWINCH))
        if is_tty and interactive:
            stack.enter_context(raw_mode(0))
            stack.enter_context(handlers(leave, signal.SIGTERM, signal.SIGHUP))
        elif sig_proxy:
            stack.enter_context(handlers(forward, *FORWARDED))
        if interactive:
            reader.start()
            stack.callback(reader.join)
        stack.callback(os.write, done_write, b".")  # before the join: it wakes the reader
        try:
            for output in session:
                if output.stream not in streams:
                    continue
                sink = sys.stderr.buffer if output.stream == "stderr" else sys.stdout.buffer
                sink.write(output.data)
                sink.flush()
        except MigrateError:
            if detached.is_set():
                raise Detached from None
            raise
    assert session.exit_code is not None, "the iteration of a session ends with an exit code or an error"
    return session.exit_code


def _copy_stdin(session: Session, done: int, keys: DetachKeys | None, on_detach: Callable[[], None]) -> None:
    """Until end-of-file, the detach keys, or a byte on `done`."""
    while True:
        ready, _, _ = select.select([0, done], [], [])
        if done in ready:
            return
        try:
            data = os.read(0, 1 << 16)
        except OSError:
            data = b""  # the terminal was hung up
        if not data:
            session.close_stdin()
            return
        if keys is not None:
            data, typed = keys.feed(data)
            if typed:
                on_detach()
                return
        if data:
            session.send(data)


def need_terminal() -> None:
    """-t with a pipe for stdin cannot work; say so before anything is started."""
    if not os.isatty(0):
        raise InvalidArgument("the input is not a terminal, and -t needs one", hint="leave out -t, or use -i alone")


def run_attached(
    client: Client,
    container: Container,
    *,
    detach_keys: bytes = DETACH_KEYS,
    sig_proxy: bool = True,
    streams: frozenset[str] = STREAMS,
) -> int:
    """`migrate run` in the foreground, after the creation; returns the container's exit code. What never ran is removed."""
    return start_attached(
        client,
        container,
        interactive=container.stdin_open and "stdin" in streams,
        detach_keys=detach_keys,
        sig_proxy=sig_proxy,
        streams=streams,
        never_ran=lambda: client.remove(container.id, force=True),
    )


def start_attached(
    client: Client,
    container: Container,
    *,
    interactive: bool,
    detach_keys: bytes = DETACH_KEYS,
    sig_proxy: bool = True,
    streams: frozenset[str] = STREAMS,
    never_ran: Callable[[], None] = lambda: None,
) -> int:
    """Attach, start, converse; returns the container's exit code. `never_ran`: what to do where it did not start."""
    rows, columns = window_size() if container.tty else (0, 0)
    try:
        session = client.attach(container.id, stdin=interactive, tty=container.tty, rows=rows, columns=columns)
        try:
            session.wait_started()
            if container.state != "running":
                client.start(container.id)
        except BaseException:
            session.close()
            raise
    except BaseException:
        with contextlib.suppress(MigrateError):
            never_ran()
        raise
    try:
        status = converse(
            session,
            interactive=interactive,
            is_tty=container.tty,
            detach_keys=detach_keys,
            sig_proxy=sig_proxy,
            streams=streams,
        )
    except Detached:
        print(f"\r\ndetached; {container.name} runs on: migrate attach {container.name}", file=sys.stderr)
        return 0
    if container.remove_on_exit:  # its host does that by itself; when we return it is done, and the name is free
        with contextlib.suppress(NotFound):
            client.remove(container.id, force=True)
    return status
