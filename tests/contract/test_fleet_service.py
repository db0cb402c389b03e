"""The service Fleet through the client library: real gRPC on unix sockets, hosts in memory."""

from __future__ import annotations

import io
import threading
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from agent import errors as agent_errors
from migrate.client import Client
from migrate.errors import AlreadyExists, InvalidArgument, MigrateError, NotFound, Unreachable, WrongState
from migrate.records import Image, ImageDefaults, Run
from migrate.rpc.version import MAJOR
from tests.fakes.fleet import FakeFleet, eventually
from tests.fakes.host import EXITED, RUNNING

pytestmark = pytest.mark.contract


@pytest.fixture
def world(tmp_path: Path) -> Iterator[FakeFleet]:
    world = FakeFleet(tmp_path)
    for host in world.hosts.values():
        host.add_image("base", cmd=["serve"], env=["A=image", "B=image"], working_dir="/srv", labels={"from": "image"})
    yield world
    world.close()


# ---------------------------------------------------------------- run


def test_run_puts_request_image_and_allocation_together(world: FakeFleet) -> None:
    """What runs is the image's config under the request's, with a name, address, MAC and ids of its own."""
    wanted = Run(
        image="base", host="host1", env=("A=mine",), labels={"tier": "web"}, cap_drop=("NET_RAW",), name="web1"
    )
    container = world.client.run(wanted)
    assert (container.name, container.host, container.state, container.epoch) == ("web1", "host1", "running", 1)
    assert container.argv == ("serve",)
    assert {"A=mine", "B=image"} < set(container.env)
    assert any(entry.startswith("PATH=") for entry in container.env)
    assert (container.cwd, dict(container.labels)) == ("/srv", {"from": "image", "tier": "web"})
    assert container.address == "10.88.1.1/16"
    assert container.hostname == container.id[:12]
    assert container.ids_base % 65536 == 0
    assert "CAP_NET_RAW" not in container.capabilities
    assert "CAP_CHOWN" in container.capabilities
    assert container.layers == ("sha256:base",)
    other = world.client.run(Run(image="base", host="host2"))
    assert other.address != container.address
    assert other.ids_base != container.ids_base
    assert other.name


def test_create_does_not_start(world: FakeFleet) -> None:
    """`create` leaves a created container, which `start` starts."""
    container = world.client.create(Run(image="base", host="host1", name="later"))
    assert container.state == "created"
    assert world.client.start("later").state == "running"


def test_one_that_removed_itself_is_forgotten_with_its_name(world: FakeFleet) -> None:
    """`run --rm`: the host has removed it, so its name is free at once, the list is without it, and it is not found."""
    wanted = Run(image="base", host="host1", name="job", remove_on_exit=True)
    first = world.client.run(wanted)
    assert world.hosts["host1"].containers[first.id].spec.remove_on_exit
    with pytest.raises(AlreadyExists):
        world.client.run(wanted)
    del world.hosts["host1"].containers[first.id]
    second = world.client.run(wanted)
    assert (second.name, second.id != first.id) == ("job", True)
    del world.hosts["host1"].containers[second.id]
    assert world.client.containers(all=True) == []
    assert world.store.containers() == []
    third = world.client.run(wanted)
    del world.hosts["host1"].containers[third.id]
    with pytest.raises(NotFound, match="job has exited and was removed"):
        world.client.inspect("job")


def test_what_is_not_seen_is_not_forgotten_without_proof(world: FakeFleet) -> None:
    """Its host is silent, it is being moved, or nobody asked for --rm: the record stays."""
    plain = world.client.run(Run(image="base", host="host1", name="plain"))
    moving = world.client.run(Run(image="base", host="host1", name="moving", remove_on_exit=True))
    world.client.run(Run(image="base", host="host2", name="silent", remove_on_exit=True))
    world.begin_move(moving.id)
    for one in (plain, moving):
        del world.hosts["host1"].containers[one.id]
    world.hosts["host2"].stop()
    assert {c.name: c.state for c in world.client.containers(all=True)} == dict.fromkeys(
        ("moving", "plain", "silent"), "unknown"
    )


