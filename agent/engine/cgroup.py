"""One cgroup a container in every hierarchy that this host has: limits, freeze, kill, and who is in it. Standard
library only.

Version 1, hybrid and version 2 hosts alike: mount points come from /proc/self/mountinfo. The version 2 hierarchy is
always used, with or without controllers, because only it can freeze tasks that CRIU traces (the v1 freezer hangs
CRIU) and kill all of them at once.
"""

from __future__ import annotations

import errno
import functools
import os
import select
import time
from dataclasses import dataclass
from pathlib import Path

from agent.engine import control, limits
from agent.engine.spec import Limits
from agent.errors import AgentError, Unsupported

_TRIAL = "try-"  # begins the names of cgroups that only find out what the kernel takes
_HANDED_DOWN = ("memory", "cpu", "pids", "cpuset", "io")
_CGROUP_NAMESPACE_INSIDE = "/.."  # how mountinfo shows a hierarchy's root that lies above the reader's cgroup namespace


@dataclass(frozen=True, kw_only=True)
class Hierarchies:
    """Where the hierarchies are mounted: `unified` is version 2; `legacy` maps the controllers of one v1
    hierarchy to its mount.
    """

    unified: Path
    legacy: tuple[tuple[tuple[str, ...], Path], ...] = ()


def probe(mountinfo: Path = Path("/proc/self/mountinfo")) -> Hierarchies:
    """Find the mounted hierarchies; v1 ones without a controller (name=systemd) are left to their owner. Raises
    Unsupported without v2.
    """
    unified: Path | None = None
    legacy: dict[tuple[str, ...], Path] = {}
    with mountinfo.open(encoding="utf-8", errors="surrogateescape") as lines:
        for line in lines:
            mount, _, filesystem = line.rstrip("\n").partition(" - ")
            fstype, _, options = filesystem.split(" ", 2)
            fields = mount.split(" ")
            if not fstype.startswith("cgroup") or fields[3].startswith(_CGROUP_NAMESPACE_INSIDE):
                continue
            if fstype == "cgroup2":
                unified = unified or Path(fields[4])
                continue
            names = tuple(sorted(set(options.split(",")[1:]) - _SUPER_OPTIONS))
            if names and not any(name.startswith("name=") for name in names):
                legacy.setdefault(names, Path(fields[4]))
    if unified is None:
        raise Unsupported("no cgroup v2 hierarchy is mounted", hint="mount -t cgroup2 cgroup2 /sys/fs/cgroup/unified")
    return Hierarchies(unified=unified, legacy=tuple(sorted(legacy.items())))


_SUPER_OPTIONS = {"rw", "ro", "clone_children", "xattr", "noprefix", "cpuset_v2_mode"}


@functools.cache
def _here() -> Hierarchies:
    """Of this process: they do not change while it lives."""
    return probe()


