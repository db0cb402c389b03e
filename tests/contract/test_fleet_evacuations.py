"""Evacuations through the service FleetEvacuations, on hosts in memory: plan, moves, retries, reports, the way home, restarts."""

from __future__ import annotations

import json
import threading
from collections.abc import Iterable, Iterator
from typing import Any

import pytest

from agent import errors as agent_errors
from migrate.cli import completion
from migrate.cli.evacuate import follow
from migrate.cli.main import main
from migrate.coordinator.evacuation.plan import CensusPlanner
from migrate.coordinator.evacuation.records import Evacuations
from migrate.coordinator.evacuation.runner import EvacuationRunner
from migrate.coordinator.moves import MoveRunner, Patience
from migrate.coordinator.preflight.predict import FIRST_FREEZE_S
from migrate.errors import InvalidArgument, NotFound, Unreachable, WrongState
from migrate.records import Container, Evacuation, EvacuationItem, EvacuationNote, Run
from protos import types_pb2
from tests.fakes.fleet import FakeFleet, FakeSigner, eventually

pytestmark = pytest.mark.contract

GIB = 1 << 30


def start(fleet: FakeFleet, *names: str, host: str = "host1", **labels: str) -> list[Container]:
    found = []
    for name in names:
        container = fleet.client.run(Run(image="base", host=host, name=name, labels=labels))
        fleet.world.run(host, container.id, name=name).labels.update(labels)
        found.append(container)
    return found


def ended(events: Iterable[Evacuation | EvacuationItem | EvacuationNote]) -> Evacuation:
    last = list(events)[-1]
    assert isinstance(last, Evacuation)
    return last


def states(found: Evacuation) -> dict[str, str]:
    return {item.container: item.state for item in found.items}


def owners(fleet: FakeFleet) -> dict[str, str]:
    return {one.name: one.owner for one in fleet.store.containers()}


class Held:
    """Moves from host1 stay in their precopy until `go` is set."""

    def __init__(self, fleet: FakeFleet, host: str = "host1") -> None:
        self.go, self.began = threading.Event(), threading.Event()
        agent = fleet.world.agents[host]
        original = agent.Precopy

        def hold(request: Any, context: Any = None) -> Iterator[Any]:
            self.began.set()
            while not self.go.wait(0.02):
                yield types_pb2.Progress(phase="precopy", text="again")
            yield from original(request, context)

        agent.Precopy = hold  # type: ignore[method-assign]


def refuse_restore(fleet: FakeFleet, host: str) -> None:
    def refuse(request: Any, context: Any = None) -> Any:
        raise agent_errors.CriuError("cannot restore", hint="look at the log")

    fleet.world.agents[host].Restore = refuse  # type: ignore[method-assign]


def test_a_host_is_emptied_and_filled_again(three: FakeFleet) -> None:
    """All of it away, the host cordoned; then the same containers come home, and nothing else does."""
    made = start(three, "a", "b", "c", "d", "e")
    start(three, "other", host="host2")
    events = list(three.client.evacuate("host1", reason="new disk"))
    found = events[-1]
    assert isinstance(found, Evacuation)
    assert (found.state, found.kind, found.reason) == ("succeeded", "evacuate", "new disk")
    assert set(states(found).values()) == {"moved"}
    assert {item.container for item in events if isinstance(item, EvacuationItem) and item.state == "moved"} == set(
        "abcde"
    )
    assert {owners(three)[name] for name in "abcde"} == {"host2", "host3"}
    assert three.store.containers("host1") == []
    cordon = three.store.host("host1").cordon
    assert cordon is not None and cordon.reason == "new disk"
    assert all(item.downtime_s > 0 and item.migration_id and item.tries == 1 for item in found.items)
    home = ended(three.client.restore_host("host1"))
    assert (home.state, states(home)) == ("succeeded", dict.fromkeys("abcde", "moved"))
    assert owners(three) == {**dict.fromkeys("abcde", "host1"), "other": "host2"}
    assert three.store.host("host1").cordon is None
    assert all(three.world.states(one.id) == {"host1": "running"} for one in made)
    assert three.world.violations == []
    again = ended(three.client.restore_host("host1"))
    assert (again.state, again.items) == ("succeeded", ())


