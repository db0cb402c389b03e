"""The supervisor, as a process of its own but without the namespaces."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from migrate.lab import node, processes
from migrate.lab.plan import NodePlan, NodeState, Program, plan_file

pytestmark = pytest.mark.unit

ROOT = Path(__file__).resolve().parents[4]
DRIVER = """
import sys
from pathlib import Path
from migrate.lab import node
from migrate.lab.plan import NodePlan
node._END_TIMEOUT_S = 0.5
node.Supervisor(NodePlan.load(Path(sys.argv[1])), 0).run()
"""


def wait_for(what: Callable[[], object], timeout_s: float = 60.0) -> None:
    deadline = time.monotonic() + timeout_s
    while not what():
        assert time.monotonic() < deadline, "it did not happen in time"
        time.sleep(0.02)


@contextmanager
def supervisor(directory: Path, **programs: str) -> Iterator[subprocess.Popen[bytes]]:
    """A supervisor over shell scripts, by name; the scripts run with `directory` in $D."""
    for name in ("run", "log"):
        (directory / name).mkdir()
    plan = NodePlan(
        name="node",
        directory=str(directory),
        binds=(),
        programs=tuple(Program(name=name, argv=("/bin/sh", "-c", script)) for name, script in programs.items()),
        environment={"PATH": os.environ["PATH"], "D": str(directory)},
    )
    plan.save(plan_file(directory))
    process = subprocess.Popen([sys.executable, "-c", DRIVER, str(plan_file(directory))], cwd=ROOT, stderr=-3)
    try:
        yield process
    finally:
        process.kill()
        process.wait()


def written(path: Path) -> str:
    return path.read_text().strip() if path.exists() else ""


def state(directory: Path) -> NodeState:
    found = NodeState.load(directory)
    assert found is not None
    return found


def test_program_is_started_again_and_later_each_time(tmp_path: Path) -> None:
    """One that ends at once comes back, with growing pauses; another beside it is left alone."""
    with supervisor(tmp_path, fails="date +%s.%N >>$D/times; exit 3", stays="exec sleep 60") as process:
        wait_for(lambda: len(written(tmp_path / "times").split()) >= 4)
        first, second, third, fourth = map(float, (tmp_path / "times").read_text().split()[:4])
        assert fourth - third > third - second > second - first
        stays = next(each for each in state(tmp_path).programs if each.name == "stays")
        assert (stays.starts, state(tmp_path).pid) == (1, process.pid)
        os.kill(stays.pid, signal.SIGKILL)


def test_program_that_does_not_exist_is_tried_again(tmp_path: Path) -> None:
    """A missing program ends neither the supervisor nor its other programs, which say so in their state."""
    with supervisor(tmp_path, stays="exec sleep 60") as process:
        wait_for(lambda: NodeState.load(tmp_path))
        process.send_signal(signal.SIGTERM)
        assert process.wait(10) == 0
    plan = NodePlan.load(plan_file(tmp_path))
    broken = Program(name="broken", argv=("/no/such/program",))
    NodePlan(**{**vars(plan), "programs": (broken, *plan.programs)}).save(plan_file(tmp_path))
    process = subprocess.Popen([sys.executable, "-c", DRIVER, str(plan_file(tmp_path))], cwd=ROOT, stderr=-3)
    try:
        wait_for(lambda: {each.name: each.starts for each in state(tmp_path).programs}.get("broken", 0) >= 2)
        assert {each.name: each.pid != 0 for each in state(tmp_path).programs} == {"broken": False, "stays": True}
        process.send_signal(signal.SIGTERM)
        assert process.wait(10) == 0
    finally:
        process.kill()
        process.wait()


def test_orphans_are_inherited_reaped_and_never_killed(tmp_path: Path) -> None:
    """What a dead agent leaves (its monitors) becomes the supervisor's, is no zombie at its end, and survives its SIGTERM."""
    agent = (
        "setsid sh -c 'echo $$ >$D/short; exec sleep 0.4' & setsid sh -c 'echo $$ >$D/long; exec sleep 60' & "
        "while ! [ -s $D/long ] || ! [ -s $D/short ]; do sleep 0.05; done; trap '' TERM; kill -9 $$"
    )
    once = f"[ -e $D/done ] && exec sleep 60; touch $D/done; {agent}"
    with supervisor(tmp_path, agent=once) as process:
        wait_for(lambda: all(written(tmp_path / name) for name in ("short", "long")))
        short, long = (int((tmp_path / name).read_text()) for name in ("short", "long"))
        wait_for(lambda: (found := processes.read(long)) is not None and found.parent == process.pid)
        wait_for(lambda: not Path(f"/proc/{short}").exists())  # ended and reaped, not even a zombie
        process.send_signal(signal.SIGTERM)
        assert process.wait(10) == 0
        survivor = processes.read(long)
        assert survivor is not None
        os.kill(long, signal.SIGKILL)


def test_sigterm_ends_the_programs(tmp_path: Path) -> None:
    """SIGTERM ends every program, one that ignores it by SIGKILL, and the supervisor leaves with status 0."""
    deaf = "trap '' TERM; echo >$D/ready; while :; do sleep 0.1; done"
    with supervisor(tmp_path, stays="exec sleep 60", deaf=deaf) as process:
        wait_for(lambda: (tmp_path / "ready").exists() and len(state(tmp_path).programs) == 2)
        wait_for(lambda: all(each.pid for each in state(tmp_path).programs))
        pids = [each.pid for each in state(tmp_path).programs]
        process.send_signal(signal.SIGTERM)
        assert process.wait(60) == 0
        assert [each.pid for each in state(tmp_path).programs] == [0, 0]
        assert all(processes.read(pid) is None for pid in pids)


def test_another_labs_namespace_may_go_while_a_host_is_made(monkeypatch: pytest.MonkeyPatch) -> None:
    """A mount that was listed and is gone when its turn comes holds nothing up; one that stays is an error."""
    listings = [["/run/netns/gone"], []]
    monkeypatch.setattr(node, "below_run", lambda: listings.pop(0))
    node.clear_run()
    monkeypatch.setattr(node, "below_run", lambda: ["/run/netns/stays"])
    monkeypatch.setattr(node, "_CLEAR_LIMIT_S", 0.05)
    with pytest.raises(OSError, match="/run/netns/stays cannot be unmounted"):
        node.clear_run()
