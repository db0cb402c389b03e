"""A container with a terminal moves with it: an interactive shell, its jobs, the terminal's size and modes, and who is attached."""

from __future__ import annotations

import time
from collections.abc import Iterator

import pytest

from migrate.client import Session
from migrate.records import Run
from tests.criu.moving_lab import MovingLab, wait_for

pytestmark = pytest.mark.criu

NAME = "shell"


class Typist:
    """Types into the terminal and reads what it shows."""

    def __init__(self, session: Session) -> None:
        self.session = session
        self.session.wait_started()
        self.shown = ""
        self._output = iter(session)

    def type(self, line: str) -> None:
        self.session.send(line.encode())

    def wait_for(self, text: str) -> str:
        """What was shown up to and with `text`; it is shown once."""
        while text not in self.shown:
            self.shown += next(self._output).data.decode()
        before, _, self.shown = self.shown.partition(text)
        return before + text


@pytest.fixture
def typist(fleet: MovingLab) -> Iterator[Typist]:
    """Attached to an interactive shell on host1."""
    fleet.client.run(Run(image="work", name=NAME, host="host1", tty=True, stdin_open=True, argv=("/bin/sh", "-i")))
    try:
        yield Typist(fleet.client.attach(NAME, stdin=True, tty=True, rows=33, columns=111))
    finally:
        fleet.client.remove(NAME, force=True)


def test_an_interactive_shell_moves_with_its_terminal_and_its_jobs(fleet: MovingLab, typist: Typist) -> None:
    """Variables, the terminal's name, size, modes and foreground job are there after a move and home again; ^C and resizes reach it;
    who was attached still is, and nobody notices but for a pause.
    """
    typist.type("x=4711; stty -echoctl; sleep 10000 & echo r''eady\n")
    typist.wait_for("ready")
    for target in ("host2", "host1"):
        fleet.move(NAME)
        assert fleet.client.inspect(NAME).host == target
        typist.type("echo was-$x on-$(tty) size-$(stty size) d''one; stty -a\n")
        assert "was-4711 on-/dev/pts/0 size-33 111 done" in typist.wait_for(" done")
        assert "-echoctl" in typist.wait_for("-echoctl")
        typist.type("jobs; echo l''isted\n")
        assert "sleep 10000" in typist.wait_for("listed")
        typist.type("sh -c 'trap \"echo c''aught; exit\" INT; echo st''arted; while :; do sleep 0.1; done'\n")
        typist.wait_for("started")
        typist.type("\x03")
        typist.wait_for("caught")
        typist.session.resize(25, 80)
        time.sleep(0.2)
        typist.type("stty size; echo s''ized\n")
        assert "25 80" in typist.wait_for("sized")
        typist.session.resize(33, 111)
        time.sleep(0.2)
    typist.type("kill %1; exit 7\n")
    wait_for(lambda: fleet.client.inspect(NAME).state == "exited")
    assert fleet.client.inspect(NAME).exit_code == 7


def test_a_job_in_the_foreground_of_a_shell_is_in_the_way(fleet: MovingLab, typist: Typist) -> None:
    """CRIU does not take a shell that waits for a job: said before the freeze, the job goes on; once it is stopped the shell moves."""
    typist.type("sh -c 'i=0; while :; do i=$((i+1)); echo n''umber $i; sleep 0.2; done'\n")
    typist.wait_for("number 3")
    asked = fleet.cli("move", NAME, "--to", "host2")
    assert asked.returncode == 5, asked.stderr
    assert "in the foreground" in asked.stderr
    typist.wait_for("number ")
    typist.type("\x1a")
    typist.type("echo st''opped\n")
    typist.wait_for("stopped")
    fleet.move(NAME)
    typist.type("fg\n")
    typist.wait_for("number ")
    typist.type("\x03")
    typist.type("echo e''nded\n")
    typist.wait_for("ended")
