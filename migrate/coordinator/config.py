"""The coordinator's configuration: a TOML file, validated whole.

state_dir = "/var/lib/migrate"               # database, certificate authority, lock
socket = "/run/migrate/coordinator.sock"
group = "migrate"                            # who may use the socket besides root; "" = nobody
hooks = true                                 # schedules may run commands here, as the coordinator's user
metrics = "127.0.0.1:9464"                   # /metrics for Prometheus, on loopback only; "" = none, as without this line
patience = 1                                 # deadlines of calls to agents are multiplied by it: more for slow hosts

[fleet]
name = "prod"
subnet = "10.88.0.0/16"                      # of hosts and containers: one layer-2 segment
container_range = "10.88.64.0/18"            # containers get their addresses from here
gateway = "10.88.0.1"                        # "" = containers get no default route

[[hosts]]
name = "host1"
address = "10.88.0.11"
port = 22
user = "migrate"
host_keys = ["ssh-ed25519 AAAA..."]          # what ssh-keyscan prints, checked by hand
"""

from __future__ import annotations

import ipaddress
import re
import tomllib
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from migrate.coordinator.store import Fleet, Host
from migrate.errors import InvalidArgument

DEFAULT_PATH = Path("/etc/migrate/coordinator.toml")
HOST_NAME = re.compile(r"[a-zA-Z0-9][a-zA-Z0-9_.-]{0,62}")


@dataclass(frozen=True, kw_only=True)
class CoordinatorConfig:
    """Paths are absolute."""

    state_dir: Path = Path("/var/lib/migrate")
    socket: Path = Path("/run/migrate/coordinator.sock")
    group: str = "migrate"
    patience: float = 1.0
    hooks: bool = True
    metrics: str = ""
    fleet: Fleet
    hosts: tuple[Host, ...]

    @property
    def database(self) -> Path:
        return self.state_dir / "coordinator.db"

    @property
    def tunnels(self) -> Path:
        """Local ends of the control tunnels. Emptied at every start: one that was killed leaves its own there."""
        return self.socket.with_suffix(".tunnels")

    @property
    def lock(self) -> Path:
        """Held while a coordinator runs: two of them would undo each other's moves."""
        return self.state_dir / "coordinator.lock"


def load(path: Path = DEFAULT_PATH) -> CoordinatorConfig:
    """Read and check `path`. Raises InvalidArgument naming the field and what it takes."""
    try:
        raw = tomllib.loads(path.read_text())
    except OSError as exc:
        raise InvalidArgument(f"cannot read {path}: {exc.strerror}", hint="name the file with --config") from exc
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as exc:
        raise InvalidArgument(f"{path} is not TOML: {exc}") from exc
    return parse(raw, str(path))


def parse(raw: dict[str, Any], where: str) -> CoordinatorConfig:
    """`where` begins every error."""
    top = _Table(raw, where, known=("state_dir", "socket", "group", "patience", "hooks", "metrics", "fleet", "hosts"))
    hosts = top.take("hosts", list, [])  # none: the first one wants the ca.pub that the coordinator's first start makes
    parsed = tuple(_host(one, f"{where}: hosts[{number}]") for number, one in enumerate(hosts))
    names = [host.name for host in parsed]
    for name in names:
        if names.count(name) > 1:
            raise InvalidArgument(f"{where}: two hosts have the name {name!r}")
    return CoordinatorConfig(
        state_dir=top.path("state_dir", "/var/lib/migrate"),
        socket=top.path("socket", "/run/migrate/coordinator.sock"),
        group=top.take("group", str, "migrate"),
        patience=top.factor("patience"),
        hooks=top.take("hooks", bool, True),
        metrics=top.take("metrics", str, ""),
        fleet=_fleet(top.take("fleet", dict, {}), f"{where}: [fleet]"),
        hosts=parsed,
    )


