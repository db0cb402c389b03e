"""A container whose monitor is killed: it gets another, or is lost, and is never touched by that. Real, as root."""

from __future__ import annotations

import os
import signal
from pathlib import Path
from typing import Any

import pytest

from agent.engine import network
from agent.engine.container import Engine
from agent.engine.session import Session, SessionError, request
from agent.engine.state import State
from agent.errors import AgentError, WrongState
from agent.linux import process
from tests.system.engine_host import EngineHost, lose, monitor_pid, until

pytestmark = pytest.mark.system

TICKER = "i=0; while :; do i=$((i+1)); echo tick $i; sleep 0.01; done"


def output(engine: Engine, container_id: str) -> str:
    return b"".join(entry.data for entry in engine.logs(container_id)).decode()


@pytest.mark.parametrize("agent", ["lives", "comes later"])
def test_killed_monitor_has_a_successor(host: EngineHost, engine: Engine, agent: str) -> None:
    """The tasks run on and write on; the container can be stopped, and its exit code is said to be unknown. No line is lost
    where an agent lives, which has the other end of the pipes meanwhile.
    """
    spec = host.spec("trap 'exit 0' TERM; i=0; while :; do echo $i; i=$((i+1)); sleep 0.05; done")
    engine.create(spec, 1)
    pid = engine.start(spec.id).pid
    until(lambda: "5\n" in output(engine, spec.id))
    first = monitor_pid(host, spec)
    if agent == "comes later":
        engine.close()
    os.kill(first, signal.SIGKILL)
    if agent == "comes later":
        until(lambda: not Path(f"/proc/{first}/exe").exists())
        engine = host.engine()
    until(lambda: engine.inspect(spec.id).state == State.RUNNING and monitor_pid(host, spec) != first)
    assert engine.inspect(spec.id).pid == pid
    written = len(output(engine, spec.id).splitlines())
    until(lambda: len(output(engine, spec.id).splitlines()) > written + 5)
    status = engine.stop(spec.id)
    assert (status.state, status.exit_code) == (State.EXITED, 255)
    assert "not known" in status.error
    numbers = [int(line) for line in output(engine, spec.id).splitlines()]
    assert numbers == (list(range(len(numbers))) if agent == "lives" else sorted(set(numbers)))
    until(lambda: host.links() == {"lo", host.config.bridge})  # its link goes with its namespace, an instant later
    assert (host.cgroups(), host.mounts()) == ([], [])


def test_killed_monitor_of_a_terminal(host: EngineHost, engine: Engine) -> None:
    """The agent has kept the terminal's other end: the program is not hung up, and hears what is typed after that."""
    spec = host.spec("while read line; do echo got $line; done", tty=True)
    engine.create(spec, 1)
    engine.start(spec.id)
    first = monitor_pid(host, spec)
    os.kill(first, signal.SIGKILL)
    until(lambda: engine.inspect(spec.id).state == State.RUNNING and monitor_pid(host, spec) != first)
    attachment = engine.attach(spec.id)
    attachment.write(b"hello\n")
    until(lambda: "got hello" in output(engine, spec.id))
    attachment.close()
    engine.remove(spec.id, force=True)


def test_no_successor_during_a_move(host: EngineHost, engine: Engine) -> None:
    """While a move has the container only the handover acts on it: lost until then, its tasks run on; afterwards it has one."""
    spec = host.spec(TICKER)
    engine.create(spec, 1)
    pid = engine.start(spec.id).pid
    engine.roles.begin(spec.id, "abc", "source", 1)
    os.kill(monitor_pid(host, spec), signal.SIGKILL)
    until(lambda: engine.inspect(spec.id).state == State.LOST)
    with pytest.raises(WrongState, match="was killed"):
        engine.roles.monitor(spec.id)
    engine.roles.end(spec.id, "abc", 1)
    status = engine.inspect(spec.id)
    assert (status.state, status.pid) == (State.RUNNING, pid)
    engine.remove(spec.id, force=True)


def test_a_lost_container(host: EngineHost, engine: Engine) -> None:
    """One that can have no successor stays lost; stop and wait are refused with a hint; a forced removal takes all."""
    spec = host.spec(TICKER)
    engine.create(spec, 1)
    pid = engine.start(spec.id).pid
    lose(host, engine, spec)
    assert Path(f"/proc/{pid}").exists()
    with pytest.raises(WrongState) as caught:
        engine.stop(spec.id)
    assert "migrate kill" in caught.value.hint
    with pytest.raises(WrongState):
        engine.wait(spec.id)
    engine.remove(spec.id, force=True)
    until(lambda: not Path(f"/proc/{pid}/exe").exists())
    until(lambda: (host.cgroups(), host.mounts(), host.links()) == ([], [], {"lo", host.config.bridge}))


def test_a_frozen_container_without_a_monitor_can_be_removed(host: EngineHost, engine: Engine) -> None:
    """No move has it any more: a forced removal takes all, where its cgroups were busy with its tasks."""
    spec = host.spec(TICKER)
    engine.create(spec, 1)
    pid = engine.start(spec.id).pid
    engine.cgroup(spec.id).freeze(True)
    os.kill(monitor_pid(host, spec), signal.SIGKILL)
    until(lambda: engine.inspect(spec.id).state == State.FROZEN)
    engine.remove(spec.id, force=True)
    until(lambda: not Path(f"/proc/{pid}/exe").exists())
    until(lambda: (host.cgroups(), host.mounts(), host.links()) == ([], [], {"lo", host.config.bridge}))


