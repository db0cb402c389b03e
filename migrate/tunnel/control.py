"""The coordinator's warm tunnel to one host's agent: gRPC through one ssh connection, for as long as both live.

    channel() ── unix socket in a private directory ── accept ── ssh session, command `control` ── sshd, dial, agent

A connection to the local socket becomes a session of its own; in practice gRPC opens one and keeps it. When ssh dies,
all sessions close, gRPC sees its connection close and connects again, and finds the new ssh connection, or a closed
door at once while there is none. Nothing is replayed: whether to repeat a call is for who made it.
"""

from __future__ import annotations

import contextlib
import logging
import shutil
import socket
import tempfile
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Self

import grpc
import paramiko

from migrate.errors import InvalidArgument, MigrateError, Unreachable
from migrate.rpc import channels
from migrate.rpc import errors as rpc_errors
from migrate.tunnel import transport
from migrate.tunnel.pki import Credentials

FIRST_BACKOFF_S = 0.2
MAX_BACKOFF_S = 5.0
CLOSE_TIMEOUT_S = 2.0
CHUNK_BYTES = 64 << 10

log = logging.getLogger(__name__)


@dataclass(frozen=True, kw_only=True)
class TunnelState:
    """For `migrate hosts`."""

    connected: bool = False
    error: str = "not connected yet"  # of the last attempt or session; "" while all is well
    code: str = "unreachable"
    hint: str = ""
    since_unix_s: float = 0.0  # of the last change of `connected`
    connects: int = 0
    cipher: str = ""


