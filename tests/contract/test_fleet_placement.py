"""`run` without a host and `move` without a target: where they go, and what is said where nobody can take the container."""

from __future__ import annotations

import pytest

from migrate.cli.main import main
from migrate.errors import InvalidArgument, NotFound, WrongState
from migrate.records import Port, Progress, Run
from protos import agent_pb2
from tests.fakes.fleet import FakeFleet

pytestmark = pytest.mark.contract

GIB = 1 << 30


def test_a_container_goes_where_most_memory_is_free(three: FakeFleet) -> None:
    """And not where a filter speaks against it, whatever is free there."""
    three.hosts["host2"].facts["memory_available_bytes"] = 7 * GIB
    assert three.client.run(Run(image="base")).host == "host2"
    three.client.cordon("host2")
    three.hosts["host3"].facts["memory_available_bytes"] = 6 * GIB
    assert three.client.run(Run(image="base")).host == "host3"
    three.hosts["host3"].stop()
    assert three.client.create(Run(image="base")).host == "host1"


def test_a_move_without_a_target_says_where_it_goes_and_why(three: FakeFleet) -> None:
    """The first line names the host; the record has it as its target; the same request is the same move."""
    three.run("web1")
    three.hosts["host3"].facts["memory_available_bytes"] = 7 * GIB
    moving = three.client.move("web1", request_id="once")
    events = list(moving)
    first = events[0]
    assert isinstance(first, Progress) and first.phase == "placement"
    assert first.text.startswith("host3, the best of 2 (memory ")
    assert moving.record is not None and moving.record.target == "host3"
    again = three.client.move("web1", request_id="once").result()
    assert again.id == moving.record.id
    assert len(three.client.migrations()) == 1


def test_the_checks_of_a_move_decide_too(three: FakeFleet) -> None:
    """What `migrate check` calls a blocker is a reason, a warning is none; a container that cannot move anywhere says so at its start."""
    three.run("web1")
    three.hosts["host2"].facts["architecture"] = "aarch64"
    three.hosts["host3"].facts["kernel"] = "5.19"  # older than the source's: a warning
    ranking = {one.host: one.refusals for one in three.client.place_move("web1").hosts}
    assert ranking["host2"] == ("is aarch64, host1 is x86_64",)
    assert ranking["host3"] == ()
    three.hosts["host3"].facts["criu_version"] = "3.17"
    ranking = {one.host: one.refusals for one in three.client.place_move("web1").hosts}
    assert ranking["host3"] == ("has CRIU 3.17, older than 4.2 on host1",)


def test_a_dry_run_without_a_target_moves_nothing(three: FakeFleet) -> None:
    """The record names the host that was chosen."""
    three.run("web1")
    record = three.client.move("web1", dry_run=True).result()
    assert (record.state, record.source) == ("checked", "host1")
    assert record.target in ("host2", "host3")
    assert three.client.migrations() == []


def test_constraints_of_the_move_and_of_the_container_hold(three: FakeFleet) -> None:
    """Those of `run` are kept with the container; where none meets them each host says why, and nothing is made."""
    three.client.label_host("host2", {"disk": "ssd"})
    three.client.label_host("host3", {"disk": "ssd", "zone": "b"})
    kept = {"migrate.constraints": "disk==ssd"}
    web1 = three.client.run(Run(image="base", name="web1", labels=kept))
    assert web1.host in ("host2", "host3")
    for host in three.world.agents:
        if host == web1.host:
            three.world.run(host, web1.id).labels.update(kept)
    other = {"host2": "host3", "host3": "host2"}[web1.host]
    assert [one.host for one in three.client.place_move("web1").hosts if not one.refusals] == [other]
    with pytest.raises(WrongState, match="no host can take web1") as caught:
        three.client.move("web1", constraints=["zone==z"]).result()
    assert "does not meet zone==z" in caught.value.detail
    assert "host1: does not meet disk==ssd: it has no disk" in caught.value.detail
    with pytest.raises(InvalidArgument, match="no constraint"):
        three.client.move("web1", constraints=["a b"]).result()
    with pytest.raises(InvalidArgument, match="no constraint"):
        three.client.run(Run(image="base", host="host1", labels={"migrate.constraints": "=x"}))
    assert three.client.migrations() == []
    assert [one.name for one in three.client.containers(all=True)] == ["web1"]


