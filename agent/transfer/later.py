"""Post-copy: the memory that goes after the container already runs on the target. Both transfer processes' parts.

Before the restore the source sends LATER frames: the ranges of each task that it keeps back. The target writes them down for the filler
(agent/criu/later.py). Then pages go in the order of their addresses, and those that somebody waits for go first, with what lies around
them; after each piece comes HERE, and the target answers {"ok": true, "here": BYTES}. Questions come between the answers:
{"ok": true, "want": [TASK, ADDRESS]}.
"""

from __future__ import annotations

import os
import socket
import threading
from collections import deque
from collections.abc import Callable
from pathlib import Path
from typing import Any

from agent.criu import later
from agent.criu.spaces import Missing, Space
from agent.errors import TransferError
from agent.memory.ranges import Ranges
from agent.transfer.frames import FRAME_BYTES, Answers, Frame, Kind, say
from agent.transfer.writer import Writer

PREFETCH_BYTES = 256 << 10  # around a page that is waited for: its neighbours are likely next
IN_FLIGHT_BYTES = 4 << 20  # sent and not confirmed at most: what a page that is waited for has before it in the pipes
FILLER_ANSWERS_S = 5.0
_REPORT_EVERY_BYTES = 16 << 20

Pairs = list[tuple[int, int]]
SendPages = Callable[[int, int, int], int]  # task, start, end -> pages sent


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
    rest: Rest, writer: Writer, answers: Answers, send_pages: SendPages, progress: Callable[[dict[str, Any]], None]
) -> dict[str, Any]:
    """Send all of `rest`; returns when the target has confirmed it. Raises TransferError when the tunnel breaks."""
    total, page_count, in_flight, reported = rest.missing_bytes, 0, 0, 0

    def heard(answer: dict[str, Any]) -> int:
        """Bytes confirmed by it."""
        if "want" in answer:
            rest.want(*answer["want"])
            return 0
        return int(answer["here"])

    while True:
        while in_flight < IN_FLIGHT_BYTES and (found := rest.next()):
            task, piece = found
            size = piece.end - piece.start
            page_count += send_pages(task, piece.start, piece.end)
            writer.send(Kind.HERE, task=task, address=piece.start, size=size)
            in_flight += size
            while answers.ready():  # who waits comes before the next piece
                in_flight -= heard(answers.next())
        if not in_flight:
            return {"pages": page_count, "bytes": total, "asked": rest.asked}
        in_flight -= heard(answers.next())
        done = total - rest.missing_bytes - in_flight
        if done - reported >= _REPORT_EVERY_BYTES:
            reported = done
            progress({"text": "memory follows", "done_bytes": done, "total_bytes": total})


class Arrivals:
    """The target's part, in the receiver: between the stream and the filler."""

    def __init__(self, memory_dir: Path, images_dir: Path, tx_fd: int) -> None:
        self._memory_dir, self._path, self._tx = memory_dir, images_dir / later.SOCKET, tx_fd
        self._filler: socket.socket | None = None
        self._kept_back = False

    def keep_back(self, frame: Frame) -> Pairs:
        """A LATER frame. Returns its ranges."""
        self._kept_back = True
        with (self._memory_dir / f"{frame.task}.later").open("ab") as file:
            file.write(frame.payload)
        return frame.ranges()

    def begin(self) -> dict[int, Pairs]:
        """All ranges are known: from here the filler's questions go to the source. Returns what is missing. Raises TransferError."""
        if not self._kept_back and not any(self._memory_dir.glob("*.later")):
            return {}
        self._filler = socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        self._filler.settimeout(FILLER_ANSWERS_S)
        try:
            self._filler.connect(str(self._path))
            missing = read_missing(self._filler)
            self._filler.settimeout(None)
        except OSError as exc:
            raise TransferError(f"the process that fills memory does not answer: {exc}") from exc
        threading.Thread(target=self._pass_on_questions, args=(self._filler,), daemon=True).start()
        return missing

    def here(self, frame: Frame) -> None:
        """A HERE frame: the pages before it are in the file. A filler that has gone needs them no more: the container has ended."""
        if self._filler is None:
            raise TransferError("pages came that nobody has kept back")
        record = (later.ARRIVED, frame.task, frame.address, frame.address + frame.size)
        try:
            for packet in later.pack([record]):
                self._filler.send(packet)
        except OSError:
            pass
        say(self._tx, {"ok": True, "here": frame.size})

    def close(self) -> None:
        if self._filler:
            self._filler.close()

    def _pass_on_questions(self, filler: socket.socket) -> None:
        try:
            while packet := filler.recv(later.PACKET_BYTES):
                for kind, task, start, _ in later.unpack(packet):
                    if kind == later.WANTED:
                        say(self._tx, {"ok": True, "want": [task, start]})
        except (OSError, TransferError):
            return  # the stream's end, or ours: the reader notices


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

    Raises OSError when somebody does, and does not answer: that is not "nothing".
    """
    with socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET) as filler:
        filler.settimeout(FILLER_ANSWERS_S)
        try:
            filler.connect(os.fspath(images_dir / later.SOCKET))
        except (FileNotFoundError, ConnectionRefusedError):
            return None
        return read_missing(filler)
