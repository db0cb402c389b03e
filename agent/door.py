"""The agent's end of every tunnel: a unix socket where `dial` hands over the pipes of an ssh session.

    ssh ─▶ sshd ─▶ dial ──{"verb": "control"}, stdin, stdout──▶ Door ── new connection ──▶ agent.sock (gRPC)
                   dial ──{"verb": "bulk", "migration": ID} ──▶ Door ── Waiting.wait() ──▶ the receiver of that move

dial lives until the door, or the receiver, closes its connection; the door answers only to refuse, with one line.
Whoever connects must be root or of the group, by SO_PEERCRED; what was sent is checked before anything is opened.
"""

from __future__ import annotations

import contextlib
import fcntl
import grp
import json
import logging
import os
import pwd
import re
import socket
import stat
import struct
import threading
import time
from collections.abc import Callable
from pathlib import Path
from types import TracebackType
from typing import Self

from agent import relay
from agent.errors import AlreadyExists, InvalidArgument, TransferError, WrongState
from agent.linux import descriptors

MIGRATION_ID = re.compile(r"[0-9a-f][0-9a-f-]{0,63}")

HEADER_TIMEOUT_S = 5.0
MAX_HEADER_BYTES = 4096
MAX_PENDING = 32  # connections whose header is being read
MAX_SESSIONS = 128  # control sessions; a coordinator needs one or two
PIPE_BYTES = 1 << 20  # an unprivileged process may go this far (fs.pipe-max-size)

log = logging.getLogger(__name__)


Tunnel = tuple[int, int, socket.socket]  # what to read from, what to write to, dial's connection


class _Refused(Exception):
    """The text goes to dial's stderr, so to the ssh client."""


class Waiting:
    """One transfer that a move on this host expects, by one connection or several. From Door.expect(); use as a context manager, or
    close() it.
    """

    def __init__(self, door: Door, migration_id: str, count: int) -> None:
        self.migration_id, self._count = migration_id, count
        self._door = door
        self._arrived = threading.Event()
        self._lock = threading.Lock()
        self._closed = False
        self._tunnels: list[Tunnel] = []

    def wait(self, timeout_s: float) -> Tunnel:
        """wait_all() of the one connection that is expected."""
        return self.wait_all(timeout_s)[0]

    def wait_all(self, timeout_s: float) -> list[Tunnel]:
        """All that are expected, in the order in which they came, once. The caller owns and closes them.

        dial, and with it the ssh session, lives until its `connection` is closed. Raises TransferError when not all came in
        `timeout_s` seconds, or close() was called meanwhile; after a timeout it may be called again.
        """
        if not self._arrived.wait(timeout_s):
            raise TransferError(
                f"no tunnel for migration {self.migration_id} arrived within {timeout_s:g} s"
                + (f", or not all {self._count} connections of it" if self._count > 1 else ""),
                hint="look at the source's agent log: it opens the tunnel with ssh",
                touched="nothing",
            )
        with self._lock:
            tunnels, self._tunnels = self._tunnels, []
        if not tunnels:
            raise TransferError(
                f"nobody waits for the tunnel of migration {self.migration_id} any more", touched="nothing"
            )
        return tunnels

    def close(self) -> None:
        """Expect it no more. A tunnel that arrived and was not taken is closed. Idempotent."""
        self._door._forget(self)
        with self._lock:
            self._closed = True
            tunnels, self._tunnels = self._tunnels, []
        self._arrived.set()
        for rx_fd, tx_fd, connection in tunnels:
            os.close(rx_fd)
            os.close(tx_fd)
            connection.close()

    def _deliver(self, rx_fd: int, tx_fd: int, connection: socket.socket) -> bool:
        """False: nobody waits for this one."""
        with self._lock:
            if self._closed or len(self._tunnels) == self._count or self._arrived.is_set():
                return False
            self._tunnels.append((rx_fd, tx_fd, connection))
            if complete := len(self._tunnels) == self._count:
                self._arrived.set()
        if complete:
            self._door._forget(self)
        return True

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, exc: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()


