"""Health checks in real containers: states, time limits, what ends and what holds them. Root."""

from __future__ import annotations

import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from agent.engine import adjust
from agent.engine.container import Engine
from agent.engine.spec import ContainerSpec, Healthcheck
from agent.engine.state import Health
from tests.system.engine_host import EngineHost, until

pytestmark = pytest.mark.system

SECOND = 10**9


@pytest.fixture
def open_engine(engine: Engine) -> Iterator[Engine]:
    """An agent's: its checks run."""
    engine.checks.boot()
    yield engine
    engine.checks.close()


def start(engine: Engine, host: EngineHost, line: str, program: str = "sleep 1000", **changes: int) -> ContainerSpec:
    health = Healthcheck(test=("CMD-SHELL", line), **{"interval_ns": SECOND // 5, "retries": 2, **changes})
    spec = host.spec(program, health=health)
    engine.create(spec, 1)
    engine.start(spec.id)
    return spec


def health_of(engine: Engine, spec: ContainerSpec) -> Health:
    return engine.inspect(spec.id).health


def upper(engine: Engine, spec: ContainerSpec) -> Path:
    return engine.store.directory(spec.id) / "layer" / "upper"


def test_it_starts_is_healthy_falls_ill_and_recovers(host: EngineHost, open_engine: Engine) -> None:
    """By the exit code of the check; ill only after as many failures as were asked for; each change is an event."""
    program = "trap 'printf pain > /sick' USR1; trap 'rm /sick' USR2; while :; do sleep 0.1; done"
    spec = start(open_engine, host, "cat /sick; test ! -e /sick", program)
    assert health_of(open_engine, spec) == Health(status="starting")
    until(lambda: health_of(open_engine, spec).status == "healthy")
    open_engine.kill(spec.id, "SIGUSR1")
    until(lambda: health_of(open_engine, spec).failing_streak == 1)
    assert health_of(open_engine, spec).status == "healthy"
    until(lambda: health_of(open_engine, spec).status == "unhealthy")
    last = health_of(open_engine, spec).log[-1]
    assert (last.exit_code, last.output) == (1, "pain")
    until(lambda: len(health_of(open_engine, spec).log) == 5)
    open_engine.kill(spec.id, "SIGUSR2")
    until(lambda: health_of(open_engine, spec).status == "healthy")
    told = [event.action for event in open_engine.events.read() if event.action.startswith("health")]
    assert told == [f"health_status: {status}" for status in ("healthy", "unhealthy", "healthy")]
    open_engine.stop(spec.id, 0.1)
    open_engine.start(spec.id)
    assert health_of(open_engine, spec) == Health(status="starting"), "a new life begins anew"


def test_a_check_that_takes_too_long_is_killed_and_has_failed(host: EngineHost, open_engine: Engine) -> None:
    """With all that it has started; one that cannot be run has failed too."""
    spec = start(open_engine, host, "sleep 500 & sleep 600", timeout_ns=SECOND // 2)
    until(lambda: health_of(open_engine, spec).status == "unhealthy", 20)
    last = health_of(open_engine, spec).log[-1]
    assert (last.exit_code, last.output) == (-1, "Health check exceeded timeout (0.5s)")
    assert last.ended_unix_ns - last.started_unix_ns < 3 * SECOND
    open_engine.checks.hold(spec.id)
    spec2 = host.spec("sleep 1000", health=Healthcheck(test=("CMD", "/nothing"), interval_ns=SECOND // 5, retries=1))
    open_engine.create(spec2, 1)
    open_engine.start(spec2.id)
    until(lambda: health_of(open_engine, spec2).status == "unhealthy")
    assert "no such file" in health_of(open_engine, spec2).log[-1].output.lower()


def test_failures_of_the_start_period_do_not_count(host: EngineHost, open_engine: Engine) -> None:
    """They are listed, and no more; after it they count."""
    spec = start(open_engine, host, "exit 1", start_period_ns=3 * SECOND, retries=1)
    until(lambda: len(health_of(open_engine, spec).log) >= 2)
    assert (health_of(open_engine, spec).status, health_of(open_engine, spec).failing_streak) == ("starting", 0)
    until(lambda: health_of(open_engine, spec).status == "unhealthy")


def test_a_move_ends_the_check_under_way_and_no_other_begins(host: EngineHost, open_engine: Engine) -> None:
    """Its processes are gone when the move has begun, its result does not count; it goes on when the move has been undone."""
    spec = start(open_engine, host, "echo x >> /count; sleep 3")
    until(lambda: (upper(open_engine, spec) / "count").exists())
    until(lambda: len(open_engine.cgroup(spec.id).procs()) >= 2)
    began = time.monotonic()
    open_engine.roles.begin(spec.id, "m1", "source", 1)
    assert time.monotonic() - began < 2
    assert open_engine.cgroup(spec.id).procs() == [open_engine.inspect(spec.id).pid]
    counted = (upper(open_engine, spec) / "count").read_text()
    time.sleep(1)
    assert (upper(open_engine, spec) / "count").read_text() == counted
    assert health_of(open_engine, spec) == Health(status="starting")
    open_engine.roles.end(spec.id, "m1", 1)
    until(lambda: health_of(open_engine, spec).status == "healthy")


def test_a_pause_holds_it_too(host: EngineHost, open_engine: Engine) -> None:
    """No failure because the check stood still, and none begins meanwhile."""
    spec = start(open_engine, host, "echo x >> /count; sleep 0.7", timeout_ns=5 * SECOND)
    until(lambda: (upper(open_engine, spec) / "count").exists())
    adjust.pause(open_engine, spec.id)
    counted = (upper(open_engine, spec) / "count").read_text()
    time.sleep(1.5)
    assert (upper(open_engine, spec) / "count").read_text() == counted
    assert health_of(open_engine, spec).failing_streak == 0
    adjust.unpause(open_engine, spec.id)
    until(lambda: health_of(open_engine, spec).status == "healthy")


def test_the_next_agent_knows_and_goes_on(host: EngineHost, open_engine: Engine) -> None:
    """What was known is kept, and checks run again; --no-healthcheck and no check at all: nothing is known."""
    spec = start(open_engine, host, "exit 1")
    plain = host.spec("sleep 1000", health=Healthcheck(test=("NONE",)))
    open_engine.create(plain, 1)
    open_engine.start(plain.id)
    until(lambda: health_of(open_engine, spec).status == "unhealthy")
    before = health_of(open_engine, spec)
    open_engine.close()
    again = host.engine()
    assert health_of(again, spec).log[: len(before.log)] == before.log or health_of(again, spec).status == "unhealthy"
    again.checks.boot()
    try:
        until(lambda: health_of(again, spec).failing_streak > before.failing_streak)
        assert health_of(again, plain) == Health()
    finally:
        again.checks.close()
        for status in again.list():
            again.remove(status.spec.id, force=True)
        again.close()
