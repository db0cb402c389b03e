"""Post-copy: the memory that goes after the container already runs on the target. Both transfer processes' parts.

Before the restore the source sends LATER frames: the ranges of each task that it keeps back. The target writes them down for the filler
(agent/criu/later.py). Then pages go in the order of their addresses, and those that somebody waits for go first, with what lies around
them; after each piece comes HERE, and the target answers {"ok": true, "here": BYTES}. With "lacking", as in the answer to DONE, pages of
the piece were named as known and are not: all of it comes again. Questions come between the answers: {"ok": true, "want": [TASK, ADDRESS]}.
"""

from __future__ import annotations

import os
import socket
import threading
from collections import deque
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any, Protocol

from agent.criu import later
from agent.criu.spaces import Missing, Space
from agent.errors import TransferError
from agent.memory.ranges import Ranges
from agent.transfer.frames import FRAME_BYTES, Frame, Kind, say
from agent.transfer.writer import Writer

PREFETCH_BYTES = 256 << 10  # around a page that is waited for: its neighbours are likely next
IN_FLIGHT_BYTES = 4 << 20  # sent and not confirmed at most: what a page that is waited for has before it in the pipes
FILLER_ANSWERS_S = 5.0
LOST = "migration.memory_lost"  # the code of the error that says that some memory is nowhere any more
_REPORT_EVERY_BYTES = 16 << 20

Pairs = list[tuple[int, int]]
Lacking = Mapping[str, Sequence[tuple[int, int]]]


class Memory(Protocol):
    """Of the frozen tasks."""

    def send(self, task: int, start: int, end: int) -> int | None:
        """Returns pages sent; None when the task has ended, and its memory with it. Raises OSError, TransferError."""

    def distrust(self, lacking: Lacking) -> None:
        """The target has not what was named there."""


class Rest:
    """The source's part: what the target lacks, by task."""

    def __init__(self, missing: dict[int, Pairs]) -> None:
        self._spaces = {task: Space([Missing(a, b) for a, b in pairs]) for task, pairs in missing.items() if pairs}
        self._wanted: deque[tuple[int, int]] = deque()
        self.asked = 0  # pages that somebody waited for

    @property
    def missing_bytes(self) -> int:
        return sum(space.missing_bytes for space in self._spaces.values())

    def want(self, task: int, address: int) -> None:
        self.asked += 1
        self._wanted.append((task, address))

    def next(self) -> tuple[int, Missing] | None:
        """The piece to send now, which then no longer counts as missing; None when all has been sent."""
        while self._wanted:
            task, address = self._wanted.popleft()
            space = self._spaces.get(task)
            piece = space.around(address, PREFETCH_BYTES) if space else None
            if piece:
                return self._take(task, piece)
        for task, space in self._spaces.items():
            if piece := space.first(FRAME_BYTES):
                return self._take(task, piece)
        return None

    def give_up(self, task: int) -> None:
        """Nothing more of it can come."""
        self._spaces.pop(task)

    def again(self, task: int, start: int, end: int) -> None:
        """A piece that was sent has not become what it should be: it is missing once more."""
        if task in self._spaces:
            self._spaces[task].add([Missing(start, end)])

    def _take(self, task: int, piece: Missing) -> tuple[int, Missing]:
        self._spaces[task].drop(piece.start, piece.end)
        return task, piece