class Door:
    """Listens on `path` (root:`group` 0660): control sessions go to `agent_socket`, bulk ones to who expects them."""

    def __init__(self, path: Path, group: str, agent_socket: Path) -> None:
        self._path, self._group, self._agent_socket = path, group, agent_socket
        self._listener: socket.socket | None = None
        self._lock = threading.Lock()
        self._expected: dict[str, Waiting] = {}
        self._sessions: set[socket.socket] = set()
        self._threads: set[threading.Thread] = set()
        self._pending = threading.BoundedSemaphore(MAX_PENDING)

    def start(self) -> None:
        """Bind and serve in threads. Replaces the socket that a dead agent left; WrongState if somebody serves it."""
        if _answers(self._path):
            raise WrongState(f"another agent serves {self._path}", hint="stop it first")
        self._path.unlink(missing_ok=True)
        listener = socket.socket(socket.AF_UNIX)
        try:
            listener.bind(str(self._path))
            with contextlib.suppress(KeyError):  # no such group: root only, which a host without tunnels may want
                os.chown(self._path, -1, grp.getgrnam(self._group).gr_gid)
            self._path.chmod(0o660)
            listener.listen(MAX_PENDING)
        except OSError:
            listener.close()
            raise
        self._listener = listener
        self._spawn(self._accept, listener)

    def stop(self) -> None:
        """End every control session, close what nobody took. Transfers under way are their receivers' and go on."""
        with self._lock:
            listener, self._listener = self._listener, None
            sessions, expected = list(self._sessions), list(self._expected.values())
        if listener is None:
            return
        listener.shutdown(socket.SHUT_RDWR)  # wakes accept()
        for session in sessions:
            with contextlib.suppress(OSError):  # it ended by itself meanwhile
                session.shutdown(socket.SHUT_RDWR)  # wakes relay()
        for waiting in expected:
            waiting.close()
        self._path.unlink(missing_ok=True)
        deadline = time.monotonic() + HEADER_TIMEOUT_S + 1
        while True:
            with self._lock:
                thread = next(iter(self._threads - {threading.current_thread()}), None)
            if thread is None:
                break
            thread.join(max(0.0, deadline - time.monotonic()))
            if thread.is_alive():
                log.warning("door: thread %s does not end", thread.name)
                break
        listener.close()

    def expect(self, migration_id: str, count: int = 1) -> Waiting:
        """From now on, and until the result is closed, the tunnel of `migration_id` is let in, once: `count` connections.

        Raises AlreadyExists while another one waits for the same move.
        """
        if not MIGRATION_ID.fullmatch(migration_id):
            raise InvalidArgument(f"{migration_id!r} is not a migration id: hexadecimal digits and hyphens, at most 64")
        waiting = Waiting(self, migration_id, count)
        with self._lock:
            if migration_id in self._expected:
                raise AlreadyExists(f"the tunnel of migration {migration_id} is already waited for")
            self._expected[migration_id] = waiting
        return waiting

    def _forget(self, waiting: Waiting) -> None:
        with self._lock:
            if self._expected.get(waiting.migration_id) is waiting:
                del self._expected[waiting.migration_id]

    # ------------------------------------------------------------ one connection

    def _accept(self, listener: socket.socket) -> None:
        while True:
            try:
                connection, _ = listener.accept()
            except OSError as exc:
                if self._listener is None:
                    return
                log.error("door: accept: %s", exc)  # out of descriptors, most likely: do not spin
                time.sleep(0.1)
                continue
            if not self._pending.acquire(blocking=False):
                log.warning("door: more than %d connections are waiting to say what they want", MAX_PENDING)
                _answer(connection, "too many connections at once; try again")
                connection.close()
                continue
            self._spawn(self._admit, connection)

    def _admit(self, connection: socket.socket) -> None:
        with contextlib.ExitStack() as opened:
            opened.callback(connection.close)
            try:
                try:
                    self._check_peer(connection)
                    request, rx_fd, tx_fd = _read_request(connection, opened)
                finally:
                    self._pending.release()
                connection.settimeout(None)
                if request.get("verb") == "control":
                    self._control(rx_fd, tx_fd, connection)
                elif request.get("verb") == "bulk":
                    self._bulk(request.get("migration"), rx_fd, tx_fd, connection)
                    opened.pop_all()  # the receiver's now
                else:
                    raise _Refused(f"unknown verb {request.get('verb')!r}")
            except _Refused as exc:
                log.warning("door: refused: %s", exc)
                _answer(connection, str(exc))

    def _bulk(self, migration_id: object, rx_fd: int, tx_fd: int, connection: socket.socket) -> None:
        """Gives all three to the receiver."""
        if not isinstance(migration_id, str) or not MIGRATION_ID.fullmatch(migration_id):
            raise _Refused("bulk needs a migration id")
        _enlarge(rx_fd)
        _enlarge(tx_fd)
        with self._lock:
            waiting = self._expected.get(migration_id)
        if waiting is None or not waiting._deliver(rx_fd, tx_fd, connection):
            raise _Refused(f"no migration {migration_id} waits for a tunnel here")

    def _control(self, rx_fd: int, tx_fd: int, connection: socket.socket) -> None:
        """Returns when the session is over."""
        with socket.socket(socket.AF_UNIX) as agent:
            try:
                agent.connect(str(self._agent_socket))
            except OSError as exc:
                raise _Refused(f"the agent does not answer on {self._agent_socket}: {exc.strerror}") from exc
            with self._lock:
                if self._listener is None:
                    raise _Refused("the agent is stopping")
                if len(self._sessions) >= MAX_SESSIONS:
                    raise _Refused(f"{MAX_SESSIONS} control sessions are open already")
                self._sessions.add(connection)
            try:
                relay.relay(rx_fd, tx_fd, agent, connection)
            finally:
                with self._lock:
                    self._sessions.discard(connection)

    def _check_peer(self, connection: socket.socket) -> None:
        credentials = connection.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, struct.calcsize("3i"))
        _, uid, gid = struct.unpack("3i", credentials)
        if uid != 0 and gid != self._group_id() and uid not in self._member_uids():
            raise _Refused(f"uid {uid} is not in group {self._group}")

    def _group_id(self) -> int | None:
        try:
            return grp.getgrnam(self._group).gr_gid
        except KeyError:
            return None

    def _member_uids(self) -> set[int]:
        uids: set[int] = set()
        try:
            names = grp.getgrnam(self._group).gr_mem
        except KeyError:
            return uids
        for name in names:
            with contextlib.suppress(KeyError):  # a group may list users that are gone
                uids.add(pwd.getpwnam(name).pw_uid)
        return uids

    def _spawn(self, target: Callable[[socket.socket], object], argument: socket.socket) -> None:
        def run() -> None:
            try:
                target(argument)
            finally:
                with self._lock:
                    self._threads.discard(thread)

        thread = threading.Thread(target=run, name=f"door-{getattr(target, '__name__', '')}", daemon=True)
        with self._lock:  # stop() must not find one that cannot be joined yet
            self._threads.add(thread)
            thread.start()


