"""Moves that are refused, or come to nothing: a clear reason, the right exit status, and the container runs on as if nobody had asked."""

from __future__ import annotations

import json
import signal
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager

import pytest

from migrate.errors import Cancelled, StepError, WrongState
from migrate.records import Container, Run
from tests.criu.moving_lab import Dialogue, MovingLab, program, wait_for

pytestmark = pytest.mark.criu


@pytest.fixture(scope="module")
def resident(fleet: MovingLab) -> Iterator[Container]:
    """A container that stays on host1 whatever is asked."""
    argv = program("kernel_objects", "/srv/kernel_objects.json", "tcp_backlog", "threads")
    container = fleet.client.run(Run(image="work", name="resident", host="host1", argv=argv))
    wait_for(lambda: (fleet.upper(container) / "srv/kernel_objects.json").exists())
    yield container
    fleet.client.remove("resident", force=True)


@contextmanager
def untouched(fleet: MovingLab, container: Container) -> Iterator[None]:
    """Afterwards it is the same process on the same host, which counts on, and the other host has nothing of it."""
    before = fleet.status(container.name, "kernel_objects")
    yield
    after = fleet.later(container.name, "kernel_objects")
    now = fleet.client.inspect(container.name)
    assert (now.host, now.state, now.pid, now.epoch) == ("host1", "running", container.pid, container.epoch)
    assert now.migration_id == ""
    assert (after["token"], after["problems"]) == (before["token"], [])
    assert not (fleet.lab.node_dir("host2") / "var/containers" / container.id).exists()


@pytest.mark.parametrize(
    ("name", "to", "status", "words"),
    [
        ("resident", "host1", 2, "on host1 already"),
        ("resident", "nowhere", 3, "nowhere"),
        ("nobody", "host2", 3, "nobody"),
    ],
    ids=["the same host", "an unknown host", "an unknown container"],
)
def test_senseless_move(fleet: MovingLab, resident: Container, name: str, to: str, status: int, words: str) -> None:
    """Refused at once, with what is wrong and a hint."""
    with untouched(fleet, resident):
        asked = fleet.cli("move", name, "--to", to)
    assert (asked.returncode, words in asked.stderr, "hint: " in asked.stderr) == (status, True, True), asked.stderr


def test_stopped_container(fleet: MovingLab) -> None:
    """Only what runs can move; the hint is the command that starts it, and it stays where it is."""
    fleet.client.run(Run(image="work", name="ended", host="host1", argv=("/bin/true",)))
    fleet.client.wait("ended", timeout_s=20)
    try:
        asked = fleet.cli("move", "ended", "--to", "host2")
        assert asked.returncode == 5, asked.stderr
        assert "exited" in asked.stderr
        assert "migrate start ended" in asked.stderr
        assert fleet.client.inspect("ended").host == "host1"
    finally:
        fleet.client.remove("ended", force=True)


def test_exec_session_is_in_the_way(fleet: MovingLab, resident: Container) -> None:
    """CRIU would lose a process that came in by exec: refused before anything is touched, and that process goes on too."""
    session = fleet.client.exec("resident", ["/bin/sh", "-c", "read x; echo still here $x"], stdin=True)
    session.wait_started()
    with untouched(fleet, resident):
        asked = fleet.cli("move", "resident", "--to", "host2")
    assert asked.returncode == 5, asked.stderr
    assert "`/bin/sh -c read x; echo still here $x` came in by exec " in asked.stderr
    assert " s ago" in asked.stderr or " min ago" in asked.stderr
    assert "hint: end that exec session (inside: kill " in asked.stderr
    session.send(b"42\n")
    assert b"".join(output.data for output in session) == b"still here 42\n"


def test_check_measures_the_tunnel_and_leaves_nothing(fleet: MovingLab, resident: Container) -> None:
    """Through real ssh, there and back; the key that it made is gone, and so is what the target expected."""
    with untouched(fleet, resident):
        report = fleet.client.check("resident", to="host2")
    assert report.blockers == ()
    assert report.prediction.bytes_per_s > 0
    assert report.prediction.round_trip_s > 0
    left = [path for node in ("host1", "host2") for path in fleet.lab.node_dir(node).rglob("probes/*")]
    assert left == []


def test_dry_run(fleet: MovingLab, resident: Container) -> None:
    """Finds that it could move, and moves nothing."""
    with untouched(fleet, resident):
        assert fleet.cli("move", "resident", "--to", "host2", "--dry-run").returncode == 0


def test_connections_that_nobody_has_accepted(fleet: MovingLab, resident: Container) -> None:
    """Where the program never accepts, the move is undone, says so, and each of them is answered at the source."""
    waiting = [Dialogue(fleet.lab, resident.address, 7200) for _ in range(3)]
    try:
        for number, each in enumerate(waiting):
            each.say(f"number {number}")
        with untouched(fleet, resident), pytest.raises(StepError) as failed:
            fleet.client.move("resident", to="host2").result()
        assert failed.value.touched == "undone"
        assert "in-flight" in failed.value.message.lower()
        assert fleet.run("resident", "touch", "/srv/accept")[0] == 0
        assert [each.answer() for each in waiting] == [f"late number {number}" for number in range(3)]
    finally:
        for each in waiting:
            each.close()


