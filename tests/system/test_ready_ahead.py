"""What is made ahead of need, in an engine: that it is used, that it is replaced, and that it goes with the agent."""

from __future__ import annotations

import os
import signal
import subprocess
from dataclasses import replace
from pathlib import Path

import pytest

from agent.engine import network
from agent.engine.container import Engine
from agent.engine.state import State
from agent.linux import process
from tests.system.engine_host import EngineHost, monitor_pid, until

pytestmark = pytest.mark.system


def idle_monitors(host: EngineHost) -> list[int]:
    """Pids of the zygote and of what waits in the pool: all that is in the monitors' cgroup and no container's."""
    group = next(path for path in Path("/sys/fs/cgroup").glob(f"**/{host.cgroup_parent}/monitors/cgroup.procs"))
    pids = [int(word) for word in group.read_text().split()]
    return [pid for pid in pids if "idle--" in Path(f"/proc/{pid}/cmdline").read_text()]


def test_start_takes_what_is_there(host: EngineHost, engine: Engine) -> None:
    """The monitor of a new container was in the pool before, and so were the namespaces of its init."""
    until(lambda: len(engine._supervisor.pool._idle) == host.config.idle_monitors)
    waiting = engine._supervisor.pool._idle[0]
    network_before = Path(f"/proc/{waiting.pid}/ns/net").readlink()
    spec = host.spec("sleep 1000")
    engine.create(spec, 1)
    status = engine.start(spec.id)
    assert monitor_pid(host, spec) == waiting.process.pid
    assert Path(f"/proc/{status.pid}/ns/net").readlink() == network_before
    assert process.parent(status.pid) == waiting.process.pid


def test_init_is_in_its_cgroups_before_its_program_runs(host: EngineHost, engine: Engine) -> None:
    """In all of them, with a program that looks at once; and nothing waits in them for the next one."""
    spec = host.spec("cat /proc/self/cgroup; echo; cat /proc/1/cgroup; sleep 1000")
    engine.create(spec, 1)
    pid = engine.start(spec.id).pid
    mine = {
        line.split(":", 2)[1]: line.split(":", 2)[2] for line in Path(f"/proc/{pid}/cgroup").read_text().splitlines()
    }
    cgroup = engine.cgroup(spec.id)
    for controllers in [*cgroup.directories.legacy, ""]:
        assert mine[controllers].endswith(f"/{host.cgroup_parent}/{spec.id}")
    until(lambda: b"\n\n" in b"".join(entry.data for entry in engine.logs(spec.id)))
    inside = b"".join(entry.data for entry in engine.logs(spec.id)).decode().splitlines()
    seen = {line.split(":", 2)[1]: line.split(":", 2)[2] for line in inside if line}
    for controllers in [*cgroup.directories.legacy, ""]:
        assert seen[controllers] == "/", "the root of its cgroup namespace is its own cgroup"


def test_killed_zygote_stops_nobody(host: EngineHost, engine: Engine) -> None:
    """Containers run on, starts go on, and there is another zygote."""
    first = host.spec("sleep 1000")
    engine.create(first, 1)
    engine.start(first.id)
    zygote = engine._supervisor.pool._zygote
    assert zygote is not None
    os.kill(zygote.pid, signal.SIGKILL)
    for _ in range(host.config.idle_monitors + 2):
        spec = host.spec("exit 3")
        engine.create(spec, 1)
        engine.start(spec.id)
        assert engine.wait(spec.id, 20).exit_code == 3
    assert engine.inspect(first.id).state == State.RUNNING
    assert engine._supervisor.pool._zygote is not zygote


def test_killed_idle_monitors_stop_nobody(host: EngineHost, engine: Engine) -> None:
    """Nor do they leave the stage that was made with them."""
    until(lambda: len(engine._supervisor.pool._idle) == host.config.idle_monitors)
    for idle in list(engine._supervisor.pool._idle):
        children = Path(f"/proc/{idle.process.pid}/task/{idle.process.pid}/children").read_text().split()
        os.kill(idle.process.pid, signal.SIGKILL)
        until(lambda pids=children: not any(Path(f"/proc/{pid}/root").exists() for pid in pids))
    spec = host.spec("exit 3")
    engine.create(spec, 1)
    engine.start(spec.id)
    assert engine.wait(spec.id, 20).exit_code == 3


def test_nothing_outlives_the_agent_but_containers(host: EngineHost) -> None:
    """The zygote and the pool end with the engine; a container and its monitor do not, and the next engine has them."""
    engine = host.engine()
    spec = host.spec("sleep 1000")
    engine.create(spec, 1)
    pid = engine.start(spec.id).pid
    until(lambda: len(engine._supervisor.pool._idle) == host.config.idle_monitors)
    assert idle_monitors(host)
    engine.close()
    until(lambda: not idle_monitors(host))
    after = host.engine()
    assert after.inspect(spec.id).pid == pid
    after.remove(spec.id, force=True)
    after.close()


def test_address_is_the_next_ones_at_once(host: EngineHost, engine: Engine) -> None:
    """A container gets the address of one that has just exited, and answers on it: the link of the other is gone by then."""
    first = host.spec("exit 0")
    engine.create(first, 1)
    engine.start(first.id)
    engine.wait(first.id, 20)
    second = replace(host.spec("sleep 1000"), network=first.network)
    engine.create(second, 1)
    engine.start(second.id)
    assert network.host_end(first.id) not in host.links()
    address = first.network.address.partition("/")[0]
    until(lambda: subprocess.run(["busybox", "ping", "-c1", "-W1", address], capture_output=True).returncode == 0)


def test_who_waits_for_an_exit_finds_it_done(host: EngineHost, engine: Engine) -> None:
    """The exit code comes before the cleaning up; settled() waits for that, and a start does by itself."""
    spec = host.spec("exit 5")
    engine.create(spec, 1)
    for _ in range(3):
        engine.start(spec.id)
        ended = engine.wait_for_exit(spec.id)
        assert (ended.state, ended.exit_code) == (State.EXITED, 5)
    engine.settled(spec.id)
    assert (host.cgroups(), host.mounts()) == ([], [])
    gone = host.spec("exit 6", remove_on_exit=True)
    engine.create(gone, 1)
    engine.start(gone.id)
    assert engine.wait_for_exit(gone.id).exit_code == 6
    engine.settled(gone.id)
    assert gone.id not in engine.store.ids()
