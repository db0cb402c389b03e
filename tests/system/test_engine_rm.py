"""Containers that are removed when they exit: by whichever agent is there then, on whichever host. Root."""

from __future__ import annotations

import os
import signal
import threading

import pytest

from agent.engine.container import Engine
from agent.engine.spec import ContainerSpec
from agent.engine.state import ContainerStatus
from agent.errors import NotFound
from tests.system.engine_host import EngineHost, lose, until

pytestmark = pytest.mark.system


def start(engine: Engine, host: EngineHost, line: str) -> ContainerSpec:
    spec = host.spec(line, remove_on_exit=True)
    engine.create(spec, 1)
    engine.start(spec.id)
    return spec


def gone(engine: Engine, host: EngineHost, spec: ContainerSpec) -> bool:
    """Nothing of it is left: files, cgroup, mounts, link."""
    traces = (
        spec.id in engine.store.ids(),
        engine.store.directory(spec.id).exists(),
        (host.config.runtime_dir / spec.id).exists(),
        spec.id in host.cgroups(),
        any(spec.id in line for line in host.mounts()),
        spec.id in "".join(host.links()),
    )
    return not any(traces)


def test_it_goes_when_it_exits_and_who_waits_gets_the_exit_code(host: EngineHost, engine: Engine) -> None:
    """The exit code reaches those who waited, whenever they look; then nothing is left on the host."""
    spec = start(engine, host, "sleep 1000")
    seen: list[ContainerStatus] = []
    waiting = [threading.Thread(target=lambda: seen.append(engine.wait(spec.id))) for _ in range(3)]
    for each in waiting:
        each.start()
    engine.kill(spec.id, "SIGKILL")
    for each in waiting:
        each.join(20)
    assert [status.exit_code for status in seen] == [137] * 3
    assert gone(engine, host, spec)
    with pytest.raises(NotFound):
        engine.inspect(spec.id)


@pytest.mark.parametrize("end", ["stop", "remove"])
def test_stop_and_remove_do_not_mind(host: EngineHost, engine: Engine, end: str) -> None:
    """`stop` returns how it ended, `rm -f` has nothing left to do; neither is an error."""
    spec = start(engine, host, "sleep 1000")
    if end == "stop":
        assert engine.stop(spec.id, 0).exit_code == 137
    else:
        engine.remove(spec.id, force=True)
    assert gone(engine, host, spec)


def test_one_that_exits_without_an_agent_goes_with_the_next_one(host: EngineHost, engine: Engine) -> None:
    """The flag is in the spec: an agent that starts later removes what has exited meanwhile, and what exits under it."""
    early, late = start(engine, host, "sleep 1000"), start(engine, host, "sleep 1000")
    pid = engine.inspect(early.id).pid
    engine.close()
    os.kill(pid, signal.SIGKILL)
    until(lambda: engine.store.exit_status(early.id) is not None)
    until(lambda: not (host.config.runtime_dir / early.id / "monitor.pid").exists())
    second = host.engine()
    assert gone(second, host, early)
    assert second.inspect(late.id).pid
    second.kill(late.id)
    until(lambda: gone(second, host, late))
    second.close()


def test_a_lost_one_goes_when_it_is_killed(host: EngineHost, engine: Engine) -> None:
    """Its monitor dead, it is removed by the kill that ends it."""
    spec = start(engine, host, "sleep 1000")
    lose(host, engine, spec)
    engine.kill(spec.id)
    assert gone(engine, host, spec)


def test_not_during_a_move(host: EngineHost, engine: Engine) -> None:
    """What exits while a move holds it stays until the move is over here; then it goes."""
    spec = start(engine, host, "sleep 1000")
    engine.roles.begin(spec.id, "abc", "source", 1)
    os.kill(engine.inspect(spec.id).pid, signal.SIGKILL)
    engine.wait(spec.id, 20)
    assert engine.inspect(spec.id).migration_id == "abc"
    engine.roles.end(spec.id, "abc", 1)
    assert gone(engine, host, spec)


def test_one_that_never_started_stays(host: EngineHost, engine: Engine) -> None:
    """Created is not exited, also for the next agent."""
    created = host.spec("true", remove_on_exit=True)
    engine.create(created, 1)
    assert host.engine().inspect(created.id).state == "created"
