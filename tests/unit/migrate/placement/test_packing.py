"""Plans for many containers: never too much on a host, nothing against a rule, and what is left out really does not fit."""

from __future__ import annotations

import dataclasses

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from migrate.placement.model import HostState, Need
from migrate.placement.packing import Packing, pack
from migrate.placement.schedule import Sample, longest_s, order, predict

pytestmark = pytest.mark.unit


def a_host(name: str, memory: int) -> HostState:
    return HostState(name=name, memory_bytes=2 * memory or 1, memory_free_bytes=memory, disk_free_bytes=1000)


def a_need(name: str, memory: int, **changes: object) -> Need:
    return dataclasses.replace(Need(container_id=name, name=name, memory_bytes=memory), **changes)  # type: ignore[arg-type]


def where(packing: Packing) -> dict[str, str]:
    return {name: placed.host for name, placed in packing.placed.items()}


def test_a_set_is_spread_where_there_is_room() -> None:
    """Not one host after the other."""
    found = where(pack([a_need(f"c{n}", 10) for n in range(6)], [a_host(f"h{n}", 1000) for n in range(3)]))
    assert sorted(list(found.values()).count(f"h{n}") for n in range(3)) == [2, 2, 2]


def test_a_large_one_gets_the_room_that_small_ones_would_take() -> None:
    """One by one in this order the large one would not fit: the small ones would be spread before it."""
    needs = [a_need("s1", 40), a_need("s2", 40), a_need("large", 90)]
    packing = pack(needs, [a_host("h1", 100), a_host("h2", 100)])
    assert not packing.refused
    found = where(packing)
    assert found["s1"] == found["s2"] != found["large"]


def test_one_is_moved_over_where_that_makes_room() -> None:
    """60 and 50 go apart by size alone; the third must be where one of them is, which then goes to the other host."""
    needs = [a_need("a", 60), a_need("b", 30), a_need("c", 50, blockers={"h2": ("not there",)})]
    packing = pack(needs, [a_host("h1", 80), a_host("h2", 100)])
    assert not packing.refused
    assert where(packing)["c"] == "h1"


def test_what_does_not_fit_says_why_for_each_host() -> None:
    """With what the others have taken: the reasons are those of the plan's end."""
    packing = pack(
        [a_need("a", 90), a_need("b", 90)], [a_host("h1", 100), dataclasses.replace(a_host("h2", 100), cordon="x")]
    )
    assert len(packing.placed) == 1
    (ranked,) = packing.refused.values()
    reasons = {one.host: one.refusals for one in ranked}
    assert reasons["h2"] == ("is cordoned: x",)
    assert "of memory free" in reasons["h1"][0]


def test_affinity_holds_between_those_that_are_planned_together() -> None:
    """Replicas apart from each other, a helper beside its server, nobody beside one that wants nobody."""
    web = [a_need(f"web{n}", 10, labels={"app": "web"}, anti_affinity=(("app", "web"),)) for n in range(3)]
    db = a_need("db", 10, labels={"app": "db"})
    helper = a_need("helper", 10, affinity=(("app", "db"),))
    hosts = [a_host(f"h{n}", 100) for n in range(3)]
    packing = pack([helper, *web, db], hosts)
    assert not packing.refused
    found = where(packing)
    assert len({found[f"web{n}"] for n in range(3)}) == 3
    assert found["helper"] == found["db"]
    fourth = a_need("web3", 10, labels={"app": "web"}, anti_affinity=(("app", "web"),))
    assert len(pack([*web, fourth], hosts).refused) == 1


@settings(max_examples=120, deadline=None)
@given(
    memories=st.lists(st.integers(0, 60), min_size=1, max_size=4),
    needs=st.lists(
        st.tuples(st.integers(1, 60), st.sampled_from(["", "a", "b"]), st.booleans(), st.integers(0, 2)), max_size=8
    ),
)
def test_no_plan_breaks_a_rule(memories: list[int], needs: list[tuple[int, str, bool, int]]) -> None:
    """Room, anti-affinity and ports hold on every host; each container is placed once or refused by every host with a reason."""
    hosts = [a_host(f"h{n}", memory) for n, memory in enumerate(memories)]
    wanted = [
        a_need(
            f"c{n}",
            memory,
            labels={"app": app} if app else {},
            anti_affinity=(("app", app),) if app and alone else (),
            ports=(("", 8000 + port, "tcp"),) if port else (),
        )
        for n, (memory, app, alone, port) in enumerate(needs)
    ]
    packing = pack(wanted, hosts)
    assert {*packing.placed, *packing.refused} == {one.container_id for one in wanted}
    assert not {*packing.placed} & {*packing.refused}
    for host in hosts:
        here = [
            one
            for one in wanted
            if one.container_id in packing.placed and where(packing)[one.container_id] == host.name
        ]
        assert sum(one.memory_bytes for one in here) <= host.memory_free_bytes
        ports = [port for one in here for port in one.ports]
        assert len(ports) == len(set(ports))
        for one in here:
            for term in one.anti_affinity:
                assert not any(term in other.labels.items() for other in here if other is not one)
    for ranked in packing.refused.values():
        assert len(ranked) == len(hosts)
        assert all(one.refusals for one in ranked)


def test_times_come_from_earlier_moves() -> None:
    """Its own first; else a base and a speed from the fleet's; never faster than the bandwidth; nothing from nothing."""
    fleet = [Sample(sent_bytes=size * 10**6, total_s=2 + size / 100, downtime_s=0.3) for size in (10, 100, 400, 900)]
    assert predict(200 * 10**6, [], fleet).total_s == pytest.approx(4.0)
    assert predict(200 * 10**6, [], fleet, bandwidth=10**7).total_s == pytest.approx(20.0)
    own = [Sample(sent_bytes=1, total_s=7.0, downtime_s=0.5)]
    assert predict(200 * 10**6, own, fleet).total_s == 7.0
    assert predict(200 * 10**6, own, fleet).downtime_s == 0.5
    assert predict(200 * 10**6, [], []).total_s == 0.0
    same = [Sample(sent_bytes=5, total_s=total, downtime_s=0.1) for total in (1.0, 2.0, 9.0)]
    assert predict(10**9, [], same).total_s == 2.0


def test_the_order_suits_the_deadline_and_several_go_at_once() -> None:
    """The longest first; before a deadline the shortest."""
    times = [("a", 3.0), ("b", 1.0), ("c", 2.0)]
    assert order(times, deadline=False) == ["a", "c", "b"]
    assert order(times, deadline=True) == ["b", "c", "a"]
    assert longest_s([3.0, 2.0, 1.0], 2) == 3.0
    assert longest_s([1.0, 2.0, 3.0], 1) == 6.0
    assert longest_s([], 2) == 0.0
