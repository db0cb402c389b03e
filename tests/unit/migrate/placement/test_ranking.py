"""Each filter's reason, in words; what the scores prefer; constraints as they are written."""

from __future__ import annotations

import dataclasses
from typing import Any

import pytest

from migrate.errors import InvalidArgument
from migrate.placement import labels
from migrate.placement.model import HostState, Need, Resident
from migrate.placement.ranking import because, rank

pytestmark = pytest.mark.unit

GIB = 1 << 30


def a_host(name: str, **changes: Any) -> HostState:
    usual = HostState(
        name=name,
        cpus=4,
        memory_bytes=8 * GIB,
        memory_free_bytes=4 * GIB,
        disk_free_bytes=100 * GIB,
    )
    return dataclasses.replace(usual, **changes)


def a_need(**changes: Any) -> Need:
    usual = Need(
        container_id="c1",
        name="web1",
        source="host1",
        memory_bytes=GIB,
        disk_bytes=GIB,
    )
    return dataclasses.replace(usual, **changes)


def beside(**label: str) -> Resident:
    return Resident(container_id="other", labels=label)


@pytest.mark.parametrize(
    ("host", "need", "reason"),
    [
        ({"silence": "no route"}, {}, "does not answer: no route"),
        ({"cordon": "new disk"}, {}, "is cordoned: new disk"),
        ({"cordon": ""}, {}, "is cordoned"),
        ({}, {"source": "host2"}, "web1 is there already"),
        ({"lacking": ("cgroup",)}, {}, "cgroup does not work there"),
        ({}, {"cpus": 4.5}, "has 4 processors, 4.5 are asked for"),
        ({}, {"blockers": {"host2": ("bind source /x is not on this host",)}}, "bind source /x is not on this host"),
        ({"memory_free_bytes": GIB // 2}, {}, "has 512 MiB of memory free, 1024 MiB are needed"),
        ({"disk_free_bytes": GIB // 2}, {}, "has 512 MiB of disk free, 1024 MiB are needed"),
        (
            {"disk_free_bytes": 2 * GIB},
            {"layers": {"sha256:a": 2 * GIB}},
            "has 2048 MiB of disk free, 3072 MiB are needed with the image's layers",
        ),
        ({}, {"constraints": labels.constraints("disk==ssd")}, "does not meet disk==ssd: it has no disk"),
        (
            {"labels": {"disk": "hdd"}},
            {"constraints": labels.constraints("disk==ssd")},
            "does not meet disk==ssd: disk is hdd",
        ),
        ({"labels": {"zone": "b"}}, {"constraints": labels.constraints("zone!=b")}, "does not meet zone!=b: zone is b"),
        ({}, {"affinity": (("app", "db"),)}, "no container with app=db is there, beside which it must be"),
        (
            {"residents": (beside(app="web"),)},
            {"anti_affinity": (("app", "web"),)},
            "a container with app=web is there, beside which it must not be",
        ),
        (
            {"residents": (Resident(container_id="other", anti_affinity=(("app", "web"),)),)},
            {"labels": {"app": "web"}},
            "a container is there that must not be beside one with app=web",
        ),
        (
            {"residents": (Resident(container_id="other", ports=(("", 80, "tcp"),)),)},
            {"ports": (("127.0.0.1", 80, "tcp"),)},
            "port 80/tcp is published there already",
        ),
    ],
)
def test_every_filter_says_why(host: dict[str, Any], need: dict[str, Any], reason: str) -> None:
    """One reason each, and without what it is about the host can take the container."""
    (found,) = rank(a_need(**need), [a_host("host2", **host)])
    assert found.refusals == (reason,)
    (able,) = rank(a_need(), [a_host("host2")])
    assert able.refusals == ()


def test_all_reasons_are_told_and_those_that_can_come_first() -> None:
    """Of a silent host only that: nothing else is known of it."""
    hosts = [
        a_host("host2", cordon="", memory_free_bytes=0, lacking=("cgroup",)),
        a_host("host3"),
        HostState(name="host4", silence="down"),
    ]
    ranking = rank(a_need(), hosts)
    assert [one.host for one in ranking] == ["host3", "host2", "host4"]
    assert len(ranking[1].refusals) == 3
    assert ranking[2].refusals == ("does not answer: down",)


def test_ports_of_other_addresses_and_protocols_are_no_conflict() -> None:
    """The same port on two addresses, and of tcp and udp."""
    taken = Resident(container_id="other", ports=(("10.0.0.1", 80, "tcp"), ("", 53, "udp")))
    need = a_need(ports=(("10.0.0.2", 80, "tcp"), ("", 53, "tcp")))
    assert rank(need, [a_host("host2", residents=(taken,))])[0].refusals == ()
    need = a_need(ports=(("", 80, "tcp"),))
    assert rank(need, [a_host("host2", residents=(taken,))])[0].refusals != ()


@pytest.mark.parametrize(
    ("better", "worse", "need"),
    [
        ({"memory_free_bytes": 6 * GIB}, {}, {}),
        ({}, {"residents": tuple(beside(n=str(n)) for n in range(5))}, {}),
        ({"layers": frozenset({"sha256:a"})}, {}, {"layers": {"sha256:a": GIB}}),
        ({}, {}, {"kept_by": frozenset({"better"})}),
    ],
)
def test_what_is_preferred(better: dict[str, Any], worse: dict[str, Any], need: dict[str, Any]) -> None:
    """More memory, fewer neighbours, layers that are there, pages from an earlier stay; each by itself decides."""
    ranking = rank(a_need(**need), [a_host("worse", **worse), a_host("better", **better)])
    assert [one.host for one in ranking] == ["better", "worse"]
    assert all(0 <= value <= 1 for one in ranking for value in one.parts.values())
    assert because(ranking[0], 1).startswith("the best of 2 (memory ")
    assert because(ranking[0], 0).startswith("the only one that can take it")


def test_constraints_are_read_as_they_are_written() -> None:
    """=, == and != with a value, a bare key; != also holds where there is no such label."""
    (one, two, three) = labels.constraints("disk=ssd, zone!=b,gpu")
    assert [str(each) for each in (one, two, three)] == ["disk==ssd", "zone!=b", "gpu"]
    assert one.met({"disk": "ssd"}) and not one.met({"disk": "hdd"}) and not one.met({})
    assert two.met({"zone": "a"}) and two.met({}) and not two.met({"zone": "b"})
    assert three.met({"gpu": ""}) and not three.met({})
    for wrong in ("=ssd", "a b", "disk>ssd", "disk==a=b"):
        with pytest.raises(InvalidArgument, match="no constraint"):
            labels.constraint(wrong)
    assert labels.terms("app=db,tier=") == (("app", "db"), ("tier", ""))
    with pytest.raises(InvalidArgument, match="no label"):
        labels.terms("app")
