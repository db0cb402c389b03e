"""Soft-dirty pre-copy between vm1 and vm2, which userfaultfd would otherwise do: under a program whose every page can be proven, and the
trackers' property test on that kernel. Called by moves.py.
"""

from __future__ import annotations

import json
import time
from pathlib import Path
from typing import Any

from migrate.lab.demo_run import CheckFailed, Checks, say
from tests.vm import fleet as vm
from tests.vm.fleet import Fleet, Machine

ROOT = Path(__file__).resolve().parents[2]
PROGRAM = ROOT / "tests/workloads/patterned_memory.py"
NAME, WAY = "pattern", "soft-dirty"
SIZE_MB, PAGES_A_SECOND = 24, 200
PROPERTY_CASES = 3  # minutes, emulated
CONFIG = "/etc/migrate/agent.toml"
PYTHON = "/opt/migrate/app/bin/python"


def soft_dirty(fleet: Fleet, checks: Checks, first: Machine, second: Machine) -> None:
    """All of it; both machines' agents are as before afterwards. Raises CheckFailed."""
    property_test(checks, first)
    say(f'dirty_tracker = "{WAY}" on both, and memory that two processes write to by a known pattern')
    for machine in (first, second):
        machine.run(f"echo 'dirty_tracker = \"{WAY}\"' >>{CONFIG} && systemctl restart migrate-agent")
    fleet.wait_ready()
    program = PROGRAM.read_text()
    options = ("-d", "--name", NAME, "--host", first.name, "-m", "256m", "python")
    fleet.migrate("run", *options, "python3", "-c", program, str(SIZE_MB), str(PAGES_A_SECOND), show=False)
    compare(fleet, checks, "before")
    for source, target in ((first, second), (second, first)):
        fleet.migrate("move", NAME, "--to", target.name, show=False)
        record = fleet.last_move(NAME)
        done = next(row["facts"] for row in record["journal"] if row["step"] == "precopy" and row["event"] == "done")
        rounds = [int(each["pages"]) for each in done["each_round"]]
        checks.expect(
            f"{source.name} to {target.name}: {len(rounds)} rounds by {WAY}, pages in each: {', '.join(map(str, rounds))}",
            record["state"] == "succeeded" and len(rounds) > 1 and f"({WAY})" in done["text"],
            f"{record['state']}: {done['text']}",
        )
        checks.expect("no task was left to the shadow", done["shadowed_tasks"] == 0, str(done))
        if source is first:  # on the way back the target has most of it from before
            all_pages = 2 * SIZE_MB * 256
            checks.expect(
                f"the first round had all its memory, {all_pages} pages and more, the others only what was written",
                rounds[0] >= all_pages and max(rounds[1:]) < all_pages / 2,
                str(rounds),
            )
        compare(fleet, checks, f"on-{target.name}")
    fleet.migrate("rm", "-f", NAME)
    for machine in (first, second):
        machine.run(f"sed -i /^dirty_tracker/d {CONFIG} && systemctl restart migrate-agent")
    fleet.wait_ready()


def property_test(checks: Checks, machine: Machine) -> None:
    """bench.trackers, on a kernel that has soft-dirty: it ends with 1 for one page that differs."""
    say(f"The trackers' property test on {machine.name}")
    machine.put(ROOT / "bench", to="/root/")
    said = machine.run(f"cd /root && {PYTHON} -m bench.trackers --way {WAY} --cases {PROPERTY_CASES}")
    checks.expect(" ".join(said.split()), "; 0 pages wrong" in said, said)


def compare(fleet: Fleet, checks: Checks, word: str) -> None:
    """Both processes compare all their pages, now."""
    fleet.migrate("exec", NAME, "sh", "-c", f"echo {word} >/srv/ask", show=False)
    told = said(fleet)
    for name in ("first", "second"):
        answer = _answer(fleet, name, word)
        checks.expect(
            f"{name}: {answer['pages']} pages compared after {answer['writes']} writes, all as they must be",
            answer["wrong_pages"] == 0,
            f"{answer['wrong_pages']} are not: {answer['wrong']}",
        )
        checks.expect(
            f"{name}: no write is lost, {told[name]} had been told", answer["writes"] >= told[name], str(answer)
        )


def said(fleet: Fleet) -> dict[str, int]:
    """How often each process had written when it last told."""
    lines = [line.split() for line in fleet.migrate("logs", NAME, show=False).splitlines()]
    return {"first": 0, "second": 0} | {name: int(writes) for name, writes in lines}


def _answer(fleet: Fleet, name: str, word: str) -> dict[str, Any]:
    deadline = time.monotonic() + vm.READY_LIMIT_S
    while True:
        try:
            answer: dict[str, Any] = json.loads(fleet.migrate("exec", NAME, "cat", f"/srv/{name}.json", show=False))
            if answer["asked"] == word:
                return answer
        except CheckFailed:
            pass  # its first answer is still to come
        if time.monotonic() > deadline:
            raise CheckFailed(f"{name} does not say what its memory is")
        time.sleep(1)
