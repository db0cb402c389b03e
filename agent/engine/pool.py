"""The agent's side of the zygote: idle monitors made ahead of need, so that no start waits for a Python.

    take() ──► an idle monitor of the pool, or one that is forked now; a thread of the pool makes the next one

Threaded; nothing forks here but subprocess.Popen (vfork + exec), once for the zygote. Idle monitors hold a connection to this agent and
end when it does.
"""

from __future__ import annotations

import contextlib
import logging
import os
import select
import signal
import socket
import subprocess
import sys
import threading
import time
from collections import deque
from dataclasses import dataclass
from pathlib import Path

from agent.engine import interpreter, sync
from agent.engine.cgroup import Cgroup
from agent.engine.launch import ContainerStartError
from agent.engine.monitor import NOBODYS
from agent.errors import AgentError
from agent.linux import process
from agent.linux.rtnetlink import RouteSocket

PACKAGE_ROOT = Path(__file__).resolve().parents[2]
FORK_LIMIT_S = 60.0  # a host under load starts a Python in 20 s, it was seen
REST_S = 0.1  # after a start, before the next monitor is made: a fork takes time from what runs
RETRY_S = 5.0
_ENVIRONMENT = {"PATH": "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin", "LC_ALL": "C.UTF-8"}

log = logging.getLogger(__name__)


class MonitorProcess:
    """A monitor, which is the zygote's child: named by a pidfd, so that a number that is used again does no harm."""

    def __init__(self, pid: int, pidfd: int) -> None:
        self.pid = pid
        self._pidfd = pidfd  # -1: it has ended
        self._guard = threading.Lock()

    def kill(self) -> None:
        with self._guard, contextlib.suppress(ProcessLookupError):
            if self._pidfd >= 0:
                process.pidfd_send_signal(self._pidfd, signal.SIGKILL)

    def wait(self, timeout_s: float | None = None) -> bool:
        """Whether it has ended: then its descriptors, and what they held, are gone. Forgets it. For one thread."""
        if self._pidfd < 0:
            return True
        poller = select.poll()
        poller.register(self._pidfd, select.POLLIN)
        if not poller.poll(None if timeout_s is None else timeout_s * 1000):
            return False
        self.forget()
        return True

    def forget(self) -> None:
        with self._guard:
            if self._pidfd >= 0:
                os.close(self._pidfd)
                self._pidfd = -1


@dataclass(frozen=True, kw_only=True)
class Idle:
    """A monitor that has not been told what for. `connection`: to it, as its first client; `pid`, `start_ticks`: of its stage, which has
    the namespaces init.AHEAD; `inside`: a socket of their network.
    """

    process: MonitorProcess
    connection: socket.socket
    pid: int
    start_ticks: int
    inside: RouteSocket

    def alive(self) -> bool:
        readable, _, _ = select.select([self.connection], [], [], 0)
        if readable or self.process.wait(0):  # it says nothing unasked: that is its end
            return False
        try:
            return process.start_ticks(self.pid) == self.start_ticks
        except OSError:
            return False  # its stage was killed

    def close(self) -> None:
        self.inside.close()
        self.connection.close()
        self.process.forget()


