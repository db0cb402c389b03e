"""Memory sent ahead: rounds over all tasks of a container while it runs, and what of it still holds once it is frozen."""

from __future__ import annotations

import contextlib
import time
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from agent.engine.cgroup import Tasks
from agent.memory import pagemap_scan, watching
from agent.memory.ranges import NOTHING, Ranges, cut, intersect, ranges, subtract, total_bytes, union
from agent.memory.tracker import CannotWatch, Look, Tracker
from agent.memory.ways import SHADOW
from agent.transfer import pages
from agent.transfer.delta import Shadow
from agent.transfer.kept import Keeper
from agent.transfer.page_index import PageIndex
from agent.transfer.shared import Round, SharedMemory
from agent.transfer.writer import Writer

STANDSTILL_LIMIT_S = (
    2.0  # a task that does not stop for a look (an uninterruptible sleep) would not stop for the dump either
)
PART_BYTES = 64 << 20  # between looks at the clock


@dataclass(frozen=True, kw_only=True)
class Sent:
    """One round. `pages` that were sent, of `written_bytes`. `looked_at`: on the monotonic clock; `interval_s`: since the look before, 0
    at the first; `still_s`: how long the look took.
    """

    pages: int
    written_bytes: int
    unsent_bytes: int
    looked_at: float
    interval_s: float
    still_s: float


