"""Which policy says what: the most specific one that has the setting."""

from __future__ import annotations

from pathlib import Path

import pytest

from migrate.coordinator.policies import Policies, Policy, resolve
from migrate.coordinator.store import Store
from migrate.errors import InvalidArgument, NotFound

pytestmark = pytest.mark.unit

EVERYTHING = Policy(name="everything", bandwidth=1 << 20, mode="precopy", priority="low")
WEB = Policy(name="web", selector={"tier": "web"}, mode="postcopy")
ANY_TIER = Policy(name="a-tier", selector={"tier": None}, mode="stop-and-copy", max_downtime_s=0.5)
WEB_A = Policy(name="web-a", selector={"tier": "web", "zone": "a"}, priority="high", bandwidth=0)


def test_each_setting_is_the_most_specific_policys() -> None:
    """More labels before fewer, a value before any value, in whatever order they are kept."""
    for policies in ([EVERYTHING, WEB, ANY_TIER, WEB_A], [WEB_A, ANY_TIER, WEB, EVERYTHING]):
        found = resolve(policies, {"tier": "web", "zone": "a", "else": "x"})
        assert found.matching == ("web-a", "web", "a-tier", "everything")
        assert found.values == {"priority": "high", "bandwidth": 0, "mode": "postcopy", "max_downtime_s": 0.5}
        assert found.sources == {"priority": "web-a", "bandwidth": "web-a", "mode": "web", "max_downtime_s": "a-tier"}


def test_labels_that_are_not_there_match_nothing() -> None:
    """Only the policy for everything is left; of two that are as specific the first by name wins."""
    assert resolve([EVERYTHING, WEB, ANY_TIER], {"zone": "a"}).matching == ("everything",)
    twin = Policy(name="and-first", mode="auto")
    assert resolve([EVERYTHING, twin], {}).sources["mode"] == "and-first"
    assert resolve([WEB], {"tier": "db"}).values == {}


def test_they_are_kept(tmp_path: Path) -> None:
    """Replaced by name, in the order of names, gone when removed."""
    policies = Policies(Store(tmp_path / "db"))
    policies.put(WEB)
    policies.put(EVERYTHING)
    policies.put(Policy(name="web", selector={"tier": None}, priority="high"))
    assert [one.name for one in policies.all()] == ["everything", "web"]
    assert policies.of({"tier": "x"}).values == {
        "priority": "high", "bandwidth": 1 << 20, "mode": "precopy",
    }  # fmt: skip
    policies.remove("web")
    with pytest.raises(NotFound, match="web"):
        policies.remove("web")
    assert policies.all() == [EVERYTHING]


@pytest.mark.parametrize(
    "policy",
    [
        Policy(name="a b", mode="auto"),
        Policy(name="silent"),
        Policy(name="x", mode="fly"),
        Policy(name="x", max_downtime_s=0.0),
        Policy(name="x", bandwidth=1),
        Policy(name="x", action="fly"),
        Policy(name="x", priority="urgent"),
    ],
)
def test_what_makes_no_sense_is_refused(policy: Policy, tmp_path: Path) -> None:
    """And not kept."""
    policies = Policies(Store(tmp_path / "db"))
    with pytest.raises(InvalidArgument):
        policies.put(policy)
    assert policies.all() == []