def test_one_that_is_still_being_made_is_not_forgotten(world: FakeFleet) -> None:
    """Between its record and its place on the host somebody lists: it stays."""
    host = world.hosts["host1"]
    seen: list[list[str]] = []
    before = host.called

    def called(name: str) -> None:
        if name == "Containers.Create":
            seen.append([container.name for container in world.client.containers(all=True)])
        before(name)

    host.called = called  # type: ignore[method-assign]
    world.client.run(Run(image="base", host="host1", name="job", remove_on_exit=True))
    assert seen == [["job"]]
    assert [container.state for container in world.client.containers()] == ["running"]


def test_a_failed_start_leaves_nothing_and_passes_the_agents_error_on(world: FakeFleet) -> None:
    """The agent's code, message and hint arrive as they are; container and allocation are gone."""
    world.hosts["host1"].fail["Containers.Start"] = agent_errors.StartError(
        "exec: serve: no such file in PATH=/bin", hint="check the command"
    )
    with pytest.raises(MigrateError) as caught:
        world.client.run(Run(image="base", host="host1", name="web1"))
    assert caught.value.code == "container.start_failed"
    assert caught.value.message == "exec: serve: no such file in PATH=/bin"
    assert caught.value.hint == "check the command"
    assert world.hosts["host1"].containers == {}
    assert world.store.containers() == []
    world.hosts["host1"].fail.clear()
    assert world.client.run(Run(image="base", host="host1", name="web1")).address == "10.88.1.1/16"


def test_an_older_agent_creates_and_starts_one_after_the_other(world: FakeFleet) -> None:
    """It does not know that Create can start, and answers with a container that does not run."""
    host = world.hosts["host1"]
    host.starts_at_create = False
    assert world.client.run(Run(image="base", host="host1", name="web1")).state == "running"
    assert [call for call in host.calls if call in ("Containers.Create", "Containers.Start")] == [
        "Containers.Create",
        "Containers.Start",
    ]


def test_a_run_that_cannot_be_undone_says_so_and_keeps_the_allocation(world: FakeFleet) -> None:
    """While the host may still have the container, its address is not given to another one."""
    host = world.hosts["host1"]
    host.fail["Containers.Start"] = agent_errors.StartError("cgroup: no")
    host.fail["Containers.Remove"] = agent_errors.StorageError("the disk is gone")
    with pytest.raises(MigrateError) as caught:
        world.client.run(Run(image="base", host="host1", name="web1"))
    assert caught.value.touched == "something"
    assert "migrate rm -f web1" in caught.value.hint
    assert world.store.container("web1").address == "10.88.1.1"
    host.fail.clear()
    world.client.remove("web1", force=True)
    assert world.store.containers() == []


def test_without_a_host_the_image_decides(world: FakeFleet) -> None:
    """The only host that has the image is taken; of two, one that is not full (test_fleet_placement.py); none is an error."""
    world.hosts["host2"].add_image("rare", cmd=["serve"])
    assert world.client.run(Run(image="rare")).host == "host2"
    assert world.client.run(Run(image="base")).host in ("host1", "host2")
    with pytest.raises(NotFound, match="no host has the image 'nothing'"):
        world.client.run(Run(image="nothing"))


def test_names_are_unique_and_checked_before_a_host_is_touched(world: FakeFleet) -> None:
    """A taken name fails with nothing created anywhere."""
    world.client.run(Run(image="base", host="host1", name="web1"))
    with pytest.raises(AlreadyExists, match="web1"):
        world.client.run(Run(image="base", host="host2", name="web1"))
    assert world.hosts["host2"].containers == {}


def test_a_name_may_be_the_beginning_of_several_ids(world: FakeFleet) -> None:
    """Seen: `run --name d` was refused where two containers had ids that begin with d."""
    first = [
        world.client.create(Run(image="base", host="host1")).id[0] for _ in range(17)
    ]  # of 16 digits one comes twice
    twice = next(digit for digit in first if first.count(digit) > 1)
    assert world.client.run(Run(image="base", host="host1", name=twice)).name == twice


def test_an_image_without_a_command_needs_one(world: FakeFleet) -> None:
    """Neither cmd nor argv is an error before anything is allocated."""
    world.hosts["host1"].add_image("bare")
    with pytest.raises(InvalidArgument, match="no command"):
        world.client.run(Run(image="bare", host="host1"))
    assert world.client.run(Run(image="bare", host="host1", argv=("sh",))).argv == ("sh",)


