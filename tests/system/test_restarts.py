"""Restart policies on a real host: back-off, counts, who ends them, and what an agent does at its start. Root."""

from __future__ import annotations

import os
import signal
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from agent.engine.container import Engine
from agent.engine.spec import ContainerSpec, RestartPolicy
from agent.engine.state import State
from agent.errors import InvalidArgument, WrongState
from agent.services import streams
from tests.system.engine_host import EngineHost, until

pytestmark = pytest.mark.system

ALWAYS = RestartPolicy(name="always")


@pytest.fixture
def open_engine(engine: Engine) -> Iterator[Engine]:
    """An agent's: its policies act."""
    engine.restarts.boot()
    yield engine
    engine.restarts.close()


def start(engine: Engine, host: EngineHost, line: str, policy: RestartPolicy, **changes: object) -> ContainerSpec:
    spec = host.spec(line, restart=policy, **changes)
    engine.create(spec, 1)
    engine.start(spec.id)
    return spec


def actions(engine: Engine, spec: ContainerSpec) -> list[str]:
    return [event.action for event in engine.events.read() if event.id == spec.id]


def test_on_failure_comes_back_as_often_as_it_may(host: EngineHost, open_engine: Engine) -> None:
    """Three times with a growing pause, then it has exited for good, and only then `wait` returns."""
    began = time.monotonic()
    spec = start(open_engine, host, "exit 3", RestartPolicy(name="on-failure", max_retries=3))
    status = open_engine.wait(spec.id, 30)
    assert (status.state, status.exit_code, status.restarts) == (State.EXITED, 3, 3)
    assert time.monotonic() - began > 0.1 + 0.2 + 0.4
    assert actions(open_engine, spec) == ["create", *["start", "die"] * 4]
    well = start(open_engine, host, "exit 0", RestartPolicy(name="on-failure"))
    assert open_engine.wait(well.id, 30).restarts == 0


ENDS: dict[str, Callable[[Engine, str], object]] = {
    "stop": lambda engine, container_id: engine.stop(container_id),
    "kill": lambda engine, container_id: engine.kill(container_id),
    "no policy any more": lambda engine, container_id: engine.restarts.set_policy(container_id, RestartPolicy()),
}


@pytest.mark.parametrize("end", ENDS)
def test_it_is_restarting_in_between_and_what_ends_that(host: EngineHost, open_engine: Engine, end: str) -> None:
    """Between two runs it is restarting, and rm needs force; when that was ended a start by hand begins the count anew."""
    spec = start(open_engine, host, "exit 1", ALWAYS)
    until(lambda: actions(open_engine, spec).count("die") >= 5)  # 1.6 s to the next start
    until(lambda: open_engine.inspect(spec.id).state == State.RESTARTING)
    with pytest.raises(WrongState, match="restarting"):
        open_engine.remove(spec.id)
    ENDS[end](open_engine, spec.id)
    status = open_engine.inspect(spec.id)
    assert status.state == State.EXITED
    time.sleep(1.2)
    assert open_engine.inspect(spec.id) == status, "it came back"
    open_engine.start(spec.id)
    assert open_engine.inspect(spec.id).restarts == 0
    open_engine.remove(spec.id, force=True)


def test_stop_and_kill_are_for_good_but_a_crash_is_not(host: EngineHost, open_engine: Engine) -> None:
    """A signal from inside or from the host brings it back; `stop` and `kill` do not."""
    spec = start(open_engine, host, "sleep 1000", RestartPolicy(name="unless-stopped"))
    os.kill(open_engine.inspect(spec.id).pid, signal.SIGKILL)
    until(lambda: open_engine.inspect(spec.id).restarts == 1 and open_engine.inspect(spec.id).state == State.RUNNING)
    open_engine.kill(spec.id)
    assert open_engine.wait(spec.id, 20).state == State.EXITED
    open_engine.start(spec.id)
    open_engine.stop(spec.id, 0.1)
    time.sleep(0.5)
    assert open_engine.inspect(spec.id).state == State.EXITED


def test_restart_keeps_one_that_is_removed_at_its_exit(host: EngineHost, open_engine: Engine) -> None:
    """A new process in the same container; no other restart meanwhile; afterwards its exit removes it as before."""
    spec = host.spec("sleep 1000", remove_on_exit=True)
    open_engine.create(spec, 1)
    open_engine.start(spec.id)
    before = open_engine.inspect(spec.id).pid
    status = open_engine.restarts.restart(spec.id, 0.1)
    assert status.state == State.RUNNING and status.pid != before
    open_engine.kill(spec.id)
    until(lambda: spec.id not in open_engine.store.ids())


