"""What keeps a process from being dumped whatever it has open: where it came from, who traces it, namespaces of its own. Pure."""

from __future__ import annotations

from collections.abc import Iterator

from agent.scan.finding import Blocker
from agent.scan.place import of_task
from agent.scan.procfs import Snapshot, Task

# criu/namespaces.c, CLONE_SUBNS: mounts and networks of its own are all that CRIU dumps below init.
_NESTED = {
    "cgroup": "cgroups",
    "ipc": "IPC objects",
    "pid": "processes",
    "time": "clocks",
    "user": "users",
    "uts": "host name",
}


def _shown(task: Task) -> str:
    command = task.command or task.name
    return f"`{command if len(command) <= 60 else command[:59] + '…'}`"


def _since(task: Task) -> str:
    """ " 12 s ago", " 3 min ago", " 2 h ago"; "" where that is not known."""
    if not task.age_s:
        return ""
    for unit, length_s in (("h", 3600), ("min", 60)):
        if task.age_s >= length_s:
            return f" {task.age_s // length_s:.0f} {unit} ago"
    return f" {task.age_s:.0f} s ago"


def check(seen: Snapshot) -> Iterator[Blocker]:
    """Processes that came in by exec, that are traced, that have namespaces of their own."""
    init = next((task for task in seen.tasks if task.pid == seen.init), None)
    for task in seen.tasks:
        if task.pid != seen.init and task.parent and task.parent not in seen.pids:  # 0: it has ended since
            yield of_task(
                task,
                "exec",
                f"{_shown(task)} came in by exec{_since(task)} and is not init's child: CRIU would lose it",
                f"end that exec session (inside: kill {task.inner or task.pid}) and move again; or move with --end-exec, which ends it",
            )
        for thread, tracer in sorted(task.tracers.items()):
            which = f"its thread {thread} is" if thread != task.pid else "it is"
            yield of_task(
                task,
                "ptrace",
                f"{which} traced by pid {tracer}: a task has one tracer, and CRIU has to be it",
                "detach the debugger (gdb, strace) and move again",
            )
        if init is None:
            continue
        for name, own in task.namespaces.items():
            if name in _NESTED and own != init.namespaces.get(name, own):
                yield of_task(
                    task,
                    "nested-namespace",
                    f"it has a {name} namespace of its own ({own}): CRIU cannot dump a container's own {_NESTED[name]} below init",
                    "end that program (a sandbox, a container in the container, systemd), or move it cold: stop and start",
                )
