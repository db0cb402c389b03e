"""The target's transfer process: `python -m agent.transfer.receiver --control-fd N ... PLAN`, PLAN a JSON file.

One a move. It takes frames (frames.py) from the pipe that ssh ends in and puts them where they belong: image layers into the store, the
writable layer into the container's directory, memory and CRIU's images on the move's tmpfs. It starts nothing. It outlives
its agent, for what has arrived is worth having after a restart: received.json says what. It ends with the stream.
"""

from __future__ import annotations

import argparse
import errno
import json
import os
import socket
import sys
import time
from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any, Self

from agent import atomic
from agent.criu import images, timers
from agent.errors import AgentError, StorageError, TransferError
from agent.storage.images import ImageStore
from agent.storage.receive import LayerWriter
from agent.storage.tree import TreeTarget
from agent.transfer import kept, lanes, later, room, shared_images
from agent.transfer.frames import PROTOCOL, Frame, Kind, Reader, say
from agent.transfer.memory_store import MemoryStore


@dataclass(frozen=True, kw_only=True)
class Plan:
    """Where things go. All paths are absolute; `roots`: of the trees, the writable layer's first; `lazy`: memory is for the filler, else
    for CRIU's own restore; `again`: the container runs here already and lacks memory (post-copy); `host`: us, for people.
    """

    host: str
    migration: str
    images_dir: str
    memory_dir: str
    logs_dir: str
    roots: list[str]
    store: str
    received: str
    pycriu_path: str
    lazy: bool
    kept: str = ""  # what is here of an earlier move of the container; "" = nothing
    again: bool

    @classmethod
    def read(cls, path: Path) -> Self:
        return cls(**json.loads(path.read_text()))


