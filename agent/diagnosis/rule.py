"""What a rule is."""

from __future__ import annotations

from dataclasses import dataclass

CRIU = "checkpoint-restore/criu"


@dataclass(frozen=True, kw_only=True)
class Rule:
    """One known failure.

    `pattern`, `near`: regular expressions, whatever the case; the first is looked for in one error line, the second in the lines around
    it. `cause` and `remedy` may name groups of either as {group}. `check`: the check before a move that finds this, a name of CHECKS, ""
    where none does. `thread`: where it was met, OWNER/REPOSITORY#NUMBER, or a file of CRIU. `general`: it says little; any other error
    line of the log that has a rule goes first.
    """

    name: str
    pattern: str
    cause: str
    remedy: str
    near: str = ""
    check: str = ""
    thread: str = ""
    general: bool = False


# Who finds it beforehand: "move", the check of both hosts that every move begins with (`--dry-run` does no more); "doctor", the check
# of one host by `migrate doctor` without arguments, whose names these are.
CHECKS = {
    "io_uring": "move",
    "devices": "move",
    "terminal": "move",
    "mounts": "move",
    "host-network": "move",
    "memory": "move",
    "disk": "move",
    "architecture": "doctor",
    "cgroup": "doctor",
    "criu": "doctor",
    "kernel": "doctor",
    "network": "doctor",
    "nftables": "doctor",
    "privileges": "doctor",
    "userfaultfd-userns": "doctor",
}