def test_replicas_keep_apart_and_ports_too(three: FakeFleet) -> None:
    """Three replicas on three hosts, and no host for a fourth; a port that a host has is in the way of the same one."""
    replica = Run(image="base", labels={"app": "web", "migrate.anti-affinity": "app=web"})
    assert {three.client.run(replica).host for _ in range(3)} == {"host1", "host2", "host3"}
    with pytest.raises(WrongState, match="no host can take") as caught:
        three.client.run(replica)
    assert caught.value.detail.count("beside which it must not be") == 3
    port = Run(image="base", ports=(Port(container_port=80, host_port=8080),))
    assert {three.client.run(port).host for _ in range(3)} == {"host1", "host2", "host3"}


def test_what_only_the_host_knows_is_asked_there(three: FakeFleet) -> None:
    """Its answer about mounts, ports and devices is a reason like any other."""
    blocker = agent_pb2.Blocker(what="bind source /srv is not on this host")
    agent = three.world.agents["host2"]
    original = agent.Where

    def where(request, context=None):
        answer = original(request)
        if request.ports or request.mounts or request.devices:
            answer.blockers.append(blocker)
        return answer

    agent.Where = where  # type: ignore[method-assign]
    ranking = three.client.place_run(Run(image="base", ports=(Port(container_port=80, host_port=8080),)))
    assert {one.host: one.refusals for one in ranking.hosts}["host2"] == ("bind source /srv is not on this host",)
    assert three.client.place_run(Run(image="base")).hosts[-1].refusals == ()


def test_images_decide_where_one_may_run(three: FakeFleet) -> None:
    """Not where it is missing, unless it will be pulled; not by chance where hosts have different ones of that name."""
    three.hosts["host3"].add_image("rare", cmd=["serve"])
    assert three.client.run(Run(image="rare")).host == "host3"
    ranking = three.client.place_run(Run(image="rare"))
    assert {one.host: one.refusals for one in ranking.hosts}["host1"] == ("does not have the image rare",)
    assert all(not one.refusals for one in three.client.place_run(Run(image="rare"), will_pull=True).hosts)
    assert all(not one.refusals for one in three.client.place_run(Run(image="nowhere"), will_pull=True).hosts)
    with pytest.raises(NotFound, match="no host has the image 'nowhere'"):
        three.client.run(Run(image="nowhere"))
    three.hosts["host1"].add_image("rare", cmd=["serve"]).digest = "sha256:other"
    with pytest.raises(InvalidArgument, match="not the same image on host1, host3: which one"):
        three.client.run(Run(image="rare"))


def test_the_command_line_explains(three: FakeFleet, capsys: pytest.CaptureFixture[str]) -> None:
    """A table of those that can take it, a line for each that cannot; what was explained is what is done."""
    three.run("web1")
    three.client.cordon("host2", reason="new disk")
    assert main(["move", "web1", "--explain", "--dry-run"]) == 0
    out = capsys.readouterr().out
    assert out.startswith("HOST   SCORE  COST  LOCALITY  MEMORY  SPREAD\nhost3  0.")
    assert "host1: refused: web1 is there already\nhost2: refused: is cordoned: new disk\n" in out
    assert main(["move", "web1", "--to", "host3", "--explain"]) == 2
    assert "leave --to out" in capsys.readouterr().err
    assert main(["move", "web1"]) == 0
    assert "placement  host3, the only one that can take it" in capsys.readouterr().out
    assert main(["run", "-d", "--explain", "--constraint", "disk==ssd", "base"]) == 125
    err = capsys.readouterr().err
    assert "host1: refused: does not meet disk==ssd: it has no disk" in err
    assert "error: no host can take a container of base" in err
    assert main(["create", "--explain", "--anti-affinity", "app=web", "-l", "app=web", "--name", "web2", "base"]) == 0
    assert "HOST" in capsys.readouterr().err
    labels = three.client.inspect("web2").labels
    assert labels == {"app": "web", "migrate.anti-affinity": "app=web"}
