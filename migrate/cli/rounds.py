"""The rounds of a move as a table, and why they ended: part of `migrate migrations show`."""

from __future__ import annotations

from typing import TYPE_CHECKING

from migrate.cli import tables

if TYPE_CHECKING:
    from migrate.records import Migration

HEAD = ("ROUND", "PAGES", "SENT", "TIME", "WRITTEN", "CPU", "DOWNTIME", "VERDICT")


def rounds(record: Migration) -> list[str]:
    """One line a round of precopy, whether it got to its end or not; then what was wished for and what came."""
    ended = [row for row in record.journal if row.step == "precopy" and row.event in ("done", "failed")]
    if not ended:
        return []
    facts = ended[-1].facts
    lines = tables.table(HEAD, [_row(each) for each in facts.get("each_round", ())]).splitlines()
    lines = lines if facts.get("each_round") else []
    if text := facts.get("text") or ended[-1].error:
        lines.append(text)
    return [f"  {line}" for line in [*lines, _goal(record)]]


def _row(each: dict[str, float | str]) -> tuple[str, ...]:
    def number(name: str) -> float:
        return float(each.get(name, 0))

    written = f"{tables.size(number('dirty_bytes_per_s'))}/s" if number("dirty_bytes_per_s") else "-"
    return (
        f"{number('round'):.0f}",
        f"{number('pages'):.0f}",
        tables.size(number("sent_bytes")),
        tables.seconds(number("took_s")),
        written,
        f"{number('cpu_share'):.0%}" if "cpu_share" in each else "-",
        tables.seconds(number("predicted_downtime_s")),
        str(each.get("verdict", "")),
    )


def _goal(record: Migration) -> str:
    options = record.precopy
    kind = f"a limit, then {options.on_timeout}" if options.binding else "a wish"
    fixed = f"a freeze took {options.fixed_s:.2g} s without memory in earlier moves" if options.fixed_s else ""
    parts = (
        f"--max-downtime {record.max_downtime_s * 1000:.0f} ms is {kind}",
        f"--timeout {options.timeout_s:g} s" if options.timeout_s else "",
        f"--max-rounds {options.max_rounds}" if options.max_rounds else "",
        "--throttle" if options.throttle else "",
        fixed,
    )
    return "; ".join(part for part in parts if part)