class Receiver:
    """One stream, from HELLO to DONE. Each of `fds`: (to read from, to write to), of one connection; in any order."""

    def __init__(self, plan: Plan, fds: Sequence[tuple[int, int]]) -> None:
        places = lanes.order([rx for rx, _ in fds])
        rx_fds, tx_fd = [fds[place][0] for place in places], fds[places[0]][1]
        await_header = partial(lanes.await_header, rx_fds) if len(rx_fds) > 1 else lambda: None
        self._plan, self._reader, self._tx = plan, Reader(rx_fds[0], rx_fds[1:], await_header), tx_fd
        self._kept = kept.opened(plan.kept)
        self._memory = MemoryStore(Path(plan.memory_dir), self._kept)
        self._trees = [TreeTarget(Path(root)) for root in plan.roots]
        self._store = ImageStore(Path(plan.store))
        self._pycriu = images.load(
            Path(plan.pycriu_path)
        )  # now: it takes a fifth of a second, and DONE comes in the freeze
        self._layer: LayerWriter | None = None
        self._file: int = -1
        self._later = later.Arrivals(Path(plan.memory_dir), Path(plan.images_dir), tx_fd)

    def run(self) -> None:
        """Until the stream ends. An error is told to the source, which ends the move."""
        try:
            while frame := self._reader.read(self._memory.places):
                try:
                    self._take(frame)
                except (AgentError, OSError) as exc:
                    if _is_full(exc):
                        raise self._no_room(frame) from exc
                    raise
        except (AgentError, OSError) as exc:
            message, hint = (exc.message, exc.hint) if isinstance(exc, AgentError) else (str(exc), "")
            try:
                say(self._tx, {"ok": False, "error": message, "hint": hint})
            except (AgentError, OSError):
                pass  # the source is gone as well
            raise
        finally:
            if self._layer:
                self._layer.__exit__(None, None, None)
            if self._file >= 0:
                os.close(self._file)
            self._memory.close()
            self._later.close()

    def _no_room(self, frame: Frame) -> StorageError:
        plan = self._plan
        what, where, hint = {
            Kind.TREE: (
                "a volume" if frame.task else "the writable layer",
                plan.roots[min(frame.task, len(plan.roots) - 1)],
                "make room on that disk",
            ),
            Kind.LAYER: ("an image layer", plan.store, "make room on that disk, or remove images: migrate image rm"),
            Kind.LAYER_END: (
                "an image layer",
                plan.store,
                "make room on that disk, or remove images: migrate image rm",
            ),
        }.get(frame.kind, ("memory and CRIU's images", plan.images_dir, "it grew while it was sent: move it again"))
        disk = os.statvfs(where)
        return StorageError(
            f"no room on {plan.host} in {where} for {len(frame.payload)} more bytes of {what}: "
            f"{self._reader.received_bytes} bytes of this move have arrived, "
            f"the file system has {disk.f_blocks * disk.f_frsize} in all",
            hint=hint,
        )

    def _take(self, frame: Frame) -> None:
        if self._memory.take(frame):
            return
        if frame.kind == Kind.TREE:
            self._tree(frame.task).apply(frame.payload)
        elif frame.kind == Kind.FILE:
            self._open_file(frame.json())
        elif frame.kind == Kind.FILE_DATA:
            rest = frame.payload
            while rest:  # a file system that is nearly full takes less than it is given, and fails the next time
                rest = rest[os.write(self._file, rest) :]
        elif frame.kind == Kind.LAYER:
            self._take_layer(frame)
        elif frame.kind == Kind.LAYER_END:
            self._end_layer()
        elif frame.kind == Kind.HELLO:
            self._hello(frame.json())
        elif frame.kind == Kind.ROUND:
            if expected := frame.json().get("expected"):
                stage, roots = Path(self._plan.images_dir).parent, [Path(root) for root in self._plan.roots]
                room.at_target(self._plan.host, stage, room.Expected(**expected), roots)
            say(self._tx, {"ok": True, "lacking": self._memory.lacking()})
        elif frame.kind == Kind.DONE:
            self._done(frame.json())
        elif frame.kind == Kind.LATER:
            self._memory.keep_back(frame.task, self._later.keep_back(frame))
        elif frame.kind == Kind.HERE:
            self._later.here(frame, self._memory.lacking())

    def _tree(self, number: int) -> TreeTarget:
        if number >= len(self._trees):
            raise TransferError(f"tree {number} came, and this container has {len(self._trees)}")
        return self._trees[number]

    def _hello(self, said: dict[str, Any]) -> None:
        if said.get("protocol") != PROTOCOL:
            raise TransferError(
                f"the source speaks protocol {said.get('protocol')}, this host {PROTOCOL}",
                hint="upgrade the older agent",
            )
        if said.get("migration") != self._plan.migration:
            raise TransferError("the stream belongs to another move")
        index = self._kept.index.packed(places=False) if self._kept and said.get("kept") else b""
        missing = list(self._later.connect().items()) if self._plan.again else []
        say(self._tx, {"ok": True, "kept_bytes": len(index), "missing": missing, "shared": True}, index)
        self._later.ask()

    def _take_layer(self, frame: Frame) -> None:
        if self._layer is None:  # the first frame names it
            self._layer = self._store.receive_layer(str(frame.json()["diff_id"])).__enter__()
        else:
            self._layer.write(frame.payload)

    def _end_layer(self) -> None:
        if self._layer is None:
            raise TransferError("the end of a layer that did not begin")
        try:
            self._layer.commit()
        finally:
            self._layer.__exit__(None, None, None)
            self._layer = None
        say(self._tx, {"ok": True})

    def _open_file(self, said: dict[str, Any]) -> None:
        name = str(said["name"])
        if "/" in name or name.startswith(".") or not name:
            raise TransferError(f"{name!r} is no name of an image file")
        if self._file >= 0:
            os.close(self._file)
        directory = self._plan.logs_dir if said["kind"] == "log" else self._plan.images_dir
        self._file = os.open(Path(directory) / name, os.O_WRONLY | os.O_CREAT | os.O_NOFOLLOW | os.O_CLOEXEC, 0o644)
        offset = int(said["offset"])  # what was sent before stays: a log that has grown
        os.ftruncate(self._file, offset)
        os.lseek(self._file, offset, os.SEEK_SET)

    def _done(self, said: dict[str, Any]) -> None:
        """Everything is here: check it, make it ready for the restore, say so."""
        if said.get("digest") != self._reader.digest:
            raise TransferError("what arrived is not what was sent: the digests differ")
        if lacking := self._memory.lacking():
            say(self._tx, {"ok": True, "lacking": lacking})  # another DONE comes when it is here
            return
        if said.get("tree_digests") != [tree.finish() for tree in self._trees]:
            raise TransferError("the files on the target differ from the source's: the digests differ")
        compared_s = time.monotonic()
        images_dir = Path(self._plan.images_dir)
        prepare = self._memory.seal_lazy if self._plan.lazy else self._memory.assemble
        memory_bytes = prepare(self._pycriu, images_dir)
        memory_bytes += shared_images.complete(self._pycriu, images_dir, Path(self._plan.memory_dir))
        timers.rearm(images_dir)
        received = {
            "digest": self._reader.digest,
            "memory_bytes": memory_bytes,
            "received_bytes": self._reader.received_bytes,
        }
        self._later.connect()
        atomic.write(Path(self._plan.received), json.dumps(received))
        say(self._tx, {"ok": True, "digest": self._reader.digest, "sealed_s": time.monotonic() - compared_s})
        self._later.ask()


def _is_full(exc: BaseException | None) -> bool:
    """Whether a full disk is behind it."""
    while exc is not None and not (isinstance(exc, OSError) and exc.errno in (errno.ENOSPC, errno.EDQUOT)):
        exc = exc.__cause__
    return exc is not None


def main() -> int:
    parser = argparse.ArgumentParser(prog="agent.transfer.receiver")
    parser.add_argument("--control-fd", type=int, required=True)
    parser.add_argument(
        "--rx-fd", type=int, required=True, action="append", help="these three once for each connection"
    )
    parser.add_argument("--tx-fd", type=int, required=True, action="append")
    parser.add_argument("--door-fd", type=int, required=True, action="append", help="held open: dial waits for its end")
    parser.add_argument("plan", type=Path)
    arguments = parser.parse_args()
    socket.socket(fileno=arguments.control_fd).close()  # nothing to ask for: the stream says it all
    try:
        fds = list(zip(arguments.rx_fd, arguments.tx_fd, strict=True))
        Receiver(Plan.read(arguments.plan), fds).run()
    except (AgentError, OSError) as exc:
        sys.stderr.write(f"receiver: {exc}\n")
        return 1
    finally:
        for fd in arguments.door_fd:
            socket.socket(fileno=fd).close()
    return 0


if __name__ == "__main__":
    sys.exit(main())
