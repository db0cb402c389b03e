"""Units for systemd, and the files of a host's set-up."""

from __future__ import annotations

import configparser
import tomllib
from pathlib import Path

import pytest

from agent import config
from agent.errors import InvalidArgument
from agent.setup import host, systemd

pytestmark = pytest.mark.unit


def _unit(text: str) -> configparser.ConfigParser:
    parser = configparser.ConfigParser(interpolation=None)
    parser.optionxform = str  # type: ignore[assignment,method-assign]
    parser.read_string(text)
    return parser


def _agent_unit(version: int) -> configparser.SectionProxy:
    text = systemd.agent_unit(python=Path("/x/python"), config=Path("/e/agent.toml"), systemd_version=version)
    return _unit(text)["Service"]


def test_stopping_the_agent_ends_nothing_but_the_agent() -> None:
    """Containers are in the service's cgroup: only the main process may be killed, and no limit may be theirs."""
    service = _agent_unit(257)
    assert (service["KillMode"], service["Delegate"], service["TasksMax"]) == ("process", "yes", "infinity")
    assert service["ExecStart"] == "/x/python -m agent --config /e/agent.toml"


@pytest.mark.parametrize(
    ("version", "subgroup", "parent"),
    [(252, None, "migrate"), (254, "agent", "system.slice/migrate-agent.service/containers")],
)
def test_containers_are_below_the_service_only_where_it_can_start_again(
    version: int, subgroup: str | None, parent: str
) -> None:
    """A cgroup whose children have controllers takes no process: without DelegateSubgroup= no second start would work."""
    assert _agent_unit(version).get("DelegateSubgroup") == subgroup
    assert systemd.cgroup_parent(version) == parent


def _plan(path: Path, name: str = "host1") -> host.Plan:
    return host.Plan(
        name=name, authority="ssh-ed25519 AAAA", bridge="br1", uplink="eth0", python=Path("/p"), agent_toml=path
    )


def test_the_agents_configuration_is_what_the_agent_reads(tmp_path: Path) -> None:
    """Written once; one that is there is kept, whatever was edited in it."""
    path = tmp_path / "etc/agent.toml"
    assert host._configure(_plan(path), "p/c")
    loaded = config.load(path)
    assert (loaded.host, loaded.bridge, loaded.uplink, loaded.cgroup_parent) == ("host1", "br1", "eth0", "p/c")
    path.write_text('host = "host1"\nbridge = "other"\n')
    assert not host._configure(_plan(path), "p/c")
    assert config.load(path).bridge == "other"


def test_a_host_does_not_change_its_name_by_accident(tmp_path: Path) -> None:
    """Its containers belong to the old name."""
    path = tmp_path / "agent.toml"
    host._configure(_plan(path), "p")
    with pytest.raises(InvalidArgument, match="host 'host1' already"):
        host._configure(_plan(path, "host2"), "p")


def test_the_inventory_is_a_table_for_the_coordinator() -> None:
    """As its configuration wants it."""
    text = host.inventory("vm1", "10.78.0.1", ["ssh-ed25519 AAAA", "ssh-rsa BBBB"])
    assert tomllib.loads(text)["hosts"] == [
        {"name": "vm1", "address": "10.78.0.1", "host_keys": ["ssh-ed25519 AAAA", "ssh-rsa BBBB"]}
    ]
