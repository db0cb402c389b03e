"""A move is followed on a terminal and without one, and Ctrl-C meanwhile: real processes against a fleet in memory."""

from __future__ import annotations

import signal
import subprocess
import sys
import threading
import time
from collections.abc import Iterator

import pytest

from migrate.cli.sight import Sight
from migrate.errors import Unreachable
from protos import types_pb2
from tests.contract.terminals import ROOT, Terminal
from tests.fakes.fleet import FakeFleet

pytestmark = pytest.mark.contract


class HeldPrecopy:
    """Precopy of host1 sends its first round again and again until `release`."""

    def __init__(self, fleet: FakeFleet) -> None:
        self._go = threading.Event()
        agent = fleet.world.agents["host1"]
        self._original = agent.Precopy
        agent.Precopy = self._hold

    def release(self) -> None:
        self._go.set()

    def _hold(self, request, context=None):
        while not self._go.wait(0.02):
            yield types_pb2.Progress(
                phase="precopy", text="round 1", done_bytes=1, total_bytes=2, unix_ns=time.time_ns()
            )
        yield from self._original(request, context)


@pytest.fixture
def held_precopy(fleet: FakeFleet) -> Iterator[HeldPrecopy]:
    """Released at the end whatever happens: a call that is held keeps the whole process from ending."""
    held = HeldPrecopy(fleet)
    yield held
    held.release()


@pytest.mark.usefixtures("held_precopy")
def test_ctrl_c_without_a_terminal_cancels(fleet: FakeFleet) -> None:
    """Before the pivot: the move is undone and the exit status is 130."""
    fleet.run("web1")
    process = subprocess.Popen(
        [sys.executable, "-m", "migrate", "move", "web1", "--to", "host2"],
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        cwd=ROOT,
        text=True,
    )
    with process:
        assert process.stdout is not None
        while "precopy" not in process.stdout.readline():
            pass
        process.send_signal(signal.SIGINT)
        out, err = process.communicate(timeout=20)
        assert process.returncode == 130, (out, err)
        assert "web1 will run on host1 as before" in err
        assert "cancelled: web1 runs on host1 as before" in err
    assert fleet.client.migrations()[0].state == "cancelled"
    assert fleet.store.container("web1").owner == "host1"


@pytest.mark.usefixtures("held_precopy")
def test_ctrl_c_on_a_terminal_asks(fleet: FakeFleet, terminals: list[Terminal]) -> None:
    """Enter goes on watching, d leaves the move alone, c cancels it."""
    fleet.run("web1")
    terminals.append(terminal := Terminal("move", "web1", "--to", "host2"))
    terminal.read_until(b"round 1")
    terminal.process.send_signal(signal.SIGINT)
    terminal.read_until(b"goes on while you decide")
    terminal.type(b"\n")
    terminal.seen = b""
    terminal.read_until(b"round 1")
    terminal.process.send_signal(signal.SIGINT)
    terminal.read_until(b"goes on while you decide")
    terminal.type(b"d\n")
    terminal.read_until(b"look again with: migrate migrations show")
    assert terminal.wait() == 130
    (record,) = fleet.client.migrations()
    assert record.state == "running"
    terminals.append(second := Terminal("watch", record.id))
    second.read_until(b"round 1")
    second.process.send_signal(signal.SIGINT)
    second.read_until(b"goes on while you decide")
    second.process.send_signal(signal.SIGINT)  # again: cancel
    second.read_until(b"cancelled: web1 runs on host1 as before")
    assert second.wait() == 130
    assert fleet.client.migration(record.id).state == "cancelled"


@pytest.mark.usefixtures("held_precopy")
def test_ctrl_c_counts_whichever_thread_the_kernel_gives_it_to(fleet: FakeFleet, terminals: list[Terminal]) -> None:
    """The main thread's wait for an answer, or for an event, is then not interrupted; it ends all the same."""
    fleet.run("web1")
    terminals.append(terminal := Terminal("move", "web1", "--to", "host2"))
    terminal.read_until(b"round 1")
    terminal.interrupt_another_thread()
    terminal.read_until(b"goes on while you decide")
    terminal.interrupt_another_thread()
    terminal.read_until(b"cancelled: web1 runs on host1 as before")
    assert terminal.wait() == 130


def test_ctrl_c_without_news(fleet: FakeFleet, terminals: list[Terminal]) -> None:
    """A move from which nothing is heard can be left or cancelled like any other."""
    fleet.run("web1")
    silent = threading.Event()

    def say_nothing(request, context=None):
        silent.wait(60)
        yield types_pb2.Progress(phase="precopy", text="the only one")

    fleet.world.agents["host1"].Precopy = say_nothing
    try:
        terminals.append(terminal := Terminal("move", "web1", "--to", "host2"))
        terminal.read_until(b"precopy")
        terminal.interrupt_another_thread()
        terminal.read_until(b"goes on while you decide")
        terminal.type(b"d\n")
        terminal.read_until(b"look again with: migrate migrations show")
        assert terminal.wait() == 130
    finally:
        silent.set()


def test_a_move_is_followed_through_the_coordinator_s_end_and_return(
    fleet: FakeFleet, held_precopy: HeldPrecopy
) -> None:
    """What was shown is not shown again; then the rest comes, up to the summary."""
    fleet.run("web1")
    process = subprocess.Popen(
        [sys.executable, "-m", "migrate", "move", "web1", "--to", "host2"],
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        cwd=ROOT,
        text=True,
    )
    with process:
        assert process.stdout is not None and process.stderr is not None
        shown = []
        while not shown or "precopy" not in shown[-1]:
            shown.append(process.stdout.readline())
        fleet.go_away()
        told = process.stderr.readline()
        assert "the coordinator does not answer" in told and "when it is back" in told
        held_precopy.release()
        fleet.come_back()
        out, err = process.communicate(timeout=60)
        assert process.returncode == 0, (out, err)
        assert "the coordinator is back" in err
    lines = "".join(shown) + out
    assert lines.splitlines()[-1].startswith("web1 runs on host2: moved from host1")
    assert [line.split()[0] for line in lines.splitlines()].count("reserve") == 1


@pytest.mark.usefixtures("held_precopy")
def test_a_coordinator_that_stays_away(fleet: FakeFleet) -> None:
    """After a while the error says what to start and what to type then; until then the user can leave."""
    fleet.run("web1")
    told: list[str] = []
    moving = fleet.client.move("web1", to="host2")
    sight = Sight(fleet.client, moving, told.append, patience_s=1.0)
    events = iter(sight)
    next(events)
    fleet.go_away()
    try:
        with pytest.raises(Unreachable, match="has not come back in 1 s") as caught:
            list(events)
        assert caught.value.hint.endswith(f"migrate watch {moving.migration_id}")
        assert "waiting for it, 1 s at most" in told[0] and len(told) == 1
    finally:
        fleet.come_back()


def test_who_leaves_while_the_coordinator_is_away(
    fleet: FakeFleet, terminals: list[Terminal], held_precopy: HeldPrecopy
) -> None:
    """Ctrl-C asks as always; d ends the command at once."""
    fleet.run("web1")
    terminals.append(terminal := Terminal("move", "web1", "--to", "host2"))
    terminal.read_until(b"round 1")
    fleet.go_away()
    try:
        terminal.read_until(b"waiting for it")
        terminal.process.send_signal(signal.SIGINT)
        terminal.read_until(b"goes on while you decide")
        terminal.type(b"d\n")
        terminal.read_until(b"look again with: migrate migrations show")
        assert terminal.wait() == 130
    finally:
        held_precopy.release()
        fleet.come_back()
