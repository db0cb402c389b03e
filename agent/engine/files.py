"""A container's files from outside, running, paused or stopped: the agent's end of `reach.py`.

The agent itself opens nothing that a container could have put in its way: it hands over pipes.
"""

from __future__ import annotations

import contextlib
import errno
import fcntl
import os
import socket
import subprocess
import sys
import threading
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from agent.engine import reach, state, sync
from agent.engine.container import Engine
from agent.engine.state import ContainerStatus, State
from agent.errors import AgentError, InvalidArgument, NotFound, StorageError, WrongState
from agent.filetree.paths import Source
from agent.filetree.place import Owner, Placed

PACKAGE_ROOT = Path(__file__).resolve().parents[2]
READ_BYTES = 1 << 20
_END_LIMIT_S = 10.0
_F_SETPIPE_SZ = 1031  # from the Linux kernel headers; Python 3.11 has it under no name
_WITH_TASKS = (State.RUNNING, State.PAUSED, State.LOST)


class FileError(AgentError):
    """Something in the container's files is not as it was asked for."""

    code = "files"


class Files:
    """Of all containers of a host."""

    def __init__(self, engine: Engine) -> None:
        self._engine = engine

    @contextmanager
    def copy_out(self, container_id: str, path: bytes, *, follow: bool) -> Iterator[Reading]:
        """Iterate over the Reading for the tar. Raises NotFound, InvalidArgument, WrongState during a move."""
        request = {"verb": "copy-out", "path": os.fsdecode(path), "follow": follow}
        shown = path.decode(errors="replace")
        with self._reading(container_id, request, "copy from", "archive-path", path=shown) as reading:
            reading.wait_for_source()
            yield reading

    @contextmanager
    def export(self, container_id: str) -> Iterator[Reading]:
        """Of the whole root, without what is mounted in it."""
        with self._reading(container_id, {"verb": "export"}, "export", "export") as reading:
            yield reading

    def copy_in(
        self, container_id: str, path: bytes, source: Source | None, owner: Owner, tar: Iterable[bytes]
    ) -> Placed:
        """Place `tar` at `path`; `source` None: a tar of anything. An error leaves the files that were complete.

        Raises NotFound, InvalidArgument, WrongState, StorageError, and what `tar` raises.
        """
        given = {"name": os.fsdecode(source.name), "mode": source.mode} if source else None
        request = {"verb": "copy-in", "path": os.fsdecode(path), "source": given, "owner": owner}
        store = self._engine.store
        with contextlib.ExitStack() as stack:
            lock = stack.enter_context(contextlib.ExitStack())
            lock.enter_context(store.lock(container_id))
            status = reachable(self._engine, "copy to", container_id)
            writing = stack.enter_context(_Writing(request | {"root": self._root(status, writable=True)}))
            stack.enter_context(self._engine.visits.visit(container_id, writing.cut, writes=True))
            self._engine.note("extract-to-dir", status.spec, path=path.decode(errors="replace"))
            if status.state in _WITH_TASKS:
                lock.close()  # else to the end: two overlays of one writable layer are undefined
            return writing.send(tar)

    def root(self, container_id: str) -> Path:
        """Where this host sees the container's files. Raises WrongState while they are not mounted."""
        status = self._engine.inspect(container_id)
        if status.state not in _WITH_TASKS and not status.pid:
            raise WrongState(
                f"the root of container {status.spec.name} is not mounted: it is {status.state}",
                hint=f"start it, or copy files out: migrate cp {status.spec.name}:/path .",
            )
        return self._engine.store.directory(container_id) / "rootfs"

    @contextmanager
    def _reading(
        self, container_id: str, request: dict[str, Any], verb: str, action: str, **attributes: str
    ) -> Iterator[Reading]:
        with contextlib.ExitStack() as stack:
            with self._engine.store.lock(container_id):
                status = reachable(self._engine, verb, container_id)
                root = self._root(status, export=action == "export")
                reading = stack.enter_context(Reading(request | {"root": root}))
                stack.enter_context(self._engine.visits.visit(container_id, reading.cut, writes=False))
                self._engine.note(action, status.spec, **attributes)
            yield reading

    def _root(self, status: ContainerStatus, *, writable: bool = False, export: bool = False) -> dict[str, Any]:
        """How reach.py gets at it."""
        spec = status.spec
        if status.state in _WITH_TASKS:
            record = self._engine.store.record(spec.id)
            path = self._engine.store.directory(spec.id) / "rootfs"
            process = {"pid": record.pid, "start_ticks": record.start_ticks}
            return {"kind": "mounted" if export else "live", "path": str(path), **process}
        plan = self._engine.plan(spec)
        return {
            "kind": "stopped",
            "layers": plan["layers"],
            "layer": plan["writable"],
            "target": plan["root"],
            "ids_base": plan["ids_base"],
            "ids_count": plan["ids_count"],
            "binds": [] if export else _seen(plan.get("binds", []), writable=writable),
            "writable": writable,
            "read_only": spec.read_only,
        }


