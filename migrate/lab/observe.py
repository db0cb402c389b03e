"""What a lab leaves, or holds, on this machine: compared before and after, and shown by tests when they differ."""

from __future__ import annotations

import json
import os
import re
import subprocess
from dataclasses import dataclass
from pathlib import Path

from migrate.lab import cgroups, down, layout, network, nodes, provision
from migrate.lab.layout import Lab, Role

# Made by an agent with its first container and used by all that follow: the host's, not a container's.
_HOSTS_OWN_GROUP = re.compile(r"^cgroups: .*/migrate-lab[^/]*(/host\d+(/monitors)?)?$")

_PORTS = "table ip migrate-ports"


@dataclass(frozen=True, kw_only=True)
class NodeView:
    """One supervised node from inside. Names only, so that two views can be compared."""

    mounts: tuple[str, ...]  # mount points below /run and /var/lib/migrate in the node's mount namespace
    links: tuple[str, ...]  # network devices
    nft_tables: tuple[str, ...]
    run_bytes: int  # used on its /run, a tmpfs
    descriptors: dict[str, int]  # open in each of its programs


@dataclass(frozen=True, kw_only=True)
class Snapshot:
    """Everything of one lab at one instant. `nodes` is empty when none lives."""

    processes: tuple[str, ...]  # "PID command"
    netns: tuple[str, ...]
    mounts: tuple[str, ...]  # in our own mount namespace
    cgroups: tuple[str, ...]
    paths: tuple[str, ...]
    nodes: dict[str, NodeView]

    @property
    def clean(self) -> bool:
        """Whether nothing of the lab is on this machine."""
        return not (self.processes or self.netns or self.mounts or self.cgroups or self.paths)

    def describe(self) -> list[str]:
        """What is there, a line a kind; nothing when clean."""
        lines: list[str] = []
        for name in ("processes", "netns", "mounts", "cgroups", "paths"):
            if values := getattr(self, name):
                lines.append(f"{name}: {', '.join(values)}")
        return lines


def snapshot(prefix: str) -> Snapshot:
    """Look; changes nothing. Works on a lab in any state and where there is none. Needs root."""
    lab = layout.load(prefix) or Lab(prefix=prefix, hosts=layout.DEFAULT_HOSTS)
    supervisors = nodes.supervisors(lab.state_dir)
    processes = down.members(lab)
    paths = [lab.state_dir, Path("/run/lock") / f"migrate-lab-{prefix}.lock"]
    if provision.MADE_BY_LAB.exists() and not list(Path("/var/lib").glob("migrate-lab*")):
        paths.append(provision.STATE)  # a mount point for labs, and there is no lab
    return Snapshot(
        processes=tuple(f"{pid} {process.command}" for pid, process in processes.items()),
        netns=tuple(network.names(prefix)),
        mounts=tuple(
            sorted([*down.mounts_below(lab.state_dir), *down.mounts_starting(f"{layout.NETNS_DIR}/{prefix}-")])
        ),
        cgroups=tuple(sorted(str(group) for group in cgroups.groups(lab.label))),
        paths=tuple(str(path) for path in paths if path.exists()),
        nodes={name: _view(lab, name, pid) for name, pid in supervisors.items()},
    )


def _view(lab: Lab, name: str, pid: int) -> NodeView:
    points = [line.split(" ")[4] for line in Path(f"/proc/{pid}/mountinfo").read_text().splitlines()]
    net = f"--net={lab.netns_path(name)}"
    state = nodes.states(lab.state_dir)[name]
    usage = os.statvfs(f"/proc/{pid}/root/run")
    return NodeView(
        mounts=tuple(sorted(point for point in points if point.startswith(("/run/", f"{provision.STATE}/")))),
        links=tuple(sorted(link["ifname"] for link in json.loads(_run("nsenter", net, "ip", "-j", "link") or "[]"))),
        nft_tables=_nft_tables(net) if lab.node(name).role in (Role.HOST, Role.BARE) else (),
        run_bytes=(usage.f_blocks - usage.f_bfree) * usage.f_frsize,
        descriptors={each.name: _descriptors(each.pid) for each in state.programs if each.pid},
    )


def _nft_tables(net: str) -> tuple[str, ...]:
    """An agent's own table stays once it is there (docs/adr/0009): it counts if ports are in it."""
    tables = set(_run("nsenter", net, "nft", "list", "tables").splitlines())
    if _PORTS in tables and "elements" not in _run("nsenter", net, "nft", "list", *_PORTS.split()):
        tables.remove(_PORTS)
    return tuple(sorted(tables))


def _run(*command: str) -> str:
    return subprocess.run(command, capture_output=True, text=True, check=True).stdout


def _descriptors(pid: int) -> int:
    try:
        return len(list(Path(f"/proc/{pid}/fd").iterdir()))
    except (FileNotFoundError, ProcessLookupError):  # it ended while we looked
        return 0


def differences(before: Snapshot, after: Snapshot) -> list[str]:
    """What `after` has that `before` had not, a line each: leftovers of whatever was done and undone in between.

    Processes are compared by command. Bytes and descriptors are reported when they grew by more than what an
    ordinary call leaves in caches: 256 KiB and 8.
    """
    lines: list[str] = []
    for name in ("netns", "mounts", "cgroups", "paths"):
        lines += [f"{name}: {each}" for each in getattr(after, name) if each not in getattr(before, name)]
    lines = [line for line in lines if not _HOSTS_OWN_GROUP.search(line)]
    commands = [each.partition(" ")[2] for each in before.processes]
    for each in after.processes:
        command = each.partition(" ")[2]
        if command in commands:
            commands.remove(command)
        else:
            lines.append(f"processes: {each}")
    for name, view in after.nodes.items():
        old = before.nodes.get(name)
        if old is None:
            lines.append(f"node: {name}")
            continue
        for kind in ("mounts", "links", "nft_tables"):
            lines += [f"{name} {kind}: {each}" for each in getattr(view, kind) if each not in getattr(old, kind)]
        if view.run_bytes > old.run_bytes + (256 << 10):
            lines.append(f"{name} /run: {view.run_bytes - old.run_bytes} bytes more")
        for program, count in view.descriptors.items():
            if count > old.descriptors.get(program, count) + 8:
                lines.append(f"{name} {program}: {count} descriptors, {old.descriptors[program]} before")
    return lines
