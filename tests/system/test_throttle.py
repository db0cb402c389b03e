"""Less processor time for a real cgroup, and all of it back, from what was written down before."""

from __future__ import annotations

import os
import subprocess
import time
from collections.abc import Iterator

import pytest

from agent.engine import throttle
from agent.engine.cgroup import Cgroup
from agent.engine.spec import Limits

pytestmark = pytest.mark.system


@pytest.fixture(params=[Limits(), Limits(cpus=0.5), Limits(cpu_quota_us=20_000, cpu_period_us=40_000)])
def limited(request: pytest.FixtureRequest) -> Iterator[tuple[Cgroup, Limits]]:
    cgroup = Cgroup(f"migrate-test-throttle-{os.getpid()}", "one")
    cgroup.create(request.param)
    yield cgroup, request.param
    cgroup.kill()
    cgroup.wait_empty(10)
    cgroup.remove()
    for directory in cgroup.dirs:
        directory.parent.rmdir()


def _quota(plan: throttle.Plan) -> str:
    with open(plan.path) as file:
        return file.read().strip()


def test_held_and_released(limited: tuple[Cgroup, Limits]) -> None:
    """Never more than its own limit; in the end what it had, also when that is said twice."""
    cgroup, limits = limited
    plan = throttle.plan(cgroup, limits)
    before = _quota(plan)
    throttle.hold(plan, 0.1)
    held = _quota(plan)
    assert held != before
    throttle.hold(plan, 64.0)
    if limits != Limits():
        assert _quota(plan) == before
    throttle.hold(plan, 0.1)
    assert _quota(plan) == held
    throttle.release(plan)
    throttle.release(plan)
    assert _quota(plan) == before


def test_it_works(limited: tuple[Cgroup, Limits]) -> None:
    """A busy loop gets about the tenth of a processor that is left to it, and its use is what the plan says it is."""
    cgroup, limits = limited
    plan = throttle.plan(cgroup, limits)
    busy = subprocess.Popen(["/bin/sh", "-c", "while :; do :; done"])
    try:
        cgroup.add(busy.pid)
        throttle.hold(plan, 0.1)
        time.sleep(0.2)
        before, began = throttle.used_s(plan), time.monotonic()
        time.sleep(1.5)
        share = (throttle.used_s(plan) - before) / (time.monotonic() - began)
    finally:
        busy.kill()
        busy.wait()
    assert 0.01 < share < 0.2


def test_a_container_that_has_gone() -> None:
    """Nothing to give back is no error."""
    gone = f"/sys/fs/cgroup/migrate-test-gone-{os.getpid()}/cpu.max"
    throttle.release(throttle.Plan(path=gone, is_v1=False, period_us=100_000, quota_us=-1, usage_path=""))