def test_killing_a_lost_container(host: EngineHost, engine: Engine) -> None:
    """SIGKILL ends a lost container: exited, exit code unknown and said so."""
    spec = host.spec(TICKER)
    engine.create(spec, 1)
    engine.start(spec.id)
    lose(host, engine, spec)
    engine.kill(spec.id)
    status = engine.inspect(spec.id)
    assert (status.state, status.exit_code) == (State.EXITED, 255)
    assert "not known" in status.error


def test_monitor_killed_in_the_middle_of_a_start(
    host: EngineHost, engine: Engine, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The start fails and nothing of it stays, also where init does not notice that its monitor is gone."""
    attach = network.attach

    def attach_and_kill(*arguments: Any) -> None:
        attach(*arguments)
        os.kill(arguments[1], signal.SIGSTOP)
        until(lambda: monitor_pid(host, arguments[0]) > 0)
        os.kill(monitor_pid(host, arguments[0]), signal.SIGKILL)

    spec = host.spec(TICKER)
    engine.create(spec, 1)
    with monkeypatch.context() as patched:
        patched.setattr(network, "attach", attach_and_kill)
        with pytest.raises(AgentError) as caught:
            engine.start(spec.id)
    assert "give the command again" in caught.value.hint
    assert engine.inspect(spec.id).state == State.CREATED
    until(lambda: (host.cgroups(), host.mounts(), host.links()) == ([], [], {"lo", host.config.bridge}))
    engine.start(spec.id)
    assert engine.inspect(spec.id).state == State.RUNNING


def test_init_killed_in_the_middle_of_a_start(
    host: EngineHost, engine: Engine, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The start fails with what to do next, whoever notices first, and nothing of it stays."""
    attach = network.attach

    def attach_and_kill(*arguments: Any) -> None:
        attach(*arguments)
        os.kill(arguments[1], signal.SIGKILL)
        until(lambda: process.has_ended(arguments[1]))

    spec = host.spec(TICKER)
    engine.create(spec, 1)
    with monkeypatch.context() as patched:
        patched.setattr(network, "attach", attach_and_kill)
        with pytest.raises(AgentError) as caught:
            engine.start(spec.id)
    assert "give the command again" in caught.value.hint
    assert engine.inspect(spec.id).state == State.CREATED
    until(lambda: (host.cgroups(), host.mounts(), host.links()) == ([], [], {"lo", host.config.bridge}))


@pytest.mark.parametrize("verb", ["start", "remove"])
def test_a_lost_container_that_ends_unseen(host: EngineHost, engine: Engine, verb: str) -> None:
    """Nobody saw its end: it is exited, and can be started or removed like any other, with nothing left of its first life."""
    spec = host.spec("sleep 1")
    engine.create(spec, 1)
    pid = engine.start(spec.id).pid
    lose(host, engine, spec)
    until(lambda: not Path(f"/proc/{pid}/exe").exists())
    until(lambda: engine.inspect(spec.id).state == State.EXITED)
    if verb == "start":
        engine.start(spec.id)
        assert engine.wait(spec.id, 10).exit_code == 0
    engine.remove(spec.id)
    assert not (host.config.containers_dir / spec.id).exists()
    until(lambda: (host.cgroups(), host.mounts(), host.links()) == ([], [], {"lo", host.config.bridge}))


def test_monitor_killed_while_its_container_dies(host: EngineHost, engine: Engine) -> None:
    """A forced removal whose SIGKILL has reached init but not yet every task, when somebody kills the monitor: all goes."""
    spec = host.spec(TICKER, remove_on_exit=True)
    engine.create(spec, 1)
    pid = engine.start(spec.id).pid
    monitor = monitor_pid(host, spec)
    os.kill(monitor, signal.SIGSTOP)
    os.kill(pid, signal.SIGKILL)
    os.kill(monitor, signal.SIGKILL)
    until(lambda: not (host.config.containers_dir / spec.id).exists())
    assert (host.cgroups(), host.mounts()) == ([], [])
    until(lambda: host.links() == {"lo", host.config.bridge})  # it goes with its namespace


def test_killed_helper_of_an_exec(host: EngineHost, engine: Engine) -> None:
    """What it had begun in the container ends, with what that has started; the container runs on, and the caller is told."""
    spec = host.spec("while :; do sleep 100; done")
    engine.create(spec, 1)
    pid = engine.start(spec.id).pid
    cgroup, record = engine.cgroup(spec.id), engine.store.record(spec.id)
    until(lambda: len(cgroup.procs()) == 2)
    what = request(
        spec, pid=pid, start_ticks=record.start_ticks, cgroups=cgroup.dirs, argv=["/bin/sh", "-c", "sleep 99; echo"]
    )
    with Session(what) as session:
        until(lambda: len(cgroup.procs()) == 4)
        children = [word for path in Path("/proc/self/task").glob("*/children") for word in path.read_text().split()]
        helper = next(word for word in children if "enter.py" in Path(f"/proc/{word}/cmdline").read_text())
        os.kill(int(helper), signal.SIGKILL)
        with pytest.raises(SessionError) as caught:
            list(session)
    assert "give the command again" in caught.value.hint
    until(lambda: len(cgroup.procs()) == 2)
    assert engine.inspect(spec.id).pid == pid