class Tasks:
    """The tasks below one directory of the version 2 hierarchy. Idempotent; a directory that is gone holds no task."""

    def __init__(self, directory: Path) -> None:
        self.freezer = directory

    def freeze(self, on: bool, *, timeout_s: float = 10.0) -> float:
        """Stop every task, or let them go, and wait until the kernel says so; returns seconds. Raises AgentError at
        the time limit.

        A task in an uninterruptible sleep delays it; the switch stays as asked for.
        """
        began = time.monotonic()
        self._switch("cgroup.freeze", "1" if on else "0")
        self._wait_event("frozen", "1" if on else "0", began + timeout_s)
        return time.monotonic() - began

    def frozen(self) -> bool:
        return self._events().get("frozen") == "1"

    def kill(self) -> None:
        """SIGKILL to every task, frozen ones too. No error where the cgroup is gone."""
        try:
            self._switch("cgroup.kill", "1")
        except FileNotFoundError:
            if self.freezer.exists():
                raise Unsupported("this kernel has no cgroup.kill", hint="Linux 5.14 or newer is needed") from None

    def wait_empty(self, timeout_s: float) -> bool:
        """Wait until no task is left (zombies do not count); False at the time limit."""
        try:
            self._wait_event("populated", "0", time.monotonic() + timeout_s)
        except FileNotFoundError:
            return True
        except AgentError:
            return False
        return True

    def populated(self) -> bool:
        return self._events().get("populated") == "1"

    def procs(self) -> list[int]:
        """Pids in it and in the cgroups below, from the version 2 hierarchy; empty where it is gone."""
        pids: list[int] = []
        for directory, _, _ in os.walk(self.freezer):
            try:
                pids.extend(int(line) for line in (Path(directory) / "cgroup.procs").read_text().split())
            except OSError as exc:
                if exc.errno not in (errno.ENOENT, errno.ENODEV):
                    raise
        return pids

    def _switch(self, name: str, value: str) -> None:
        fd = os.open(self.freezer / name, os.O_WRONLY | os.O_CLOEXEC)  # never creates, unlike open("w") in a fake tree
        try:
            os.write(fd, value.encode())
        finally:
            os.close(fd)

    def _events(self) -> dict[str, str]:
        return control.pairs(control.read(self.freezer / "cgroup.events"))

    def _wait_event(self, key: str, value: str, deadline: float) -> None:
        """poll(2) on cgroup.events wakes at each change, so nothing is missed between read and wait."""
        with (self.freezer / "cgroup.events").open() as events:
            poller = select.poll()
            poller.register(events, select.POLLPRI | select.POLLERR)
            while control.pairs(events.read()).get(key) != value:
                left = deadline - time.monotonic()
                if left <= 0:
                    raise AgentError(f"{self.freezer} did not become {key}={value} in time", code="cgroup")
                poller.poll(min(left, 0.2) * 1000)
                events.seek(0)