@pytest.fixture(scope="module")
def much_to_send(fleet: MovingLab, resident: Container) -> Iterator[None]:
    """Files of 200 MB in the container, which take a while to be sent ahead."""
    status, output = fleet.run("resident", "dd", "if=/dev/urandom", "of=/srv/big", "bs=1M", "count=200")
    assert status == 0, output
    yield
    fleet.run("resident", "rm", "/srv/big")


def sending(fleet: MovingLab) -> str:
    """The id of the move that sends files or memory ahead just now, else ""."""
    return next((move.id for move in fleet.client.migrations(active=True) if move.step == "precopy"), "")


def test_cancelled_while_files_are_sent(fleet: MovingLab, resident: Container, much_to_send: None) -> None:
    """A second move meanwhile is refused; `cancel` before the freeze ends the first, and the container has not even paused."""
    client = fleet.client  # not the command line: it takes longer to start than the files take to be sent
    with untouched(fleet, resident):
        moving = client.move("resident", to="host2")
        move = wait_for(lambda: sending(fleet))
        with pytest.raises(WrongState, match=move):
            client.move("resident", to="host2").result()
        assert client.cancel(move)[1]
        with pytest.raises(Cancelled):
            moving.result()
    record = client.migration(move)
    assert record.state == "cancelled"
    assert "freeze" not in {event.step for event in record.journal}
    shown = json.loads(fleet.cli("migrations", "show", move, "--format", "json").stdout)
    assert shown["state"] == "cancelled"


def test_interrupted_command_cancels(fleet: MovingLab, resident: Container, much_to_send: None) -> None:
    """Ctrl-C without a terminal to ask at: the move is cancelled, the command says so and ends with 130."""
    with untouched(fleet, resident):
        command = fleet.command("move", "resident", "--to", "host2")
        with subprocess.Popen(
            command, env=fleet.environment, stdin=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True
        ) as moving:
            wait_for(lambda: sending(fleet))
            moving.send_signal(signal.SIGINT)
            _, said = moving.communicate(timeout=60)
    assert moving.returncode == 130, said
    assert "resident runs on host1 as before" in said


def test_a_dump_that_criu_refuses_is_explained(fleet: MovingLab) -> None:
    """The check finds the file; skipped, the error has CRIU's line, cause and remedy, and `doctor` finds it in the log that is kept."""
    keeps_open = (
        "exec 3>/srv/spool; dd if=/dev/zero bs=1M count=270 >&3 2>/dev/null; rm /srv/spool; echo ready; sleep 1000"
    )
    fleet.client.run(Run(image="work", name="spooler", host="host1", argv=("/bin/sh", "-c", keeps_open)))
    try:
        wait_for(lambda: any(b"ready" in line.data for line in fleet.client.logs("spooler")))
        checked = fleet.cli("check", "spooler", "--to", "host2")
        assert (checked.returncode, "deleted-file: pid " in checked.stdout) == (5, True), checked.stdout
        refused = fleet.cli("move", "spooler", "--to", "host2")
        assert (refused.returncode, "deleted-file: pid " in refused.stderr) == (5, True), refused.stderr
        asked = fleet.cli("move", "spooler", "--to", "host2", "--skip", "deleted-file")
        assert asked.returncode == 6, asked.stderr
        for words in (
            "/srv/spool was deleted and is still open",
            "put back",
            "hint: let the program close or truncate it",
        ):
            assert words in asked.stderr, asked.stderr
        assert fleet.client.inspect("spooler").host == "host1"
        move = fleet.client.migrations(container="spooler")[0]
        said = fleet.cli("doctor", move.id, "--format", "json")
        found = json.loads(said.stdout)
        assert (said.returncode, found["rule"], found["where"]) == (0, "ghost-too-large", "dump.log of host1")
        assert found["error"] in found["context"]
    finally:
        fleet.client.remove("spooler", force=True)


def test_end_exec_ends_sessions_and_moves(fleet: MovingLab) -> None:
    """Attached, detached and deaf ones are ended right before the freeze; who was attached gets the exit code; what had left its session
    moves on; the record has the commands.
    """
    fleet.client.run(Run(image="work", argv=program("counter"), name="visited", host="host1"))
    try:
        wait_for(lambda: list(fleet.upper(fleet.client.inspect("visited")).glob("srv/counter.json")))
        attached = fleet.client.exec("visited", ["/bin/sleep", "1001"])
        attached.wait_started()
        deaf = "trap '' TERM HUP; setsid sleep 1002 & while :; do sleep 0.1; done"
        assert fleet.cli("exec", "-d", "visited", "/bin/sh", "-c", deaf).returncode == 0
        wait_for(lambda: any("1002" in one.command for one in fleet.client.top("visited")))
        refused = fleet.cli("move", "visited", "--to", "host2")
        assert (refused.returncode, "--end-exec" in refused.stderr) == (5, True)
        moved = fleet.cli("move", "visited", "--to", "host2", "--end-exec")
        assert moved.returncode == 0, moved.stderr
        assert "ended what came in by exec" in moved.stdout
        for _ in attached:
            continue
        assert attached.exit_code == 128 + 15
        record = fleet.client.migration(fleet.client.migrations(container="visited")[0].id)
        (ended,) = [row.facts["ended"] for row in record.journal if (row.step, row.event) == ("end-exec", "done")]
        assert sorted(text.rpartition(", ")[2] for text in ended) == ["SIGKILL)", "SIGTERM)"]
        assert [one.command for one in fleet.client.top("visited") if "1002" in one.command] == ["sleep 1002"]
        fleet.later("visited", "counter")
    finally:
        fleet.client.remove("visited", force=True)