class _Helper:
    """One process of reach.py with one pipe; `writes`: the pipe's other end is where it reads."""

    def __init__(self, request: dict[str, Any], *, writes: bool) -> None:
        ends = os.pipe()
        with contextlib.suppress(OSError):  # root's privilege, or the user's share of pipes is used up
            fcntl.fcntl(ends[0], _F_SETPIPE_SZ, reach.PIPE_BYTES)
        self.pipe, theirs = (ends[1], ends[0]) if writes else ends
        self.was_cut = False
        self.channel, end = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        self._process: subprocess.Popen[bytes] | None = None
        try:
            argv = [sys.executable, "-I", "-S", reach.__file__, str(PACKAGE_ROOT), str(end.fileno())]
            self._process = subprocess.Popen(
                argv, pass_fds=(end.fileno(),), stdin=subprocess.DEVNULL, start_new_session=True
            )
            sync.send(self.channel, request, [theirs])
        except BaseException:
            os.close(self.pipe)
            self.close()
            raise
        finally:
            end.close()  # ours, or the helper's death would go unseen
            os.close(theirs)

    def cut(self) -> None:
        """End it, from any thread, any number of times: who is at its pipe or channel sees the end."""
        self.was_cut = True
        if self._process is not None:
            self._process.terminate()
            self._wait(self._process)

    def close(self) -> None:
        """It goes, whether it has ended or not. `pipe` is the caller's to close."""
        self.channel.close()
        if self._process is not None:
            self._wait(self._process)

    @staticmethod
    def _wait(process: subprocess.Popen[bytes]) -> None:
        try:
            process.wait(_END_LIMIT_S)  # it tidies up after a tar that was cut off
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()

    def receive(self) -> dict[str, Any]:
        """Its next word. Raises what it says went wrong."""
        why = "the agent's log says more"
        try:
            message, _ = sync.receive(self.channel)
        except (OSError, sync.ProtocolError) as exc:
            message, why = None, str(exc)
        if message is None:
            if self.was_cut:
                raise FileError(
                    "the copy was cut off: the container leaves this host, starts or is removed", code="files.cut"
                )
            raise FileError("the process at the container's files died", hint=why)
        if message["type"] == "error":
            raise _error(message["errno"], message["text"])
        return message


class Reading(_Helper):
    """Iterate once over the tar. `source`: what is copied, of copy_out."""

    def __init__(self, request: dict[str, Any]) -> None:
        super().__init__(request, writes=False)
        self.source = Source(name=b".", mode=0)

    def wait_for_source(self) -> None:
        message = self.receive()
        del message["type"]
        name, target = os.fsencode(message["name"]), os.fsencode(message["link_target"])
        self.source = Source(**{**message, "name": name, "link_target": target})

    def __iter__(self) -> Iterator[bytes]:
        while data := os.read(self.pipe, READ_BYTES):
            yield data
        self.receive()

    def __enter__(self) -> Reading:
        return self

    def __exit__(self, *_: object) -> None:
        os.close(self.pipe)
        self.close()


class _Writing(_Helper):
    """`send` once."""

    def __init__(self, request: dict[str, Any]) -> None:
        super().__init__(request, writes=True)
        self._failed: BaseException | None = None

    def send(self, tar: Iterable[bytes]) -> Placed:
        """Returns when all is placed, or raises as soon as something is wrong, also while nothing comes from `tar`."""
        threading.Thread(target=self._feed, args=(tar,), name="copy-in", daemon=True).start()
        try:
            message = self.receive()
        except FileError:
            if self._failed is not None and not self.was_cut:
                raise self._failed from None
            raise
        del message["type"]
        return Placed(**message)

    def _feed(self, tar: Iterable[bytes]) -> None:
        word = "abort"
        try:
            for data in tar:
                rest = memoryview(data)
                while rest:
                    rest = rest[os.write(self.pipe, rest) :]
            word = "end"
        except BrokenPipeError:
            pass  # it reads no more: its last word says why
        except BaseException as exc:  # noqa: BLE001  # raised again by `send`, which somebody waits for
            self._failed = exc
        finally:
            os.close(self.pipe)
            with contextlib.suppress(OSError):
                sync.send(self.channel, {"type": word})

    def __enter__(self) -> _Writing:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()


def _seen(binds: list[dict[str, Any]], *, writable: bool) -> list[dict[str, Any]]:
    """An empty volume that the first start fills with what the image has there: who only looks sees the image's files."""
    return [one for one in binds if writable or not one.get("fill") or any(Path(one["source"]).iterdir())]


def _error(number: int, text: str) -> AgentError:
    if number == 0:
        return InvalidArgument(text)
    if number in (errno.ENOENT, errno.ENOTDIR):
        return NotFound(f"in the container: {text}", code="path.not_found")
    if number == errno.EROFS:
        return WrongState(f"in the container: {text}", hint="copy to a volume or a tmpfs of it that can be written to")
    if number == errno.ESRCH:
        return WrongState("the container has just ended", hint="give the command again")
    if number in (errno.ENOSPC, errno.EDQUOT):
        return StorageError(f"in the container: {text}", hint="make room in its writable layer", touched="something")
    return FileError(f"in the container: {text}", touched="nothing" if number == errno.ELOOP else "")


def reachable(engine: Engine, verb: str, container_id: str) -> ContainerStatus:
    """Its status. Raises WrongState where its files cannot be reached now: `verb` is what somebody wants."""
    status = engine.inspect(container_id)
    if reason := state.why_not_reach(status):
        hint = f"wait for the move, or cancel it: migrate cancel {status.migration_id}"
        what = f"cannot {verb} container {status.spec.name}: {reason}"
        raise WrongState(what, hint=hint if status.migration_id else "")
    return status
