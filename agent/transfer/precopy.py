"""Memory sent ahead: rounds over all tasks of a container while it runs, and what of it still holds once it is frozen."""

from __future__ import annotations

import contextlib
import time
from collections import Counter
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from agent.engine.cgroup import Tasks
from agent.memory import policy, watching
from agent.memory.ranges import NOTHING, Ranges, intersect, subtract, union
from agent.memory.tracker import CannotWatch, Look, Tracker
from agent.memory.ways import SHADOW
from agent.transfer import pages
from agent.transfer.frames import Kind
from agent.transfer.writer import Writer

STANDSTILL_LIMIT_S = (
    2.0  # a task that does not stop for a look (an uninterruptible sleep) would not stop for the dump either
)


class Precopy:
    """One container's memory on its way. `way`: a key of watching.WAYS, or "" where nothing is sent ahead."""

    def __init__(self, writer: Writer, freezer: Path, way: str) -> None:
        self._writer, self._tasks, self._way = writer, Tasks(freezer), way
        self._trackers: dict[int, Tracker] = {}  # by pid on this host
        self._senders: dict[int, pages.PageSender] = {}  # by pid inside the container
        self._clean: dict[int, Ranges] = {}  # by pid on this host: what the target has and was not written since
        self._gone: Counter[str] = Counter()  # what PageSenders of tasks that are over have skipped
        self.shadowed: dict[int, str] = {}  # why the kernel's way does not serve for a pid

    def run(
        self,
        *,
        max_downtime_s: float,
        max_rounds: int,
        confirm: Callable[[], object],
        progress: Callable[[Mapping[str, Any]], None],
    ) -> dict[str, Any]:
        """Send rounds until the policy says freeze. `confirm` waits until the target has taken a round. Returns facts."""
        rounds: list[policy.Round] = []
        verdict = policy.Verdict(freeze=True, why="nothing is sent ahead", predicted_s=0.0)
        while self._way:
            began, before = time.monotonic(), self._writer.sent_bytes
            page_count = self.send_round()
            self._writer.send_json(Kind.ROUND, {"round": len(rounds) + 1})
            confirm()
            rounds.append(policy.Round(sent_bytes=self._writer.sent_bytes - before, took_s=time.monotonic() - began))
            verdict = policy.judge(rounds, max_downtime_s=max_downtime_s, max_rounds=max_rounds)
            last = rounds[-1]
            progress(
                {
                    "text": f"round {len(rounds)}: {page_count} pages" + (f"; {verdict.why}" if verdict.freeze else ""),
                    "done_bytes": sum(r.sent_bytes for r in rounds),
                    "facts": {
                        "round": len(rounds),
                        "pages": page_count,
                        "sent_bytes": last.sent_bytes,
                        "took_s": last.took_s,
                        "predicted_downtime_s": verdict.predicted_s,
                    },
                }
            )
            if verdict.freeze:
                break
        return {
            "rounds": len(rounds),
            "sent_bytes": sum(r.sent_bytes for r in rounds),
            "why": verdict.why,
            "predicted_s": verdict.predicted_s,
            "shadowed": len(self.shadowed),
        }

    def last_look(self) -> None:
        """The tasks stand still for good: what was written since the last round is known, and nothing of ours stays in them."""
        for pid, tracker in self._trackers.items():
            try:
                self._account(pid, tracker.look(last=True))
            except OSError:
                self._clean.pop(pid, None)  # gone, or not to be seen any more: nothing of it is clean
        self.close()

    def lacking(self, pid: int, wanted: Ranges) -> Ranges:
        """After the last look: what of `wanted` the target has not, or not as it is."""
        return subtract(wanted, self._clean.get(pid, NOTHING))

    @property
    def skipped(self) -> Counter[str]:
        """Bytes of memory that were not sent, by reason; of every round."""
        return sum((sender.skipped for sender in self._senders.values()), self._gone)

    def send_frozen(self, task: int, pid: int, wanted: Ranges) -> int:
        """Frozen: send all of `wanted`. Returns pages sent; zero pages are not."""
        return self._sender(task, pid).send(wanted, exact=True)[0]

    def close(self) -> None:
        for tracker in self._trackers.values():
            tracker.close()
        self._trackers.clear()

    def send_round(self) -> int:
        """What was written since the last round, of all tasks; returns pages sent, zero pages not counted."""
        here = pages.tasks_by_inner_pid(self._tasks.procs())
        for pid in here.values():  # before they stand still: what is injected has to run
            self._begin(pid)
        looks: list[tuple[int, int, Ranges]] = []
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
                looks.append((task, pid, look.written))
        count = 0
        for task, pid, written in looks:
            sender = self._sender(task, pid)
            try:
                sent_pages, reached = sender.send(written, exact=False)
            except OSError:
                continue  # it has ended
            count += sent_pages
            self._clean[pid] = union(self._clean[pid], reached)
        return count

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
            way = SHADOW if pid in self.shadowed else self._way
            self._trackers[pid], why_not = watching.watch(way, pid)
            if why_not:
                self.shadowed[pid] = why_not

    def _give_up(self, pid: int, why_not: str) -> None:
        """`why_not`: the kernel's way does not serve for it; "": it begins anew in the next round, if it is still there."""
        self._trackers.pop(pid).close()
        self._clean.pop(pid, None)
        if why_not:
            self.shadowed[pid] = why_not

    def _sender(self, task: int, pid: int) -> pages.PageSender:
        sender = self._senders.get(task)
        if sender is None or sender.pid != pid:
            self._gone += sender.skipped if sender else Counter()
            held = sender.held if sender else NOTHING  # of a process that had this pid before
            sender = self._senders[task] = pages.PageSender(self._writer, task, pid, self._note, held)
        return sender

    def _note(self, pid: int, addresses: NDArray[np.uint64], words: NDArray[np.uint64]) -> None:
        tracker = self._trackers.get(pid)
        if tracker is not None:
            tracker.sent(addresses, words)