# ---------------------------------------------------------------- containers


def test_containers_of_all_hosts_are_listed_and_a_silent_host_hides_none(world: FakeFleet) -> None:
    """With a host down its containers are still listed, in state unknown, with the reason."""
    world.client.run(Run(image="base", host="host1", name="web1"))
    world.client.run(Run(image="base", host="host2", name="web2"))
    world.client.create(Run(image="base", host="host1", name="off"))
    assert {(c.name, c.host, c.state) for c in world.client.containers()} == {
        ("web1", "host1", "running"),
        ("web2", "host2", "running"),
    }
    assert {c.name for c in world.client.containers(all=True)} == {"web1", "web2", "off"}
    assert [c.name for c in world.client.containers(host="host2")] == ["web2"]
    world.hosts["host2"].stop()
    states = {c.name: c for c in world.client.containers()}
    assert states["web1"].state == "running"
    assert states["web2"].state == "unknown"
    assert "host2" in states["web2"].error
    assert states["web2"].address == "10.88.1.2/16"
    assert world.client.inspect("web2").state == "unknown"


def test_calls_go_to_the_owner_wherever_a_move_has_taken_the_container(world: FakeFleet) -> None:
    """After a move the same name reaches the other host, with the new epoch."""
    container = world.client.run(Run(image="base", host="host1", name="web1"))
    world.move(container.id, "host1", "host2")
    moved = world.client.inspect("web1")
    assert (moved.host, moved.epoch, moved.state) == ("host2", 2, "running")
    world.client.kill("web1", signal="SIGHUP")
    assert world.hosts["host2"].containers[container.id].signals == ["SIGHUP"]
    assert world.client.stop("web1").state == "exited"


def test_a_container_is_found_by_the_beginning_of_its_id(world: FakeFleet) -> None:
    """Name, id and an unambiguous prefix name the same container; an unknown one is an error with a hint."""
    container = world.client.run(Run(image="base", host="host1", name="web1"))
    assert world.client.inspect(container.id[:6]).name == "web1"
    with pytest.raises(NotFound) as caught:
        world.client.inspect("web9")
    assert (caught.value.exit_status, caught.value.hint) == (3, "migrate ps --all")


def test_a_running_container_is_removed_only_by_force(world: FakeFleet) -> None:
    """Removed means gone from the host and its name free again."""
    world.client.run(Run(image="base", host="host1", name="web1"))
    with pytest.raises(WrongState, match="running"):
        world.client.remove("web1")
    world.client.remove("web1", force=True)
    assert world.hosts["host1"].containers == {}
    assert world.client.containers(all=True) == []


def test_a_container_that_its_host_has_lost_can_be_removed(world: FakeFleet) -> None:
    """What the host does not know any more must not keep its name for ever."""
    container = world.client.run(Run(image="base", host="host1", name="web1"))
    del world.hosts["host1"].containers[container.id]
    world.client.remove("web1")
    assert world.store.containers() == []


def test_a_container_that_moves_is_not_removed(world: FakeFleet) -> None:
    """The host is not even asked."""
    container = world.client.run(Run(image="base", host="host1", name="web1"))
    world.begin_move(container.id)
    assert world.client.inspect("web1").migration_id == "abcdef"
    with pytest.raises(WrongState, match="abcdef"):
        world.client.remove("web1", force=True)
    assert "Containers.Remove" not in world.hosts["host1"].calls


def test_wait_returns_the_exit_code_through_a_move(world: FakeFleet) -> None:
    """Whoever waits does not notice that the container has changed hosts."""
    container = world.client.run(Run(image="base", host="host1", name="job"))
    with ThreadPoolExecutor() as executor:
        waiting = executor.submit(world.client.wait, "job")
        eventually(lambda: "Containers.Wait" in world.hosts["host1"].calls)
        world.move(container.id, "host1", "host2")
        eventually(lambda: "Containers.Wait" in world.hosts["host2"].calls)
        world.hosts["host2"].exit(container.id, 3)
        finished = waiting.result(10)
    assert (finished.exit_code, finished.host) == (3, "host2")