def test_a_dry_run_touches_nothing(three: FakeFleet, capsys: pytest.CaptureFixture[str]) -> None:
    """The plan has a target for each, and times: as `migrate check` assumes them, then as earlier moves have shown them."""
    start(three, "a", "b")
    (plan,) = three.client.evacuate("host1", dry_run=True)
    assert isinstance(plan, Evacuation)
    assert (plan.state, plan.id) == ("planned", "")
    assert {item.predicted_downtime_s for item in plan.items} == {FIRST_FREEZE_S}
    assert {item.target for item in plan.items} == {"host2", "host3"}
    three.client.move("a", to="host2").result()
    three.client.move("a", to="host1").result()
    (plan,) = three.client.evacuate("host1", dry_run=True)
    assert isinstance(plan, Evacuation)
    assert plan.predicted_s > 0
    assert all(item.predicted_s > 0 for item in plan.items)
    assert not {item.predicted_downtime_s for item in plan.items} & {0.0, FIRST_FREEZE_S}
    assert main(["evacuate", "host1", "--dry-run", "--to", "host3"]) == 0
    out = capsys.readouterr().out
    assert out.startswith("evacuate of host1: the plan, 2 containers, ")
    assert three.store.host("host1").cordon is None
    assert three.client.evacuations() == []
    assert owners(three) == {"a": "host1", "b": "host1"}


def test_one_that_fails_is_tried_elsewhere_and_holds_up_none(three: FakeFleet) -> None:
    """host2 can restore nothing: everything ends up on host3, at the second try where that was needed."""
    refuse_restore(three, "host2")
    start(three, "a", "b", "c", "d")
    found = ended(three.client.evacuate("host1"))
    assert found.state == "succeeded"
    assert set(owners(three).values()) == {"host3"}
    assert {item.tries for item in found.items} == {1, 2}
    assert any("again, after host2" in item.why for item in found.items)
    assert three.world.violations == []


def test_what_cannot_move_is_told_and_stays(three: FakeFleet, capsys: pytest.CaptureFixture[str]) -> None:
    """Refused by the plan or failed everywhere: the others are away, the record says which and why, exit status 1."""
    one, stuck, paused, shares = start(three, "one", "stuck", "paused", "shares")
    three.world.agents["host1"].containers[shares.id].spec.isolation.pid = "host"
    original = three.world.agents["host1"].Describe

    def describe(request: Any, context: Any = None) -> Any:
        answer = original(request)
        if request.container_id == stuck.id:
            answer.blockers.add(what="uses io_uring")
        answer.blockers.add(what="may be slow", warning=True)
        return answer

    three.world.agents["host1"].Describe = describe  # type: ignore[method-assign]
    three.world.agents["host1"].containers[paused.id].state = types_pb2.CONTAINER_STATE_PAUSED
    assert main(["evacuate", "host1"]) == 1
    out = capsys.readouterr().out
    assert "stuck: refused: uses io_uring" in out
    assert "paused: refused: it is paused, and only a running container can move" in out
    assert "shares: refused: shares shares the host's processes (--pid host)" in out
    assert "one: moved to host" in out
    assert ": incomplete, 4 containers" in out
    assert owners(three)["stuck"] == owners(three)["paused"] == "host1" != owners(three)["one"]
    refuse_restore(three, "host1")
    home = ended(three.client.restore_host("host1"))
    assert (home.state, states(home)) == ("incomplete", {"one": "failed"})
    (item,) = home.items
    assert item.tries == 3 and item.error is not None and "cannot restore" in item.error.message
    assert three.world.states(one.id) == {owners(three)["one"]: "running"}


def test_capacity_is_that_of_the_whole_set(three: FakeFleet) -> None:
    """Each alone would fit: of five with 1 GiB two fit host2 and one host3; the others are told why, and nothing is tried."""
    three.hosts["host2"].facts["memory_available_bytes"] = 5 * GIB // 2
    three.hosts["host3"].facts["memory_available_bytes"] = 3 * GIB // 2
    made = start(three, *"abcde")
    original = three.world.agents["host1"].Describe

    def describe(request: Any, context: Any = None) -> Any:
        answer = original(request)
        answer.memory_bytes = GIB
        return answer

    three.world.agents["host1"].Describe = describe  # type: ignore[method-assign]
    (plan,) = three.client.evacuate("host1", dry_run=True)
    assert isinstance(plan, Evacuation)
    placed = [item.target for item in plan.items if item.state == "planned"]
    assert sorted(placed) == ["host2", "host2", "host3"]
    refused = [item for item in plan.items if item.state == "refused"]
    assert len(refused) == 2 and len(made) == 5
    assert all("host2: has " in item.why and "of memory free" in item.why for item in refused)


