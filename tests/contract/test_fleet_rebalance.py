"""`migrate rebalance` on hosts in memory."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from migrate.cli.main import main
from migrate.records import Run
from tests.fakes.fleet import FakeFleet

pytestmark = pytest.mark.contract

GIB = 1 << 30


@pytest.fixture
def two(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[FakeFleet]:
    """host1 with three containers of 1 GiB and little memory free, host2 empty."""
    made = FakeFleet(tmp_path, "host1", "host2")
    for host in made.hosts.values():
        host.add_image("base", cmd=["serve"])
    for name in "abc":
        container = made.client.run(Run(image="base", host="host1", name=name))
        made.world.run("host1", container.id, name=name)
    made.hosts["host1"].facts["memory_available_bytes"] = 2 * GIB
    made.hosts["host2"].facts["memory_available_bytes"] = 7 * GIB
    agent = made.world.agents["host1"]
    original = agent.Describe

    def describe(request: Any, context: Any = None) -> Any:
        answer = original(request)
        answer.memory_bytes = GIB
        return answer

    agent.Describe = describe  # type: ignore[method-assign]
    monkeypatch.setenv("MIGRATE_COORDINATOR", str(made.socket))
    yield made
    made.close()


def test_a_plan_and_then_its_moves(two: FakeFleet, capsys: pytest.CaptureFixture[str]) -> None:
    """A dry run moves nothing; then two go, and what has moved rests for its cooldown."""
    assert main(["rebalance", "--dry-run"]) == 0
    out = capsys.readouterr().out
    assert "host1  75%          48%" in out
    assert two.client.migrations() == []
    assert main(["rebalance"]) == 0
    assert capsys.readouterr().out.count("moved to host2") == 2
    owners = sorted(one.owner for one in two.store.containers())
    assert owners == ["host1", "host2", "host2"]
    assert two.client.migrations()[0].reason == "rebalance"
    two.hosts["host1"].facts["memory_available_bytes"] = 7 * GIB
    two.hosts["host2"].facts["memory_available_bytes"] = 2 * GIB
    assert main(["rebalance"]) == 0
    out = capsys.readouterr().out
    assert "nothing to move" in out and "it has moved in the last 3600 s" in out


def test_what_is_even_stays(two: FakeFleet, capsys: pytest.CaptureFixture[str]) -> None:
    """Within the threshold nothing is moved."""
    assert main(["rebalance", "--threshold", "70"]) == 0
    assert "nothing to move" in capsys.readouterr().out
    assert main(["rebalance", "--threshold", "100"]) == 2
