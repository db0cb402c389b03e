"""`migrate lab status`: what of the lab lives."""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass

from migrate.errors import MigrateError
from migrate.lab import layout, nodes, observe, processes
from migrate.lab.layout import Lab, LabError


@dataclass(frozen=True, kw_only=True)
class ProgramStatus:
    """`pid` 0: it does not run. `starts` above 1: the supervisor had to start it again."""

    name: str
    pid: int
    starts: int


@dataclass(frozen=True, kw_only=True)
class NodeStatus:
    """`up`: its namespace is there and, if it has a supervisor, that lives. `containers` None: nobody could say."""

    name: str
    role: str
    address: str
    netns: str
    up: bool
    pid: int
    programs: tuple[ProgramStatus, ...]
    containers: int | None


@dataclass(frozen=True, kw_only=True)
class LabStatus:
    """`state`: "up" (all lives and every agent answers), "partial" or "down"; `problems` says what is missing."""

    prefix: str
    state: str
    socket: str
    directory: str
    nodes: tuple[NodeStatus, ...]
    problems: tuple[str, ...]

    def to_dict(self) -> dict[str, object]:
        return dataclasses.asdict(self)


def status(prefix: str) -> LabStatus:
    """Look at everything; changes nothing. Raises LabError when there is no lab."""
    lab = layout.load(prefix)
    if lab is None:
        left = observe.snapshot(prefix).describe()
        hint = "remove what is left of one: migrate lab down" if left else "build one: migrate lab up"
        raise LabError("there is no lab", detail="\n".join(left), hint=hint)
    states = nodes.states(lab.state_dir)
    containers, problems = _containers(lab)
    found: list[NodeStatus] = []
    for node in lab.nodes:
        state = states.get(node.name)
        lives = state is not None and nodes.running(state)
        programs: list[ProgramStatus] = []
        if state is not None and lives:
            for each in state.programs:
                pid = each.pid if each.pid and processes.read(each.pid) is not None else 0
                programs.append(ProgramStatus(name=each.name, pid=pid, starts=each.starts))
                if not pid:
                    problems.append(f"{node.name}: {each.name} does not run, started {each.starts} times")
        up = lab.netns_path(node.name).exists() and (lives or not node.supervised)
        if not up:
            problems.append(f"{node.name} is down")
        found.append(
            NodeStatus(
                name=node.name,
                role=node.role,
                address=node.address,
                netns=lab.netns(node.name),
                up=up,
                pid=state.pid if state is not None and lives else 0,
                programs=tuple(programs),
                containers=containers.get(node.name),
            )
        )
    if not any(node.up for node in found):
        word, problems = "down", ["nothing of it runs: migrate lab up starts it again, migrate lab down removes it"]
    else:
        word = "partial" if problems else "up"
    return LabStatus(
        prefix=prefix,
        state=word,
        socket=str(lab.socket),
        directory=str(lab.state_dir),
        nodes=tuple(found),
        problems=tuple(problems),
    )


def _containers(lab: Lab) -> tuple[dict[str, int], list[str]]:
    """How many containers each reachable host has, and what the coordinator complains about."""
    from migrate.client import Client  # brings gRPC

    try:
        with Client(lab.socket) as client:
            hosts = client.hosts(facts=True)
    except MigrateError as exc:
        return {}, [f"controller: {exc.message}"]
    return (
        {host.name: host.containers for host in hosts if host.reachable},
        [host.error for host in hosts if not host.reachable],  # begins with the host's name
    )