def test_actions_of_the_order_and_of_labels(three: FakeFleet) -> None:
    """stop stops, and restore starts it again where it is; skip leaves alone; a wrong label is refused; the exited one is not touched."""
    start(three, "moves", **{"migrate.evacuate": "live"})
    start(three, "stays", **{"migrate.evacuate": "skip"})
    start(three, "wrong", **{"migrate.evacuate": "fly"})
    (stopped, exited) = start(three, "stopped", "exited")
    three.world.agents["host1"].containers[exited.id].state = types_pb2.CONTAINER_STATE_EXITED
    three.client.stop("exited")
    found = ended(three.client.evacuate("host1", action="stop"))
    assert states(found) == {
        "moves": "moved", "stays": "skipped", "wrong": "refused", "stopped": "stopped", "exited": "skipped",
    }  # fmt: skip
    assert found.state == "incomplete"
    assert three.client.inspect("stopped").state == "exited"
    assert three.client.inspect("stays").state == "running"
    home = ended(three.client.restore_host("host1"))
    assert states(home) == {"moves": "moved", "stopped": "started"}
    assert three.client.inspect("stopped").state == "running" and stopped.host == "host1"
    assert three.client.inspect("exited").state == "exited"
    assert set(owners(three).values()) == {"host1"}


def test_a_selector_and_targets_are_kept_to(three: FakeFleet) -> None:
    """Only those with all labels, only to the hosts that were named."""
    start(three, "web", tier="web", zone="a")
    start(three, "db", tier="db", zone="a")
    found = ended(three.client.evacuate("host1", to=["host3"], selector={"tier": "web", "zone": "a"}))
    assert states(found) == {"web": "moved"}
    assert owners(three) == {"web": "host3", "db": "host1"}


def test_one_at_a_time_on_a_host_and_the_same_request_is_the_same(three: FakeFleet) -> None:
    """Neither another evacuation nor a restore begins meanwhile; other hosts are free to."""
    start(three, "a")
    held = Held(three)
    events = three.client.evacuate("host1", to=["host3"], request_id="once")
    first = next(events)
    assert held.began.wait(60)
    running = three.client.evacuations(active=True)[0]
    for call in (three.client.evacuate, three.client.restore_host):
        with pytest.raises(WrongState, match=f"evacuate of host1 goes on: {running.id}"):
            list(call("host1"))
    assert three.store.host("host1").cordon is not None
    assert ended(three.client.evacuate("host2")).state == "succeeded"
    with pytest.raises(InvalidArgument, match="was for evacuate of host1"):
        list(three.client.evacuate("host2", request_id="once"))
    held.go.set()
    assert ended(three.client.evacuate("host1", request_id="once")).id == running.id
    assert ended(events).id == running.id and first is not None
    assert len(three.client.migrations()) == 1


def test_after_the_deadline_nothing_is_begun(three: FakeFleet) -> None:
    """The move under way comes to its end, the others are late and stay."""
    start(three, "a", "b", "c")
    held = Held(three)
    events = three.client.evacuate("host1", max_parallel=1, deadline_s=0.3)
    assert held.began.wait(60)
    eventually(lambda: three.client.evacuations(active=True))
    threading.Timer(0.5, held.go.set).start()
    found = ended(events)
    assert found.state == "incomplete"
    assert sorted(states(found).values()) == ["late", "late", "moved"]
    assert sorted(owners(three).values())[0] == "host1"


