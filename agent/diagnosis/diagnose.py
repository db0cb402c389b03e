"""Text in, diagnosis out: CRIU's log, an error message, a log of ssh or of a transfer process. Pure."""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass

from agent.diagnosis.dump_rules import DUMP
from agent.diagnosis.host_rules import GENERAL, HOST
from agent.diagnosis.restore_rules import RESTORE
from agent.diagnosis.rule import Rule

RULES: tuple[Rule, ...] = (*DUMP, *RESTORE, *HOST, *GENERAL)
AROUND = 10  # lines before the error and behind it
FIRST_ERRORS = 8  # what comes after so many is consequence

# Said in every run without CAP_SYS_RESOURCE, of kernels without a module, of an interface that brings its own address: harmless.
_HARMLESS = re.compile(
    r"Can't setup RLIMIT_NOFILE|ip(6)?tables(-legacy)?-save|ipv[46]: address already assigned|cgroupd: recv req error"
    r"|Can't make a server listen|pidfd_store|Unable to load cpuinfo|irmap: Can't stat|Can't remove the directory .*criu\.mntns"
    r"|No such parent image|loginuid",
    re.IGNORECASE,
)
# Only that it failed, or where: never an answer.
_EMPTY = re.compile(
    r"(Dumping|Restoring) FAILED|Can't wait or bad status|\(pid: \d+\) failed with -?\d+|Unable to open fd=|`- Can't open vma"
    r"|Can't fixup VMA|errno[ =:]*0\b|^exited, status=|\d+ exited, status=|Failed to switch restore stage|Restorer (fail|abnormal)",
)
_ERROR = re.compile(r"\bError\b|^Fatal:|\bFATAL\b")
_WHERE = re.compile(
    r"^.*?(?:\(\d+\.\d+\)\s*)?(?:pie: )?(?:\d+: )?(?:pie: \d+: )?\s*Error(?: \([^)]*\))?:\s*", re.IGNORECASE
)
_ERRNO_0 = re.compile(r"[,;:(]?\s*\berrno[ =:]*0\b[,;)]?")


@dataclass(frozen=True, kw_only=True)
class Diagnosis:
    """`error`: the line that says what failed, without time and place, "" when there is none. `line`: its number, from 1; 0 = none.

    `rule`: the name of the rule that knows it; "" = nobody does: then `cause`, `remedy`, `check` and `thread` are "" too.
    `context`: the lines around the error, AROUND on each side; of a text without an error its last ones.
    """

    error: str = ""
    line: int = 0
    rule: str = ""
    cause: str = ""
    remedy: str = ""
    check: str = ""
    thread: str = ""
    context: str = ""

    @property
    def known(self) -> bool:
        return bool(self.rule)

    def to_dict(self) -> dict[str, str | int | bool]:
        return {**asdict(self), "known": self.known}


def diagnose(text: str) -> Diagnosis:
    """The first error of `text` that a rule explains; else the first one that says anything."""
    lines = text.splitlines()
    numbers = list(_errors(lines))[:FIRST_ERRORS]
    if not numbers:  # a message, or a log of somebody else: any line may be it
        numbers = [number for number, line in enumerate(lines) if line.strip() and not _HARMLESS.search(line)]
        if not any(_match(lines, number, general=general) for number in numbers for general in (False, True)):
            return Diagnosis(context="\n".join(lines[-2 * AROUND :]))
    for general in (False, True):
        for number in numbers:
            if found := _match(lines, number, general=general):
                return _diagnosis(lines, number, *found)
    telling = [number for number in numbers if not _EMPTY.search(plain(lines[number]))]
    return _diagnosis(lines, (telling or numbers)[0])


def plain(line: str) -> str:
    """Without the time, the file of CRIU, and an errno that is none."""
    return _ERRNO_0.sub("", _WHERE.sub("", line)).strip()


def _errors(lines: Sequence[str]) -> Iterator[int]:
    for number, line in enumerate(lines):
        if _ERROR.search(line) and not _HARMLESS.search(line):
            yield number


def _match(lines: Sequence[str], number: int, *, general: bool) -> tuple[Rule, dict[str, str]] | None:
    for rule in RULES:
        if rule.general != general:
            continue
        there = re.search(rule.pattern, lines[number], re.IGNORECASE)
        if there is None:
            continue
        around = re.search(rule.near, _around(lines, number), re.IGNORECASE) if rule.near else None
        if rule.near and around is None:
            continue
        groups = {**there.groupdict(), **(around.groupdict() if around else {})}
        return rule, {name: value for name, value in groups.items() if value}
    return None


def _around(lines: Sequence[str], number: int) -> str:
    return "\n".join(lines[max(0, number - AROUND) : number + AROUND + 1])


def _diagnosis(
    lines: Sequence[str], number: int, rule: Rule | None = None, groups: dict[str, str] | None = None
) -> Diagnosis:
    error, context = plain(lines[number]), _around(lines, number)
    if rule is None:
        return Diagnosis(error=error, line=number + 1, context=context)
    return Diagnosis(
        error=error,
        line=number + 1,
        rule=rule.name,
        cause=_filled(rule.cause, groups or {}),
        remedy=_filled(rule.remedy, groups or {}),
        check=rule.check,
        thread=rule.thread,
        context=context,
    )


def _filled(text: str, groups: dict[str, str]) -> str:
    """What the line does not say is left out, with the words that need it."""

    def value(found: re.Match[str]) -> str:
        return next((groups[name] for name in (found[1], f"{found[1]}2") if name in groups), "\0")

    filled = re.sub(r"\{(\w+)\}", value, text)
    filled = re.sub(r" \([^()]*\0[^()]*\)", "", filled)
    return re.sub(r" ?\0", "", filled)
