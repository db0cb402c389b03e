"""A finding of a check, and the report that all of them make."""

from __future__ import annotations

import dataclasses
from collections.abc import Collection, Iterable
from dataclasses import dataclass

from migrate.coordinator.preflight import catalog
from protos import agent_pb2

BLOCKER, WARNING, SKIPPED = "blocker", "warning", "skipped"
_ORDER = (BLOCKER, WARNING, SKIPPED)


@dataclass(frozen=True, kw_only=True)
class Finding:
    """What, on which host or of which process, and what to do about it. `severity`: BLOCKER, WARNING, or SKIPPED: a blocker overruled."""

    check: str
    what: str
    where: str
    remedy: str
    severity: str = BLOCKER
    pid: int = 0
    descriptor: str = ""
    path: str = ""

    @property
    def skippable(self) -> bool:
        return catalog.find(self.check).skippable

    def __str__(self) -> str:
        return f"{self.check}: {self.where}: {self.what}" + (f" ({self.remedy})" if self.remedy else "")


def of_agent(blocker: agent_pb2.Blocker, host: str) -> Finding:
    """What the agent of `host` found."""
    return Finding(
        check=blocker.check or catalog.UNKNOWN.name,
        what=blocker.what,
        where=blocker.where or host,
        remedy=blocker.remedy,
        severity=WARNING if blocker.warning else BLOCKER,
        pid=blocker.pid,
        descriptor=blocker.descriptor,
        path=blocker.path,
    )


def judged(findings: Iterable[Finding], skip: Collection[str]) -> tuple[Finding, ...]:
    """With those that `skip` names overruled; blockers first, else in their order."""
    found = [
        dataclasses.replace(each, severity=SKIPPED)
        if each.severity == BLOCKER and each.check in skip and each.skippable
        else each
        for each in findings
    ]
    return tuple(sorted(found, key=lambda each: _ORDER.index(each.severity)))
