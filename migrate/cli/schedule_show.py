"""Schedules and their runs as text."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

from migrate.cli import tables

if TYPE_CHECKING:
    from migrate.records_schedules import Schedule, ScheduleJob, ScheduleLeg, ScheduleRun


def listed(schedules: Sequence[Schedule]) -> str:
    rows = []
    for one in schedules:
        newest = one.runs[0] if one.runs else None
        last = f"{newest.state}, {tables.ago(newest.started_unix_ns)} ago" if newest else "-"
        rows.append((one.job.name, _what(one.job), one.job.cron or "-", one.job.tz, _next(one), last))
    return tables.table(("NAME", "WHAT", "CRON", "ZONE", "NEXT", "LAST"), rows)


def shown(one: Schedule) -> str:
    """Everything but the hooks' output."""
    job = one.job
    lines = [f"{job.name}: {_what(job)}", f"  next: {_next(one)}" + (f"  ({job.cron}, {job.tz})" if job.cron else "")]
    lines.append(f"  window: {tables.seconds(job.window_s)}; missed: {job.missed}")
    facts = [
        ("one at a time", job.group if job.kind == "evacuate" else ""),
        ("blackouts", ", ".join(job.blackouts)),
        ("hook", job.hook + (" (restarts the host)" if job.reboots else "")),
        ("to", ", ".join(job.to)),
        ("action", job.action),
        ("selector", ", ".join(f"{key}={value}" for key, value in sorted(job.selector.items()))),
        ("deadline", tables.seconds(job.deadline_s) if job.deadline_s else ""),
        ("reason", job.reason),
    ]
    lines += [f"  {name}: {value}" for name, value in facts if value]
    lines += [run(each, output=False) for each in one.runs] or ["no runs yet"]
    return "\n".join(lines)


def run(one: ScheduleRun, *, output: bool) -> str:
    """Head, and a line a host."""
    parts = [one.state, one.cause, f"{tables.ago(one.started_unix_ns)} ago"]
    if one.finished_unix_ns > one.started_unix_ns:
        parts.append(f"took {tables.seconds((one.finished_unix_ns - one.started_unix_ns) / 1e9)}")
    lines = [f"run {one.id[:12]} of {one.schedule}: {', '.join(parts)}" + (f": {one.why}" if one.why else "")]
    for leg in one.legs:
        lines.append(f"  {leg.host}: {line(leg)}")
        if output and leg.hook_output:
            lines += [f"    | {text}" for text in leg.hook_output.splitlines()]
    return "\n".join(lines)


def line(leg: ScheduleLeg) -> str:
    """What has become of one host."""
    text = {
        "leaving": f"its containers leave ({leg.evacuation_id[:12] or 'beginning'})",
        "hook": "the hook runs",
        "awaited": "waiting until it is back",
        "returning": f"its containers come home ({leg.restore_id[:12] or 'beginning'})",
    }.get(leg.state, leg.state)
    parts = [text]
    if leg.hook_ended:
        parts.append(f"hook: status {leg.hook_status} after {tables.seconds(leg.hook_took_s)}")
    if leg.finished_unix_ns and leg.started_unix_ns:
        parts.append(f"took {tables.seconds((leg.finished_unix_ns - leg.started_unix_ns) / 1e9)}")
    why = [leg.why] if leg.why else []
    why += [leg.error.message + (f" ({leg.error.hint})" if leg.error.hint else "")] if leg.error else []
    return ", ".join(parts) + "".join(f": {one}" for one in why)


def _what(job: ScheduleJob) -> str:
    return f"evacuate {job.host}" if job.kind == "evacuate" else f"rolling {job.group}"


def _next(one: Schedule) -> str:
    if one.paused:
        return "paused"
    return one.next_local.replace("T", " ") or "-"
