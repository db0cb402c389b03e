"""Where the lab's processes are in the cgroup hierarchies, v1, v2 or both."""

from __future__ import annotations

import os
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from migrate.lab.layout import Lab, LabError, Role

_WANTED = ("cpu", "memory", "pids", "cpuset", "io")  # what container limits need


@dataclass(frozen=True, kw_only=True)
class Hierarchy:
    """One mounted hierarchy."""

    path: Path
    version: int  # 1 or 2


def parse(mountinfo: str) -> list[Hierarchy]:
    """The hierarchies named in the text of a /proc/PID/mountinfo, each once."""
    found: dict[Path, Hierarchy] = {}
    for line in mountinfo.splitlines():
        mount, _, source = line.partition(" - ")
        kind = source.split(" ", 1)[0]
        if kind in ("cgroup", "cgroup2"):
            path = Path(mount.split(" ")[4])
            found[path] = Hierarchy(path=path, version=1 if kind == "cgroup" else 2)
    return list(found.values())


def hierarchies() -> list[Hierarchy]:
    return parse(Path("/proc/self/mountinfo").read_text())


def create(lab: Lab) -> list[str]:
    """Make the v2 groups of the nodes and hand the controllers down to the hosts' container groups.

    v1 hierarchies need nothing: the agent makes its own there. Returns warnings: what could not be enabled.
    """
    warnings: list[str] = []
    for hierarchy in hierarchies():
        if hierarchy.version != 2:
            continue
        for node in lab.nodes:
            if not node.supervised:
                continue
            (hierarchy.path / lab.node_cgroup(node.name)).mkdir(parents=True, exist_ok=True)
            if node.role in (Role.HOST, Role.BARE):
                group = hierarchy.path / lab.container_cgroup(node.name)
                group.mkdir(parents=True, exist_ok=True)
                for parent in (hierarchy.path, group.parent, group):
                    warnings += _enable(parent)
    return sorted(set(warnings))


def _enable(group: Path) -> list[str]:
    there = (group / "cgroup.controllers").read_text().split()
    on = (group / "cgroup.subtree_control").read_text().split()
    warnings: list[str] = []
    for controller in _WANTED:
        if controller in there and controller not in on:
            try:
                (group / "cgroup.subtree_control").write_text(f"+{controller}")
            except OSError as exc:
                warnings.append(f"{group}: controller {controller} cannot be enabled: {exc.strerror}")
    return warnings


def groups(label: str) -> Iterator[Path]:
    """Every cgroup of a lab in every hierarchy, the deepest first."""
    for hierarchy in hierarchies():
        for directory, _, _ in os.walk(hierarchy.path / label, topdown=False):
            yield Path(directory)


def members(label: str) -> set[int]:
    """The processes in any of them, as pids."""
    pids: set[int] = set()
    for group in groups(label):
        try:
            pids |= {int(line) for line in (group / "cgroup.procs").read_text().split()}
        except OSError:  # gone between the walk and the read, or a threaded group: its processes show in its parent
            continue
    return pids - {0}


def remove(label: str) -> None:
    """Remove them all; they must be empty. Raises LabError naming those that are not."""
    failures: list[str] = []
    for group in groups(label):
        try:
            group.rmdir()
        except FileNotFoundError:
            continue
        except OSError as exc:
            failures.append(f"{group}: {exc.strerror}")
    if failures:
        raise LabError(f"cgroups could not be removed: {'; '.join(failures)}")
