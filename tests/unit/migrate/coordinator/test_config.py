"""The coordinator's configuration file."""

from __future__ import annotations

from pathlib import Path

import pytest

from migrate.coordinator import config
from migrate.coordinator.store import Host
from migrate.errors import InvalidArgument

pytestmark = pytest.mark.unit

GOOD = """
state_dir = "/var/lib/migrate"
socket = "/run/migrate/coordinator.sock"

[fleet]
name = "prod"
subnet = "10.88.0.0/16"
container_range = "10.88.64.0/18"
gateway = "10.88.0.1"

[[hosts]]
name = "host1"
address = "10.88.0.11"
port = 2222
host_keys = ["ssh-ed25519 AAAA"]

[[hosts]]
name = "host2"
address = "host2.example"
host_keys = ["ssh-ed25519 BBBB"]
"""


def _load(directory: Path, text: str) -> config.CoordinatorConfig:
    path = directory / "coordinator.toml"
    path.write_text(text)
    return config.load(path)


def test_a_whole_file_is_read(tmp_path: Path) -> None:
    """Hosts, and the first and last address that containers get: not those of the network and of broadcast."""
    loaded = _load(tmp_path, GOOD)
    assert loaded.hosts == (
        Host(name="host1", address="10.88.0.11", port=2222, user="migrate", host_keys=("ssh-ed25519 AAAA",)),
        Host(name="host2", address="host2.example", port=22, user="migrate", host_keys=("ssh-ed25519 BBBB",)),
    )
    assert (loaded.fleet.first, loaded.fleet.last) == ("10.88.64.1", "10.88.127.254")
    assert loaded.fleet.gateway == "10.88.0.1"
    assert loaded.database == Path("/var/lib/migrate/coordinator.db")
    assert loaded.patience == 1
    assert _load(tmp_path, GOOD.replace("[fleet]", "patience = 10\n[fleet]")).patience == 10


@pytest.mark.parametrize(
    ("old", "new", "message"),
    [
        ('name = "prod"', 'nmae = "prod"', r"\[fleet\]: unknown field 'nmae'"),
        ('"/var/lib/migrate"', '"lib"', "state_dir takes an absolute path"),
        ("port = 2222", "port = 0", r"hosts\[0\]: port takes 1 to 65535"),
        ("port = 2222", "port = true", r"hosts\[0\]: port takes a int, not True"),
        ('name = "host2"', 'name = "host1"', "two hosts have the name 'host1'"),
        ('host_keys = ["ssh-ed25519 BBBB"]', "", r"hosts\[1\]: host_keys is missing"),
        ('["ssh-ed25519 BBBB"]', '["BBBB"]', "'BBBB' is not a host key"),
        ('"10.88.64.0/18"', '"10.99.0.0/18"', "10.99.0.0/18 is not within subnet"),
        ('"10.88.0.1"', '"10.99.0.1"', "10.99.0.1 is not within subnet"),
        ('"10.88.0.0/16"', '"10.88.0.1/16"', "subnet takes a network"),
        ("[fleet]", "[fleet", "is not TOML"),
        ("[fleet]", "patience = 0.5\n[fleet]", "patience takes a number from 1 to 1000, not 0.5"),
        ("[fleet]", "patience = true\n[fleet]", "patience takes a number"),
        ('name = "host2"', 'name = "../etc"', "cannot name a host"),
    ],
)
def test_a_mistake_is_named_with_its_place(tmp_path: Path, old: str, new: str, message: str) -> None:
    """File, table and field are in the error."""
    assert old in GOOD
    with pytest.raises(InvalidArgument, match=message) as caught:
        _load(tmp_path, GOOD.replace(old, new, 1))
    assert "coordinator.toml" in caught.value.message


def test_a_fleet_begins_without_hosts(tmp_path: Path) -> None:
    """Only a file that is not there is an error, and is named."""
    assert _load(tmp_path, 'state_dir = "/x"').hosts == ()
    with pytest.raises(InvalidArgument, match=r"cannot read .*nothing\.toml"):
        config.load(tmp_path / "nothing.toml")
