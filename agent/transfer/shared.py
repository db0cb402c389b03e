"""The source's side of shared memory (agent/memory/shared.py): sent ahead in the rounds, the rest while CRIU dumps the frozen tasks.

CRIU would write all of it in the freeze, and all of it would travel then. It is not shown what is known here (agent/criu/withheld.c), and
finds no page; the target completes its images (shared_images.py). On the wire it is memory of a task with a number that no task has.
"""

from __future__ import annotations

import os
import time
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from agent.memory.ranges import PAGE, Ranges, cut, ranges, total_bytes
from agent.memory.shared import Addresses, Inode, Segment, mapped
from agent.transfer import shared_images
from agent.transfer.delta import Shadow
from agent.transfer.kept import Keeper
from agent.transfer.page_index import PageIndex
from agent.transfer.pages import PageSender, page_addresses
from agent.transfer.writer import Slot, Writer

FIRST_TASK = 1 << 24  # pids end at 1 << 22
PART_BYTES = 16 << 20  # between looks at the clock


class SegmentSender(PageSender):
    """A PageSender whose pages are those of a segment, at the addresses that they have there."""

    def __init__(
        self, writer: Writer, task: int, segment: Segment, kept: PageIndex, keeper: Keeper | None, shadow: Shadow | None
    ) -> None:
        def on_read(_pid: int, addresses: Addresses, words: Addresses) -> None:
            segment.sent(addresses, words)

        super().__init__(writer, task, os.getpid(), on_read, kept=kept.task(task), keeper=keeper, shadow=shadow)
        self._segment = segment

    def _open(self) -> int:
        return os.dup(self._segment.fd)

    def _read(self, memory: int, slot: Slot, batch: Ranges, *, exact: bool) -> Addresses:
        del memory, exact  # whatever becomes of the tasks, it can be read
        at = 0
        for start, end in batch.tolist():
            self._segment.read(slot.view[at : at + end - start], start // PAGE, end // PAGE)
            at += end - start
        return page_addresses(batch)


@dataclass(frozen=True, kw_only=True)
class Round:
    pages: int = 0
    written_bytes: int = 0
    unsent_bytes: int = 0


class SharedMemory:
    """All that the tasks of one container share. Numbered in the order of pids and addresses, which the way back finds again."""

    def __init__(self, writer: Writer, kept: PageIndex, keeper: Keeper | None, shadow: Shadow | None) -> None:
        self._writer, self._kept, self._keeper, self._shadow = writer, kept, keeper, shadow
        self._segments: dict[Inode, Segment] = {}
        self._senders: dict[Inode, SegmentSender] = {}
        self._frozen: list[Inode] = []  # what CRIU is not shown

    def send_round(self, pids: Iterable[int], deadline: float | None) -> Round:
        """What is new, or not as it was sent. `deadline`: as Precopy.send_round()."""
        self._find(pids)
        pages = written = unsent = 0
        for inode, segment in self._segments.items():
            for part in cut(segment.changed(), PART_BYTES):
                written += total_bytes(part)
                if deadline is not None and time.monotonic() > deadline:
                    unsent += total_bytes(part)
                else:
                    pages += self._senders[inode].send(part, exact=True)[0]
        return Round(pages=pages, written_bytes=written, unsent_bytes=unsent)

    def settle(self) -> None:
        for sender in self._senders.values():
            sender.settle()

    def withhold(self, pids: Iterable[int]) -> list[tuple[int, int, int]]:
        """Frozen: what CRIU is not shown, for withheld.listing(): of what was sent ahead, that which the tasks still have."""
        here = mapped(pids)
        self._frozen = [inode for inode in self._segments if inode in here]
        return [(0, inode.number, os.major(inode.device) << 32 | os.minor(inode.device)) for inode in self._frozen]

    @property
    def withheld(self) -> bool:
        """Whether there is anything that CRIU is not shown."""
        return bool(self._frozen)

    def send_frozen(self, images_dir: Path) -> int:
        """Send what is not as it was sent, and write for the target what is where. Returns pages sent."""
        pages = 0
        for inode in self._frozen:
            sender, segment = self._senders[inode], self._segments[inode]
            pages += sender.send(segment.changed(), exact=True)[0]
            shared_images.listing(images_dir, inode.number, sender.task).write_bytes(segment.runs.tobytes())
        return pages

    def mine(self, lacking: Mapping[str, Sequence[tuple[int, int]]]) -> dict[Inode, Ranges]:
        """The part of the target's answer that is about shared memory."""
        found = {inode: lacking.get(str(sender.task)) for inode, sender in self._senders.items()}
        return {inode: ranges(runs) for inode, runs in found.items() if runs}

    def owe(self, lacking: Mapping[str, Sequence[tuple[int, int]]]) -> None:
        """The target has not what was named: it counts as changed, and is sent whole."""
        for inode, runs in self.mine(lacking).items():
            self._senders[inode].distrust(runs)
            self._segments[inode].forget(runs)

    def send_again(self, lacking: Mapping[str, Sequence[tuple[int, int]]]) -> int:
        """Frozen: as owe(), at once. Returns pages sent."""
        self.owe(lacking)
        return sum(self._senders[inode].send(runs, exact=True)[0] for inode, runs in self.mine(lacking).items())

    @property
    def skipped(self) -> Counter[str]:
        return sum((sender.skipped for sender in self._senders.values()), Counter())

    def close(self) -> None:
        for segment in self._segments.values():
            segment.close()
        self._segments.clear()

    def _find(self, pids: Iterable[int]) -> None:
        for inode, path in mapped(pids).items():
            if inode in self._segments or (segment := Segment.opened(path)) is None:
                continue
            self._segments[inode] = segment
            task = FIRST_TASK + len(self._senders)
            self._senders[inode] = SegmentSender(self._writer, task, segment, self._kept, self._keeper, self._shadow)