def test_a_wait_that_is_given_up_ends_on_the_host_too(world: FakeFleet) -> None:
    """Nothing keeps waiting for a caller that has gone."""
    world.client.run(Run(image="base", host="host1", name="job"))
    with pytest.raises(Unreachable):
        world.client.wait("job", timeout_s=0.3)
    assert world.hosts["host1"].cancelled.wait(5)


# ---------------------------------------------------------------- streams


def test_exec_passes_input_output_sizes_and_the_exit_code(world: FakeFleet) -> None:
    """Half-closing stdin lets the command finish; both output streams and the code arrive."""
    world.client.run(Run(image="base", host="host1", name="web1"))
    session = world.client.exec("web1", ["cat"], stdin=True)
    session.send(b"hello ")
    session.resize(24, 80)
    session.send(b"world")
    session.close_stdin()
    output = list(session)
    assert b"".join(one.data for one in output if one.stream == "stdout") == b"hello 24x80\nworld"
    assert b"".join(one.data for one in output if one.stream == "stderr") == b"end of input\n"
    assert session.exit_code == 0
    session = world.client.exec("web1", ["exit", "42"])
    assert list(session) == []
    assert session.exit_code == 42


def test_exec_ends_on_the_host_when_the_caller_goes_away(world: FakeFleet) -> None:
    """Cancelling the call cancels the agent's."""
    world.client.run(Run(image="base", host="host1", name="web1"))
    session = world.client.exec("web1", ["sleep"])
    session.wait_started()
    session.close()
    assert world.hosts["host1"].cancelled.wait(5)


def test_execs_errors_are_the_agents(world: FakeFleet) -> None:
    """A command that is not there and a container that does not run fail as the agent says."""
    world.client.run(Run(image="base", host="host1", name="web1"))
    with pytest.raises(MigrateError, match="exec: nope: no such file"):
        list(world.client.exec("web1", ["nope"]))
    world.client.stop("web1")
    with pytest.raises(WrongState):
        list(world.client.exec("web1", ["cat"]))


def test_attach_follows_the_container_to_its_new_host(world: FakeFleet) -> None:
    """Input and output go on after a move, and the exit code is the container's."""
    container = world.client.run(Run(image="base", host="host1", name="web1", stdin_open=True))
    session = world.client.attach("web1", stdin=True)
    seen: list[bytes] = []
    reader = threading.Thread(target=lambda: seen.extend(one.data for one in session))
    reader.start()
    session.send(b"one")
    eventually(lambda: b"host1:one" in seen)
    world.move(container.id, "host1", "host2")
    eventually(lambda: "Containers.Attach" in world.hosts["host2"].calls)
    session.send(b"two")
    eventually(lambda: b"host2:two" in seen)
    world.hosts["host2"].exit(container.id, 7)
    reader.join(10)
    assert session.exit_code == 7


def test_logs_are_tailed_and_cut_by_time(world: FakeFleet) -> None:
    """`tail` and `since` reach the agent; without follow the stream ends."""
    container = world.client.run(Run(image="base", host="host1", name="web1"))
    for number in range(5):
        world.hosts["host1"].write(container.id, f"line {number}\n", unix_ns=1000 + number)
    assert [one.data for one in world.client.logs("web1", tail=2)] == [b"line 3\n", b"line 4\n"]
    assert len(list(world.client.logs("web1"))) == 5
    assert [one.unix_ns for one in world.client.logs("web1", since_unix_ns=1003)] == [1003, 1004]


def test_followed_logs_lose_and_repeat_no_line_through_moves(world: FakeFleet) -> None:
    """Lines with equal stamps, and lines of a host whose clock is behind, come once each and in order."""
    container = world.client.run(Run(image="base", host="host1", name="web1"))
    now = time.time_ns()
    host1, host2 = world.hosts["host1"], world.hosts["host2"]
    lines: list[str] = []

    def follow() -> None:
        lines.extend(one.data.decode() for one in world.client.logs("web1", follow=True))

    reader = threading.Thread(target=follow)
    host1.write(container.id, "a\n", unix_ns=now)
    host1.write(container.id, "same\n", unix_ns=now)
    host1.write(container.id, "same\n", unix_ns=now)
    reader.start()
    eventually(lambda: len(lines) == 3)
    world.move(container.id, "host1", "host2")
    host2.write(container.id, "same\n", unix_ns=now)
    host2.write(container.id, "behind\n", unix_ns=now - 2 * 10**9)
    eventually(lambda: len(lines) == 5)
    world.move(container.id, "host2", "host1")
    host1.write(container.id, "back\n", unix_ns=now + 10**9)
    eventually(lambda: len(lines) == 6)
    host1.exit(container.id, 0)
    reader.join(10)
    assert lines == ["a\n", "same\n", "same\n", "same\n", "behind\n", "back\n"]


