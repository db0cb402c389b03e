"""What `Client.check` returns. Standard library only."""

from __future__ import annotations

from migrate.records_json import Json


class CheckFinding(Json):
    """`severity`: "blocker", "warning", or "skipped": a blocker that `skip` names. `where`: a host, or a process of the container.

    `pid` on the source, 0 where it is of no one process; `descriptor` of that process; `path` as /proc shows it.
    """

    check: str
    severity: str
    what: str
    where: str
    remedy: str
    pid: int
    descriptor: str
    path: str
    skippable: bool


class Prediction(Json):
    """Seconds and bytes, before compression. `*_because`: what the numbers come from. `image_bytes`: layers that the target lacks."""

    downtime_s: float
    downtime_because: str
    total_s: float
    total_because: str
    memory_bytes: int
    layer_bytes: int
    image_bytes: int
    missing_layers: int
    bytes_per_s: float
    round_trip_s: float


class CheckReport(Json):
    """`findings`: blockers first. `plan`: what the move would do, a line a step."""

    container_id: str
    container: str
    source: str
    target: str
    mode: str
    findings: tuple[CheckFinding, ...]
    prediction: Prediction
    plan: tuple[str, ...]

    @property
    def blockers(self) -> tuple[CheckFinding, ...]:
        """Empty: the move may begin."""
        return tuple(each for each in self.findings if each.severity == "blocker")