def keep_back(writer: Writer, task: int, wanted: Ranges) -> Pairs:
    """Tell the target that `wanted` of `task` comes later."""
    for at in range(0, len(wanted), FRAME_BYTES // 16):
        writer.send(Kind.LATER, wanted[at : at + FRAME_BYTES // 16].tobytes(), task=task)
    pairs: Pairs = [(start, end) for start, end in wanted.tolist()]
    return pairs


def send_rest(
    rest: Rest,
    writer: Writer,
    listen: Callable[[], dict[str, Any]],
    heard_something: Callable[[], bool],
    memory: Memory,
    progress: Callable[[dict[str, Any]], None],
) -> dict[str, Any]:
    """Send all of `rest`; returns when the target has confirmed it. `listen` waits for one answer, `heard_something`: whether it would not
    have to. Raises TransferError when the tunnel breaks, and, with the code LOST, when all has been sent but what has ended with its task.
    """
    total, page_count, reported = rest.missing_bytes, 0, 0
    gone: list[int] = []
    in_flight: deque[tuple[int, Missing]] = deque()  # sent and not confirmed; they are confirmed in their order

    def hear() -> None:
        answer = listen()
        if "want" in answer:
            rest.want(*answer["want"])
            return
        task, piece = in_flight.popleft()
        if lacking := answer.get("lacking"):
            memory.distrust(lacking)
            rest.again(task, piece.start, piece.end)

    def unconfirmed() -> int:
        return sum(piece.end - piece.start for _, piece in in_flight)

    while True:
        while unconfirmed() < IN_FLIGHT_BYTES and (found := rest.next()):
            task, piece = found
            pages = memory.send(task, piece.start, piece.end)
            if pages is None:
                rest.give_up(task)
                gone.append(task)
                continue
            page_count += pages
            writer.send(Kind.HERE, task=task, address=piece.start, size=piece.end - piece.start)
            in_flight.append(found)
            while heard_something():  # who waits comes before the next piece
                hear()
        if not in_flight and gone:
            raise TransferError(
                f"tasks have ended here before all of their memory had followed: {', '.join(map(str, gone))}", code=LOST
            )
        if not in_flight:
            return {"pages": page_count, "bytes": total, "asked": rest.asked}
        hear()
        done = total - rest.missing_bytes - unconfirmed()
        if done - reported >= _REPORT_EVERY_BYTES:
            reported = done
            progress({"text": "memory follows", "done_bytes": done, "total_bytes": total})


class Arrivals:
    """The target's part, in the receiver: between the stream and the filler."""

    def __init__(self, memory_dir: Path, images_dir: Path, tx_fd: int) -> None:
        self._memory_dir, self._path, self._tx = memory_dir, images_dir / later.SOCKET, tx_fd
        self._filler: socket.socket | None = None
        self._kept_back = False
        self._saying = threading.Lock()

    def keep_back(self, frame: Frame) -> Pairs:
        """A LATER frame. Returns its ranges."""
        self._kept_back = True
        with (self._memory_dir / f"{frame.task}.later").open("ab") as file:
            file.write(frame.payload)
        return frame.ranges()

    def connect(self) -> dict[int, Pairs]:
        """All ranges are known. Returns what is missing. Raises TransferError."""
        if not self._kept_back and not any(self._memory_dir.glob("*.later")):
            return {}
        self._filler = socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        self._filler.settimeout(FILLER_ANSWERS_S)
        try:
            self._filler.connect(str(self._path))
            missing = read_missing(self._filler)
        except OSError as exc:
            raise TransferError(f"the process that fills memory does not answer: {exc}") from exc
        self._filler.settimeout(None)
        return missing

    def ask(self) -> None:
        """From here the filler's questions go to the source: after the answer that it waits for, or it would take a question for that."""
        if self._filler:
            threading.Thread(target=self._pass_on_questions, args=(self._filler,), daemon=True).start()

    def here(self, frame: Frame, lacking: Mapping[int, Pairs]) -> None:
        """A HERE frame: the pages before it are in the file, but for `lacking`. A filler that has gone needs them no more: the container
        has ended.
        """
        if self._filler is None:
            raise TransferError("pages came that nobody has kept back")
        if not lacking:
            record = (later.ARRIVED, frame.task, frame.address, frame.address + frame.size)
            with suppress(OSError):
                for packet in later.pack([record]):
                    self._filler.send(packet)
        self._say({"ok": True, "here": frame.size, "lacking": lacking})

    def close(self) -> None:
        if self._filler:
            self._filler.close()

    def _pass_on_questions(self, filler: socket.socket) -> None:
        try:
            while packet := filler.recv(later.PACKET_BYTES):
                for kind, task, start, _ in later.unpack(packet):
                    if kind == later.WANTED:
                        self._say({"ok": True, "want": [task, start]})
        except (OSError, TransferError):
            return  # the stream's end, or ours: the reader notices

    def _say(self, value: Mapping[str, Any]) -> None:
        """Two threads do."""
        with self._saying:
            say(self._tx, value)


def read_missing(filler: socket.socket) -> dict[int, Pairs]:
    """What a filler says to whoever connects. Raises OSError."""
    missing: dict[int, Pairs] = {}
    while packet := filler.recv(later.PACKET_BYTES):
        for kind, task, start, end in later.unpack(packet):
            if kind == later.END:
                return missing
            missing.setdefault(task, []).append((start, end))
    raise OSError("it ended in the middle of its list")


def still_missing(images_dir: Path) -> dict[int, Pairs] | None:
    """Asked by the agent: what a running container lacks; None when nobody fills it any more, for all has come or it has ended.

    Raises TransferError when somebody does, and does not answer: that is not "nothing".
    """
    with socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET) as filler:
        filler.settimeout(FILLER_ANSWERS_S)
        try:
            filler.connect(os.fspath(images_dir / later.SOCKET))
        except (FileNotFoundError, ConnectionRefusedError):
            return None
        except OSError as exc:
            raise TransferError(f"the process that fills memory does not answer: {exc}") from exc
        try:
            return read_missing(filler)
        except OSError as exc:
            raise TransferError(f"the process that fills memory did not say what is missing: {exc}") from exc
