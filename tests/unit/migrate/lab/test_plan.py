"""What `up` tells a supervisor, and what a supervisor says of itself."""

from __future__ import annotations

from pathlib import Path

import pytest

from migrate.lab import plan
from migrate.lab.plan import NodePlan, NodeState, Program, ProgramState

pytestmark = pytest.mark.unit


def test_plan_survives_a_round_trip(tmp_path: Path) -> None:
    """The supervisor reads what was written."""
    wanted = NodePlan(
        name="host1",
        directory=str(tmp_path),
        binds=(("/a", "/b"),),
        programs=(Program(name="sshd", argv=("/usr/sbin/sshd", "-D")), Program(name="x", argv=("y",), outside=True)),
        environment={"PATH": "/bin"},
        cgroup="/sys/fs/cgroup/x",
    )
    wanted.save(tmp_path / "plan.json")
    assert NodePlan.load(tmp_path / "plan.json") == wanted


def test_state_survives_a_round_trip_and_replaces_the_old_one(tmp_path: Path) -> None:
    """Whoever looks sees a whole state, never a part, and no temporary file stays."""
    (tmp_path / "run").mkdir()
    state = NodeState(pid=7, start_ticks=99, boot_id="b", programs=(ProgramState(name="agent", pid=8, starts=2),))
    state.save(tmp_path)
    state.save(tmp_path)
    assert NodeState.load(tmp_path) == state
    assert [path.name for path in (tmp_path / "run").iterdir()] == ["node.json"]


@pytest.mark.parametrize("text", ["", "{", "{}", "[]", '{"pid": 1}'])
def test_state_that_a_crash_cut_short_is_no_state(tmp_path: Path, text: str) -> None:
    """After a crash of the machine the file may be empty: the node then counts as one that does not run."""
    (tmp_path / "run").mkdir()
    plan.state_file(tmp_path).write_text(text)
    assert NodeState.load(tmp_path) is None