class Cgroup(Tasks):
    """The cgroup `parent`/`name` of every hierarchy. Making the object touches nothing; every method is idempotent."""

    def __init__(self, parent: str, name: str, hierarchies: Hierarchies | None = None) -> None:
        self._hierarchies = hierarchies or _here()
        self._path = f"{parent}/{name}".strip("/")
        super().__init__(self._hierarchies.unified / self._path)
        self._legacy = [(names, mount / self._path) for names, mount in self._hierarchies.legacy]

    @functools.cached_property
    def dirs(self) -> tuple[Path, ...]:
        """Every directory whose cgroup.procs a task must be written to; the version 2 one last."""
        return (*(path for _, path in self._legacy), self.freezer)

    @property
    def tasks_files(self) -> list[Path]:
        """Of version 1: where a process with one thread puts itself in by writing 0, which nobody waits for (add() of another waits until
        every CPU has passed through the scheduler, 7 to 17 ms). Into the version 2 one it is born: clone.fork_into().
        """
        return [path / "tasks" for _, path in self._legacy]

    def remove_beside(self, pattern: str) -> None:
        """Remove the empty cgroups of the same parent whose names match; those with tasks stay. For what a crash has left."""
        for directory in self.dirs:
            for path in directory.parent.glob(pattern):
                try:
                    _remove_tree(path)
                except OSError as exc:
                    if exc.errno != errno.EBUSY:
                        raise

    def criu_roots(self) -> list[tuple[str, str]]:
        """(controller, path) for CRIU's cg_root: every v1 controller that the tasks are in, and "" for version 2."""
        roots = [(name, f"/{self._path}") for names, _ in self._legacy for name in names]
        return [*roots, ("", f"/{self._path}")]

    def create(self, wanted: Limits | None = None) -> None:
        """Make the directories and set the limits. Raises Unsupported for a limit that no hierarchy here can
        keep, InvalidArgument for one that the kernel refuses, AgentError else.
        """
        wanted = wanted or Limits()
        try:
            for names, path in self._legacy:
                path.mkdir(parents=True, exist_ok=True)
                if "cpuset" in names:
                    self._inherit_cpuset(path)
            self._enable_controllers(limits.controllers(wanted))
            self.freezer.mkdir(parents=True, exist_ok=True)
            self.set_limits(wanted)
        except OSError as exc:
            raise AgentError(
                f"cannot make cgroup {self._path}: {exc.strerror} ({exc.filename})", code="cgroup"
            ) from exc

    def set_limits(self, wanted: Limits, before: Limits | None = None) -> None:
        """Apply `wanted` where `before` holds now; None: no limit does. Raises InvalidArgument when the kernel refuses a
        value, Unsupported when it cannot limit that; part of `wanted` may then hold.
        """
        limits.apply(self.directories, wanted, before)

    @functools.cached_property
    def directories(self) -> control.Directories:
        """Where the control files are."""
        return control.Directories(
            legacy={name: path for names, path in self._legacy for name in names}, unified=self.freezer
        )

    def add(self, pid: int) -> None:
        """Move a process, with all its threads, into every directory. Raises AgentError naming the one that refused."""
        for directory in self.dirs:
            try:
                control.put(directory / "cgroup.procs", str(pid))
            except OSError as exc:
                raise AgentError(f"cannot move pid {pid} into {directory}: {exc.strerror}", code="cgroup") from exc

    def remove(self, *, timeout_s: float = 5.0) -> None:
        """Remove every directory with what is nested in it. Raises AgentError where tasks hold one past the
        time limit.
        """
        deadline = time.monotonic() + timeout_s
        protected = control.read(self.freezer / "memory.low").strip() not in ("", "0")
        for directory in self.dirs:
            while True:
                try:
                    _remove_tree(directory)
                    break
                except OSError as exc:  # EBUSY: a dying task is still leaving
                    if time.monotonic() > deadline:
                        raise AgentError(f"cannot remove {directory}: {exc.strerror}", code="cgroup") from exc
                    time.sleep(0.01)
        if protected:
            limits.protect_parent(self.freezer.parent)

    def _enable_controllers(self, needed: set[str]) -> None:
        """Hand the controllers of version 2 down to the cgroup, level by level. A level that has processes of its own
        refuses (EBUSY): an error only for one that is `needed`.
        """
        parent = self.freezer.parent
        if not needed and _same_as_before(parent):
            return
        levels = [self._hierarchies.unified]
        for part in Path(self._path).parts[:-1]:
            levels.append(levels[-1] / part)
        for level in levels:
            level.mkdir(exist_ok=True)
            available = control.read(level / "cgroup.controllers").split()
            enabled = control.read(level / "cgroup.subtree_control").split()
            for controller in _HANDED_DOWN:
                if controller not in available or controller in enabled:
                    continue
                try:
                    (level / "cgroup.subtree_control").write_text(f"+{controller}")
                except OSError as exc:
                    if controller not in needed:
                        continue
                    raise AgentError(
                        f"cannot enable the {controller} controller below {level}: {exc.strerror}",
                        hint="set cgroup_parent in agent.toml to a cgroup that holds no processes itself",
                        code="cgroup",
                    ) from exc
        _remember(parent)

    def _inherit_cpuset(self, path: Path) -> None:
        """A v1 cpuset is born without cpus and refuses tasks: fill the levels that we made from the level above."""
        files = ("cpuset.cpus", "cpuset.mems")
        mount = path.parents[len(Path(self._path).parts) - 1]
        levels = [path]
        while levels[0].parent != mount and not all(control.read(levels[0].parent / name).strip() for name in files):
            levels.insert(0, levels[0].parent)
        for level in levels:
            for name in files:
                if not control.read(level / name).strip():
                    control.write(level / name, control.read(level.parent / name).strip())


_enabled: dict[Path, int] = {}  # cgroups of version 2 that have handed down what they can; their inodes


def _same_as_before(parent: Path) -> bool:
    try:
        return _enabled.get(parent) == parent.stat().st_ino
    except FileNotFoundError:
        return False


def _remember(parent: Path) -> None:
    """What a level refused for its processes it may take later: asked for again where a limit needs it."""
    _enabled[parent] = parent.stat().st_ino


def try_limits(parent: str, name: str, wanted: Limits) -> None:
    """Ask the kernel: on a cgroup that goes again at once. Raises Unsupported, InvalidArgument for what this host cannot keep."""
    if not limits.controllers(wanted):
        return
    trial = Cgroup(parent, f"{_TRIAL}{name}")  # not `name` itself: of two for one id, one may run already
    try:
        trial.create(wanted)
    finally:
        trial.remove()


def remove_trials(parent: str) -> None:
    """Those that a crash left."""
    Cgroup(parent, "any").remove_beside(f"{_TRIAL}*")


def _remove_tree(directory: Path) -> None:
    for path, _, _ in os.walk(directory, topdown=False):
        try:
            Path(path).rmdir()
        except FileNotFoundError:
            pass
