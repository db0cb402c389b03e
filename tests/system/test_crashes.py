"""An agent that dies at any line of create, run, start, stop, pause, update or rm: the next one finds everything in order. Real, as root.

The line walk: a process of its own does the verb and kills itself before a given line of the engine runs for the first time; the
lines are those that the verb has been seen to run. Here some of them, spread evenly; `python -m bench.crashes` kills from outside.
"""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Sequence
from pathlib import Path

import pytest

from agent.engine import adjust
from agent.engine.container import Engine
from agent.engine.spec import ContainerSpec, Limits
from agent.engine.state import State
from tests.system.engine_host import EngineHost, until

pytestmark = pytest.mark.system

ROOT = Path(__file__).resolve().parents[2]
INSTANTS = int(os.environ.get("MIGRATE_CRASH_INSTANTS", "3"))  # of each verb
# argv: the host's directory, the spec, the verb, the number of the line before which to die (0: never; print how many there are).
_AGENT = """
import os, signal, sys, threading
from dataclasses import replace
from pathlib import Path
root, directory, spec, verb, number = sys.argv[1:]
sys.path.insert(0, root)
from agent.engine import adjust
from agent.engine.spec import ContainerSpec
from tests.system.engine_host import EngineHost

engine = EngineHost(Path(directory)).engine()
spec, number, seen = ContainerSpec.from_json(spec), int(number), set()
verbs = {
    "create": lambda: engine.create(spec, 1),
    "run": lambda: engine.create(spec, 1, start=True),
    "start": lambda: engine.start(spec.id),
    "stop": lambda: engine.stop(spec.id),
    "rm": lambda: engine.remove(spec.id, force=True),
    "pause": lambda: adjust.pause(engine, spec.id),
    "update": lambda: adjust.update(engine, spec.id, replace(spec.limits, memory_bytes=96 << 20)),
}

def line(frame, event, argument):
    if not frame.f_code.co_filename.startswith(root + "/agent/"):
        return None
    if event == "line" and (frame.f_code.co_filename, frame.f_lineno) not in seen:
        seen.add((frame.f_code.co_filename, frame.f_lineno))
        if len(seen) == number:
            os.kill(os.getpid(), signal.SIGKILL)
    return line

threading.settrace(line)
sys.settrace(line)
verbs[verb]()
sys.settrace(None)
print(len(seen), flush=True)
os.kill(os.getpid(), signal.SIGKILL)
"""
PROGRAM = "trap 'exit 0' TERM; while :; do sleep 0.02; done"
LIMITS = Limits(memory_bytes=64 << 20, storage_bytes=16 << 20)


def die(host: EngineHost, spec: ContainerSpec, verb: str, number: int) -> int:
    """How many lines the verb ran; 0: it died at the one."""
    argv = [sys.executable, "-c", _AGENT, str(ROOT), str(host.directory), spec.to_json(), verb, str(number)]
    done = subprocess.run(argv, capture_output=True, text=True, check=False, timeout=60)
    assert done.returncode == -signal.SIGKILL, done.stderr
    return int(done.stdout or 0)


def prepare(host: EngineHost, verb: str) -> ContainerSpec:
    spec = host.spec(PROGRAM, limits=LIMITS)
    engine = host.engine()
    try:
        if verb not in ("create", "run"):
            engine.create(spec, 1)
        if verb not in ("create", "run", "start"):
            engine.start(spec.id)
    finally:
        engine.close()
    return spec


def next_agent(host: EngineHost) -> Engine:
    """As agent/server.py begins."""
    engine = host.engine()
    adjust.recover(engine)
    return engine


