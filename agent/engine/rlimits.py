"""Resource limits of processes (ulimit): what the spec asks for, whether this host may give it, and setting them. Standard
library only.

A hard limit can only be raised with CAP_SYS_RESOURCE over the host, so that happens before a process enters the container;
the values themselves come last, just before execve: a small one must not stop what still has to be done before.
"""

from __future__ import annotations

import resource
from collections.abc import Mapping, Sequence
from pathlib import Path

from agent.engine.spec import UNLIMITED, Limits
from agent.errors import InvalidArgument, Unsupported

NOFILE = (1024, 524288)  # soft, hard; the hard one no higher than the agent's own
KINDS = (
    "as", "core", "cpu", "data", "fsize", "memlock", "msgqueue", "nice", "nofile", "nproc", "rss", "rtprio", "rttime",
    "sigpending", "stack",
)  # fmt: skip
_CAP_SYS_RESOURCE = 24


def check(limits: Limits) -> None:
    """Raises InvalidArgument for what no host can set, Unsupported for what only a more privileged agent could."""
    names = [one.name for one in limits.ulimits]
    if len(set(names)) < len(names):
        raise InvalidArgument(
            f"one of {', '.join(names)} is given twice", hint="--ulimit NAME=SOFT:HARD, once for each name"
        )
    for one in limits.ulimits:
        if one.name not in KINDS:
            raise InvalidArgument(f"no resource limit is called {one.name!r}", hint=f"known are {', '.join(KINDS)}")
        if _above(one.soft, one.hard):
            raise InvalidArgument(f"{one.name}: the soft limit {one.soft} is above the hard one, {one.hard}")
        own = resource.getrlimit(_number(f"RLIMIT_{one.name.upper()}"))[1]
        if _above(one.hard, own) and not _may_raise():
            raise Unsupported(
                f"{one.name}={one.hard} is above the agent's own limit of {own}, which it may not raise here",
                hint="start the agent with that limit (LimitXXX= of its unit) or with CAP_SYS_RESOURCE, or ask for less",
            )
    if limits.oom_score_adj < 0 and not _may_raise():
        raise Unsupported(
            f"an OOM score of {limits.oom_score_adj}: the agent has no CAP_SYS_RESOURCE here, which a score below 0 needs",
            hint="start the agent with CAP_SYS_RESOURCE, or leave --oom-score-adj out",
        )


def plan(limits: Limits) -> dict[str, list[int]]:
    """{"RLIMIT_NOFILE": [soft, hard]}: the spec's, and what every container gets."""
    soft, hard = NOFILE
    own = resource.getrlimit(resource.RLIMIT_NOFILE)[1]
    if own != UNLIMITED:
        hard = min(hard, own)
    asked = {f"RLIMIT_{one.name.upper()}": [one.soft, one.hard] for one in limits.ulimits}
    return {"RLIMIT_NOFILE": [min(soft, hard), hard], **asked}


def raise_hard(wanted: Mapping[str, Sequence[int]], pid: int) -> None:
    """Of the process `pid` (0: this one), from the host's side. Raises OSError, ValueError, AttributeError for a name that is none."""
    for name, (soft, hard) in wanted.items():
        if _above(soft, hard):
            raise ValueError(f"{name}: {soft} is above {hard}")
        now = resource.prlimit(pid, _number(name))
        if _above(hard, now[1]):
            resource.prlimit(pid, _number(name), (now[0], hard))


def set_all(wanted: Mapping[str, Sequence[int]]) -> None:
    """In the container, just before execve. Raises OSError."""
    for name, (soft, hard) in wanted.items():
        resource.setrlimit(_number(name), (soft, hard))


def _number(name: str) -> int:
    number: int = getattr(resource, name)
    return number


def _above(one: int, other: int) -> bool:
    return other != UNLIMITED and (one == UNLIMITED or one > other)


def _may_raise() -> bool:
    lines = Path("/proc/self/status").read_text().splitlines()
    effective = int(next(line for line in lines if line.startswith("CapEff:")).split()[1], 16)
    return bool(effective >> _CAP_SYS_RESOURCE & 1)
