"""Memory sent ahead: rounds over all tasks of a container while it runs, and what of it still holds once it is frozen."""

from __future__ import annotations

import contextlib
import time
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

from agent.engine.cgroup import Tasks
from agent.memory import policy
from agent.memory.ranges import NOTHING, Ranges, intersect, subtract
from agent.memory.softdirty import SoftDirtyTracker
from agent.memory.tracker import Tracker
from agent.memory.userfault import UserfaultTracker
from agent.transfer import pages
from agent.transfer.frames import Kind, Writer

TRACKERS: dict[str, Callable[[int], Tracker]] = {
    "userfaultfd": UserfaultTracker.watch,
    "soft-dirty": SoftDirtyTracker.watch,
}


class Precopy:
    """One container's memory on its way. `tracker`: a key of TRACKERS, or "" where the kernel has none: then all is sent frozen."""

    def __init__(self, writer: Writer, freezer: Path, tracker: str) -> None:
        self._writer, self._tasks, self._watch = writer, Tasks(freezer), TRACKERS.get(tracker)
        self._trackers: dict[int, Tracker] = {}  # by pid on this host
        self._senders: dict[int, pages.PageSender] = {}  # by pid inside the container
        self._clean: dict[int, Ranges] = {}  # by pid on this host: what the target has and was not written since
        self.untracked: dict[int, str] = {}  # why a pid is not watched

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
        verdict = policy.Verdict(freeze=True, why="this kernel tracks no writes", predicted_s=0.0)
        while self._watch is not None:
            began, before = time.monotonic(), self._writer.sent_bytes
            page_count = self._round()
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
            "untracked": len(self.untracked),
        }

    def last_look(self) -> None:
        """The tasks stand still for good: what was written since the last round is known, and nothing of ours stays in them."""
        for pid, tracker in self._trackers.items():
            try:
                look = tracker.look(last=True)
                sender = self._sender_of(pid)
                sent = sender.sent if sender else NOTHING
                self._clean[pid] = subtract(intersect(sent, look.watched), look.written)
            except OSError:
                self._clean.pop(pid, None)  # gone, or not to be seen any more: nothing of it is clean
        self.close()

    def send_rest(self, task: int, pid: int, wanted: Ranges) -> int:
        """Frozen: send what of `wanted` the target lacks. Returns pages sent; zero pages are not."""
        clean = self._clean.get(pid)
        rest = subtract(wanted, clean) if clean is not None else wanted
        return self._sender(task, pid).send(rest, exact=True)

    def close(self) -> None:
        for tracker in self._trackers.values():
            tracker.close()
        self._trackers.clear()

    def _round(self) -> int:
        here = pages.tasks_by_inner_pid(self._tasks.procs())
        looks: list[tuple[int, int, Ranges]] = []
        with self._standing_still():
            for task, pid in here.items():
                tracker = self._trackers.get(pid) or self._begin(pid)
                if tracker is None:
                    continue
                try:
                    looks.append((task, pid, tracker.look().written))
                except OSError:
                    self._trackers.pop(
                        pid
                    ).close()  # it ended, or became another program: sent frozen, if it is still there
        count = 0
        for task, pid, written in looks:
            try:
                count += self._sender(task, pid).send(written, exact=False)
            except OSError:
                continue  # it has ended
        return count

    @contextlib.contextmanager
    def _standing_still(self) -> Iterator[None]:
        """Milliseconds, where the kernel's way of tracking needs it."""
        if self._watch is not SoftDirtyTracker.watch and not any(t.stop_to_look for t in self._trackers.values()):
            yield
            return
        self._tasks.freeze(True)
        try:
            yield
        finally:
            self._tasks.freeze(False)

    def _begin(self, pid: int) -> Tracker | None:
        if self._watch is None or pid in self.untracked:
            return None
        try:
            self._trackers[pid] = self._watch(pid)
        except OSError as exc:
            self.untracked[pid] = str(exc)
            return None
        return self._trackers[pid]

    def _sender(self, task: int, pid: int) -> pages.PageSender:
        sender = self._senders.get(task)
        if sender is None or sender.pid != pid:
            sender = self._senders[task] = pages.PageSender(self._writer, task, pid)
        return sender

    def _sender_of(self, pid: int) -> pages.PageSender | None:
        return next((sender for sender in self._senders.values() if sender.pid == pid), None)
