"""Calls to an agent: what is repeated, with which deadlines, and what becomes of tunnels."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import pytest

from migrate.coordinator.agents import Agent, AgentPool
from migrate.coordinator.store import Host
from migrate.errors import NotFound, Unreachable
from protos import agent_pb2

pytestmark = pytest.mark.unit


class Channel:
    """Answers like grpc.Channel; `outcomes` are raised or returned one after the other."""

    def __init__(self) -> None:
        self.outcomes: list[Any] = []
        self.deadlines: list[float | None] = []

    def unary_unary(self, *_: Any, **__: Any) -> Any:
        def call(request: Any, timeout: float | None = None) -> Any:
            self.deadlines.append(timeout)
            outcome = self.outcomes.pop(0)
            if isinstance(outcome, Exception):
                raise outcome
            return outcome

        return call

    unary_stream = stream_unary = stream_stream = unary_unary


class Tunnel:
    """Errors pass through it as they are."""

    def __init__(self) -> None:
        self.wire = Channel()
        self.closed = False

    def channel(self) -> Channel:
        return self.wire

    @contextmanager
    def native(self) -> Iterator[None]:
        yield

    def close(self) -> None:
        self.closed = True


def _agent() -> tuple[Agent, Channel, list[float]]:
    tunnel = Tunnel()
    slept: list[float] = []
    return Agent("host1", tunnel, sleep=slept.append), tunnel.wire, slept


def test_a_question_is_asked_again_when_the_tunnel_broke() -> None:
    """Up to three times more, with growing pauses."""
    agent, wire, slept = _agent()
    wire.outcomes = [Unreachable("gone"), Unreachable("gone"), agent_pb2.ListResponse()]
    assert agent.call("Containers", "List", agent_pb2.ListRequest()) == agent_pb2.ListResponse()
    assert slept == [0.1, 0.5]
    wire.outcomes = [Unreachable(f"gone {n}") for n in range(4)]
    with pytest.raises(Unreachable, match="gone 3"):
        agent.call("Containers", "List", agent_pb2.ListRequest())
    wire.outcomes = [Unreachable("gone"), Unreachable("gone")]
    with pytest.raises(Unreachable):
        agent.call("Containers", "List", agent_pb2.ListRequest(), retries=1)
    assert wire.outcomes == []


def test_what_changes_something_is_never_repeated() -> None:
    """A start or a kill may have happened although nobody heard the answer."""
    for method, request in (("Start", agent_pb2.StartRequest()), ("Kill", agent_pb2.KillRequest())):
        agent, wire, slept = _agent()
        wire.outcomes = [Unreachable("gone"), "must not be asked for"]
        with pytest.raises(Unreachable):
            agent.call("Containers", method, request)
        assert slept == []


def test_calls_of_a_move_are_repeated_for_as_long_as_an_agent_takes_to_start() -> None:
    """All of Migration is idempotent by contract; a busy host needs 3 s for its agent's restart. For ever it is not."""
    agent, wire, slept = _agent()
    wire.outcomes = [Unreachable(f"gone {n}") for n in range(20)]
    with pytest.raises(Unreachable, match="gone 10"):
        agent.call("Migration", "Restore", agent_pb2.RestoreRequest(), timeout_s=120)
    assert 4 < sum(slept) < 6
    slept.clear()
    wire.outcomes = [Unreachable("gone"), agent_pb2.FinishResponse()]
    agent.call("Migration", "Finish", agent_pb2.FinishRequest(), timeout_s=5)
    assert (slept, wire.deadlines[-2:]) == ([0.1], [5, 5])


def test_an_answer_that_says_no_is_an_answer() -> None:
    """Only the transport's failures are worth a second try."""
    agent, wire, slept = _agent()
    wire.outcomes = [NotFound("no container")]
    with pytest.raises(NotFound):
        agent.call("Containers", "Inspect", agent_pb2.InspectRequest())
    assert slept == []


def test_every_call_has_a_deadline_but_those_that_wait_for_people() -> None:
    """A host that says nothing must not hold up a call for ever."""
    agent, wire, _ = _agent()
    for method, request in (("Inspect", agent_pb2.InspectRequest()), ("Wait", agent_pb2.WaitRequest())):
        wire.outcomes = [None]
        agent.call("Containers", method, request)
    assert wire.deadlines == [8.0, None]


def test_patience_stretches_every_deadline() -> None:
    """What the table says and what a step says alike; what waits for people still waits for ever."""
    tunnel = Tunnel()
    agent, wire = Agent("host1", tunnel, patience=10), tunnel.wire
    wire.outcomes = [None] * 5
    agent.call("Containers", "Inspect", agent_pb2.InspectRequest())
    agent.call("Migration", "Where", agent_pb2.WhereRequest(), timeout_s=3)
    agent.call("Containers", "Wait", agent_pb2.WaitRequest())
    agent.stream("Migration", "Precopy", agent_pb2.PrecopyRequest(), timeout_s=7)
    assert wire.deadlines == [80.0, 30.0, None, 70.0]


def test_a_tunnel_is_kept_until_the_hosts_address_changes() -> None:
    """One warm tunnel a host; a changed host gets a new one and the old one is closed."""
    hosts = {"host1": Host(name="host1", address="10.0.0.1")}
    made: list[Tunnel] = []

    def connect(_host: Host) -> Tunnel:
        made.append(Tunnel())
        return made[-1]

    pool = AgentPool(hosts.__getitem__, connect)
    assert pool.agent("host1") is pool.agent("host1")
    hosts["host1"] = Host(name="host1", address="10.0.0.9")
    pool.agent("host1")
    assert [tunnel.closed for tunnel in made] == [True, False]
    assert pool.address("host1").address == "10.0.0.9"
    pool.close()
    assert [tunnel.closed for tunnel in made] == [True, True]
    with pytest.raises(Unreachable, match="going down"):
        pool.agent("host1")