# ---------------------------------------------------------------- images


def test_an_import_is_read_once_and_goes_to_every_host(world: FakeFleet) -> None:
    """Both hosts get all bytes and the config."""
    data = bytes(5 << 20)
    images = world.client.import_image(io.BytesIO(data), "new", defaults=ImageDefaults(cmd=("run",)))
    assert {(one.host, one.size_bytes, one.defaults.cmd) for one in images} == {
        ("host1", len(data), ("run",)),
        ("host2", len(data), ("run",)),
    }
    only = world.client.import_image(io.BytesIO(b"x"), "other", host="host2")
    assert [one.host for one in only] == ["host2"]
    assert "other" not in world.hosts["host1"].images


def test_a_host_that_fails_an_import_does_not_stop_the_others(world: FakeFleet) -> None:
    """The error names the host and says where it worked."""
    world.hosts["host1"].fail["Images.Import"] = agent_errors.StorageError("no room", hint="free some")
    with pytest.raises(MigrateError, match="host1: no room") as caught:
        world.client.import_image(io.BytesIO(bytes(20 << 20)), "new")
    assert (caught.value.touched, caught.value.hint) == ("something", "free some")
    assert "host2: done" in caught.value.detail
    assert world.hosts["host2"].images["new"].size_bytes == 20 << 20


def test_half_an_import_is_no_image(world: FakeFleet) -> None:
    """A reader that fails half way registers nothing anywhere."""

    class Broken(io.RawIOBase):
        def __init__(self) -> None:
            self.reads = 0

        def read(self, size: int = -1) -> bytes:
            self.reads += 1
            if self.reads > 2:
                raise OSError("the pipe broke")
            return b"x" * size

    for _ in range(20):  # a cancelled call is a race between two events inside gRPC
        with pytest.raises(InvalidArgument, match="cannot read the image: the pipe broke"):
            world.client.import_image(Broken(), "half")  # type: ignore[arg-type]
    time.sleep(0.3)
    assert world.hosts["host1"].calls.count("Images.Import") > 0
    assert "half" not in world.hosts["host1"].images
    assert "half" not in world.hosts["host2"].images


def test_a_caller_that_dies_does_not_close_the_stdin_of_the_container(world: FakeFleet) -> None:
    """Letting go of attach is not end-of-file for the process."""
    container = world.client.run(Run(image="base", host="host1", name="web1", stdin_open=True))
    session = world.client.attach("web1", stdin=True)
    session.send(b"one")
    eventually(lambda: world.hosts["host1"].containers[container.id].stdin == [b"one"])
    session.close()
    session = world.client.attach("web1", stdin=True)
    session.send(b"two")
    eventually(lambda: world.hosts["host1"].containers[container.id].stdin == [b"one", b"two"])
    session.close()
    assert not world.hosts["host1"].containers[container.id].stdin_closed


def test_images_are_listed_and_removed_everywhere(world: FakeFleet) -> None:
    """Removing from every host tolerates hosts that do not have it, not that nobody has."""
    world.hosts["host2"].add_image("rare")
    assert {(one.name, one.host) for one in world.client.images()} == {
        ("base", "host1"),
        ("base", "host2"),
        ("rare", "host2"),
    }
    gone = world.client.remove_image("rare")
    assert (gone.untagged, gone.deleted, gone.layers) == (("rare",), ("sha256:rare",), ("sha256:base",))
    with pytest.raises(NotFound):
        world.client.remove_image("rare")


def test_an_image_that_one_host_uses_is_removed_from_none(world: FakeFleet) -> None:
    """Without force the fleet is asked first; with force each host takes the name away."""
    world.hosts["host2"].images["base"].used_by.append("web2")
    with pytest.raises(WrongState, match="host2: image base is used by web2"):
        world.client.remove_image("base")
    assert "base" in world.hosts["host1"].images
    world.client.remove_image("base", force=True)
    assert not world.hosts["host1"].images and not world.hosts["host2"].images


