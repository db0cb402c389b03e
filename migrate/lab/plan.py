"""What a node's supervisor is told: a JSON file that `up` writes and `node` reads."""

from __future__ import annotations

import dataclasses
import json
from dataclasses import dataclass
from pathlib import Path
from typing import Self


@dataclass(frozen=True, kw_only=True)
class Program:
    """One program to keep running. Its output goes to NAME.log in the node's log directory.

    `outside`: it gets a descriptor of the network namespace of whoever started the lab, its number in $OUTSIDE.
    """

    name: str
    argv: tuple[str, ...]
    outside: bool = False


@dataclass(frozen=True, kw_only=True)
class NodePlan:
    """One node: its hostname, what it sees where, and what runs in it."""

    name: str
    directory: str  # the node's, with etc, var, log, run
    binds: tuple[tuple[str, str], ...]  # (source, target); both exist when the node starts
    programs: tuple[Program, ...]
    environment: dict[str, str]  # of the programs, whole
    cgroup: str = ""  # directory in the v2 hierarchy that the supervisor moves itself to; "" = stay

    def save(self, path: Path) -> None:
        path.write_text(json.dumps(dataclasses.asdict(self), indent=1) + "\n")

    @classmethod
    def load(cls, path: Path) -> Self:
        raw = json.loads(path.read_text())
        raw["binds"] = tuple((source, target) for source, target in raw["binds"])
        raw["programs"] = tuple(Program(**{**each, "argv": tuple(each["argv"])}) for each in raw["programs"])
        return cls(**raw)


def plan_file(node_dir: Path) -> Path:
    return node_dir / "plan.json"


@dataclass(frozen=True, kw_only=True)
class ProgramState:
    """`pid` 0: not running now."""

    name: str
    pid: int
    starts: int


@dataclass(frozen=True, kw_only=True)
class NodeState:
    """What the supervisor says of itself, in run/node.json, after each change."""

    pid: int
    start_ticks: int
    boot_id: str
    programs: tuple[ProgramState, ...]

    def save(self, node_dir: Path) -> None:
        path = state_file(node_dir)
        temporary = path.with_suffix(".new")
        temporary.write_text(json.dumps(dataclasses.asdict(self)) + "\n")
        temporary.replace(path)

    @classmethod
    def load(cls, node_dir: Path) -> Self | None:
        """None when the supervisor has never come so far, or the file was cut short by a crash of the machine."""
        try:
            raw = json.loads(state_file(node_dir).read_text())
            raw["programs"] = tuple(ProgramState(**each) for each in raw["programs"])
            return cls(**raw)
        except (FileNotFoundError, ValueError, KeyError, TypeError):
            return None


def state_file(node_dir: Path) -> Path:
    return node_dir / "run/node.json"
