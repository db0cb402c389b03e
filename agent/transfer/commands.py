"""How an agent talks to its transfer process: JSON lines over a stream socket, one command at a time.

    agent → process   {"command": NAME, ...}
    process → agent   {"progress": {...}} any number of times, then {"ok": true, ...} or {"ok": false, "code", "message", "hint", "detail"}
    agent → process   {"tell": NAME, ...} at any time: acted on at once, beside the command under way, and not answered

When the agent goes away the process sees the end of the stream.
"""

from __future__ import annotations

import json
import os
import queue
import socket
import subprocess
import sys
import threading
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from agent.errors import AgentError, TransferError

Progress = Callable[[Mapping[str, Any]], None]
Handler = Callable[[dict[str, Any], Progress], Mapping[str, Any]]
ROOT = Path(__file__).resolve().parents[2]
STOP_LIMIT_S = 5.0


def serve(
    connection: socket.socket, handlers: Mapping[str, Handler], told: Mapping[str, Callable[[dict[str, Any]], object]]
) -> None:
    """In the process: answer commands, and do what is told, until the agent goes away."""
    commands: queue.SimpleQueue[dict[str, Any] | None] = queue.SimpleQueue()

    def listen() -> None:
        try:
            for line in stream:
                message = json.loads(line)
                if "tell" in message:
                    told[message["tell"]](message)
                else:
                    commands.put(message)
        finally:
            commands.put(None)

    with connection.makefile("rb") as stream:

        def send(value: Mapping[str, Any]) -> None:
            connection.sendall(json.dumps(value).encode() + b"\n")

        threading.Thread(target=listen, name="listen", daemon=True).start()
        while (command := commands.get()) is not None:
            try:
                result = handlers[command["command"]](command, lambda facts: send({"progress": facts}))
                send({"ok": True, **result})
            except AgentError as exc:
                send({"ok": False, "code": exc.code, "message": exc.message, "hint": exc.hint, "detail": exc.detail})
            except OSError as exc:
                send({"ok": False, "code": "transfer", "message": f"{exc}", "hint": "", "detail": ""})


class TransferProcess:
    """In the agent: a running transfer process. Thread-safe; one command at a time."""

    def __init__(self, module: str, arguments: list[str], *, pass_fds: tuple[int, ...] = (), log: Path) -> None:
        """Start `python -m MODULE --control-fd N ARGUMENTS`. It leads a session of its own, so that it can outlive us if it wants to."""
        self._socket, theirs = socket.socketpair()
        self._lock = threading.Lock()
        with theirs, log.open("ab") as log_file:
            argv = [sys.executable, "-m", module, "--control-fd", str(theirs.fileno()), *arguments]
            self._process = subprocess.Popen(
                argv,
                cwd=ROOT,
                stdin=subprocess.DEVNULL,
                stdout=log_file,
                stderr=log_file,
                pass_fds=(theirs.fileno(), *pass_fds),
                start_new_session=True,
                # numpy's BLAS does nothing for us, and its threads spin while they wait for work.
                env={**os.environ, "PYTHONUNBUFFERED": "1", "OPENBLAS_NUM_THREADS": "1"},
            )
        self._stream = self._socket.makefile("rb")
        self._sending = threading.Lock()
        self._log = log
        self._closed = False

    @property
    def pid(self) -> int:
        return self._process.pid

    def request(self, command: str, on_progress: Progress = lambda _facts: None, /, **fields: Any) -> dict[str, Any]:
        """Run one command to its end. Raises the process's AgentError, or TransferError when it died."""
        with self._lock:
            try:
                self._send({"command": command, **fields})
                while line := self._stream.readline():
                    answer: dict[str, Any] = json.loads(line)
                    if "progress" in answer:
                        on_progress(answer["progress"])
                    elif answer["ok"]:
                        return answer
                    else:
                        raise TransferError(
                            answer["message"], hint=answer["hint"], detail=answer["detail"], code=answer["code"]
                        )
            except (OSError, ValueError) as exc:
                raise TransferError(f"the transfer process died: {exc}", detail=self._last_words()) from exc
            raise TransferError("the transfer process died", detail=self._last_words())

    def tell(self, what: str, /, **fields: Any) -> None:
        """Beside whatever it does. Raises TransferError when it is dead."""
        try:
            self._send({"tell": what, **fields})
        except OSError as exc:
            raise TransferError(f"the transfer process died: {exc}", detail=self._last_words()) from exc

    def _send(self, message: Mapping[str, Any]) -> None:
        with self._sending:
            self._socket.sendall(json.dumps(message).encode() + b"\n")

    @property
    def running(self) -> bool:
        return self._process.poll() is None

    def interrupt(self) -> None:
        """The command under way, and every later one, fails at once; close() still has to be called."""
        try:
            self._socket.shutdown(socket.SHUT_RDWR)
        except OSError:
            pass  # it closed its end first

    def close(self) -> None:
        """End it: first by the end of its stream, then by signals. Idempotent; a command under way fails."""
        if self._closed:
            return
        self._closed = True
        self.interrupt()
        for stop in (None, self._process.terminate, self._process.kill):
            if stop:
                stop()
            try:
                self._process.wait(STOP_LIMIT_S if stop else 1.0)
                break
            except subprocess.TimeoutExpired:
                continue
        with self._lock:
            self._stream.close()
            self._socket.close()

    def _last_words(self) -> str:
        try:
            return "\n".join(self._log.read_text(errors="replace").splitlines()[-20:])
        except OSError:
            return ""