class Pool:
    """One an agent. `cgroup`: of monitors; `log_path`: what the zygote, and monitors before their time, say."""

    def __init__(self, log_path: Path, cgroup: Cgroup | None, *, size: int, package_root: Path = PACKAGE_ROOT) -> None:
        self._log_path = log_path
        self._cgroup = cgroup
        self._size = size
        self._package_root = package_root
        self._idle: deque[Idle] = deque()
        self._guard = threading.Condition()
        self._forking = threading.Lock()  # around everything about the zygote
        self._zygote: subprocess.Popen[bytes] | None = None
        self._channel: socket.socket | None = None
        self._taken = 0.0  # monotonic: the last time
        self._closed = False
        self._filler: threading.Thread | None = None

    def start(self) -> None:
        """Begin to make monitors ahead of need. Without it every take() makes its own."""
        if self._size and self._filler is None:
            self._filler = threading.Thread(target=self._fill, name="monitors", daemon=True)
            self._filler.start()

    def take(self) -> Idle:
        """Raises ContainerStartError (step "monitor") with the end of the zygote's log, and after close()."""
        while True:
            with self._guard:
                self._taken = time.monotonic()
                self._guard.notify_all()
                idle = self._idle.popleft() if self._idle else None
            if idle is None:
                return self._fork()
            if idle.alive():
                return idle
            idle.close()  # killed while it waited

    def close(self) -> None:
        """The agent ends: the zygote and the idle monitors do too, at the end of their connections."""
        with self._guard:
            self._closed = True
            idle, self._idle = list(self._idle), deque()
            self._guard.notify_all()
        for one in idle:
            one.close()
        with self._forking:
            self._end_zygote()

    # ------------------------------------------------------------ ahead of need

    def _fill(self) -> None:
        while True:
            with self._guard:
                while not self._closed and (len(self._idle) >= self._size or time.monotonic() - self._taken < REST_S):
                    self._guard.wait(None if len(self._idle) >= self._size else REST_S)
                if self._closed:
                    return
            try:
                idle = self._fork()
            except AgentError as exc:
                if self._ending():
                    return
                log.error("no monitor can be made ahead of need: %s", exc.message)
                time.sleep(RETRY_S)
                continue
            if not self._keep(idle):
                idle.close()

    def _keep(self, idle: Idle) -> bool:
        with self._guard:
            if not self._closed:
                self._idle.append(idle)
            return not self._closed

    def _ending(self) -> bool:
        with self._guard:
            return self._closed

    # ------------------------------------------------------------ the zygote

    def _fork(self) -> Idle:
        with self._forking:
            if self._ending():  # another zygote would be nobody's, and nobody would end it
                raise ContainerStartError("no monitor starts: the agent is ending", step="monitor", errno=0)
            if self._zygote is not None:
                try:
                    return self._ask_zygote()
                except (OSError, sync.ProtocolError) as exc:
                    log.warning("the zygote of the monitors is gone (%s): starting another", exc)
            self._spawn_zygote()
            try:
                return self._ask_zygote()
            except (OSError, sync.ProtocolError) as exc:
                self._end_zygote()
                said = _last_lines(self._log_path) or str(exc)
                raise ContainerStartError(f"no monitor starts: {said}", step="monitor", errno=0) from exc

    def _ask_zygote(self) -> Idle:
        assert self._channel is not None
        ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        try:
            with theirs:
                sync.send(self._channel, {"cmd": "fork"}, [theirs.fileno()])
            answer, fds = sync.receive(self._channel)
            if answer is None or not fds:
                raise ConnectionResetError("it has ended" if answer is None else "its monitor has ended")
            return _prepared(MonitorProcess(int(answer["pid"]), fds[0]), ours)
        except BaseException:
            ours.close()
            raise

    def _spawn_zygote(self) -> None:
        self._end_zygote()
        self._channel, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        self._channel.settimeout(FORK_LIMIT_S)
        script = self._package_root / "agent" / "monitor.py"
        self._log_path.parent.mkdir(parents=True, exist_ok=True)
        with theirs, self._log_path.open("wb") as words:
            self._zygote = subprocess.Popen(
                [sys.executable, "-I", "-S", str(script), str(self._package_root), NOBODYS],
                executable=interpreter.path(),
                stdin=theirs.fileno(),
                stdout=subprocess.DEVNULL,
                stderr=words,
                cwd="/",
                env=_ENVIRONMENT,
                start_new_session=True,  # stopping the agent leaves what it forks alone
            )
        if self._cgroup is not None:
            self._cgroup.create()
            self._cgroup.add(self._zygote.pid)

    def _end_zygote(self) -> None:
        if self._channel is not None:
            self._channel.close()
            self._channel = None
        if self._zygote is not None:
            self._zygote.kill()  # nothing is lost: it holds nothing, and its monitors do not notice
            self._zygote.wait()
            self._zygote = None


def _prepared(monitor: MonitorProcess, connection: socket.socket) -> Idle:
    """Raises OSError, ProtocolError: then the monitor is no more."""
    try:
        connection.settimeout(FORK_LIMIT_S)
        sync.send(connection, {"cmd": "make-stage"})
        answer, fds = sync.receive(connection)
        connection.settimeout(None)
        if answer is None or not answer.get("ok"):
            raise ConnectionResetError(
                f"its monitor is not ready: {answer['text']}" if answer else "its monitor has ended"
            )
        pid, inside = int(answer["pid"]), RouteSocket(fds[0])
        try:
            ticks = process.start_ticks(pid)
        except OSError:
            inside.close()
            raise
        return Idle(process=monitor, connection=connection, pid=pid, start_ticks=ticks, inside=inside)
    except BaseException:
        monitor.kill()
        monitor.forget()
        raise


def _last_lines(path: Path) -> str:
    try:
        return " / ".join(path.read_text(errors="replace").splitlines()[-3:])
    except OSError:
        return ""
