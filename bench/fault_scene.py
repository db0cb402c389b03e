"""Who takes part in a move, found from outside by /proc and cgroups, and what the kernel says of both copies: nothing of the product is
asked.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from enum import StrEnum
from pathlib import Path

from migrate.lab import cgroups, nodes, processes
from migrate.lab.layout import Lab

LOOK_EVERY_S = 0.001
_CRIU_NAMES = ("criu", "ld-linux")  # our own build is started through its own loader
_AGENT_STATE = "run/migrate/containers"


class Victim(StrEnum):
    """Who is killed. Source and target: of the move."""

    SOURCE_AGENT = "source agent"
    TARGET_AGENT = "target agent"
    COORDINATOR = "coordinator"
    SOURCE_CRIU = "source CRIU"
    TARGET_CRIU = "target CRIU"
    SSH = "bulk ssh"
    SSHD = "bulk sshd"
    SENDER = "sender"
    RECEIVER = "receiver"
    SOURCE_MONITOR = "source monitor"
    TARGET_MONITOR = "target monitor"
    FILLER = "filler"  # fills the memory on the target


@dataclass(frozen=True, kw_only=True)
class Group:
    """What the kernel says of a container's cgroup on one host."""

    populated: bool
    frozen: bool  # no task runs
    held: bool  # the switch is on: a task that leaves the freezer while it is on does so only to die


class Scene:
    """web1 between two hosts of the lab. `source` and `target` are node names."""

    def __init__(self, lab: Lab, container_id: str, source: str, target: str) -> None:
        self.lab, self.container_id, self.source, self.target = lab, container_id, source, target
        unified = next(each.path for each in cgroups.hierarchies() if each.version == 2)
        self._events = {
            host: unified / lab.container_cgroup(host) / container_id / "cgroup.events" for host in (source, target)
        }
        self._roots = {host: Path(f"/proc/{pid}/root") for host, pid in nodes.supervisors(lab.state_dir).items()}

    # ------------------------------------------------------------ who

    def find(self, victim: Victim) -> processes.Process | None:
        """The victim's process now; None: there is none in this phase."""
        pid = self.pid_of(victim)
        return processes.read(pid) if pid else None

    def pid_of(self, victim: Victim) -> int:
        match victim:
            case Victim.SOURCE_AGENT:
                return self.program(self.source, "agent")
            case Victim.TARGET_AGENT:
                return self.program(self.target, "agent")
            case Victim.COORDINATOR:
                return self.program("controller", "coordinator")
            case Victim.SOURCE_MONITOR:
                return self.monitor(self.source)
            case Victim.TARGET_MONITOR:
                return self.monitor(self.target)
            case Victim.SOURCE_CRIU:
                return self.criu(self.source)
            case Victim.TARGET_CRIU:
                return self.criu(self.target)
            case Victim.SENDER:
                return _child(self.program(self.source, "agent"), "agent.transfer.sender")
            case Victim.RECEIVER:
                return _child(self.program(self.target, "agent"), "agent.transfer.receiver")
            case Victim.SSH:
                return _child(self.pid_of(Victim.SENDER), "ssh ")
            case Victim.SSHD:
                return self._bulk_session()
            case Victim.FILLER:
                return _child(self.monitor(self.target), "filler.py")

    def program(self, node: str, name: str) -> int:
        state = nodes.states(self.lab.state_dir)[node]
        return next(each.pid for each in state.programs if each.name == name)

    def monitor(self, host: str) -> int:
        """0: the container has none there."""
        try:
            pid = int((self._roots[host] / _AGENT_STATE / self.container_id / "monitor.pid").read_text())
        except (FileNotFoundError, ValueError):
            return 0
        process = processes.read(pid)
        return pid if process and self.container_id in process.command else 0

    def criu(self, host: str) -> int:
        """The monitor's first child of that name: the root of what it restores is born later, as its sibling."""
        for pid in children(self.monitor(host)):
            if _name(pid).startswith(_CRIU_NAMES) and processes.read(pid):
                return pid
        return 0

    def _bulk_session(self) -> int:
        """sshd's process of the user `migrate` which leads to the receiver: the parent of `dial -c bulk ID`."""
        for parent, _ in _below(self.program(self.target, "sshd")):
            if _child(parent, "dial -c bulk"):
                return parent
        return 0

    # ------------------------------------------------------------ where the move is

    def group(self, host: str) -> Group:
        try:
            text, switch = self._events[host].read_text(), self._events[host].with_name("cgroup.freeze").read_text()
        except OSError:
            return Group(populated=False, frozen=False, held=False)
        return Group(populated="populated 1" in text, frozen="frozen 1" in text, held=switch == "1\n")

    def kill_tasks(self, host: str) -> None:
        """All of the container's tasks there, frozen or not, as a crash of the host would."""
        (self._events[host].parent / "cgroup.kill").write_text("1")

    def traced(self, host: str) -> bool:
        """Whether CRIU holds a task of the container by ptrace."""
        try:
            pids = (self._events[host].parent / "cgroup.procs").read_text().split()
            return any("TracerPid:\t0\n" not in Path(f"/proc/{pid}/status").read_text() for pid in pids)
        except OSError:
            return False

    def runs_on_target(self) -> bool:
        group = self.group(self.target)
        return group.populated and not group.frozen and not self.criu(self.target)


def _below(pid: int) -> Iterator[tuple[int, str]]:
    """Every descendant with its command line; nearest first."""
    level = [pid]
    while level:
        below = [child for parent in level for child in children(parent)]
        for child in below:
            yield child, _command(child)
        level = below


def _child(pid: int, word: str) -> int:
    """The child of `pid` with `word` in its command line; 0: none."""
    return next((child for child in children(pid) if word in _command(child)), 0) if pid else 0


def children(pid: int) -> list[int]:
    """Of all its threads: a child belongs to the thread that made it."""
    found: list[int] = []
    try:
        for task in Path(f"/proc/{pid}/task").iterdir():
            found += [int(word) for word in (task / "children").read_text().split()]
    except OSError:
        pass  # it ended while we looked
    return found


def _command(pid: int) -> str:
    try:
        return Path(f"/proc/{pid}/cmdline").read_bytes().replace(b"\0", b" ").decode(errors="replace")
    except OSError:
        return ""


def _name(pid: int) -> str:
    try:
        return Path(f"/proc/{pid}/comm").read_text().strip()
    except OSError:
        return ""