def instants(total: int) -> Sequence[int]:
    return sorted({1 + (total - 1) * number // max(INSTANTS - 1, 1) for number in range(INSTANTS)})


def in_order(host: EngineHost, engine: Engine, spec: ContainerSpec) -> str:
    """The container's state ("none"), after a look at the kernel: only what belongs to that state is there."""
    known = [one for one in engine.list() if one.spec.id == spec.id]
    state = known[0].state if known else "none"
    runs = state in (State.RUNNING, State.PAUSED)
    assert host.cgroups() == ([spec.id] if runs else [])
    until(lambda: host.links() == {"lo", host.config.bridge, *([f"vm{spec.id[:11]}"] if runs else [])})
    points = {line.split(" ")[4].removeprefix(f"{host.config.containers_dir}/{spec.id}/") for line in host.mounts()}
    assert points == {*(["layer"] if known else []), *(["rootfs"] if runs else [])}
    for directory in (host.config.containers_dir, host.config.runtime_dir):
        assert {path.name for path in directory.iterdir()} <= ({spec.id} if known else set())
    if known:
        assert (host.config.containers_dir / spec.id / "layer/upper/etc/hosts").exists()
    if runs:
        limit = engine.cgroup(spec.id).directories.files("memory", v1=["memory.limit_in_bytes"], v2=["memory.max"])[1]
        assert int(limit.read_text()) == known[0].spec.limits.memory_bytes
    return state


def bring_to_its_end(engine: Engine, spec: ContainerSpec, verb: str, state: str) -> None:
    """The verb again, as its user would."""
    if verb == "create" and state == "none":
        engine.create(spec, 1)
    if verb == "run" and state == "none":
        engine.create(spec, 1, start=True)
    if verb in ("create", "run", "start") and engine.inspect(spec.id).state != State.RUNNING:
        engine.start(spec.id)
    if verb == "stop":
        assert engine.stop(spec.id).state == State.EXITED
    if verb in ("run", "start", "pause", "update"):
        assert engine.inspect(spec.id).state in (State.RUNNING, State.PAUSED)
    if state != "none" or verb in ("create", "run"):
        engine.remove(spec.id, force=True)


@pytest.mark.parametrize("verb", ["create", "run", "start", "stop", "rm", "pause", "update"])
def test_an_agent_that_dies_in_the_middle(host: EngineHost, verb: str) -> None:
    """Whatever line it dies at: the next agent has cleaned up or goes on, the verb can be said again, nothing is left."""
    spec = prepare(host, verb)
    total = die(host, spec, verb, 0)
    engine = next_agent(host)
    bring_to_its_end(engine, spec, verb, in_order(host, engine, spec))
    engine.close()
    seen: dict[int, str] = {}
    for number in instants(total):
        spec = prepare(host, verb)
        die(host, spec, verb, number)
        engine = next_agent(host)
        try:
            seen[number] = in_order(host, engine, spec)
            bring_to_its_end(engine, spec, verb, seen[number])
            assert in_order(host, engine, spec) == "none", json.dumps(seen)
        except BaseException as exc:
            exc.add_note(f"{verb} died before line {number} of {total}; before that: {seen}")
            raise
        finally:
            engine.close()


# argv: the host's directory, the spec. Prints the pids of its idle monitors, stopped, and dies with its order on the way to one.
_ORDERS_AND_DIES = """
import os, signal, sys, threading, time
from pathlib import Path
root, directory, spec = sys.argv[1:]
sys.path.insert(0, root)
from agent.engine.cgroup import Cgroup
from agent.engine.spec import ContainerSpec
from agent.linux import process
from tests.system.engine_host import EngineHost

host = EngineHost(Path(directory))
engine = host.engine()
pool = engine._supervisor.pool
while len(pool._idle) < pool._size:
    time.sleep(0.01)
monitors = [idle.process.pid for idle in pool._idle]
for pid in monitors:
    os.kill(pid, signal.SIGSTOP)
print(*monitors, flush=True)
threading.Thread(target=engine.start, args=[ContainerSpec.from_json(spec).id], daemon=True).start()
time.sleep(1)
os.kill(os.getpid(), signal.SIGKILL)
"""


def test_a_monitor_that_has_its_order_and_not_yet_read_it(host: EngineHost) -> None:
    """The next agent waits for it: it would mount the root, for nobody, after the agent has looked."""
    spec = prepare(host, "start")
    argv = [sys.executable, "-c", _ORDERS_AND_DIES, str(ROOT), str(host.directory), spec.to_json()]
    done = subprocess.run(argv, capture_output=True, text=True, check=False, timeout=60)
    assert done.returncode == -signal.SIGKILL, done.stderr

    def go_on() -> None:
        for pid in done.stdout.split():
            os.kill(int(pid), signal.SIGCONT)

    timer = threading.Timer(1.0, go_on)
    timer.start()
    engine = next_agent(host)
    try:
        timer.join()
        time.sleep(0.5)  # for a monitor that comes too late
        assert in_order(host, engine, spec) == State.CREATED
        bring_to_its_end(engine, spec, "start", State.CREATED)
        assert in_order(host, engine, spec) == "none"
    finally:
        engine.close()
