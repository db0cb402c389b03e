"""The supervisor of one node: `python -m migrate.lab.node PLAN OUTSIDE`, already inside the node's namespaces (net, mnt, uts).
OUTSIDE is a descriptor of the network namespace that it came from.

First it makes the place look like a host of its own, then it keeps the programs of its plan running until SIGTERM:

    join cgroup ─ hostname ─ /sys, /run, /etc, binds ─ start sshd, agent ─┬─ one ended: start it again, later each time
                                                                    └─ SIGTERM: end the programs, exit

It is one thread and waits in select(). As a child subreaper it inherits the containers' monitors when their agent dies
and reaps them when they end, as a host's pid 1 does; it never kills one.
"""

from __future__ import annotations

import contextlib
import ctypes
import os
import select
import signal
import socket
import subprocess
import sys
import time
from pathlib import Path

from migrate.lab import processes
from migrate.lab.plan import NodePlan, NodeState, Program, ProgramState

_PR_SET_CHILD_SUBREAPER = 36
BRIDGED_TO_IPTABLES = Path("/proc/sys/net/bridge/bridge-nf-call-iptables")
_FIRST_DELAY_S = 0.2
_LAST_DELAY_S = 5.0
_STEADY_S = 10.0  # a program that ran this long starts again at once, with the first delay next time
_END_TIMEOUT_S = 5.0
_KILL_TIMEOUT_S = 20.0
_CLEAR_LIMIT_S = 10.0


class Child:
    """One program, running or waiting to be started again."""

    def __init__(self, program: Program) -> None:
        self.program = program
        self.process: subprocess.Popen[bytes] | None = None
        self.starts = 0
        self.started = 0.0
        self.next_start = 0.0  # monotonic
        self.delay_s = _FIRST_DELAY_S

    def start(self, plan: NodePlan, outside: int) -> None:
        log = Path(plan.directory) / "log" / f"{self.program.name}.log"
        self.starts += 1
        self.started = time.monotonic()
        try:
            with log.open("ab") as output:
                # A session of its own: Ctrl-C in the terminal of `migrate lab up` must not reach it.
                self.process = subprocess.Popen(
                    self.program.argv,
                    stdin=subprocess.DEVNULL,
                    stdout=output,
                    stderr=output,
                    env=plan.environment | ({"OUTSIDE": str(outside)} if self.program.outside else {}),
                    pass_fds=(outside,) if self.program.outside else (),
                    cwd="/",
                    start_new_session=True,
                )
        except OSError as exc:
            self.wait_after(f"cannot be started: {exc}")

    def ended(self, status: int) -> None:
        """Note that the process is gone and when to start another."""
        ran_s = time.monotonic() - self.started
        self.process = None
        if ran_s >= _STEADY_S:
            self.delay_s = _FIRST_DELAY_S
        how = f"status {os.WEXITSTATUS(status)}" if os.WIFEXITED(status) else f"signal {os.WTERMSIG(status)}"
        self.wait_after(f"ended with {how} after {ran_s:.1f} s")

    def wait_after(self, what: str) -> None:
        """Plan the next start, later each time."""
        self.next_start = time.monotonic() + self.delay_s
        say(f"{self.program.name} {what}; again in {self.delay_s:.1f} s")
        self.delay_s = min(self.delay_s * 2, _LAST_DELAY_S)


class Supervisor:
    """Keeps the children of one plan."""

    def __init__(self, plan: NodePlan, outside: int) -> None:
        self.plan, self._outside = plan, outside
        self.children = [Child(program) for program in plan.programs]
        self.stopping = False
        me = processes.read(os.getpid())
        assert me is not None
        self._start_ticks = me.start_ticks
        self._boot_id = processes.BOOT_ID.read_text().strip()
        self._wake, self._woken = os.pipe2(os.O_NONBLOCK | os.O_CLOEXEC)

    def run(self) -> None:
        """Until SIGTERM or SIGINT."""
        ctypes.CDLL(None, use_errno=True).prctl(_PR_SET_CHILD_SUBREAPER, 1, 0, 0, 0)
        signal.set_wakeup_fd(self._woken, warn_on_full_buffer=False)
        signal.signal(signal.SIGCHLD, lambda *_: None)  # for the wake-up only
        for number in (signal.SIGTERM, signal.SIGINT):
            signal.signal(number, self._on_stop)
        while not self.stopping:
            self._start_due()
            due = [child.next_start - time.monotonic() for child in self.children if child.process is None]
            select.select([self._wake], [], [], max(0.0, min(due)) if due else None)
            with contextlib.suppress(BlockingIOError):
                os.read(self._wake, 4096)
            self._reap()
        self._end()

    def _on_stop(self, *_: object) -> None:
        self.stopping = True

    def _start_due(self) -> None:
        for child in self.children:
            if child.process is None and child.next_start <= time.monotonic():
                child.start(self.plan, self._outside)
                self._publish()

    def _reap(self) -> None:
        changed = False
        while True:
            try:
                pid, status = os.waitpid(-1, os.WNOHANG)
            except ChildProcessError:
                break
            if pid == 0:
                break
            for child in self.children:
                if child.process is not None and child.process.pid == pid:
                    child.process.returncode = status  # reaped here: Popen must not wait for the pid again
                    child.ended(status)
                    changed = True
        if changed:
            self._publish()

    def _end(self) -> None:
        """Last first: the agent before the sshd that leads to it."""
        for child in reversed(self.children):
            if child.process is None:
                continue
            child.process.terminate()
            if not self._ends(child, _END_TIMEOUT_S):
                say(f"{child.program.name} did not end within {_END_TIMEOUT_S:.0f} s of SIGTERM: killed")
                child.process.kill()
                self._ends(child, _KILL_TIMEOUT_S)
        self._publish()

    def _ends(self, child: Child, timeout_s: float) -> bool:
        """Whether it has ended, and is reaped, in this time."""
        deadline = time.monotonic() + timeout_s
        while child.process is not None and time.monotonic() < deadline:
            select.select([self._wake], [], [], 0.05)
            with contextlib.suppress(BlockingIOError):
                os.read(self._wake, 4096)
            self._reap()
        return child.process is None

    def _publish(self) -> None:
        programs = tuple(
            ProgramState(name=child.program.name, pid=child.process.pid if child.process else 0, starts=child.starts)
            for child in self.children
        )
        state = NodeState(pid=os.getpid(), start_ticks=self._start_ticks, boot_id=self._boot_id, programs=programs)
        state.save(Path(self.plan.directory))


