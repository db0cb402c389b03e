"""The agent's configuration: a TOML file, validated whole, and the paths that follow from it."""

from __future__ import annotations

import tomllib
from dataclasses import dataclass
from pathlib import Path

from agent.errors import InvalidArgument
from agent.memory import ways

DEFAULT_PATH = Path("/etc/migrate/agent.toml")
MOST_IDLE_MONITORS = 64
_MOST = {"idle_monitors": MOST_IDLE_MONITORS, "kept_memory_mb": 1 << 24, "kept_memory_hours": 24 * 365}


@dataclass(frozen=True, kw_only=True)
class AgentConfig:
    """One host. Every path is absolute; `cgroup_parent` is relative to the root of each cgroup hierarchy."""

    host: str
    state_dir: Path = Path("/var/lib/migrate")
    run_dir: Path = Path("/run/migrate")
    bridge: str = "migrate0"
    uplink: str = ""  # the bridge's port towards the other hosts: where a moved address is announced; "" = every port but the containers'
    cgroup_parent: str = "migrate"
    build_gateway: str = (
        ""  # where a build's containers go out in a fleet without a gateway; they never leave this host
    )
    way_out: str = (
        ""  # "masquerade": what the fleet's segment sends to other networks by this host leaves with its address
    )
    criu: str = ""  # "" = found: /opt/migrate/criu, then the system's
    dirty_tracker: str = ways.AUTO  # how writes are seen while memory goes ahead: ways.NAMES
    idle_monitors: int = 2  # made ahead of need, each two processes with 3 MB of their own
    kept_memory_mb: int = 8192  # on disk, of containers that have left, for the case that they come back; 0 = none
    kept_memory_hours: int = 24
    group: str = "migrate"  # who may reach the door socket besides root: sshd's user

    @property
    def socket(self) -> Path:
        """gRPC."""
        return self.run_dir / "agent.sock"

    @property
    def door(self) -> Path:
        """Where the forced command `dial` hands over ssh's pipes."""
        return self.run_dir / "door.sock"

    @property
    def containers_dir(self) -> Path:
        """One directory a container: spec, state, exit status, log, writable layer. Survives a reboot."""
        return self.state_dir / "containers"

    @property
    def images_dir(self) -> Path:
        return self.state_dir / "images"

    @property
    def runtime_dir(self) -> Path:
        """One directory a container: the monitor's socket and pid. On a tmpfs: gone after a reboot, like the processes."""
        return self.run_dir / "containers"

    @property
    def seccomp_dir(self) -> Path:
        """Compiled seccomp filters; what is not there is compiled again."""
        return self.run_dir / "seccomp"

    @property
    def volumes_dir(self) -> Path:
        return self.state_dir / "volumes"

    @property
    def kept_dir(self) -> Path:
        """One directory a container that has left: its memory then. Survives a reboot, and is worth nothing but time."""
        return self.state_dir / "kept"

    @property
    def staging_dir(self) -> Path:
        """One directory a container that is being restored: its bind mounts, where CRIU takes them from."""
        return self.run_dir / "mounts"

    @property
    def moves_dir(self) -> Path:
        """One directory a move: its record, its staging tmpfs."""
        return self.run_dir / "moves"

    @property
    def move_logs_dir(self) -> Path:
        """One directory a move that was undone, and role: the ends of its logs. Survives a reboot; the oldest go."""
        return self.state_dir / "move-logs"

    @property
    def ended_moves_dir(self) -> Path:
        """One small file a move that is over, and role. Survives a reboot."""
        return self.state_dir / "moves"


def load(path: Path = DEFAULT_PATH) -> AgentConfig:
    """Read and check `path`. Raises InvalidArgument naming the field and what it takes."""
    try:
        raw = tomllib.loads(path.read_text())
    except OSError as exc:
        raise InvalidArgument(f"cannot read {path}: {exc.strerror}", hint="name the file with --config") from exc
    except tomllib.TOMLDecodeError as exc:
        raise InvalidArgument(f"{path} is not TOML: {exc}") from exc
    known = AgentConfig.__annotations__
    values: dict[str, object] = {}
    for name, value in raw.items():
        if name not in known:
            raise InvalidArgument(f"{path}: unknown field {name!r}", hint=f"known fields: {', '.join(sorted(known))}")
        if known[name] == "int":
            if not isinstance(value, int) or isinstance(value, bool) or not 0 <= value <= _MOST[name]:
                raise InvalidArgument(f"{path}: {name} takes a number from 0 to {_MOST[name]}, not {value!r}")
            values[name] = value
            continue
        if not isinstance(value, str):
            raise InvalidArgument(f"{path}: {name} takes a string, not {value!r}")
        if name.endswith("_dir"):
            if not value.startswith("/"):
                raise InvalidArgument(f"{path}: {name} takes an absolute path, not {value!r}")
            values[name] = Path(value)
        else:
            values[name] = value
    if values.get("way_out", "") not in ("", "masquerade"):
        raise InvalidArgument(f'{path}: way_out takes "masquerade" or nothing, not {values["way_out"]!r}')
    if (way := values.get("dirty_tracker", ways.AUTO)) not in ways.NAMES:
        raise InvalidArgument(f"{path}: dirty_tracker takes {', '.join(ways.NAMES)}, not {way!r}")
    if not values.get("host"):
        raise InvalidArgument(f"{path}: host is missing", hint='add a line such as: host = "host1"')
    return AgentConfig(**values)  # type: ignore[arg-type]  # checked above, field by field
