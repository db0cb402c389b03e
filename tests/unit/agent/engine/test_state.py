"""From what is on disk and what the kernel shows to a state, and from a state to what is allowed."""

from __future__ import annotations

import pytest

from agent.engine import state
from agent.engine.state import ContainerStatus, Seen, State
from agent.engine.store import ExitStatus, Record
from tests.unit.agent.engine.test_store import SPEC

pytestmark = pytest.mark.unit

STARTED = Record(pid=7)
EXIT = ExitStatus(exit_code=0, finished_unix_ns=1)


def seen(*, monitor: bool = False, tasks: bool = False, frozen: bool = False) -> Seen:
    return Seen(monitor=monitor, tasks=tasks, frozen=frozen)


@pytest.mark.parametrize(
    ("record", "exit_status", "what", "expected"),
    [
        (Record(), None, seen(), State.CREATED),
        (STARTED, None, seen(monitor=True, tasks=True), State.RUNNING),
        (STARTED, None, seen(monitor=True, tasks=True, frozen=True), State.FROZEN),
        (STARTED, None, seen(tasks=True, frozen=True), State.FROZEN),
        (STARTED, None, seen(tasks=True), State.LOST),
        (STARTED, EXIT, seen(), State.EXITED),
        (STARTED, EXIT, seen(monitor=True), State.EXITED),
        (STARTED, None, seen(), State.EXITED),
        (STARTED, None, seen(monitor=True), State.RUNNING),
        (Record(role="target"), None, seen(monitor=True), State.ARRIVING),
        (Record(role="target"), None, seen(), State.ARRIVING),
        (Record(role="target", pid=9), None, seen(monitor=True, tasks=True, frozen=True), State.FROZEN),
    ],
)
def test_state_is_derived(record: Record, exit_status: ExitStatus | None, what: Seen, expected: State) -> None:
    """Each combination that can be met has one state."""
    assert state.derive(record, exit_status, what) == expected


def status(now: State, migration_id: str = "") -> ContainerStatus:
    return ContainerStatus(
        spec=SPEC,
        state=now,
        pid=0,
        started_unix_ns=0,
        finished_unix_ns=0,
        exit_code=None,
        error="",
        host="host1",
        epoch=1,
        migration_id=migration_id,
        role="source" if migration_id else "",
    )


def test_verbs_are_allowed_where_they_make_sense() -> None:
    """Which states allow start, kill, exec and remove: exactly these."""
    allowed = {
        "start": {now for now in State if not state.why_not_start(status(now))},
        "stop": {now for now in State if not state.why_not_stop(status(now))},
        "kill": {now for now in State if not state.why_not_kill(status(now))},
        "pause": {now for now in State if not state.why_not_pause(status(now))},
        "update": {now for now in State if not state.why_not_update(status(now))},
        "exec": {now for now in State if not state.why_not_exec(status(now))},
        "remove": {now for now in State if not state.why_not_remove(status(now), force=False)},
    }
    assert allowed == {
        "start": {State.CREATED, State.EXITED, State.RESTARTING},
        "stop": {State.CREATED, State.RUNNING, State.EXITED, State.LOST, State.PAUSED, State.RESTARTING},
        "kill": {State.RUNNING, State.LOST, State.PAUSED, State.RESTARTING},
        "pause": {State.RUNNING, State.PAUSED},
        "update": set(State) - {State.ARRIVING},
        "exec": {State.RUNNING},
        "remove": {State.CREATED, State.EXITED},
    }


def test_a_move_under_way_refuses_and_names_itself() -> None:
    """start, stop, exec and even a forced remove are refused while a move runs; a signal only while frozen."""
    moving = status(State.RUNNING, "m1")
    reasons = [
        state.why_not_start(moving),
        state.why_not_stop(moving),
        state.why_not_exec(moving),
        state.why_not_attach(moving),
        state.why_not_remove(moving, force=True),
        state.why_not_kill(status(State.FROZEN, "m1")),
    ]
    assert all("move m1" in reason and "source" in reason for reason in reasons)
    assert state.why_not_kill(moving) == ""
