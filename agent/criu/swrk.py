"""One `criu swrk`: a child of the monitor, a SOCK_SEQPACKET pair, one request. Standard library only.

CRIU sends a notification and waits, as long as it takes, for the answer; `answer` may come from a later callback of the loop.
"""

from __future__ import annotations

import array
import os
import signal
import socket
from collections.abc import Callable, Mapping

from agent.criu import rpc
from agent.engine.eventloop import Loop

RPC_FD = 200  # what CRIU finds its socket at; the numbers above belong to inherit_fd (options.py)
_PACKET_BYTES = 1 << 16
_DEFAULT_SIGNALS = (signal.SIGHUP, signal.SIGINT, signal.SIGTERM, signal.SIGPIPE, signal.SIGCHLD)


class Swrk:
    """Callbacks: `on_notify(script, pid, descriptors)`, then exactly one `on_end(response)`: None when CRIU died without one."""

    def __init__(
        self,
        loop: Loop,
        binary: str,
        *,
        inherit: Mapping[int, int],
        on_notify: Callable[[str, int, list[int]], None],
        on_end: Callable[[rpc.Response | None], None],
        environment: Mapping[str, str] = {},
    ) -> None:
        """CRIU starts, and waits for `request`. `inherit`: number in CRIU -> our descriptor; `environment`: more than PATH and LANG.

        Raises OSError when it cannot be started.
        """
        self._loop, self._on_notify, self._on_end = loop, on_notify, on_end
        self._response: rpc.Response | None = None
        self._open = True
        self._socket, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        numbers = {RPC_FD: theirs.fileno(), **inherit}
        try:
            for number, fd in numbers.items():
                os.dup2(fd, number, inheritable=True)
            variables = {name: os.environ[name] for name in ("PATH", "LANG") if name in os.environ} | dict(environment)
            # The monitor ignores what would end it, and ignored signals are inherited: CRIU ends its helpers by SIGTERM.
            self.pid = os.posix_spawnp(
                binary, [binary, "swrk", str(RPC_FD)], variables, setsigmask=(), setsigdef=_DEFAULT_SIGNALS
            )
        finally:
            theirs.close()
            for number in numbers:
                os.close(number)
        self._socket.setblocking(False)
        loop.add_reader(self._socket.fileno(), self._readable)
        loop.on_exit(self.pid, self._exited)

    def request(self, request: bytes) -> None:
        """Once. Nothing happens when CRIU is gone: `on_end` tells."""
        self._send(request)

    @property
    def alive(self) -> bool:
        return self._open

    def answer(self, success: bool) -> None:
        """Answer the notification that CRIU waits in. Nothing happens when CRIU is gone: `on_end` tells."""
        self._send(rpc.notification_answer(success))

    def _send(self, packet: bytes) -> None:
        try:
            self._socket.send(packet)
        except OSError:
            pass  # its end is on the way

    def kill(self) -> None:
        """SIGKILL. What CRIU traces is then let go: only for tasks that are frozen, dead or about to be."""
        if self._open:
            try:
                os.kill(self.pid, signal.SIGKILL)
            except ProcessLookupError:
                pass  # reaped, the callback is on the way

    def _readable(self) -> None:
        try:
            packet, ancillary, _, _ = self._socket.recvmsg(_PACKET_BYTES, socket.CMSG_SPACE(16))
        except BlockingIOError:
            return
        except ConnectionResetError:
            packet, ancillary = b"", []
        fds = array.array("i")
        for _, kind, data in ancillary:
            if kind == socket.SCM_RIGHTS:
                fds.frombytes(data)
        if not packet:
            self._loop.remove_reader(self._socket.fileno())  # its exit is what counts
            return
        response = rpc.parse(packet)
        if response.kind == rpc.NOTIFY:
            self._on_notify(response.script, response.pid, list(fds))
        else:
            self._response = response

    def _exited(self, _code: int) -> None:
        while self._open and self._drain():
            pass
        self._open = False
        self._loop.remove_reader(self._socket.fileno())
        self._socket.close()
        self._on_end(self._response)

    def _drain(self) -> bool:
        """Take a last response that was sent before the exit."""
        try:
            packet = self._socket.recv(_PACKET_BYTES)
        except OSError:
            return False
        if packet:
            response = rpc.parse(packet)
            if response.kind != rpc.NOTIFY:
                self._response = response
        return bool(packet)
