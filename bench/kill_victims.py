"""Who takes part in a move, found from outside by /proc and cgroups, and where a move is: nothing of the product is asked.

A phase is entered exactly by stopping (SIGSTOP) the process that would end it, which goes on after the kill.
"""

from __future__ import annotations

import signal
import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
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


class Phase(StrEnum):
    """When. Each is held open by stopping one process; see `Scene.hold`."""

    PRECOPY = "precopy"  # the sender is stopped while the journal says precopy
    DUMP = "dump"  # CRIU is stopped while it traces web1's init
    SEND = "send"  # the sender is stopped when the tasks are frozen in the kernel
    RESTORE = "restore"  # CRIU on the target is stopped when the first task exists there
    RESTORED = "restored"  # CRIU on the target is stopped when it holds all tasks, about to let them go
    # Past the pivot: the source's agent is stopped while the target restores, until web1 runs there.
    RELEASE = "release"
    # Post-copy only: the sender is stopped while memory follows, and web1 runs on the target without it.
    REST = "rest"


def phases(mode: str) -> tuple[Phase, ...]:
    """Those that a move of this mode has."""
    missing = {"stop-and-copy": (Phase.PRECOPY, Phase.REST), "postcopy": ()}.get(mode, (Phase.REST,))
    return tuple(each for each in Phase if each not in missing)


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
        pid = self._find(victim)
        return processes.read(pid) if pid else None

    def _find(self, victim: Victim) -> int:
        match victim:
            case Victim.SOURCE_AGENT:
                return self._program(self.source, "agent")
            case Victim.TARGET_AGENT:
                return self._program(self.target, "agent")
            case Victim.COORDINATOR:
                return self._program("controller", "coordinator")
            case Victim.SOURCE_MONITOR:
                return self.monitor(self.source)
            case Victim.TARGET_MONITOR:
                return self.monitor(self.target)
            case Victim.SOURCE_CRIU:
                return self.criu(self.source)
            case Victim.TARGET_CRIU:
                return self.criu(self.target)
            case Victim.SENDER:
                return _child(self._program(self.source, "agent"), "agent.transfer.sender")
            case Victim.RECEIVER:
                return _child(self._program(self.target, "agent"), "agent.transfer.receiver")
            case Victim.SSH:
                return _child(self._find(Victim.SENDER), "ssh ")
            case Victim.SSHD:
                return self._bulk_session()

    def _program(self, node: str, name: str) -> int:
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
        for parent, _ in _below(self._program(self.target, "sshd")):
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

    def hold(self, phase: Phase, step: Callable[[], str], over: Callable[[], bool]) -> Held | None:
        """Wait for the phase and stop who would end it. None: the move ended first. `step`: the journal's word."""
        holder: dict[Phase, Callable[[], int]] = {
            Phase.PRECOPY: lambda: self._find(Victim.SENDER) if step() == "precopy" else 0,
            Phase.DUMP: lambda: self.criu(self.source) if self.traced(self.source) else 0,
            # Rounds of precopy freeze the tasks too, for an instant.
            Phase.SEND: lambda: (
                self._find(Victim.SENDER) if self.group(self.source).frozen and step() == "freeze" else 0
            ),
            Phase.RESTORE: lambda: self.criu(self.target) if self.group(self.target).populated else 0,
            Phase.RESTORED: lambda: self.criu(self.target) if self.traced(self.target) else 0,
            Phase.RELEASE: lambda: self._program(self.source, "agent") if self.group(self.target).populated else 0,
            # Not before web1 runs there: CRIU's restore, too, waits for memory that follows.
            Phase.REST: lambda: self._find(Victim.SENDER) if self._runs_on_target() and step() == "rest" else 0,
        }
        while not (pid := holder[phase]()):
            if over():
                return None
            time.sleep(LOOK_EVERY_S)
        process = processes.read(pid)
        if process is None or not processes.send(process, signal.SIGSTOP):
            return None
        if phase is Phase.RELEASE:
            while not self._runs_on_target():
                if over():
                    return None
                time.sleep(LOOK_EVERY_S)
        return Held(process)

    def _runs_on_target(self) -> bool:
        group = self.group(self.target)
        return group.populated and not group.frozen and not self.criu(self.target)


@dataclass(frozen=True)
class Held:
    """A stopped process."""

    process: processes.Process

    def let_go(self) -> None:
        """It may be the one that was killed."""
        processes.send(self.process, signal.SIGCONT)


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


@dataclass
class Witness:
    """Looks at both hosts all the time: which of them runs web1. A copy runs when its cgroup has tasks, is not frozen, and no
    CRIU is at work on it.
    """

    scene: Scene
    looks: int = 0
    both: int = 0  # looks that saw two running copies: must stay 0
    ran_on: list[str] = field(default_factory=list)  # in order: changes only
    _stop: threading.Event = field(default_factory=threading.Event)
    _criu: dict[str, processes.Process] = field(default_factory=dict)
    _was_frozen: set[str] = field(default_factory=set)

    def __enter__(self) -> Witness:
        self._thread = threading.Thread(target=self._look, daemon=True)
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._stop.set()
        self._thread.join()

    def _look(self) -> None:
        hosts = (self.scene.source, self.scene.target)
        while not self._stop.wait(LOOK_EVERY_S):
            running = [host for host in hosts if self._runs(host)]
            self.looks += 1
            if len(running) == 2:
                self.both += 1
            seen = "+".join(running)
            if seen and (not self.ran_on or self.ran_on[-1] != seen):
                self.ran_on.append(seen)

    def _runs(self, host: str) -> bool:
        group = self.scene.group(host)
        if group.held and (group.frozen or host in self._was_frozen):
            self._was_frozen.add(host)
            return False
        self._was_frozen.discard(host)
        if not group.populated or group.frozen or self.scene.traced(host):
            return False
        if pid := self.scene.criu(host):
            process = processes.read(pid)
            if process:
                self._criu[host] = process  # also after its monitor's death
        known = self._criu.get(host)
        at_work = known is not None and processes.alive(known.pid, known.start_ticks)
        after = self.scene.group(host)  # it may have been frozen since
        return not at_work and after.populated and not after.held
