"""A real rehearsal: its copy is well or not, nobody hears of it, and the container goes on under its client as if nothing had been."""

from __future__ import annotations

import json
import os
import shutil
import signal
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from migrate.errors import MigrateError
from migrate.lab import nodes, observe
from migrate.records import Container, Healthcheck, Mount, Run, Step
from tests.criu.moving_lab import Dialogue, MovingLab, program, wait_for

pytestmark = pytest.mark.criu

PORT = 7000
SECOND = 10**9
# Says whether the bridge's other end answers: where it does not, nothing that this container sends is heard. And takes its time.
SEALED = """
import socket, sys, time
try:
    socket.create_connection((sys.argv[1], 9), timeout=1).close()
except ConnectionRefusedError:
    print("heard")
except OSError:
    print("sealed")
    time.sleep(float(open("/bind/pause").read()))
open("/bind/checks", "a").write("x")
open("/vol/checks", "a").write("x")
"""


@pytest.fixture(scope="module")
def bind(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A directory that both hosts have: what the copy writes there would be seen."""
    directory = tmp_path_factory.mktemp("bind")
    for path in (directory, *directory.parents):
        if path.owner() == "root" and path.name.startswith(("pytest", "bind")):
            path.chmod(0o755)
    directory.chmod(0o777)
    (directory / "pause").write_text("0")
    (directory / "sealed.py").write_text(SEALED)
    return directory


@pytest.fixture(scope="module")
def echo(fleet: MovingLab, bind: Path) -> Iterator[Container]:
    """Serves a client, writes to a file of the host without end, and has a health check. The target has nothing of its image."""
    if any(one.host == "host2" and one.name.startswith("work") for one in fleet.client.images()):
        fleet.client.remove_image("work", host="host2")
    line = "i=0; exec 3>> /bind/log; (while :; do i=$((i+1)); echo $i >&3; sleep 0.02; done) & exec " + " ".join(
        program("tcp_echo", str(PORT), "/srv/tcp_echo.json")
    )
    container = fleet.client.run(
        Run(
            image="work",
            name="echo",
            host="host1",
            argv=("/bin/sh", "-c", line),
            mounts=(
                Mount(kind="bind", source=str(bind), target="/bind"),
                Mount(kind="volume", source="rehearsed", target="/vol"),
            ),
            health=Healthcheck(
                test=("CMD-SHELL", f"python3 /bind/sealed.py {fleet.lab.node('client').address}"),
                interval_ns=3600 * SECOND,  # ours alone
                timeout_ns=20 * SECOND,
            ),
        )
    )
    wait_for(lambda: (fleet.upper(container) / "srv/tcp_echo.json").exists())
    yield container
    fleet.client.remove("echo", force=True)


@pytest.fixture
def client(fleet: MovingLab, echo: Container) -> Iterator[Dialogue]:
    dialogue = Dialogue(fleet.lab, echo.address, PORT)
    yield dialogue
    dialogue.close()


def untouched(fleet: MovingLab, before: Container, bind: Path, idle: observe.Snapshot) -> None:
    """The same process on the same host, its files without a gap, and nothing more on either host than there was."""
    now = fleet.client.inspect(before.name)
    assert (now.host, now.pid, now.epoch, now.state) == ("host1", before.pid, 1, "running")
    lines = [int(line) for line in (bind / "log").read_text().split("\n")[:-1]]
    assert lines == list(range(1, len(lines) + 1))
    wait_for(lambda: len((bind / "log").read_text().splitlines()) > len(lines))
    assert fleet.client.diff(before.name) is not None  # no move holds it any more
    target = fleet.lab.node_dir("host2")
    deadline = time.monotonic() + 15
    while (left := observe.differences(idle, observe.snapshot(fleet.lab.prefix))) and time.monotonic() < deadline:
        time.sleep(0.2)
    assert left == []
    assert not (target / "var/containers" / before.id).exists()
    assert not (target / "var/volumes/rehearsed").exists()
    assert [one.host for one in fleet.client.images() if one.name.startswith("work")] == ["host1"]


def test_it_would_move(fleet: MovingLab, echo: Container, client: Dialogue, bind: Path) -> None:
    """Its copy's health check passes where nobody hears it; the client's connection, the files and the volume notice nothing."""
    idle = observe.snapshot(fleet.lab.prefix)
    assert client.ask("a") == "1 a"
    done = fleet.cli("rehearse", "echo", "--to", "host2", "--format", "json", timeout_s=120)
    assert done.returncode == 0, done.stderr
    record = json.loads(done.stdout.splitlines()[-1])
    (tried,) = (row["facts"] for row in record["journal"] if (row["step"], row["event"]) == ("try", "done"))
    assert (record["state"], tried["health"]) == ("rehearsed", "healthy")
    assert "sealed" in tried["text"], tried["text"]
    assert client.ask("b") == "2 b"
    facts = record["facts"]
    assert 0 < facts["source_frozen_s"] < facts["rehearsed_downtime_s"]
    assert {"dump_s", "transfer_s", "restore_s", "predicted_downtime_s"} <= set(facts)
    assert not (bind / "checks").exists()
    untouched(fleet, echo, bind, idle)


def test_a_copy_that_is_not_well(fleet: MovingLab, echo: Container, client: Dialogue, bind: Path) -> None:
    """Exit status 6, and what its health check said."""
    idle = observe.snapshot(fleet.lab.prefix)
    (bind / "pause").write_text("no number")
    try:
        done = fleet.cli("rehearse", "echo", "--to", "host2", timeout_s=120)
    finally:
        (bind / "pause").write_text("0")
    assert done.returncode == 6
    assert "health check exits with 1" in done.stderr
    assert "could not convert string to float" in done.stderr
    assert client.ask("a") == "1 a"
    untouched(fleet, echo, bind, idle)


def test_a_restore_that_fails(fleet: MovingLab) -> None:
    """A file of the host that the container has open, and that the target lacks: the doctor's cause and remedy, exit status 6."""
    own = [fleet.lab.node_dir(host) / "var/rehearsal" for host in ("host1", "host2")]
    for directory in own:
        directory.mkdir()
    (own[0] / "a").write_text("a")
    wanted = Run(
        image="work",
        name="reader",
        host="host1",
        argv=("/bin/sh", "-c", "exec 3< /etc/own/a; while :; do sleep 1; done"),
        mounts=(Mount(kind="bind", source="/var/lib/migrate/rehearsal", target="/etc/own"),),
    )
    container = fleet.client.run(wanted)
    try:
        done = fleet.cli("rehearse", "reader", "--to", "host2", timeout_s=120)
        assert done.returncode == 6, done.stderr
        assert "restore failed" in done.stderr
        assert "etc/own/a" in done.stderr
        assert "hint: bring it there" in done.stderr
        doctor = fleet.cli("doctor", fleet.client.migrations(container="reader", limit=1)[0].id)
        assert doctor.returncode == 0, doctor.stdout
        assert fleet.client.inspect("reader").pid == container.pid
        assert not (fleet.lab.node_dir("host2") / "var/containers" / container.id).exists()
    finally:
        fleet.client.remove("reader", force=True)
        for directory in own:
            shutil.rmtree(directory)


@pytest.mark.parametrize(("node", "program"), [("host2", "agent"), ("host1", "agent"), ("controller", "coordinator")])
def test_killed_in_the_middle(
    fleet: MovingLab, echo: Container, client: Dialogue, bind: Path, node: str, program: str
) -> None:
    """While the copy is tried: it is thrown away by whoever starts next, and the container was never held up."""
    idle = observe.snapshot(fleet.lab.prefix)
    (bind / "pause").write_text("6")
    try:
        moving = fleet.client.rehearse("echo", to="host2")
        for event in moving:
            if isinstance(event, Step) and (event.step, event.event) == ("try", "started"):
                break
        pid = next(one.pid for one in nodes.states(fleet.lab.state_dir)[node].programs if one.name == program)
        os.kill(pid, signal.SIGKILL)
        assert client.ask("a") == "1 a"
        wait_for(lambda: ended(fleet, moving.migration_id), timeout_s=60)
    finally:
        (bind / "pause").write_text("0")
    record = fleet.client.migration(moving.migration_id)
    # The source is not needed any more; what it forgets of its part it forgets when it starts.
    assert record.state == ("rehearsed" if node == "host1" else "failed"), record.failure
    assert client.ask("b") == "2 b"
    wait_for(lambda: all(host.reachable for host in fleet.client.hosts()), timeout_s=30)
    untouched(fleet, echo, bind, idle)


def ended(fleet: MovingLab, migration_id: str) -> bool:
    try:
        return fleet.client.migration(migration_id).state not in ("running", "waiting")
    except MigrateError:
        return False  # the coordinator is not back yet
