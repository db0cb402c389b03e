"""Rounds of memory until the policy says that it is enough: what it is told, what it decides, and the container's share meanwhile."""

from __future__ import annotations

import logging
import time
from collections.abc import Callable, Mapping
from typing import Any

from agent.engine import throttle
from agent.errors import AgentError, TransferError
from agent.memory import policy
from agent.memory.policy import Action, Goal, Verdict
from agent.memory.ranges import PAGE
from agent.transfer.frames import Kind
from agent.transfer.precopy import Precopy
from agent.transfer.writer import Writer

GAVE_UP = "migration.max_downtime"  # the code of the error when the policy gives up
_log = logging.getLogger(__name__)


class Rounds:
    """Of one move. `plan`: how to throttle the container, None where that is not asked for."""

    def __init__(self, precopy: Precopy, writer: Writer, goal: Goal, plan: throttle.Plan | None) -> None:
        self._precopy, self._writer, self._goal, self._plan = precopy, writer, goal, plan
        self._rounds: list[policy.Round] = []
        self._share = 1.0
        self._unhurried = 0.0  # processors that it used before it was throttled

    def run(
        self, *, confirm: Callable[[], Mapping[str, Any]], progress: Callable[[Mapping[str, Any]], None]
    ) -> dict[str, Any]:
        """`confirm` waits for the target's answer to a round. Returns facts. Raises TransferError (GAVE_UP) where the policy gives up.

        However it ends, the container has its processor time back.
        """
        began, first_byte = time.monotonic(), self._writer.sent_bytes
        verdict = Verdict(action=Action.FREEZE, why="nothing is sent ahead", predicted_s=0.0)
        try:
            while self._precopy.way:
                verdict = self._one(began, confirm, progress)
                if verdict.action is Action.THROTTLE:
                    self._throttle(verdict.share)
                elif verdict.action is not Action.GO_ON:
                    break
        finally:
            if self._plan is not None:
                throttle.release(self._plan)
        if verdict.action is Action.ABORT:
            raise TransferError(
                f"memory was not sent ahead far enough: {verdict.why}",
                code=GAVE_UP,
                hint="allow a longer --max-downtime, or more --timeout, or --throttle; --on-timeout pause freezes it all the same, "
                "--on-timeout post-copy lets the rest follow when it runs on the target",
            )
        return {
            "rounds": len(self._rounds),
            "sent_bytes": self._writer.sent_bytes - first_byte,
            "why": verdict.why,
            "predicted_s": verdict.predicted_s,
            "rest_later": verdict.rest_later,
            "shadowed": len(self._precopy.shadowed),
        }

    def _one(
        self, began: float, confirm: Callable[[], Mapping[str, Any]], progress: Callable[[Mapping[str, Any]], None]
    ) -> Verdict:
        before, used_s = self._writer.sent_bytes, throttle.used_s(self._plan) if self._plan else 0.0
        sent = self._precopy.send_round(began + self._goal.timeout_s if self._goal.timeout_s else None)
        self._writer.send_json(Kind.ROUND, {"round": len(self._rounds) + 1})
        self._precopy.owe(confirm().get("lacking", {}))
        now = time.monotonic()
        last = policy.Round(
            page_bytes=sent.pages * PAGE,
            written_bytes=sent.written_bytes,
            unsent_bytes=sent.unsent_bytes,
            took_s=now - sent.looked_at,
            interval_s=sent.interval_s,
            still_s=sent.still_s,
            share=self._share,
        )
        if self._plan and self._share == 1.0:
            self._unhurried = (throttle.used_s(self._plan) - used_s) / (now - sent.looked_at + sent.still_s)
        self._rounds.append(last)
        verdict = policy.judge(self._rounds, self._goal, elapsed_s=now - began)
        progress(
            {
                "text": f"round {len(self._rounds)}: {sent.pages} pages"
                + ("" if verdict.action is Action.GO_ON else f"; {verdict}"),
                "verdict": str(verdict),
                "done_bytes": sum(each.page_bytes for each in self._rounds),
                "facts": {
                    "round": len(self._rounds),
                    "pages": sent.pages,
                    "sent_bytes": self._writer.sent_bytes - before,
                    "took_s": last.took_s,
                    "look_s": sent.still_s,
                    "dirty_bytes_per_s": last.dirty_rate,
                    "predicted_downtime_s": verdict.predicted_s,
                    "cpu_share": self._share,
                },
            }
        )
        return verdict

    def _throttle(self, share: float) -> None:
        """A help, no need: where the kernel refuses the value, rounds go on as they were, to the end of the steps."""
        assert self._plan is not None
        self._share = share
        try:
            throttle.hold(self._plan, self._unhurried * share)
        except (AgentError, OSError) as exc:
            _log.warning("the container is not throttled: %s", exc)
