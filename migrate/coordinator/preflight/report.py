"""The report before a move: findings, how long it would take and why, and what it would do."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from migrate.coordinator import learned
from migrate.coordinator.checks import Examination, examine
from migrate.coordinator.events import MigrationRecord
from migrate.coordinator.move import Move
from migrate.coordinator.preflight import tunnel
from migrate.coordinator.preflight.finding import BLOCKER, Finding, judged
from migrate.coordinator.preflight.predict import Known, Prediction, Size, predict
from migrate.coordinator.store import Migration
from migrate.errors import MigrateError


@dataclass(frozen=True, kw_only=True)
class Report:
    """`findings`: blockers first. `plan`: what the move would do, a line a step."""

    container_id: str
    container: str
    source: str
    target: str
    mode: str
    epoch: int
    findings: tuple[Finding, ...]
    size: Size
    prediction: Prediction
    plan: tuple[str, ...]

    @property
    def blockers(self) -> tuple[Finding, ...]:
        """Empty: the move may begin."""
        return tuple(each for each in self.findings if each.severity == BLOCKER)


def make(move: Move, planned: Migration, earlier: Sequence[MigrationRecord]) -> Report:
    """`planned`: the move that would be begun. `earlier`: moves between the same hosts, newest first.

    Reads on both hosts and touches neither. Raises Unreachable.
    """
    seen = examine(move)
    known = Known(
        fixed_s=learned.fixed_s(earlier),
        steps_s=learned.steps_s(earlier),
        learned_bytes_per_s=learned.bytes_per_s(earlier),
    )
    findings = seen.findings
    if tunnel.CHECK not in move.skip:
        try:
            speed = tunnel.measure(move)
            known = dataclasses.replace(known, measured_bytes_per_s=speed.bytes_per_s, round_trip_s=speed.round_trip_s)
        except MigrateError as exc:
            findings = judged([*findings, tunnel.why_not(move, exc)], move.skip)
    return Report(
        container_id=move.container_id,
        container=move.container,
        source=move.source,
        target=move.target,
        mode=planned.mode,
        epoch=move.epoch,
        findings=findings,
        size=seen.size,
        prediction=predict(
            seen.size,
            known,
            mode=planned.mode,
            max_downtime_s=move.max_downtime_s,
            lazy=seen.lazy,
            bandwidth=planned.transfer.bandwidth,
        ),
        plan=tuple(_plan(move, seen, planned.mode)),
    )


def _plan(move: Move, seen: Examination, mode: str) -> Iterator[str]:
    size, spec = seen.size, seen.description.spec
    yield f"reserve   {move.target}: id, {spec.network.address or 'no address'}, {size.memory >> 20} MiB of memory"
    yield f"tunnel    ssh from {move.source} to {move.target}, with a certificate for this move alone"
    if size.missing_layers:
        yield f"layers    {size.missing_layers} of the image's {len(seen.description.image.layers)}, {size.image >> 20} MiB"
    if mode != "stop-and-copy":
        yield f"precopy   {size.layer >> 20} MiB of files, then {size.memory >> 20} MiB of memory in rounds, while it runs on"
    yield f"freeze    {seen.description.tasks} tasks stand still on {move.source}; what is left is sent"
    where = "before its memory is in place" if seen.lazy else "with all of its memory"
    yield f"restore   on {move.target}, {where}; nothing runs there yet"
    yield f"pivot     {move.target} owns it, epoch {move.epoch} becomes {move.epoch + 1}; from here there is no way back"
    yield f"resume    it runs on {move.target}; {spec.network.address.partition('/')[0] or 'no address'} is announced there"
    yield f"release   {move.source} forgets it"