def test_images_are_tagged_inspected_and_pruned_where_they_are(world: FakeFleet) -> None:
    """Hosts without the image do not matter as long as one has it."""
    world.hosts["host2"].add_image("rare")
    assert [image.host for image in world.client.tag_image("rare", "rarer:1")] == ["host2"]
    assert [image.host for image in world.client.inspect_image("rarer:1")] == ["host2"]
    assert [image.host for image in world.client.inspect_image("base")] == ["host1", "host2"]
    with pytest.raises(NotFound):
        world.client.tag_image("nothing", "x")
    with pytest.raises(NotFound):
        world.client.inspect_image("rare", host="host1")
    world.hosts["host1"].images["base"].used_by.append("web1")
    pruned = world.client.prune_images(all=True)
    assert [(one.host, one.untagged) for one in pruned] == [("host1", ()), ("host2", ("base", "rare", "rarer:1"))]


def test_an_archive_is_loaded_on_every_host(world: FakeFleet) -> None:
    """One upload, the progress and the images of each host; a host that fails does not stop the others."""
    events = list(world.client.load_images(io.BytesIO(bytes(3 << 20)), name="app:1"))
    assert {event.host for event in events} == {"host1", "host2"}
    images = [event for event in events if isinstance(event, Image)]
    assert {(image.host, image.name, image.size_bytes) for image in images} == {
        ("host1", "app:1", 3 << 20),
        ("host2", "app:1", 3 << 20),
    }
    world.hosts["host1"].fail["Images.Load"] = agent_errors.StorageError("no room", hint="make some")
    with pytest.raises(MigrateError, match="host1: no room") as caught:
        list(world.client.load_images(io.BytesIO(bytes(20 << 20)), name="app:2"))
    assert caught.value.touched == "something"
    assert "host2: done" in caught.value.detail
    assert "app:2" in world.hosts["host2"].images


def test_images_are_saved_from_a_host_that_has_all_of_them(world: FakeFleet) -> None:
    """The first such host sends; no such host, or a stream that is cut, is an error."""
    world.hosts["host2"].add_image("rare")
    world.hosts["host1"].add_image("other")
    assert list(world.client.save_images(["base", "rare"])) == [15, b"host2 base rare"]
    with pytest.raises(NotFound, match="no host has the image 'other' beside base, rare"):
        list(world.client.save_images(["base", "rare", "other"]))
    world.hosts["host1"].add_image("cut")
    with pytest.raises(Unreachable, match="cut off after 9 bytes"):
        list(world.client.save_images(["cut"]))


# ---------------------------------------------------------------- hosts


def test_hosts_that_do_not_answer_are_listed_as_unreachable(world: FakeFleet) -> None:
    """One silent host costs the others nothing, and its error is told."""
    world.client.run(Run(image="base", host="host2", name="web2"))
    world.hosts["host2"].stop()
    one, two = world.client.hosts()
    assert one.reachable
    assert one.facts is not None
    assert one.facts.kernel == "6.18"
    assert (two.reachable, two.facts, two.containers) == (False, None, 1)
    assert "host2" in two.error
    with pytest.raises(Unreachable, match="host2"):
        world.client.start("web2")


def test_the_version_names_the_fleet(world: FakeFleet) -> None:
    """Version, protocol and the fleet's name."""
    version = world.client.version()
    assert (version.fleet, version.protocol) == ("test", MAJOR)


def test_a_coordinator_that_is_not_there_is_explained(tmp_path: Path) -> None:
    """The error names the socket and what to type; nothing was touched."""
    with Client(tmp_path / "nothing.sock") as client, pytest.raises(Unreachable) as caught:
        client.version()
    assert "nothing.sock" in caught.value.message
    assert "migrate lab up" in caught.value.hint
    assert (caught.value.touched, caught.value.exit_status) == ("nothing", 4)


def test_states_of_the_fake_are_those_of_the_wire() -> None:
    """The fake and the client speak of the same states."""
    from migrate import wire

    assert (wire.state_name(RUNNING), wire.state_name(EXITED)) == ("running", "exited")
