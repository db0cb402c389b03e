"""Restart policies: who comes back, when, and who never does."""

from __future__ import annotations

import dataclasses

import pytest

from agent.engine import restarts
from agent.engine.spec import RestartPolicy
from agent.engine.state import ContainerStatus, State
from agent.errors import InvalidArgument
from tests.unit.agent.engine.test_state import SPEC

pytestmark = pytest.mark.unit


def ended(code: int, error: str = "") -> ContainerStatus:
    return ContainerStatus(
        spec=SPEC,
        state=State.EXITED,
        pid=0,
        started_unix_ns=1,
        finished_unix_ns=2,
        exit_code=code,
        error=error,
        host="host1",
        epoch=1,
        migration_id="",
        role="",
    )


@pytest.mark.parametrize(
    ("name", "code", "stopped", "boot", "back"),
    [
        ("", 1, False, False, False),
        ("no", 1, False, True, False),
        ("on-failure", 1, False, False, True),
        ("on-failure", 0, False, False, False),
        ("on-failure", 1, True, False, False),
        ("always", 0, False, False, True),
        ("always", 0, True, False, False),
        ("always", 0, True, True, True),  # as Docker: the next start of the engine starts it again
        ("unless-stopped", 0, False, False, True),
        ("unless-stopped", 0, False, True, True),
        ("unless-stopped", 0, True, True, False),
    ],
)
def test_who_comes_back(name: str, code: int, stopped: bool, boot: bool, back: bool) -> None:
    """Policy, exit code, whether somebody ended it, whether the agent has just started."""
    policy = RestartPolicy(name=name)
    assert restarts.wants(policy, ended(code), stopped=stopped, restarts=0, boot=boot) is back


def test_on_failure_counts_and_takes_a_reboot_for_no_failure() -> None:
    """The bound is of restarts; one that its host took down has not failed."""
    policy = RestartPolicy(name="on-failure", max_retries=3)
    counted = [restarts.wants(policy, ended(1), stopped=False, restarts=n) for n in (2, 3)]
    assert counted == [True, False]
    lost = ended(255, "its monitor or its host ended first: the exit code is not known")
    assert not restarts.wants(policy, lost, stopped=False, restarts=0, boot=True)


def test_what_cannot_be_a_policy() -> None:
    """Unknown names, a bound on what has none, and --rm beside a policy."""
    for policy in (RestartPolicy(name="often"), RestartPolicy(name="always", max_retries=2)):
        with pytest.raises(InvalidArgument):
            restarts.check(dataclasses.replace(SPEC, restart=policy))
    with pytest.raises(InvalidArgument, match="removed at its exit"):
        restarts.check(dataclasses.replace(SPEC, restart=RestartPolicy(name="always"), remove_on_exit=True))
