"""What a host of the lab holds for its containers, as the kernel and the disk show it, and what of that belongs to none.

The product is asked for one thing only: which containers there are. Everything else is read from /proc, /sys, the cgroups and the files.
"""

from __future__ import annotations

import json
import re
import sqlite3
import subprocess
from collections.abc import Iterator, Sequence
from pathlib import Path

from bench.fault_scene import children
from migrate.lab import cgroups, nodes, processes, provision
from migrate.lab.layout import Lab
from migrate.records import Container

RUNS = ("running", "paused", "frozen")
IDLE_MONITORS = 2  # AgentConfig.idle_monitors
_ID = re.compile(r"[0-9a-f]{32}")
_PUBLISHED = re.compile(r"(10\.88\.\d+\.\d+) \. \d+")  # in a map of agent/engine/port_rules.py
_MONITOR = "/agent/monitor.py"
_HELPERS = ("/agent/engine/enter.py", "/agent/engine/reach.py")


class Look:
    """At one host."""

    def __init__(self, lab: Lab, host: str) -> None:
        self.lab, self.host = lab, host
        self.supervisor = nodes.supervisors(lab.state_dir)[host]
        self.run_dir = Path(f"/proc/{self.supervisor}/root{provision.RUN}")
        self.state_dir = Path(f"/proc/{self.supervisor}/root{provision.STATE}")  # with what is mounted there
        self._seen: set[str] = set()  # every container that this host ever had
        self._netns = (processes.namespace(self.supervisor, "net"), processes.namespace(self.supervisor, "mnt"))

    # ------------------------------------------------------------ who

    def agent(self) -> int:
        """0: it is not running now."""
        programs = nodes.states(self.lab.state_dir)[self.host].programs
        return next(each.pid for each in programs if each.name == "agent")

    def people(self) -> dict[int, processes.Process]:
        """Processes in the host's own network and mount namespaces: no container's."""
        found = {}
        for pid, process in processes.everybody().items():
            if (processes.namespace(pid, "net"), processes.namespace(pid, "mnt")) == self._netns:
                found[pid] = process
        return found

    def monitor(self, container_id: str) -> int:
        """0: it has none that lives."""
        try:
            pid = int((self.run_dir / "containers" / container_id / "monitor.pid").read_text())
        except (FileNotFoundError, ValueError):
            return 0
        process = processes.read(pid)
        return pid if process and _MONITOR in process.command else 0

    def zygote(self) -> int:
        agent = self.agent()
        return next((pid for pid in children(agent) if _MONITOR in command(pid)), 0) if agent else 0

    def init_of(self, monitor: int) -> int:
        """The newest child of a monitor: stage, or init."""
        return max(children(monitor), default=0)

    def helper(self) -> int:
        """The helper of an `exec`."""
        return next((pid for pid in children(self.agent()) if _HELPERS[0] in command(pid)), 0)

    def tasks(self, container_id: str) -> list[int]:
        return [pid for group in self._groups() if group.name == container_id for pid in _procs(group)]

    # ------------------------------------------------------------ what is wrong

    def wrong(self, listed: Sequence[Container]) -> list[str]:
        """A line for each thing that is nobody's, and for each that a listed container should have and has not."""
        here = [one for one in listed if one.host == self.host]
        ids, running = {one.id for one in here}, {one.id for one in here if one.state in RUNS}
        lines = [f"{one.name} is {one.state}: {one.error}" for one in here if one.state in ("lost", "frozen")]
        lines += self._directories(here, ids)
        for group in self._groups():
            if group.name not in running and group.name != "monitors":
                lines.append(f"cgroup {group} of {_whose(group.name, here)}")
        lines += [*self._links(running), *self._mounts(ids, running, here), *self._processes(running)]
        lines += [f"loop device of {name}" for name in self._loops() if name in self._seen - ids]
        self._seen |= ids
        addresses = {one.address.partition("/")[0] for one in here if one.id in running}
        for address in set(_PUBLISHED.findall(self._inside("nft", "list", "ruleset"))) - addresses:
            lines.append(f"a port leads to {address}, where nothing runs")
        return lines

    def _directories(self, here: Sequence[Container], ids: set[str]) -> Iterator[str]:
        for directory in (self.state_dir / "containers", self.run_dir / "containers"):
            if directory.is_dir():
                yield from (f"directory {path}" for path in directory.iterdir() if path.name not in ids)
        for one in here:
            if one.state == "unknown":
                continue  # its host has not got it; said elsewhere
            for name in ("spec.json", "state.json", "rootfs", "layer/upper", "layer/work", "layer/upper/etc/hosts"):
                if not (self.state_dir / "containers" / one.id / name).exists():
                    yield f"{one.name} ({one.state}) has no {name}"
            for path in (self.state_dir / "containers" / one.id).glob("*.tmp*"):
                yield f"{one.name}: a temporary file {path.name}"

    def _groups(self) -> Iterator[Path]:
        for hierarchy in cgroups.hierarchies():
            parent = hierarchy.path / self.lab.container_cgroup(self.host)
            if parent.is_dir():
                yield from (path for path in parent.iterdir() if path.is_dir())

    def _links(self, running: set[str]) -> Iterator[str]:
        names = [link["ifname"] for link in json.loads(self._inside("ip", "-j", "link"))]
        expected = {f"vm{container_id[:11]}" for container_id in running}
        yield from (f"link {name}" for name in names if name.startswith(("vm", "vp")) and name not in expected)
        yield from (f"no link {name}" for name in expected if name not in names)

    def _mounts(self, ids: set[str], running: set[str], here: Sequence[Container]) -> Iterator[str]:
        sized = {one.id for one in here if one.storage_bytes}
        for line in Path(f"/proc/{self.supervisor}/mountinfo").read_text().splitlines():
            point = line.split(" ")[4]
            if not point.startswith(f"{provision.STATE}/containers/"):
                continue
            allowed = sized if point.endswith("/layer") else running if "/rootfs" in point else ids
            if not _among(point, allowed):
                yield f"mount {point}"

    def _processes(self, running: set[str]) -> Iterator[str]:
        idle, zygote = 0, self.zygote()
        seen: dict[str, int] = {}
        for pid, process in self.people().items():
            if any(helper in process.command for helper in _HELPERS):
                yield f"process {pid} {process.command}"
            if _MONITOR not in process.command or pid == zygote:
                continue
            if found := _ID.search(process.command.rpartition(_MONITOR)[2]):
                seen[found[0]] = seen.get(found[0], 0) + 1
            elif process.parent in (zygote, self.supervisor):  # else a monitor's: the stage that it has made ahead
                idle += 1
        if idle > IDLE_MONITORS:
            yield f"{idle} idle monitors"
        yield from (f"{count} monitors of {name}" for name, count in seen.items() if name not in running or count > 1)
        yield from (f"no monitor of {name}" for name in running if name not in seen)
        # What lost its parent came to the supervisor.
        programs = {each.pid for each in nodes.states(self.lab.state_dir)[self.host].programs}
        mine = {pid for name in running for pid in self.tasks(name)}
        for pid in children(self.supervisor):
            orphan = processes.read(pid)
            if (
                orphan
                and pid not in programs | mine
                and _MONITOR not in orphan.command
                and "way_out" not in orphan.command
            ):
                yield f"orphan {pid} {orphan.command}"

    def _loops(self) -> Iterator[str]:
        """Ids of containers, other labs' too: the path is what a host sees, and all see the same."""
        for path in Path("/sys/block").glob("loop*/loop/backing_file"):
            try:
                if found := _ID.search(path.read_text()):
                    yield found[0]
            except OSError:
                continue  # it went while we looked

    def _inside(self, *argv: str) -> str:
        net = f"--net={self.lab.netns_path(self.host)}"
        return subprocess.run(["nsenter", net, *argv], capture_output=True, text=True, check=True).stdout


def database(lab: Lab, listed: Sequence[Container]) -> list[str]:
    """The coordinator's rows beside what it lists: the same containers, each address and range of ids once."""
    path = lab.node_dir("controller") / "var/coordinator.db"
    connection = sqlite3.connect(f"file:{path}?mode=ro", uri=True)
    try:
        rows = connection.execute("SELECT id, address, ids_base FROM containers").fetchall()
    finally:
        connection.close()
    lines = [f"row {name} of no listed container" for name, *_ in rows if name not in {one.id for one in listed}]
    for column, what in ((1, "address"), (2, "range of ids")):
        if len({row[column] for row in rows}) != len(rows):
            lines.append(f"an {what} is given twice")
    return lines


def command(pid: int) -> str:
    process = processes.read(pid)
    return process.command if process else ""


def _procs(group: Path) -> list[int]:
    try:
        return [int(line) for line in (group / "cgroup.procs").read_text().split()]
    except OSError:
        return []


def _among(path: str, ids: set[str]) -> bool:
    return any(container_id in path for container_id in ids)


def _whose(name: str, here: Sequence[Container]) -> str:
    return next((f"{one.name}, which is {one.state}" for one in here if one.id == name), "no container")
