"""What the demo shows of a move, and what it demands of one."""
# ruff: noqa: T201
# A program that talks to people.

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from migrate.lab.demo_run import Checks, Seen
from migrate.records import Migration


def show(record: Migration, during: Seen, after: Seen) -> None:
    """Steps with their times, bytes by kind, and how it looked from outside."""
    print("    steps")
    for name, seconds in steps(record):
        print(f"      {name:<10} {seconds * 1000:8.0f} ms")
    print(f"      {'in all':<10} {record.facts.get('total_s', 0.0) * 1000:8.0f} ms")
    print("    sent")
    for kind, count in record.sent_bytes.items():
        print(f"      {kind:<16} {count / 1e6:8.2f} MB")
    for name in ("frozen_s", "downtime_s"):
        if name in record.facts:
            print(f"    {name[:-2]}: {record.facts[name] * 1000:.0f} ms by the hosts' own marks")
    longest = max(during, after, key=lambda seen: seen.longest_gap_s)
    print(
        f"    from outside: {during.replies} answers during the move and {after.replies} after it;"
        f" the longest wait for one was {longest.longest_gap_s * 1000:.0f} ms"
    )


def steps(record: Migration) -> list[tuple[str, float]]:
    """Name and seconds of each step that was done, in order, by the coordinator's clock."""
    began = {each.step: each.unix_ns for each in record.journal if each.event == "started"}
    return [
        (each.step, (each.unix_ns - began[each.step]) / 1e9)
        for each in record.journal
        if each.event == "done" and each.step in began
    ]


def check_move(checks: Checks, record: Migration, route: str) -> None:
    """What the coordinator has written down."""
    checks.expect("the move succeeded", record.state == "succeeded", f"its state is {record.state}")
    recorded = f"{record.source} to {record.target}"
    checks.expect(f"it went from {route}", recorded == route, f"the record says {recorded}")


def check_client(checks: Checks, record: Migration, port: int, during: Seen, after: Seen) -> None:
    """What the client outside has seen."""
    problems = during.problems + after.problems
    checks.expect("no answer was lost, repeated or out of order", not problems, "; ".join(problems[:5]))
    checks.expect("it was one connection all the time", port == during.port == after.port, f"{port}, {after.port}")
    watched = during.began_unix_ns < record.started_unix_ns and during.replies > 0
    checks.expect("the client was talking when the move began", watched, f"{during.replies} answers")
    checks.expect("the client talks on with the moved process", after.replies > 0, "no answer after the move")


def check_data(checks: Checks, verified: Mapping[str, Any]) -> None:
    """All keys, byte by byte; one more key is the client's counter."""
    intact = not verified["missing"] and not verified["wrong"] and verified["total_keys"] == verified["keys"] + 1
    checks.expect(f"all {verified['keys']} values are there and are what was written", intact, str(dict(verified)))