class ControlTunnel:
    """One host. `credentials` is asked before every attempt, so that a renewed certificate is used.

    `runtime_dir`, default the system's for temporary files: where the local socket's directory is made. A process that
    is killed leaves it there; only its owner can tell when it may go. `patience`: what the time for connecting is
    multiplied by.
    """

    def __init__(
        self,
        name: str,
        address: str,
        port: int,
        user: str,
        host_keys: Sequence[str],
        credentials: Callable[[], Credentials],
        *,
        source_address: str | None = None,
        runtime_dir: Path | None = None,
        patience: float = 1.0,
    ) -> None:
        self.name = name
        self._address, self._port, self._user = address, port, user
        self._host_keys, self._credentials, self._source_address = tuple(host_keys), credentials, source_address
        self._connect_limit_s = transport.CONNECT_TIMEOUT_S * patience
        self._changed = threading.Condition()  # guards all below
        self._state = TunnelState(since_unix_s=time.time())
        self._ssh: paramiko.Transport | None = None
        # The first attempt, at the start and after a loss, is worth waiting for. Later ones are not: a host that does
        # not even refuse takes ten seconds each time, and callers want to know at once.
        self._promising = True
        self._closed = False
        self._channel: grpc.Channel | None = None
        self._threads: list[threading.Thread] = []
        self._directory = Path(tempfile.mkdtemp(prefix="" if runtime_dir else "tunnel-", dir=runtime_dir))  # 0700
        self.socket_path = self._directory / "s"  # short names: a socket's whole path takes 107 bytes
        try:
            channels.unix_target(self.socket_path)
        except ValueError as exc:
            self._directory.rmdir()
            raise InvalidArgument(str(exc), hint="give the coordinator's socket a shorter path") from exc
        self._listener = socket.socket(socket.AF_UNIX)

    def start(self) -> Self:
        """Listen, and connect in the background, again and again until close(). Returns itself, at once."""
        self._listener.bind(str(self.socket_path))
        self._listener.listen(16)
        self._spawn(self._keep_connected)
        self._spawn(self._accept)
        return self

    @property
    def state(self) -> TunnelState:
        with self._changed:
            return self._state

    def wait_connected(self, timeout_s: float) -> None:
        """Return once ssh is up; raise Unreachable with the reason of the last failed attempt after `timeout_s`."""
        with self._changed:
            self._changed.wait_for(lambda: self._state.connected or self._closed, timeout_s)
            if not self._state.connected:
                raise self._unreachable()

    def channel(self) -> grpc.Channel:
        """The one gRPC channel to this host's agent; it lives as long as the tunnel and outlives reconnects."""
        with self._changed:
            if self._channel is None:
                self._channel = channels.unix_channel(self.socket_path, connect_limit_s=self._connect_limit_s)
            return self._channel

    @contextlib.contextmanager
    def native(self) -> Iterator[None]:
        """Around a call through channel(): errors of migrate.errors. The tunnel's own failure is told by its reason."""
        try:
            with rpc_errors.native(self.name):
                yield
        except Unreachable as exc:
            with self._changed:
                if self._state.error and exc.code == Unreachable.code:
                    raise self._unreachable() from exc
            raise

    def close(self) -> None:
        """End ssh and everything that runs through it. Idempotent."""
        with self._changed:
            if self._closed:
                return
            self._closed = True
            ssh, channel = self._ssh, self._channel
            self._changed.notify_all()
        if channel is not None:
            channel.close()
        if ssh is not None:
            ssh.close()
        with contextlib.suppress(OSError):  # never started
            self._listener.shutdown(socket.SHUT_RDWR)  # wakes accept()
        deadline = time.monotonic() + CLOSE_TIMEOUT_S
        with self._changed:
            threads = list(self._threads)
        for thread in threads:  # one that is in the middle of connecting ends by itself, and lets go then
            thread.join(max(0.0, deadline - time.monotonic()))
        self._listener.close()
        shutil.rmtree(self._directory, ignore_errors=True)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    # ------------------------------------------------------------ ssh

    def _keep_connected(self) -> None:
        backoff_s = FIRST_BACKOFF_S
        while not self._closed:
            started = time.monotonic()
            ssh = self._attempt()
            if ssh is not None:
                ssh.join()  # paramiko's thread: it ends with the connection
                self._lost(ssh)
                if time.monotonic() - started > MAX_BACKOFF_S:
                    backoff_s = FIRST_BACKOFF_S
                    continue
            with self._changed:
                self._changed.wait_for(lambda: self._closed, backoff_s)
            backoff_s = min(backoff_s * 2, MAX_BACKOFF_S)

    def _attempt(self) -> paramiko.Transport | None:
        try:
            ssh = transport.connect(
                self.name,
                address=self._address,
                port=self._port,
                user=self._user,
                host_keys=self._host_keys,
                credentials=self._credentials(),
                source_address=self._source_address,
                timeout_s=self._connect_limit_s,
            )
        except MigrateError as exc:
            self._set(None, error=exc.message, code=exc.code, hint=exc.hint)
            return None
        except Exception as exc:  # the thread must go on: a tunnel that never comes back needs a restart
            log.exception("tunnel to %s", self.name)
            self._set(None, error=f"{type(exc).__name__}: {exc}", code="internal")
            return None
        log.info("tunnel to %s: connected", self.name)
        self._set(ssh, error="", code="", hint="")
        return ssh

    def _lost(self, ssh: paramiko.Transport) -> None:
        reason = ssh.get_exception()
        ssh.close()
        if not self._closed:
            log.warning("tunnel to %s: lost: %s", self.name, reason)
        self._set(
            None, error=f"the ssh connection to {self.name} ended{f': {reason}' if reason else ''}", promising=True
        )

    def _set(
        self,
        ssh: paramiko.Transport | None,
        *,
        error: str,
        code: str = "unreachable",
        hint: str = "",
        promising: bool = False,
    ) -> None:
        with self._changed:
            before = self._state
            self._ssh, self._promising = ssh, promising
            self._state = TunnelState(
                connected=ssh is not None,
                error=error,
                code=code,
                hint=hint,
                since_unix_s=time.time() if before.connected != (ssh is not None) else before.since_unix_s,
                connects=before.connects + (ssh is not None),
                cipher=getattr(ssh, "remote_cipher", ""),  # missing in the types only
            )
            if self._closed and ssh is not None:
                ssh.close()
            self._changed.notify_all()

    def _unreachable(self) -> Unreachable:
        state = self._state
        # The call may have reached the agent before the tunnel broke.
        return Unreachable(
            state.error or f"{self.name} is not connected",
            code=state.code,
            hint=state.hint or rpc_errors.LOOK_FIRST,
            touched="something",
        )

    # ------------------------------------------------------------ sessions

    def _accept(self) -> None:
        while True:
            try:
                local, _ = self._listener.accept()
            except OSError as exc:
                if self._closed:
                    return
                log.error("tunnel to %s: accept: %s", self.name, exc)  # out of descriptors, most likely: do not spin
                time.sleep(0.1)
                continue
            self._spawn(self._serve, local)

    def _serve(self, local: socket.socket) -> None:
        with local:
            with self._changed:
                self._changed.wait_for(lambda: self._closed or not self._promising, self._connect_limit_s)
                ssh = self._ssh
            if ssh is None or self._closed:
                return
            try:
                session = ssh.open_session(timeout=self._connect_limit_s)
                try:
                    session.exec_command("control")  # the certificate forces it anyway
                    self._pump(local, session)
                finally:
                    _close(session)
            except (paramiko.SSHException, EOFError, OSError) as exc:
                log.info("tunnel to %s: session: %s", self.name, exc)

    def _pump(self, local: socket.socket, session: paramiko.Channel) -> None:
        """Both ways until the agent's side is through."""
        outward = self._spawn(_send, local, session)
        heard = False
        try:
            while data := session.recv(CHUNK_BYTES):
                local.sendall(data)
                if not heard:
                    heard = True
                    self._set_session_error("")
            if not heard and session.status_event.wait(2):  # its line on stderr comes before its exit status
                refusal = session.recv_stderr(4096).decode(errors="replace") if session.recv_stderr_ready() else ""
                self._set_session_error(refusal.strip().removeprefix("dial: ") or "the agent hung up")
        finally:
            _close(session)
            with contextlib.suppress(OSError):  # gRPC closed first
                local.shutdown(socket.SHUT_RDWR)  # wakes _send
            outward.join()

    def _set_session_error(self, text: str) -> None:
        with self._changed:
            if self._state.connected:
                self._state = replace(
                    self._state, error=f"{self.name}: {text}" if text else "", code="tunnel.agent" if text else ""
                )

    def _spawn(self, target: Callable[..., None], *arguments: object) -> threading.Thread:
        def run() -> None:
            try:
                target(*arguments)
            finally:
                with self._changed:
                    self._threads.remove(thread)

        thread = threading.Thread(target=run, name=f"tunnel-{self.name}-{target.__name__}", daemon=True)
        with self._changed:  # close() must not find one that cannot be joined yet
            self._threads.append(thread)
            thread.start()
        return thread


def _send(local: socket.socket, session: paramiko.Channel) -> None:
    try:
        while data := local.recv(CHUNK_BYTES):
            session.sendall(data)
        session.shutdown_write()
    except (paramiko.SSHException, EOFError, OSError):
        _close(session)  # wakes the other direction


def _close(session: paramiko.Channel) -> None:
    """Paramiko marks it closed, which is what we need, and then tries to tell a peer that may be gone."""
    with contextlib.suppress(paramiko.SSHException, EOFError, OSError):
        session.close()