class _Table:
    """One TOML table whose fields are all known."""

    def __init__(self, raw: Any, where: str, *, known: tuple[str, ...]) -> None:
        if not isinstance(raw, dict):
            raise InvalidArgument(f"{where} takes a table, not {raw!r}")
        for name in raw:
            if name not in known:
                raise InvalidArgument(f"{where}: unknown field {name!r}", hint=f"known fields: {', '.join(known)}")
        self._raw = raw
        self._where = where

    def take(self, name: str, kind: type, default: Any) -> Any:
        value = self._raw.get(name, default)
        # bool is an int to Python, but `port = true` is a mistake
        if not isinstance(value, kind) or (kind is int and isinstance(value, bool)):
            raise InvalidArgument(f"{self._where}: {name} takes a {kind.__name__}, not {value!r}")
        return value

    def path(self, name: str, default: str) -> Path:
        value = self.take(name, str, default)
        if not value.startswith("/"):
            raise InvalidArgument(f"{self._where}: {name} takes an absolute path, not {value!r}")
        return Path(value)

    def factor(self, name: str) -> float:
        """1 when it is not there."""
        value = self._raw.get(name, 1.0)
        if isinstance(value, bool) or not isinstance(value, int | float) or not 1 <= value <= 1000:
            raise InvalidArgument(f"{self._where}: {name} takes a number from 1 to 1000, not {value!r}")
        return float(value)

    def needed(self, name: str, kind: type) -> Any:
        if name not in self._raw:
            raise InvalidArgument(f"{self._where}: {name} is missing")
        value = self.take(name, kind, None)
        if not value:
            raise InvalidArgument(f"{self._where}: {name} is empty")
        return value


def _host(raw: Any, where: str) -> Host:
    table = _Table(raw, where, known=("name", "address", "port", "user", "host_keys"))
    name = table.needed("name", str)
    if not HOST_NAME.fullmatch(name):
        raise InvalidArgument(f"{where}: {name!r} cannot name a host", hint="a letter or digit, then also _ . -")
    port = table.take("port", int, 22)
    if not 0 < port < 65536:
        raise InvalidArgument(f"{where}: port takes 1 to 65535, not {port}")
    keys = table.needed("host_keys", list)
    for key in keys:
        if not isinstance(key, str) or len(key.split()) < 2:
            raise InvalidArgument(f"{where}: {key!r} is not a host key", hint='such as "ssh-ed25519 AAAA..."')
    return Host(
        name=name,
        address=table.needed("address", str),
        port=port,
        user=table.take("user", str, "migrate"),
        host_keys=tuple(keys),
    )


def _fleet(raw: dict[str, Any], where: str) -> Fleet:
    table = _Table(raw, where, known=("name", "subnet", "container_range", "gateway", "reserved"))
    subnet = _network(table.take("subnet", str, "10.88.0.0/16"), f"{where}: subnet")
    range_text = table.take("container_range", str, str(subnet))
    range_ = _network(range_text, f"{where}: container_range")
    if not range_.subnet_of(subnet):
        raise InvalidArgument(f"{where}: container_range {range_} is not within subnet {subnet}")
    gateway = table.take("gateway", str, "")
    reserved = tuple(str(_address(one, subnet, f"{where}: reserved")) for one in table.take("reserved", list, []))
    return Fleet(
        name=table.take("name", str, "fleet"),
        subnet=str(subnet),
        first=str(range_[1]),
        last=str(range_[-2]),
        gateway=str(_address(gateway, subnet, f"{where}: gateway")) if gateway else "",
        reserved=reserved,
    )


def _network(text: str, where: str) -> ipaddress.IPv4Network:
    try:
        network = ipaddress.IPv4Network(text)
    except ValueError as exc:
        raise InvalidArgument(f"{where} takes a network such as 10.88.0.0/16: {exc}") from exc
    if network.prefixlen > 30:
        raise InvalidArgument(f"{where}: {network} has no room for two addresses")
    return network


def _address(text: Any, subnet: ipaddress.IPv4Network, where: str) -> ipaddress.IPv4Address:
    try:
        address = ipaddress.IPv4Address(text)
    except ValueError as exc:
        raise InvalidArgument(f"{where} takes an address such as {subnet[1]}: {exc}") from exc
    if address not in subnet:
        raise InvalidArgument(f"{where}: {address} is not within subnet {subnet}")
    return address