class Precopy:
    """One container's memory on its way. `way`: a key of watching.WAYS, or "" where nothing is sent ahead. `deltas`: a page
    that is sent again may go as what has changed in it. `shared`: memory that tasks share is carried by us, too.
    """

    def __init__(
        self,
        writer: Writer,
        freezer: Path,
        way: str,
        *,
        kept: PageIndex | None = None,
        keeper: Keeper | None = None,
        deltas: bool = True,
        shared: bool = False,
    ) -> None:
        self._writer, self._tasks, self.way = writer, Tasks(freezer), way
        self._kept, self._keeper = kept or PageIndex(), keeper
        self._shadow = Shadow() if deltas else None
        self.shared = SharedMemory(writer, self._kept, keeper, self._shadow) if shared else None
        self._owed: dict[int, Ranges] = {}  # by pid inside the container: what the target asked for after a round
        self._trackers: dict[int, Tracker] = {}  # by pid on this host
        self._senders: dict[int, pages.PageSender] = {}  # by pid inside the container
        self._clean: dict[int, Ranges] = {}  # by pid on this host: what the target has and was not written since
        self._gone: Counter[str] = Counter()  # what PageSenders of tasks that are over have skipped
        self._looked_at = 0.0
        self._last: dict[int, Look] = {}  # what the last look has seen and _account has not
        self.shadowed: dict[int, str] = {}  # why the kernel's way does not serve for a pid

    def settle(self) -> None:
        """After the last round, while the tasks run: what takes as long as there are pages is not left to the freeze."""
        for sender in self._senders.values():
            sender.settle()
        if self.shared:
            self.shared.settle()

    def last_look(self) -> None:
        """The tasks stand still for good: what was written since the last round is known."""
        for pid, tracker in self._trackers.items():
            try:
                self._last[pid] = tracker.look(last=True)
            except OSError:
                self._clean.pop(pid, None)  # gone, or not to be seen any more: nothing of it is clean

    def send_again(self, lacking: Mapping[str, Sequence[tuple[int, int]]]) -> int:
        """Frozen: what the target says it has not, though it was named as known. Returns pages sent."""
        self.distrust(lacking)
        again = self.shared.send_again(lacking) if self.shared else 0
        return again + sum(sender.send(runs, exact=True)[0] for sender, runs in self._of_tasks(lacking))

    def distrust(self, lacking: Mapping[str, Sequence[tuple[int, int]]]) -> None:
        """These pages will not be named as known again."""
        for sender, runs in self._of_tasks(lacking):
            sender.distrust(runs)

    def outdate(self, task: int, pid: int, runs: Ranges) -> None:
        """The target forgets the versions of `runs` that it has: they come later."""
        self._sender(task, pid).outdate(runs)

    def owe(self, lacking: Mapping[str, Sequence[tuple[int, int]]]) -> None:
        """As send_again, in the next round, or in the freeze: these pages are not clean."""
        self.distrust(lacking)
        if self.shared:
            self.shared.owe(lacking)
        for sender, wrong in self._of_tasks(lacking):
            self._owed[sender.task] = union(self._owed.get(sender.task, NOTHING), wrong)
            self._clean[sender.pid] = subtract(self._clean.get(sender.pid, NOTHING), wrong)

    def lacking(self, pid: int, wanted: Ranges) -> Ranges:
        """After the last look: what of `wanted` the target has not, or not as it is."""
        if (look := self._last.pop(pid, None)) is not None:  # not in the look, which CRIU waits for
            self._account(pid, look)
        return subtract(wanted, self._clean.get(pid, NOTHING))

    def lacking_of_withheld(self, task: int, pid: int, areas: Ranges) -> Ranges:
        """Frozen: as lacking(), of whole `areas`: of their populated pages. What the target holds of others goes. Raises OSError."""
        populated = pagemap_scan.populated(pid, areas)
        self._sender(task, pid).drop(subtract(areas, populated))
        return self.lacking(pid, populated)

    @property
    def skipped(self) -> Counter[str]:
        """Bytes of memory that were not sent, by reason; of every round."""
        shared = self.shared.skipped if self.shared else Counter[str]()
        return sum((sender.skipped for sender in self._senders.values()), self._gone) + shared

    def send_frozen(self, task: int, pid: int, wanted: Ranges) -> int:
        """Frozen: send all of `wanted`. Returns pages sent; zero pages are not."""
        return self._sender(task, pid).send(wanted, exact=True)[0]

    def close(self) -> None:
        for tracker in self._trackers.values():
            tracker.close()
        self._trackers.clear()
        if self.shared:
            self.shared.close()

    def send_round(self, deadline: float | None = None) -> Sent:
        """What was written since the last round, of all tasks. `deadline`: on the monotonic clock; what is not sent by then stays dirty."""
        here = pages.tasks_by_inner_pid(self._tasks.procs())
        for pid in here.values():  # before they stand still: what is injected has to run
            self._begin(pid)
        looks: list[tuple[int, int, Ranges]] = []
        before, self._looked_at = self._looked_at, time.monotonic()
        with self._standing_still():
            for task, pid in here.items():
                tracker = self._trackers.get(pid)
                if tracker is None:
                    continue
                try:
                    look = tracker.look()
                except OSError as exc:  # it ended, or became another program: sent frozen, if it is still there
                    self._give_up(pid, str(exc) if isinstance(exc, CannotWatch) else "")
                    continue
                self._account(pid, look)
                looks.append((task, pid, union(look.written, self._owed.pop(task, NOTHING))))
        still_s = time.monotonic() - self._looked_at
        count = unsent_bytes = 0
        for task, pid, written in looks:
            sender = self._sender(task, pid)
            for part in cut(written, PART_BYTES):
                if deadline is not None and time.monotonic() > deadline:
                    unsent_bytes += total_bytes(part)
                    continue
                try:
                    sent_pages, reached = sender.send(part, exact=False)
                except OSError:
                    break  # it has ended
                count += sent_pages
                self._clean[pid] = union(self._clean[pid], reached)
        shared = self.shared.send_round(here.values(), deadline) if self.shared else Round()
        return Sent(
            pages=count + shared.pages,
            written_bytes=sum(total_bytes(written) for _, _, written in looks) + shared.written_bytes,
            unsent_bytes=unsent_bytes + shared.unsent_bytes,
            looked_at=self._looked_at,
            interval_s=self._looked_at - before if before else 0.0,
            still_s=still_s,
        )

    def _account(self, pid: int, look: Look) -> None:
        """What was clean stays so where it was watched and not written, and nowhere else, for good or until it is sent again."""
        self._clean[pid] = subtract(intersect(self._clean.get(pid, NOTHING), look.watched), look.written)

    @contextlib.contextmanager
    def _standing_still(self) -> Iterator[None]:
        """Milliseconds, where a tracker needs it."""
        if not any(tracker.stop_to_look for tracker in self._trackers.values()):
            yield
            return
        try:
            self._tasks.freeze(True, timeout_s=STANDSTILL_LIMIT_S)
            yield
        finally:
            self._tasks.freeze(False)

    def _begin(self, pid: int) -> None:
        if pid in self._trackers:
            return
        with contextlib.suppress(OSError):  # it has ended
            way = SHADOW if pid in self.shadowed else self.way
            self._trackers[pid], why_not = watching.watch(way, pid)
            if why_not:
                self.shadowed[pid] = why_not

    def _give_up(self, pid: int, why_not: str) -> None:
        """`why_not`: the kernel's way does not serve for it; "": it begins anew in the next round, if it is still there."""
        self._trackers.pop(pid).close()
        self._clean.pop(pid, None)
        if why_not:
            self.shadowed[pid] = why_not

    def _of_tasks(self, lacking: Mapping[str, Sequence[tuple[int, int]]]) -> Iterator[tuple[pages.PageSender, Ranges]]:
        """The part of the target's answer that is about tasks."""
        for task, runs in lacking.items():
            if (sender := self._senders.get(int(task))) is not None:
                yield sender, ranges(runs)

    def _sender(self, task: int, pid: int) -> pages.PageSender:
        sender = self._senders.get(task)
        if sender is None or sender.pid != pid:
            self._gone += sender.skipped if sender else Counter()
            held = sender.held if sender else NOTHING  # of a process that had this pid before
            sender = self._senders[task] = pages.PageSender(
                self._writer,
                task,
                pid,
                self._note,
                held,
                kept=self._kept.task(task),
                keeper=self._keeper,
                shadow=self._shadow,
            )
        return sender

    def _note(self, pid: int, addresses: NDArray[np.uint64], words: NDArray[np.uint64]) -> None:
        tracker = self._trackers.get(pid)
        if tracker is not None:
            tracker.sent(addresses, words)