def test_a_cancelled_one_begins_no_more(three: FakeFleet, capsys: pytest.CaptureFixture[str]) -> None:
    """The host stays cordoned; a restore brings home what had left."""
    start(three, "a", "b", "c")
    held = Held(three)
    assert main(["evacuate", "host1", "--max-parallel", "1", "--detach"]) == 0
    found = capsys.readouterr().out.strip()
    assert held.began.wait(60)
    assert main(["evacuations", "cancel", found[:8]]) == 0
    held.go.set()
    assert main(["evacuations", "watch", found]) == 1
    assert "cancelled" in capsys.readouterr().out
    assert sorted(states(three.client.evacuation(found)).values()) == ["cancelled", "cancelled", "moved"]
    assert three.store.host("host1").cordon is not None
    assert main(["evacuations", "cancel", found]) == 1
    home = ended(three.client.restore_host("host1"))
    assert list(states(home).values()) == ["moved"]


def test_home_is_where_it_was_before_it_was_moved_about(three: FakeFleet) -> None:
    """Through a second evacuation too, in whichever order they end; what an operator has moved since stays there."""
    start(three, "a", "byhand")
    assert ended(three.client.evacuate("host1", to=["host2"])).state == "succeeded"
    three.client.move("byhand", to="host3").result()
    assert ended(three.client.evacuate("host2", to=["host3"])).state == "succeeded"
    assert owners(three) == {"a": "host3", "byhand": "host3"}
    home = ended(three.client.restore_host("host1"))
    assert states(home) == {"a": "moved", "byhand": "skipped"}
    assert "moved to host3 since, by no evacuation" in {item.container: item.why for item in home.items}["byhand"]
    assert owners(three) == {"a": "host1", "byhand": "host3"}
    assert ended(three.client.restore_host("host2")).items == ()


def test_skip_only_uncordons(three: FakeFleet) -> None:
    """And another restore still knows what is away."""
    start(three, "a")
    ended(three.client.evacuate("host1"))
    assert ended(three.client.restore_host("host1", skip=True)).items == ()
    assert three.store.host("host1").cordon is None and owners(three)["a"] != "host1"
    assert states(ended(three.client.restore_host("host1"))) == {"a": "moved"}


def test_it_waits_for_what_is_under_way(three: FakeFleet) -> None:
    """A move to the host that began before the cordon ends there first, then its container leaves again."""
    start(three, "coming", host="host2")
    held = Held(three, "host2")
    moving = three.client.move("coming", to="host1")
    next(moving)
    assert held.began.wait(60)
    events = three.client.evacuate("host1", to=["host3"])
    note = next(events)
    assert isinstance(note, EvacuationNote) and "waiting for what is under way" in note.text
    held.go.set()
    assert states(ended(events)) == {"coming": "moved"}
    assert owners(three) == {"coming": "host3"}


def test_it_waits_for_what_is_being_made(three: FakeFleet) -> None:
    """A create that has passed the cordon comes to its end, and its container leaves with the others."""
    entered, go = threading.Event(), threading.Event()
    original = three.hosts["host1"].called

    def called(name: str) -> None:
        if name == "Containers.Create":
            entered.set()
            assert go.wait(60)
        original(name)

    three.hosts["host1"].called = called  # type: ignore[method-assign]
    made = threading.Thread(target=lambda: three.client.run(Run(image="base", host="host1", name="early")))
    made.start()
    assert entered.wait(60)
    events = three.client.evacuate("host1")
    assert isinstance(next(events), EvacuationNote)
    three.world.run("host1", three.store.container("early").id, name="early")
    go.set()
    assert states(ended(events)) == {"early": "moved"}
    made.join(60)
    assert not made.is_alive()


def test_whoever_loses_sight_of_it_is_told_how_to_look_again(
    three: FakeFleet, capsys: pytest.CaptureFixture[str]
) -> None:
    """The stream ends with the coordinator, the evacuation does not."""
    start(three, "a")
    ended(three.client.evacuate("host1"))
    (known,) = three.client.evacuations()

    def stream() -> Iterator[Evacuation]:
        yield known
        raise Unreachable("the coordinator did not answer")

    with pytest.raises(Unreachable, match=f"lost sight of evacuate {known.id}") as caught:
        follow(stream(), "host1", format="text")
    assert caught.value.hint == f"it goes on when the coordinator is back: migrate evacuations watch {known.id}"
    assert known.id in capsys.readouterr().out