# ---------------------------------------------------------------- the request


def _read_request(connection: socket.socket, opened: contextlib.ExitStack) -> tuple[dict[str, object], int, int]:
    """The JSON line and the two descriptors; whatever came is closed by `opened`."""
    deadline = time.monotonic() + HEADER_TIMEOUT_S
    line, fds = b"", list[int]()
    while not line.endswith(b"\n"):
        connection.settimeout(max(0.001, deadline - time.monotonic()))
        try:
            data, received, flags = descriptors.receive(connection, MAX_HEADER_BYTES, 2)
        except OSError as exc:
            raise _Refused(f"no request within {HEADER_TIMEOUT_S:g} s") from exc
        for fd in received:
            opened.callback(os.close, fd)
            fds.append(fd)
        line += data
        if not data or len(line) > MAX_HEADER_BYTES or flags & socket.MSG_CTRUNC or len(fds) > 2:
            raise _Refused("not a request of dial's")
    if len(fds) != 2:
        raise _Refused(f"{len(fds)} descriptors came with the request, not 2")
    for fd in fds:
        mode = os.fstat(fd).st_mode
        if not (stat.S_ISFIFO(mode) or stat.S_ISSOCK(mode)):
            raise _Refused("a descriptor is neither a pipe nor a socket")
    try:
        request = json.loads(line)
    except ValueError as exc:
        raise _Refused("the request is not JSON") from exc
    if not isinstance(request, dict):
        raise _Refused("the request is not a JSON object")
    return request, fds[0], fds[1]


def _answer(connection: socket.socket, text: str) -> None:
    try:
        connection.settimeout(1)
        connection.sendall(text.encode() + b"\n")
    except OSError:
        pass  # nobody listens: the log has it


def _enlarge(fd: int) -> None:
    try:
        fcntl.fcntl(fd, fcntl.F_SETPIPE_SZ, PIPE_BYTES)
    except OSError:
        pass  # a socket, or the user's pipes are at their limit: slower, not wrong


def _answers(path: Path) -> bool:
    with socket.socket(socket.AF_UNIX) as probe:
        try:
            probe.connect(str(path))
        except OSError:
            return False
    return True
