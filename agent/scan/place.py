"""How a finding names the process and the descriptor that it is of."""

from __future__ import annotations

from agent.scan.finding import Blocker
from agent.scan.procfs import OpenFile, Task


def of_task(task: Task, check: str, what: str, remedy: str, *, warning: bool = False) -> Blocker:
    """A finding about the whole process."""
    return Blocker(check=check, what=what, where=shown(task), remedy=remedy, warning=warning, pid=task.pid)


def of_file(task: Task, file: OpenFile, check: str, what: str, remedy: str, *, warning: bool = False) -> Blocker:
    """A finding about something that it has open or mapped."""
    where = "mapped" if file.descriptor == "mapped" else f"descriptor {file.descriptor}"
    return Blocker(
        check=check,
        what=what,
        where=f"{shown(task)}, {where}",
        remedy=remedy,
        warning=warning,
        pid=task.pid,
        descriptor=file.descriptor,
        path=file.target,
    )


def shown(task: Task) -> str:
    """ "pid 4711 (redis-server, 7 inside)"."""
    return f"pid {task.pid} ({task.name}{f', {task.inner} inside' if task.inner else ''})"