def test_a_restart_goes_on_where_the_last_coordinator_was(three: FakeFleet) -> None:
    """Three lives: held in a move, then over at once, then to the end; each container has moved once."""
    made = start(three, *"abcd")
    held = Held(three)
    asked = three.client.evacuate(
        "host1", max_parallel=2
    )  # kept: a stream that nobody holds is closed before it has begun, now and then
    assert held.began.wait(60) and asked
    events = three.client.watch_evacuation(three.client.evacuations(active=True)[0].id)
    next(events)
    for life in range(3):
        three.evacuations.shutdown()
        three.runner.shutdown()
        if life == 1:
            held.go.set()
        records = Evacuations(three.store)
        three.runner = MoveRunner(
            three.store, three.pool, FakeSigner(), Patience(undo_limit_s=2.0, first_s=0.05, ask_s=0.0)
        )
        three.evacuations = EvacuationRunner(
            three.store,
            records,
            CensusPlanner(three.store, three.pool, records),
            three.runner,
            three.evacuations._containers,
        )
        three.runner.recover()
        three.evacuations.recover()
    eventually(lambda: not records.newest(active=True))
    (found,) = three.client.evacuations()
    assert found.state == "succeeded"
    assert three.store.containers("host1") == []
    assert three.world.violations == []
    assert len(three.client.migrations()) == len(made)


def test_a_silent_host_is_not_emptied_by_starting_copies(three: FakeFleet) -> None:
    """Nobody knows whether its containers run: they are refused, and stay its own."""
    start(three, "a")
    three.hosts["host1"].stop()
    found = ended(three.client.evacuate("host1"))
    assert (found.state, states(found)) == ("incomplete", {"a": "refused"})
    assert owners(three) == {"a": "host1"}


def test_wrong_orders_are_refused_before_anything_is_cordoned(three: FakeFleet) -> None:
    """Names, targets, actions, a bandwidth that is too small for its parts."""
    for kind, host, options in (
        (NotFound, "host9", {}),
        (NotFound, "host1", {"to": ["host9"]}),
        (InvalidArgument, "host1", {"to": ["host1"]}),
        (InvalidArgument, "host1", {"action": "teleport"}),
        (InvalidArgument, "host1", {"bandwidth": 100_000, "max_parallel": 4}),
        (InvalidArgument, "host1", {"max_parallel": 1000}),
    ):
        with pytest.raises(kind):
            list(three.client.evacuate(host, **options))
    assert three.client.evacuations() == []
    assert all(one.cordon is None for one in three.store.hosts())
    with pytest.raises(NotFound, match="no evacuation 'abc'"):
        list(three.client.watch_evacuation("abc"))


def test_names_are_completed(three: FakeFleet) -> None:
    """Hosts, ids of evacuations, verbs."""
    ended(three.client.evacuate("host1"))
    hosts = ["host1", "host2", "host3"]
    for words in (
        ["evacuate", ""],
        ["evacuate", "host1", "--to", ""],
        ["restore", ""],
        ["host", "cordon", "host1", ""],
    ):
        assert completion.candidates(words, str(three.socket)) == hosts
    found = three.client.evacuations()[0].id[:12]
    assert completion.candidates(["evacuations", "watch", ""], str(three.socket)) == [found]
    assert "cordon" in completion.candidates(["host", ""], str(three.socket))


def test_the_command_line_reports_each_container(three: FakeFleet, capsys: pytest.CaptureFixture[str]) -> None:
    """Text for people, a line of JSON for programs, lists and single ones."""
    start(three, "a", "b")
    assert main(["evacuate", "host1", "--format", "json", "--reason", "new disk"]) == 0
    lines = [json.loads(line) for line in capsys.readouterr().out.splitlines()]
    assert lines[-1]["type"] == "record" and lines[-1]["state"] == "succeeded"
    assert {item["state"] for item in lines[-1]["items"]} == {"moved"}
    assert main(["evacuations"]) == 0
    out = capsys.readouterr().out
    assert "evacuate  host1  succeeded" in out and "new disk" in out
    assert main(["evacuations", "show", lines[-1]["id"][:8]]) == 0
    out = capsys.readouterr().out
    assert "host1 stays cordoned; to bring them home: migrate restore host1" in out
    assert main(["restore", "host1"]) == 0
    out = capsys.readouterr().out
    assert "a: moved to host1 in " in out and "restore " in out
    assert main(["evacuate", "host1", "--selector", "web"]) == 2
    assert "'web' is not KEY=VALUE" in capsys.readouterr().err
