"""From moves that have been: what a freeze costs whatever the memory, and what moves take. Pure."""

from __future__ import annotations

import statistics
from collections.abc import Mapping, Sequence

from migrate.coordinator.events import MigrationRecord
from migrate.coordinator.store import MoveState
from migrate.placement.schedule import Sample

PAGE = 4096
LEAST_S = 0.02


def fixed_s(records: Sequence[MigrationRecord]) -> float:
    """Median of how long they stood still without what their last pages took at the speed of their rounds; 0 where none says so."""
    found = [cost for record in records if (cost := _fixed_s(record)) > 0]
    return statistics.median(found) if found else 0.0


def samples(records: Sequence[MigrationRecord]) -> list[Sample]:
    """What each move that succeeded has sent and taken; those without a measured downtime are left out."""
    return [
        Sample(
            sent_bytes=sum(record.sent_bytes.values()),
            total_s=record.facts["total_s"],
            downtime_s=record.facts["downtime_s"],
        )
        for record in records
        if record.state is MoveState.SUCCEEDED and {"total_s", "downtime_s"} <= set(record.facts)
    ]


def _fixed_s(record: MigrationRecord) -> float:
    stood_still_s = record.facts.get("downtime_s", 0.0)
    facts = {row.step: row.facts for row in record.journal if row.event == "done"}
    if not stood_still_s or "precopy" not in facts or "freeze" not in facts:
        return 0.0
    rounds = facts["precopy"].get("each_round", ())
    largest: Mapping[str, float] = max(rounds, key=lambda each: each.get("pages", 0), default={})
    speed = largest.get("pages", 0) / largest["took_s"] if largest.get("took_s") else 0.0
    memory_s = facts["freeze"].get("memory_pages", 0) / speed if speed else 0.0
    return max(LEAST_S, stood_still_s - memory_s)


def bytes_per_s(records: Sequence[MigrationRecord]) -> float:
    """Median of the speeds at which they sent memory ahead, by their largest rounds; 0 where none says so."""
    found = []
    for record in records:
        facts = {row.step: row.facts for row in record.journal if row.event == "done"}
        rounds = facts.get("precopy", {}).get("each_round", ())
        largest: Mapping[str, float] = max(rounds, key=lambda each: each.get("pages", 0), default={})
        if largest.get("pages") and largest.get("took_s"):
            found.append(largest["pages"] * PAGE / largest["took_s"])
    return statistics.median(found) if found else 0.0


def steps_s(records: Sequence[MigrationRecord]) -> float:
    """Median of the seconds that they spent on what sends neither layers nor memory ahead; 0 where none says so."""
    found = []
    for record in records:
        at = {(row.step, row.event): row.unix_ns for row in record.journal}
        sending_ns = sum(
            at[step, "done"] - at[step, "started"]
            for step in ("layers", "precopy")
            if (step, "done") in at and (step, "started") in at
        )
        if record.facts.get("total_s"):
            found.append(record.facts["total_s"] - sending_ns / 1e9)
    return statistics.median(found) if found else 0.0
