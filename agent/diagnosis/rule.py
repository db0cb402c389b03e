"""What a rule is."""

from __future__ import annotations

from dataclasses import dataclass

CRIU = "checkpoint-restore/criu"


@dataclass(frozen=True, kw_only=True)
class Rule:
    """One known failure.

    `pattern`, `near`: regular expressions, whatever the case; the first is looked for in one error line, the second in the lines around
    it. `cause` and `remedy` may name groups of either as {group}. `check`: the check that finds this beforehand, a name of CHECKS, ""
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


# Who finds it beforehand: "check", `migrate check CONTAINER --to HOST`, which every move begins with (docs/check.md has these names);
# "doctor", the check of one host by `migrate doctor` without arguments, whose names these are.
CHECKS = {
    "architecture": "check",
    "bind-source": "check",
    "cgroup": "check",
    "clock": "check",
    "cpu-features": "check",
    "cpuset": "check",
    "deleted-file": "check",
    "device-open": "check",
    "disk": "check",
    "half-open": "check",
    "host-namespace": "check",
    "inotify-overlay": "check",
    "io-uring": "check",
    "kernel-object": "check",
    "lsm": "check",
    "memfd-secret": "check",
    "memory": "check",
    "mptcp": "check",
    "nested-namespace": "check",
    "perf-event": "check",
    "propagation": "check",
    "ptrace": "check",
    "pty-peer": "check",
    "socket-kind": "check",
    "sysv-ipc": "check",
    "terminal": "check",
    "unix-peer": "check",
    "userfaultfd": "check",
    "criu": "doctor",
    "kernel": "doctor",
    "network": "doctor",
    "nftables": "doctor",
    "privileges": "doctor",
    "userfaultfd-userns": "doctor",
}
