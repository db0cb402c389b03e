"""Less processor time for a container while its memory is sent ahead, and always all of it back. Standard library only.

Whoever begins writes a Plan down first (agent/handover/source.py): it alone is enough to take everything back, also for an agent
that starts after everybody else has died.
"""

from __future__ import annotations

import errno
from dataclasses import dataclass
from pathlib import Path

from agent.engine import control, limits
from agent.engine.cgroup import Cgroup
from agent.engine.spec import UNLIMITED, Limits


@dataclass(frozen=True, kw_only=True)
class Plan:
    """`path`: the file of the quota, which is version 1's or not. `quota_us` a `period_us`: the container's own, UNLIMITED for none."""

    path: str
    is_v1: bool
    period_us: int
    quota_us: int
    usage_path: str


def plan(cgroup: Cgroup, wanted: Limits) -> Plan:
    """Touches nothing. Raises Unsupported where this host cannot limit processor time."""
    is_v1, path = limits.quota_file(cgroup.directories)
    quota_us, period_us = limits.cpu_max(wanted)
    usage = cgroup.freezer / "cpu.stat"  # version 2 accounts for it even where version 1 has the controller
    return Plan(path=str(path), is_v1=is_v1, period_us=period_us, quota_us=quota_us, usage_path=str(usage))


def used_s(of: Plan) -> float:
    """Seconds of processor time so far; 0 where it cannot be read."""
    return int(control.pairs(control.read(Path(of.usage_path))).get("usage_usec", "0")) / 1e6


def hold(of: Plan, processors: float) -> None:
    """No more than these from now on. Raises OSError, InvalidArgument."""
    quota_us = max(limits.LEAST_QUOTA_US, round(processors * of.period_us))
    _write(of, quota_us if of.quota_us == UNLIMITED else min(quota_us, of.quota_us))


def release(of: Plan) -> None:
    """As its limits say. Idempotent; no error where the container is gone. Raises OSError, InvalidArgument."""
    try:
        _write(of, of.quota_us)
    except OSError as exc:
        if exc.errno not in (errno.ENOENT, errno.ENODEV):
            raise


def _write(of: Plan, quota_us: int) -> None:
    limited = quota_us != UNLIMITED
    text = str(quota_us) if of.is_v1 else f"{quota_us if limited else 'max'} {of.period_us}"
    if not Path(of.path).exists():
        raise FileNotFoundError(errno.ENOENT, "no such cgroup", of.path)
    control.write(Path(of.path), text)
