"""The lab's names, addresses and paths. All follow from one prefix, so that several labs can stand side by side.

/var/lib/migrate-lab/lab.json                      how many hosts, which CRIU
/var/lib/migrate-lab/NAME/etc/                     what the node sees as /etc/migrate, /etc/passwd, /etc/hosts, ...
/var/lib/migrate-lab/NAME/var/                     what the node sees as /var/lib/migrate
/var/lib/migrate-lab/NAME/log/                     node.log and one log a program
/var/lib/migrate-lab/NAME/run/                     node.json (pids) and, on the controller, the coordinator's socket
"""

from __future__ import annotations

import json
import os
import re
from collections.abc import Mapping
from dataclasses import dataclass
from enum import StrEnum
from pathlib import Path

from migrate.errors import InvalidArgument, MigrateError

DEFAULT_PREFIX = "mlab"
DEFAULT_HOSTS = 2
MAX_HOSTS = 100
NETNS_DIR = Path("/run/netns")

PREFIX_LENGTH = 16
SUBNET = "10.88.0.0/16"
CONTAINER_RANGE = "10.88.64.0/18"  # so that no container ever gets a node's address
BRIDGE = "migrate0"
UPLINK = "eth0"
SSH_PORT = 22


class LabError(MigrateError):
    """The lab could not be built, found or taken down."""

    code = "lab"


class Role(StrEnum):
    """What a node is there for."""

    SWITCH = "switch"  # a bridge between the others, no processes
    CONTROLLER = "controller"  # the coordinator
    CLIENT = "client"  # where outside clients run, no processes of ours
    HOST = "host"  # sshd and an agent
    BARE = "bare"  # sshd that lets its operator in as root, and nothing of ours: for `migrate host add`


@dataclass(frozen=True, kw_only=True)
class Node:
    """One namespace of the lab. `address` is "" for the switch."""

    name: str
    role: Role
    address: str

    @property
    def supervised(self) -> bool:
        """Whether it has processes of its own (migrate/lab/node.py)."""
        return self.role in (Role.CONTROLLER, Role.HOST, Role.BARE)


@dataclass(frozen=True, kw_only=True)
class Lab:
    """One lab: its nodes and where its things are."""

    prefix: str
    hosts: int
    bare: int = 0  # after the hosts, numbered on
    criu: str = ""  # for AgentConfig.criu; "" = the agent finds one

    @property
    def label(self) -> str:
        """Names its directory and its cgroups: "migrate-lab", or "migrate-lab-PREFIX" for all but the default."""
        return "migrate-lab" if self.prefix == DEFAULT_PREFIX else f"migrate-lab-{self.prefix}"

    @property
    def state_dir(self) -> Path:
        return Path("/var/lib") / self.label

    @property
    def record(self) -> Path:
        return self.state_dir / "lab.json"

    @property
    def socket(self) -> Path:
        """The coordinator's, reachable from outside the lab."""
        return self.node_dir("controller") / "run/coordinator.sock"

    @property
    def operator_key(self) -> Path:
        """The private key that bare hosts let in as root."""
        return self.state_dir / "operator"

    @property
    def nodes(self) -> tuple[Node, ...]:
        numbers = range(1, self.hosts + self.bare + 1)
        roles = {n: Role.HOST if n <= self.hosts else Role.BARE for n in numbers}
        hosts = (Node(name=f"host{n}", role=roles[n], address=f"10.88.0.{10 + n}") for n in numbers)
        return (
            Node(name="switch", role=Role.SWITCH, address=""),
            Node(name="controller", role=Role.CONTROLLER, address="10.88.0.2"),
            *hosts,
            Node(name="client", role=Role.CLIENT, address="10.88.0.3"),
        )

    def node(self, name: str) -> Node:
        """Raises InvalidArgument, naming the nodes that there are."""
        for node in self.nodes:
            if node.name == name:
                return node
        names = " ".join(node.name for node in self.nodes)
        raise InvalidArgument(f"the lab has no node {name!r}", hint=f"its nodes: {names}")

    def node_dir(self, name: str) -> Path:
        return self.state_dir / name

    def log_dir(self, name: str) -> Path:
        return self.node_dir(name) / "log"

    def netns(self, name: str) -> str:
        """For `ip netns exec` and `ip -n`."""
        return f"{self.prefix}-{name}"

    def netns_path(self, name: str) -> Path:
        return NETNS_DIR / self.netns(name)

    def node_cgroup(self, name: str) -> Path:
        """Of the node's own processes (supervisor, sshd, agent, monitors), below the root of the v2 hierarchy."""
        return Path(self.label) / "nodes" / name

    def container_cgroup(self, name: str) -> Path:
        """AgentConfig.cgroup_parent of a host. Not an ancestor of node_cgroup: v2 wants processes in leaves only."""
        return Path(self.label) / name

    def save(self) -> None:
        self.record.write_text(json.dumps({"hosts": self.hosts, "bare": self.bare, "criu": self.criu}) + "\n")


def prefix_from(environ: Mapping[str, str] = os.environ) -> str:
    """MIGRATE_LAB, or the default. Raises InvalidArgument for what cannot be part of a name."""
    prefix = environ.get("MIGRATE_LAB") or DEFAULT_PREFIX
    if not re.fullmatch(r"[a-z][a-z0-9]{0,15}", prefix):
        raise InvalidArgument(
            f"MIGRATE_LAB={prefix!r} cannot name a lab",
            hint="use 1 to 16 lower-case letters and digits, a letter first",
        )
    return prefix


def load(prefix: str) -> Lab | None:
    """The lab of that prefix as it was built, or None when there is no record of one. Raises LabError."""
    record = Lab(prefix=prefix, hosts=DEFAULT_HOSTS).record
    try:
        raw = json.loads(record.read_text())
        return Lab(prefix=prefix, hosts=int(raw["hosts"]), bare=int(raw.get("bare", 0)), criu=str(raw["criu"]))
    except FileNotFoundError:
        return None
    except PermissionError as exc:
        raise LabError(f"cannot read {record}: the lab belongs to root", hint="run the command as root") from exc
    except (ValueError, KeyError, TypeError) as exc:
        raise LabError(f"{record} is damaged: {exc}", hint="take the lab down: migrate lab down") from exc


def require(prefix: str) -> Lab:
    """As load, but a missing lab is an error."""
    if (lab := load(prefix)) is None:
        raise LabError("there is no lab", hint="build one: migrate lab up")
    return lab