def test_a_start_that_fails_is_tried_again(host: EngineHost, open_engine: Engine) -> None:
    """What fails in between counts; when it can start again it does."""
    spec = start(open_engine, host, "sleep 0.3; exit 1", ALWAYS)
    layer = open_engine._images.layer_path(spec.layers[0])
    away = layer.with_name(layer.name + ".away")
    layer.rename(away)
    try:
        until(lambda: open_engine.inspect(spec.id).restarts >= 2)
        assert open_engine.inspect(spec.id).state == State.RESTARTING
    finally:
        away.rename(layer)
    until(lambda: open_engine.inspect(spec.id).state == State.RUNNING)
    open_engine.remove(spec.id, force=True)


def test_the_next_agent_starts_whom_the_policy_wants(host: EngineHost, engine: Engine) -> None:
    """What ended while no agent was there, or with the host; not what somebody stopped, nor what never ran, nor what a move holds."""
    kinds = {
        "always": ALWAYS,
        "unless": RestartPolicy(name="unless-stopped"),
        "failure": RestartPolicy(name="on-failure"),
    }
    specs = {name: start(engine, host, "sleep 1000", policy) for name, policy in kinds.items()}
    stopped = start(engine, host, "sleep 1000", kinds["unless"])
    engine.stop(stopped.id, 0.1)
    fresh = host.spec("sleep 1000", restart=ALWAYS)
    engine.create(fresh, 1)
    moving = start(engine, host, "sleep 1000", ALWAYS)
    engine.roles.begin(moving.id, "m1", "source", 1)
    pids = [engine.inspect(spec.id).pid for spec in (*specs.values(), moving)]
    monitors = [
        int((host.config.runtime_dir / spec.id / "monitor.pid").read_text()) for spec in (*specs.values(), moving)
    ]
    engine.close()
    for pid in (*monitors, *pids):  # as with the host: nobody could write an exit status
        os.kill(pid, signal.SIGKILL)
    until(lambda: not any(engine.cgroup(spec.id).populated() for spec in specs.values()))
    again = host.engine()
    again.restarts.boot()
    try:
        until(
            lambda: again.inspect(specs["always"].id).state == again.inspect(specs["unless"].id).state == State.RUNNING
        )
        time.sleep(0.5)
        states = {name: again.inspect(spec.id).state for name, spec in specs.items()}
        assert states["failure"] == State.EXITED  # its host went: it has not failed
        assert again.inspect(stopped.id).state == State.EXITED
        assert again.inspect(fresh.id).state == State.CREATED
        assert again.inspect(moving.id).state == State.EXITED
        again.roles.end(moving.id, "m1", 1)  # the move was undone: it is this host's again
        until(lambda: again.inspect(moving.id).state == State.RUNNING)
    finally:
        again.restarts.close()
        for spec in again.list():
            again.remove(spec.spec.id, force=True) if not spec.migration_id else None
        again.close()


def test_rm_beside_a_policy_is_refused(host: EngineHost, engine: Engine) -> None:
    """By the agent too."""
    with pytest.raises(InvalidArgument, match="removed at its exit"):
        engine.create(host.spec("exit 0", restart=ALWAYS, remove_on_exit=True), 1)


def test_a_small_init_is_process_1(host: EngineHost, engine: Engine) -> None:
    """It reaps what is left to it, passes the stop signal on, and gives the program's exit code."""
    spec = host.spec("(sleep 0.1 &) ; trap 'exit 5' TERM; while :; do sleep 0.1; done", init=True)
    engine.create(spec, 1)
    engine.start(spec.id)
    until(lambda: len(engine.cgroup(spec.id).procs()) >= 2)
    time.sleep(0.4)
    states = [stat.rpartition(")")[2].split()[0] for stat in map(_stat, engine.cgroup(spec.id).procs()) if stat]
    assert states and "Z" not in states
    words = Path(f"/proc/{engine.inspect(spec.id).pid}/cmdline").read_bytes()
    assert words.startswith(b"/.migrate-init\0--\0/bin/sh")
    assert engine.stop(spec.id, 5).exit_code == 5


def _stat(pid: int) -> str:
    try:
        return Path(f"/proc/{pid}/stat").read_text()
    except FileNotFoundError:
        return ""


def test_who_is_attached_sees_the_next_life_too(host: EngineHost, open_engine: Engine) -> None:
    """From its first word on, until it has ended for good: with the last exit code; or until somebody stops it in between."""
    spec = host.spec("echo life; exit 3", restart=RestartPolicy(name="on-failure", max_retries=2))
    open_engine.create(spec, 1)
    attached = streams.Attached(open_engine, spec.id, open_engine.attach(spec.id))
    open_engine.start(spec.id)
    assert b"".join(output.data for output in attached) == b"life\n" * 3
    assert attached.exit_code == 3
    ever = host.spec("exit 1", restart=ALWAYS)
    open_engine.create(ever, 1)
    attached = streams.Attached(open_engine, ever.id, open_engine.attach(ever.id))
    reader = threading.Thread(target=list, args=(attached,))
    open_engine.start(ever.id)
    reader.start()
    until(lambda: actions(open_engine, ever).count("die") >= 5)
    time.sleep(0.3)
    open_engine.stop(ever.id)
    reader.join(20)
    assert not reader.is_alive()
