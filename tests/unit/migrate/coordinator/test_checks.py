"""Every reason against a move is found before anything is touched, and all of them at once."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from migrate.coordinator.moves import MoveRunner
from migrate.coordinator.orders import MoveOrder
from migrate.errors import Unreachable
from protos import agent_pb2, types_pb2
from tests.fakes.coordinator import TwoHosts

pytestmark = pytest.mark.unit

ORDER = MoveOrder(container="web1", to="host2")


class Fleet(TwoHosts):
    """Two hosts that agree on everything, until a test changes what one of them says."""

    def __init__(self, directory: Path) -> None:
        super().__init__(directory)
        self.runner = MoveRunner(self.store, self.wire, self.wire)

    def facts(self, host: str, **changes: object) -> None:
        agent = self.world.agents[host]
        facts = agent.facts()
        for name, value in changes.items():
            if name == "capabilities":
                facts.capabilities.extend(value)
            else:
                setattr(facts, name, value)
        agent.facts = lambda: facts  # type: ignore[method-assign]

    def description(self, change: Callable[[agent_pb2.Description], None]) -> None:
        agent = self.world.agents["host1"]
        describe = agent.Describe

        def changed(request: object, context: object = None) -> agent_pb2.Description:
            description = describe(request)
            change(description)
            return description

        agent.Describe = changed  # type: ignore[method-assign]


@pytest.fixture
def fleet(tmp_path: Path) -> Iterator[Fleet]:
    fleet = Fleet(tmp_path)
    yield fleet
    fleet.runner.shutdown()


def test_nothing_speaks_against_it(fleet: Fleet) -> None:
    """And looking has touched nothing: no part in a move, no reservation."""
    assert fleet.runner.check(ORDER).blockers == ()
    assert fleet.world.states(fleet.container.id) == {"host1": "running"}
    assert not fleet.world.agents["host1"].moves
    assert not fleet.world.agents["host2"].moves
    assert fleet.store.migrations() == []


@pytest.mark.parametrize(
    ("host", "changes", "what"),
    [
        ("host2", {"protocol": 1}, "protocol 1"),
        ("host2", {"architecture": "aarch64"}, "aarch64"),
        ("host2", {"criu_version": "4.1"}, "older than 4.2.1"),
        ("host2", {"criu_version": ""}, "CRIU none"),
        ("host2", {"memory_available_bytes": 1 << 20}, "1 MiB of memory free"),
        ("host2", {"disk_available_bytes": 1 << 20}, "1 MiB of disk free"),
    ],
)
def test_what_a_host_says_against_it(fleet: Fleet, host: str, changes: dict[str, object], what: str) -> None:
    """Each names the host and a remedy."""
    fleet.facts(host, **changes)
    (finding,) = fleet.runner.check(ORDER).blockers
    assert what in finding.what
    assert finding.where == host
    assert finding.remedy


@pytest.mark.parametrize("host", ["host1", "host2"])
def test_what_a_host_cannot_do(fleet: Fleet, host: str) -> None:
    """A capability counts when it is required and does not work."""
    bad = agent_pb2.Capability(name="criu", ok=False, value="not found", remedy="install it", required=True)
    fleet.facts(
        host,
        capabilities=[
            bad,
            agent_pb2.Capability(name="soft-dirty", ok=False, required=False),
            agent_pb2.Capability(name="cgroup", ok=True, required=True),
        ],
    )
    (finding,) = fleet.runner.check(ORDER).blockers
    assert str(finding) == f"capability: {host}: criu does not work here: not found (install it)"


def test_a_newer_criu_on_the_target_is_fine(fleet: Fleet) -> None:
    """It reads the images of an older one; 4.10 is newer than 4.2."""
    fleet.facts("host2", criu_version="4.10")
    assert fleet.runner.check(ORDER).blockers == ()


def test_a_container_that_does_not_run(fleet: Fleet) -> None:
    """Only a running one can move."""
    fleet.world.agents["host1"].containers[fleet.container.id].state = types_pb2.CONTAINER_STATE_EXITED
    (finding,) = fleet.runner.check(ORDER).blockers
    assert "is exited" in finding.what


def test_a_container_that_has_lost_its_monitor(fleet: Fleet) -> None:
    """It runs, so nobody is told to start it: that would be refused."""
    fleet.world.agents["host1"].containers[fleet.container.id].state = types_pb2.CONTAINER_STATE_LOST
    (finding,) = fleet.runner.check(ORDER).blockers
    assert "it runs" in finding.what
    assert finding.remedy.startswith("migrate kill --signal KILL web1")


def test_what_the_source_has_seen_in_proc(fleet: Fleet) -> None:
    """A blocker keeps its place and its remedy."""
    blocker = agent_pb2.Blocker(check="io-uring", what="io_uring", where="pid 7 (redis)", remedy="turn io_uring off")
    fleet.description(lambda description: description.blockers.append(blocker))
    (finding,) = fleet.runner.check(ORDER).blockers
    assert (finding.what, finding.where, finding.remedy) == ("io_uring", "pid 7 (redis)", "turn io_uring off")


def test_a_container_of_that_id_on_the_target(fleet: Fleet) -> None:
    """Something went wrong before: it is not touched."""
    fleet.world.run("host2", fleet.container.id)
    (finding,) = fleet.runner.check(ORDER).blockers
    assert finding.where == "host2"
    assert "running" in finding.what


def test_all_reasons_at_once(fleet: Fleet) -> None:
    """The error of a move has the first in its message and all in its detail; nothing was touched."""
    fleet.facts("host2", protocol=1, architecture="aarch64")
    fleet.world.agents["host1"].containers[fleet.container.id].state = types_pb2.CONTAINER_STATE_EXITED
    migration_id = fleet.runner.start(ORDER)
    *_, done = fleet.runner.watch(migration_id)
    error = done.record.error
    assert done.record.state == "failed"
    assert (error.code, error.touched) == ("migration.precheck", "nothing")
    assert "and 2 more" in error.message
    assert len(error.detail.splitlines()) == 3
    assert not fleet.world.agents["host2"].moves


def test_a_host_that_does_not_answer_is_no_finding(fleet: Fleet) -> None:
    """Nothing is known then: Unreachable."""
    fleet.wire.unreachable.add("host2")
    with pytest.raises(Unreachable):
        fleet.runner.check(ORDER)


def test_ports_that_the_target_cannot_publish(fleet: Fleet) -> None:
    """The target is asked about the container's own ports, and its reasons are told with what to do."""
    port = types_pb2.Port(host_port=80, container_port=8080, protocol="tcp")
    fleet.description(lambda description: description.spec.network.ports.append(port))
    agent = fleet.world.agents["host2"]
    where = agent.Where

    def asked(request: agent_pb2.WhereRequest, context: object = None) -> agent_pb2.WhereResponse:
        answer = where(request, context)
        for one in request.ports:
            blocker = agent_pb2.Blocker(
                check="port", what=f"port {one.host_port}/{one.protocol} of host2 is taken", remedy="ss -lnp"
            )
            answer.blockers.append(blocker)
        return answer

    agent.Where = asked  # type: ignore[method-assign]
    (finding,) = fleet.runner.check(ORDER).blockers
    assert str(finding) == "port: host2: port 80/tcp of host2 is taken (ss -lnp)"
