"""The lab's names, addresses and record."""

from __future__ import annotations

import ipaddress
from pathlib import Path

import pytest

from migrate.client import LAB_SOCKET
from migrate.errors import InvalidArgument
from migrate.lab import layout
from migrate.lab.layout import Lab, LabError

pytestmark = pytest.mark.unit


def test_default_lab_is_where_the_client_looks_for_it() -> None:
    """The client library finds the default lab's coordinator without being told."""
    assert Lab(prefix=layout.DEFAULT_PREFIX, hosts=2).socket == LAB_SOCKET


def test_two_labs_share_no_name() -> None:
    """Directory, cgroups and namespaces of one lab are never those of another, nor below them."""
    first, second = Lab(prefix="mlab", hosts=2), Lab(prefix="mdemo", hosts=2)
    assert first.state_dir != second.state_dir
    assert not second.state_dir.is_relative_to(first.state_dir)
    assert {first.netns(node.name) for node in first.nodes}.isdisjoint(second.netns(node.name) for node in second.nodes)
    assert first.container_cgroup("host1") != second.container_cgroup("host1")


def test_addresses_are_unique_and_outside_of_the_containers_range() -> None:
    """No node has another's address, or one that a container may get, with as many hosts as a lab may have."""
    nodes = Lab(prefix="mlab", hosts=layout.MAX_HOSTS).nodes
    addresses = [ipaddress.ip_address(node.address) for node in nodes if node.address]
    assert len(set(addresses)) == len(addresses) == layout.MAX_HOSTS + 2
    assert not [each for each in addresses if each in ipaddress.ip_network(layout.CONTAINER_RANGE)]
    assert all(each in ipaddress.ip_network(layout.SUBNET) for each in addresses)


def test_containers_cgroup_is_no_ancestor_of_the_nodes() -> None:
    """v2 allows processes only in groups without children that have controllers."""
    lab = Lab(prefix="mlab", hosts=1)
    assert not lab.node_cgroup("host1").is_relative_to(lab.container_cgroup("host1"))


@pytest.mark.parametrize("prefix", ["Lab", "a-b", "../x", "1lab", "x" * 17, "a b"])
def test_prefix_that_is_no_name_is_refused(prefix: str) -> None:
    """MIGRATE_LAB ends up in paths and names: nothing but letters and digits is let in."""
    with pytest.raises(InvalidArgument):
        layout.prefix_from({"MIGRATE_LAB": prefix})


def test_no_prefix_is_the_default() -> None:
    """Unset and empty mean the same."""
    assert layout.prefix_from({}) == layout.prefix_from({"MIGRATE_LAB": ""}) == layout.DEFAULT_PREFIX


def test_unknown_node_is_named_with_those_that_exist() -> None:
    """A mistyped node name is answered with the names there are."""
    with pytest.raises(InvalidArgument) as caught:
        Lab(prefix="mlab", hosts=2).node("host3")
    assert "host2" in caught.value.hint


def test_record_survives_a_round_trip(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """What `up` saved is what `status` loads; a damaged record is an error and no crash."""
    monkeypatch.setattr(Lab, "state_dir", property(lambda self: tmp_path))
    assert layout.load("mlab") is None
    Lab(prefix="mlab", hosts=3, criu="/opt/criu").save()
    assert layout.load("mlab") == Lab(prefix="mlab", hosts=3, criu="/opt/criu")
    Lab(prefix="mlab", hosts=3).record.write_text("{")
    with pytest.raises(LabError):
        layout.load("mlab")
