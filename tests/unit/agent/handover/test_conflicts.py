"""What a container that is to come would collide with."""

from __future__ import annotations

import dataclasses

import pytest

from agent.engine.spec import ContainerSpec, IdRange, Network
from agent.handover.conflicts import conflicts

pytestmark = pytest.mark.unit

HERE = ContainerSpec(
    id="b" * 32,
    name="web2",
    image="base",
    image_digest="sha256:x",
    layers=(),
    argv=("serve",),
    env=(),
    cwd="/",
    user="",
    hostname="web2",
    ids=IdRange(base=65536, count=65536),
    network=Network(address="10.88.1.3/16", mac="02:42:0a:58:01:03"),
)


def names(*coming: str, here: ContainerSpec = HERE, bridge: tuple[str, ...] = ()) -> list[str]:
    return [each.check for each in conflicts("a" * 32, *coming, here=[here], bridge_addresses=bridge)]


def test_another_container_has_what_it_needs() -> None:
    """Its name, its address, its MAC: each is told by itself; its own copy is another check's."""
    assert names("web1", "10.88.1.2/16", "02:42:0a:58:01:02") == []
    assert names("web2", "10.88.1.2/16", "02:42:0a:58:01:02") == ["name"]
    assert names("web1", "10.88.1.3/24", "02:42:0a:58:01:02") == ["address"]
    assert names("web1", "10.88.1.2/16", "02:42:0a:58:01:03") == ["mac"]
    same = dataclasses.replace(HERE, id="a" * 32)
    assert names("web2", "10.88.1.3/16", "02:42:0a:58:01:03", here=same) == []


def test_the_bridge_has_its_address() -> None:
    """An address of the host on that bridge."""
    assert names("web1", "10.88.0.1/16", "", bridge=("10.88.0.1/16",)) == ["address"]
    assert names("web1", "", "", bridge=("10.88.0.1/16",)) == []
