"""The corpus of real failures: each has its cause and what to do; and what nobody knows is shown as it is."""

from __future__ import annotations

import re
import tomllib
from collections import Counter
from pathlib import Path
from typing import Any

import pytest

from agent.diagnosis.diagnose import AROUND, RULES, diagnose
from agent.diagnosis.rule import CHECKS
from migrate.coordinator.preflight import catalog

pytestmark = pytest.mark.unit

ROOT = Path(__file__).resolve().parents[4]
CORPUS: list[dict[str, Any]] = [
    failure
    for path in sorted((Path(__file__).parent / "corpus").glob("*.toml"))
    for failure in tomllib.loads(path.read_text())["failure"]
]
THREAD = re.compile(r"[\w.-]+/[\w.-]+#\d+")


@pytest.mark.parametrize("failure", CORPUS, ids=lambda one: f"{one['rule']}-{one['thread']}")
def test_a_real_failure_is_explained(failure: dict[str, Any]) -> None:
    """The rule that was meant, with the cause and the remedy; the error is a line of the log."""
    found = diagnose(failure["log"])
    assert found.rule == failure["rule"], found
    assert failure["cause"] in found.cause
    assert failure["remedy"] in found.remedy
    assert found.error
    assert found.error in failure["log"].splitlines()[found.line - 1]
    assert "errno 0" not in found.error
    assert not re.search(r"\{\w+\}|\0", found.cause + found.remedy)


def test_the_corpus_is_of_sixty_real_failures_from_trackers() -> None:
    """Sixty different ones at least, each from a public thread; no log is there twice."""
    assert len({failure["log"] for failure in CORPUS}) == len(CORPUS)
    assert len({failure["thread"] for failure in CORPUS if THREAD.fullmatch(failure["thread"])}) >= 60
    for failure in CORPUS:
        known = THREAD.fullmatch(failure["thread"]) or failure["thread"].startswith(("criu/", "openssh:"))
        assert known or (ROOT / failure["thread"]).is_file(), failure["thread"]


def test_every_rule_has_a_failure_that_needs_it() -> None:
    """No rule without an example, no two rules of one name, no check that does not exist."""
    names = [rule.name for rule in RULES]
    assert [name for name, count in Counter(names).items() if count > 1] == []
    assert set(names) == {failure["rule"] for failure in CORPUS}
    assert {rule.check for rule in RULES} - {""} == set(CHECKS)
    probed = "".join(path.read_text() for path in (ROOT / "agent" / "setup").glob("probe*.py"))
    for name, who in CHECKS.items():
        assert (name in catalog.CHECKS) if who == "check" else f'name="{name}"' in probed, name


def test_an_unknown_error_is_shown_with_what_is_around_it() -> None:
    """The first error that says anything, and twenty lines around it; nothing is explained away."""
    lines = [f"(00.{number:06}) line {number}" for number in range(60)]
    lines[29] = "(00.000029) Error (criu/util.c:1509): Can't wait or bad status: errno=0, status=65280"
    lines[30] = "(00.000030) Error (criu/flux.c:9): Flux capacitor empty"
    lines[40] = "(00.000040) Error (criu/cr-dump.c:2111): Dumping FAILED."
    found = diagnose("\n".join(lines))
    assert (found.error, found.line, found.rule, found.cause, found.remedy) == ("Flux capacitor empty", 31, "", "", "")
    assert not found.known
    assert found.context.splitlines() == lines[30 - AROUND : 30 + AROUND + 1]


def test_errno_0_is_never_the_answer() -> None:
    """A log whose only error says that there is none is shown without it."""
    found = diagnose("before\n(00.1) Error (criu/util.c:1509): Can't wait or bad status: errno=0, status=65280\nafter")
    assert "errno" not in found.error
    assert found.error
    assert found.context.startswith("before")


def test_a_specific_error_goes_before_one_that_says_little() -> None:
    """ "killed by signal 9" comes first in some logs; the file that is missing is why."""
    text = (
        "(00.1) Error (criu/cr-restore.c:1012): 1371 killed by signal 9: Killed\n"
        "(00.2)   7: Error (criu/files-reg.c:2175): File a b has bad size 1 (expect 2)\n"
    )
    assert diagnose(text).rule == "file-size"
    assert "a b has 1 bytes" in diagnose(text).cause


def test_harmless_lines_are_no_errors() -> None:
    """What every run says is passed over, and a log of nothing else has no error."""
    harmless = (
        "(00.1) Error (criu/util.c:1534): rlimit: Can't setup RLIMIT_NOFILE for self: Operation not permitted\n"
        "Error: ipv4: Address already assigned.\n"
        "(00.2) Error (criu/cgroup.c:1970): cg: cgroupd: recv req error: No such file or directory\n"
    )
    found = diagnose(harmless)
    assert (found.error, found.line, found.known) == ("", 0, False)
    assert found.context
    assert diagnose("").error == ""


def test_errors_inside_the_restorer_lose_their_prefix() -> None:
    """Lines of the restorer and of inner pids are shown without time and place."""
    found = diagnose(
        "(00.086778)      1: Error (criu/uffd.c:314): uffd: Unable to open an userfaultfd descriptor: Operation not permitted\n"
    )
    assert found.error.startswith("uffd: Unable")
    assert "unprivileged_userfaultfd" in found.remedy