def say(text: str) -> None:
    print(f"{time.strftime('%Y-%m-%dT%H:%M:%S')} {text}", file=sys.stderr, flush=True)  # noqa: T201  node.log


def _mount(*arguments: str) -> None:
    subprocess.run(["mount", *arguments], check=True)


def below_run() -> list[str]:
    lines = Path("/proc/self/mountinfo").read_text().splitlines()
    return [point for line in lines if (point := line.split(" ")[4]).startswith("/run/")]


def clear_run() -> None:
    """Unmount everything below /run. What is gone when its turn comes is no error: whoever removes the name of a network
    namespace tears its mount off in every mount namespace, in this one too.
    """
    deadline = time.monotonic() + _CLEAR_LIMIT_S
    while points := below_run():
        for point in sorted(points, key=len, reverse=True):
            done = subprocess.run(["umount", "--lazy", point], check=False, capture_output=True, text=True)
        if time.monotonic() > deadline:
            raise OSError(f"{', '.join(points)} cannot be unmounted: {done.stderr.strip()}")


def make_host(plan: NodePlan) -> None:
    """Hostname and mounts. The mount namespace is private already: nothing of this shows outside."""
    socket.sethostname(plan.name)
    # /sys shows the network devices of the namespace of whoever mounted it. A fresh one hides the cgroups: move them
    # over.
    holder = Path(plan.directory) / "run/cgroup"
    holder.mkdir(exist_ok=True)
    _mount("--rbind", "/sys/fs/cgroup", str(holder))
    _mount("-t", "sysfs", "sysfs", "/sys")
    _mount("--move", str(holder), "/sys/fs/cgroup")
    holder.rmdir()
    # Whatever is mounted below /run goes first, not merely out of sight: names of network namespaces, other labs' too,
    # would keep those alive as long as this node lives.
    clear_run()
    _mount(
        "-t", "tmpfs", "-o", "mode=755,nosuid,nodev", "tmpfs", "/run"
    )  # a tmpfs: CRIU keeps its kerndat cache only there
    for name in ("sshd", "lock", "netns"):
        Path("/run", name).mkdir(mode=0o755)
    # An overlay and not binds of single files: whoever renames a new /etc/passwd over the machine's (useradd does)
    # would tear a bind off in every mount namespace.
    etc = Path(plan.directory) / "etc"
    _mount("-t", "overlay", "-o", f"lowerdir=/etc,upperdir={etc},workdir={etc}.work", "overlay", "/etc")
    if BRIDGED_TO_IPTABLES.exists():
        # Where this machine has br_netfilter, a new network namespace shows bridged frames to the firewall. A host that has no
        # such module does not, and docs/networks.md says what it does to published ports.
        BRIDGED_TO_IPTABLES.write_text("0")
    for source, target in plan.binds:
        if target.startswith("/run/"):
            Path(target).mkdir(exist_ok=True)
        _mount("--bind", source, target)


def main() -> int:
    plan = NodePlan.load(Path(sys.argv[1]))
    if plan.cgroup:
        (Path(plan.cgroup) / "cgroup.procs").write_text("0")
    make_host(plan)
    outside = int(sys.argv[2])
    os.set_inheritable(outside, False)  # for those alone that are given it
    supervisor = Supervisor(plan, outside)
    say(f"{plan.name} is up, pid {os.getpid()}")
    supervisor.run()
    say(f"{plan.name} ends")
    return 0


if __name__ == "__main__":
    sys.exit(main())
