"""The step of post-copy: the memory that the freeze kept back follows, while the container runs on the target."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from migrate.coordinator.checks import where
from migrate.coordinator.move import Move
from migrate.coordinator.steps import HAS_TASKS, SHORT_S, deadline_s, open_tunnel
from migrate.errors import MigrateError, NeedsAttention, Unreachable
from migrate.saga.journal import Event, Facts, Results
from protos import agent_pb2

LOST = "migration.memory_lost"  # an agent's code: agent/transfer/later.py
_NAMED = 3  # areas of a task that a message names
_LINES = 100  # of a task's ranges for people; the journal has those that the agent has told


class Rest:
    """Nothing in the other modes. What breaks is begun anew with what the target lacks then."""

    name = "rest"

    def do(self, move: Move, done: Results) -> Facts:
        later_bytes = int(done["freeze"].get("later_bytes", 0))
        if not later_bytes:
            return {}
        try:
            return {"later_bytes": later_bytes, **self._send(move, later_bytes)}
        except Unreachable as exc:
            raise Unreachable(
                f"{exc.message}; {self._what_waits(move)}",
                hint=f"nothing to do: it goes on by itself when {move.source} is back; to follow it: migrate resume {move.id}",
            ) from exc
        except MigrateError as exc:
            lost = exc.code == LOST
        if not lost:  # the tunnel broke, or the source's agent is another one: both go on from what is missing
            if not move.call(move.target, "Reopen", _reopen(move), timeout_s=SHORT_S).needed:
                return self._nothing_missing(move, later_bytes)
            if where(move, move.source).state in HAS_TASKS:
                try:
                    open_tunnel(move)
                    return {"later_bytes": later_bytes, **self._send(move, later_bytes)}
                except MigrateError as exc:
                    if exc.code != LOST:
                        raise
        return self._lost(move, later_bytes)

    def _nothing_missing(self, move: Move, later_bytes: int) -> Facts:
        """The target has all of it, or the container has ended there: the source must only hear of it."""
        if where(move, move.source).state in HAS_TASKS:
            self._send(move, later_bytes, complete=True)
        return {"later_bytes": later_bytes, "text": f"{move.target} needs no more of its memory"}

    def _lost(self, move: Move, later_bytes: int) -> Facts:
        """The source's tasks are gone, and memory with them. Said once, range by range; a repair after that ends the move."""
        here = where(move, move.target)
        if here.missing_unknown:
            raise Unreachable(f"{move.target} does not say what {move.container} lacks: {here.missing_unknown}")
        lost = f"lost: {summary(here.missing)}"
        failed = move.journal.last(self.name, Event.FAILED)
        if failed is None or dict(failed.data["error"]).get("code") != NeedsAttention.code:
            exc = NeedsAttention(
                f"{move.source} has lost {move.container} before all of its memory had followed; {lost}",
                hint=f"what touches that memory waits for ever, nothing reads it as zeros; to end the move: "
                f"migrate repair {move.id}, then: migrate rm -f {move.container}",
                detail=listing(here.missing),
            )
            exc.facts = {"lost": as_facts(here.missing)}
            raise exc
        if where(move, move.source).state in HAS_TASKS:
            self._send(move, later_bytes, complete=True)  # what is left there may go
        return {"later_bytes": later_bytes, "text": lost, "lost": as_facts(here.missing)}

    def _send(self, move: Move, later_bytes: int, *, complete: bool = False) -> Facts:
        request = agent_pb2.SendRestRequest(migration_id=move.id, epoch=move.epoch, complete=complete)
        facts: dict[str, float] = {}
        for progress in move.stream(move.source, "SendRest", request, timeout_s=deadline_s(move, later_bytes)):
            facts = dict(progress.facts)
            move.pass_on(progress)
        return facts

    def _what_waits(self, move: Move) -> str:
        """Of the running container, and what is lost if the source does not come back."""
        try:
            here = where(move, move.target)
        except MigrateError:
            return f"{move.target} does not say what {move.container} lacks"
        if here.missing_unknown:
            return f"what {move.container} lacks is not known: {here.missing_unknown}"
        if not here.missing:
            return f"{move.container} on {move.target} lacks nothing"
        return f"{move.container} runs on {move.target} and waits where it needs what is only on {move.source}: {summary(here.missing)}"


def summary(missing: Sequence[agent_pb2.MissingMemory]) -> str:
    """One line: how much of which task, and where most of it lies."""
    return "; ".join(f"{_megabytes(each.bytes)} of {_task(each)} ({_where(each)})" for each in missing)


def listing(missing: Sequence[agent_pb2.MissingMemory]) -> str:
    """A line a range, and how many more there are."""
    lines = []
    for each in missing:
        lines += [
            f"{_task(each)}: {r.start:#x}-{r.end:#x}, {(r.end - r.start) >> 12} pages {r.area}".rstrip()
            for r in each.ranges[:_LINES]
        ]
        if each.range_count > _LINES:
            lines.append(f"{_task(each)}: and {each.range_count - _LINES} ranges more: migrations show --format json")
    return "\n".join(lines)


def as_facts(missing: Sequence[agent_pb2.MissingMemory]) -> list[dict[str, Any]]:
    """For the journal."""
    return [
        {
            "task": each.task,
            "program": each.program,
            "bytes": each.bytes,
            "range_count": each.range_count,
            "ranges": [[r.start, r.end, r.area] for r in each.ranges],
        }
        for each in missing
    ]


def _task(each: agent_pb2.MissingMemory) -> str:
    return f"task {each.task}{f' {each.program}' if each.program else ''}"


def _where(each: agent_pb2.MissingMemory) -> str:
    by_area: dict[str, int] = {}
    for r in each.ranges:
        by_area[r.area or "anonymous"] = by_area.get(r.area or "anonymous", 0) + r.end - r.start
    most = sorted(by_area, key=lambda area: -by_area[area])[:_NAMED]
    named = ", ".join(f"{_megabytes(by_area[area])} {area}" for area in most)
    return f"{each.bytes >> 12} pages in {each.range_count} ranges: {named}"


def _megabytes(size: int) -> str:
    return f"{size / 1e6:.1f} MB" if size >= 1e5 else f"{size / 1e3:.1f} kB"


def _reopen(move: Move) -> agent_pb2.ReopenRequest:
    return agent_pb2.ReopenRequest(migration_id=move.id, epoch=move.epoch, container_id=move.container_id)
