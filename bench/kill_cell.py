"""One cell of the table of kills: web1 moves, somebody dies in the middle of it, and everything that can be seen afterwards.

A move through the command line, kill -9 from outside, the lab's supervisors start agents and coordinator again. Then, when the
move has ended: where does web1 run, was it ever twice, what did its client see, what is left, what was the user told.
"""

from __future__ import annotations

import os
import re
import secrets
import shlex
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from functools import partial
from typing import TypeVar

from bench.kill_victims import Phase, Scene, Victim, Witness
from bench.load import Load
from migrate.client import Client
from migrate.coordinator.steps import POSTCOPY
from migrate.errors import MigrateError
from migrate.lab import observe, processes
from migrate.lab.demo_run import CheckFailed, Outside, RunningClient, Seen
from migrate.lab.layout import Lab
from migrate.records import Container, Migration, Run

CONTAINER = "web1"
PORT = 6379
REDIS = ("redis-server", "--bind", "0.0.0.0", "--protected-mode", "no", "--save", "", "--dir", "/tmp")
ACTIVE = ("running", "waiting")
END_LIMIT_S = 120.0
CLEAN_LIMIT_S = 20.0
AFTER_S = 0.5  # how long the client goes on before it is asked
CLIENT_RATE = 200.0
# So that memory still follows when web1 runs on the target: written after the round ahead, and sent slowly.
REST_BANDWIDTH, REST_MB, REST_MB_PER_S = "4M", 12.0, 40.0
_T = TypeVar("_T")


@dataclass(kw_only=True)
class Outcome:
    """What was seen of one cell."""

    phase: Phase
    victim: str  # or what else was done to it
    ran: bool = True  # False: the victim does not exist in this phase
    state: str = ""  # of the move: succeeded, failed, needs-attention, ...
    took_s: float = 0.0  # from the kill until the move had ended
    ran_on: str = ""  # where copies were seen running, in order: "host1 host2"
    twice: int = 0  # looks that saw two running copies
    where: str = ""  # "host1:running"
    web1_died: bool = False
    client: str = ""  # "gap 0.81 s", "told: ..." or what is wrong
    said: str = ""  # what the command printed as its error
    repair: str = ""  # what was typed after it, and what came of it
    meanwhile: str = ""  # the move's state while what was done to it lasted
    left: list[str] = field(default_factory=list)
    wrong: list[str] = field(default_factory=list)


class KillLab:
    """web1 with its data and its one client, kept or made anew from cell to cell."""

    end_limit_s, clean_limit_s = END_LIMIT_S, CLEAN_LIMIT_S
    client_may_be_lost = False  # if it is told so

    def __init__(self, lab: Lab, fleet: Client, *, image: str = "redis", size_mb: int = 16, mode: str = "auto") -> None:
        """`image` must be in the lab."""
        self._lab, self._fleet, self._image, self._size_mb, self._mode = lab, fleet, image, size_mb, mode
        self._seed = secrets.token_hex(8)
        self._client: RunningClient | None = None
        self._outside: Outside | None = None
        self._clean: dict[str, observe.Snapshot] = {}  # by the host where web1 is
        self._environment = {**os.environ, "MIGRATE_LAB": lab.prefix, "MIGRATE_COORDINATOR": str(lab.socket)}

    def begin(self) -> None:
        """web1 runs on host1 and has moved there and back once; what the hosts then hold is what is clean."""
        self._make()
        self._see_what_is_clean()

    def _see_what_is_clean(self) -> None:
        for target in ("host2", "host1"):
            self._fleet.move(CONTAINER, to=target).result()
            self._settle(target)
            self._clean[target] = observe.snapshot(self._lab.prefix)

    def end(self) -> None:
        self._drop_client()
        self._fleet.remove(CONTAINER, force=True)

    def kill(self, phase: Phase, victim: Victim) -> Outcome:
        """One cell. Afterwards web1 runs on host1 again, under its client."""
        return self._cell(Outcome(phase=phase, victim=victim), partial(self._kill, victim))

    def _cell(self, outcome: Outcome, harm: Callable[[Scene, Outcome], None]) -> Outcome:
        """`harm` is done while the move is held in its phase; it clears `ran` where there is nothing to do it to."""
        container = self._fleet.inspect(CONTAINER)
        scene = Scene(self._lab, container.id, "host1", "host2")
        assert self._client is not None
        self._client.report()
        with Witness(scene) as witness, self._writing(container, outcome):
            killed_at = self._move_and_harm(scene, outcome, harm)
            record = self._wait_for_the_end(outcome)
            outcome.took_s = time.monotonic() - killed_at
            if outcome.ran and record and record.state == "needs-attention":
                self._do_as_told(record, outcome)
            outcome.where = self._where()
            time.sleep(AFTER_S)
        outcome.ran_on, outcome.twice = " ".join(witness.ran_on), witness.both
        if outcome.twice:
            outcome.wrong.append(f"two running copies in {outcome.twice} of {witness.looks} looks")
        self._judge(outcome)
        self._bring_back(outcome)
        return outcome

    @contextmanager
    def _writing(self, container: Container, outcome: Outcome) -> Iterator[None]:
        """In the phases in which memory follows: somebody writes into web1, and looks at each page in the end."""
        if not self._memory_follows(outcome.phase):
            yield
            return
        address = container.address.partition("/")[0]
        with Load(self._lab, address, PORT, size_mb=REST_MB, mb_per_s=REST_MB_PER_S) as load:
            load.resume()
            yield
            try:
                found = load.report("verify")
            except (CheckFailed, OSError) as exc:
                outcome.wrong += [] if self.client_may_be_lost else [f"writer: {exc}"]
            else:
                outcome.wrong += [f"writer: {found['wrong']} of {found['pages']} pages"] if found["wrong"] else []

    def _memory_follows(self, phase: Phase) -> bool:
        return self._mode == POSTCOPY and phase in (Phase.RESTORE, Phase.RESTORED, Phase.RELEASE, Phase.REST)

    # ------------------------------------------------------------ the move and the kill

    def _move_and_harm(self, scene: Scene, outcome: Outcome, harm: Callable[[Scene, Outcome], None]) -> float:
        command = [sys.executable, "-m", "migrate", "move", CONTAINER, "--to", scene.target, "--quiet"]
        if self._memory_follows(outcome.phase):
            command += ["--bandwidth", REST_BANDWIDTH]
        move = subprocess.Popen(
            [*command, "--mode", self._mode],
            env=self._environment,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
        )
        harmed_at = time.monotonic()
        held = scene.hold(outcome.phase, self._step, lambda: move.poll() is not None)
        try:
            if held is None:
                outcome.ran = False
                outcome.wrong.append("the move ended before the phase was reached")
            else:
                harmed_at = time.monotonic()
                harm(scene, outcome)
        finally:
            if held:
                held.let_go()
        try:
            text, _ = move.communicate(timeout=self.end_limit_s)
        except subprocess.TimeoutExpired:
            move.kill()
            text, _ = move.communicate()
            outcome.wrong.append(f"`migrate move` did not end in {self.end_limit_s:.0f} s")
        outcome.said = text.decode().strip()
        return harmed_at

    def _kill(self, victim: Victim, scene: Scene, outcome: Outcome) -> None:
        process = scene.find(victim)
        if process is None:
            outcome.ran = False
            return
        if not processes.send(process, signal.SIGKILL):
            outcome.wrong.append(f"{process} ended by itself before it was killed")
        _wait(lambda: not processes.alive(process.pid, process.start_ticks), 2.0)

    def _step(self) -> str:
        newest = self._fleet.migrations(container=CONTAINER, limit=1)
        return newest[0].step if newest and newest[0].state == "running" else ""

    def _wait_for_the_end(self, outcome: Outcome) -> Migration | None:
        """The newest move, once it is neither running nor waiting."""

        def ended() -> Migration | None:
            try:
                record = self._fleet.migrations(container=CONTAINER, limit=1)[0]
            except MigrateError:
                return None  # the coordinator is not back yet
            outcome.state = record.state
            return None if record.state in ACTIVE else record

        record = _wait(ended, self.end_limit_s)
        if record is None:
            outcome.wrong.append(f"the move is still {outcome.state or 'unknown'} after {self.end_limit_s:.0f} s")
        return record

    def _do_as_told(self, record: Migration, outcome: Outcome) -> None:
        """Type what the hint says, as a user would."""
        found = re.search(r"migrate repair [-\w ]+", record.failure.hint if record.failure else "")
        if not found:
            outcome.wrong.append("needs attention, and no command is named")
            return
        typed = shlex.split(found[0])
        done = subprocess.run(
            [sys.executable, "-m", *typed], env=self._environment, capture_output=True, text=True, timeout=END_LIMIT_S
        )
        self._wait_for_the_end(outcome)
        outcome.repair = f"{' '.join(['migrate repair', *typed[3:]])}: {outcome.state}, status {done.returncode}"

    # ------------------------------------------------------------ what was seen

    def _where(self) -> str:
        """Where the fleet says that web1 is, once both hosts answer again."""

        def reachable() -> bool:
            try:
                return all(host.reachable for host in self._fleet.hosts(facts=True))
            except MigrateError:
                return False

        _wait(reachable, END_LIMIT_S)
        try:
            container = self._fleet.inspect(CONTAINER)
        except MigrateError as exc:
            return f"gone ({exc.message})"
        return f"{container.host}:{container.state}"

    def _judge(self, outcome: Outcome) -> None:
        alive = outcome.where.endswith((":running", ":lost"))
        outcome.web1_died = not alive
        assert self._client is not None
        seen = self._client.report()
        outcome.client = _client_saw(seen)
        lost = seen.problems and self.client_may_be_lost
        if alive:
            outcome.wrong += [] if lost else [f"client: {problem}" for problem in seen.problems]
            if not seen.replies and not lost:
                outcome.wrong.append("client: no answer since the kill")
            assert self._outside is not None
            try:
                found = self._outside.data("verify", self._size_mb, self._seed)
                if found["missing"] or found["wrong"]:
                    outcome.wrong.append(f"data: {found}")
            except CheckFailed as exc:
                outcome.wrong.append(f"data: {exc}")
        elif "told" not in outcome.client:
            outcome.wrong.append("web1 is dead and its client was not told")
        if outcome.ran and outcome.state != "succeeded" and "hint:" not in outcome.said:
            outcome.wrong.append("the command failed without saying what to type next")
        host = outcome.where.partition(":")[0]
        if host in self._clean:
            outcome.left = self._settle(host)
            outcome.wrong += [f"left over: {line}" for line in outcome.left]

    def _settle(self, host: str) -> list[str]:
        """What is left beside web1 on `host`, once that does not get less any more."""
        if host not in self._clean:
            time.sleep(2)
            return []
        left: list[str] = []

        def clean() -> bool:
            left[:] = observe.differences(self._clean[host], observe.snapshot(self._lab.prefix))
            left[:] = [line for line in left if not _HARMLESS.search(line)]
            return not left

        _wait(clean, self.clean_limit_s)
        return left

    # ------------------------------------------------------------ from cell to cell

    def _bring_back(self, outcome: Outcome) -> None:
        if outcome.where == "host2:running":
            try:
                self._fleet.move(CONTAINER, to="host1").result()
                self._settle("host1")
                return
            except MigrateError as exc:
                outcome.wrong.append(f"the move back: {exc.message}")
                outcome.where = ""
        elif outcome.where == "host1:running":
            return
        self._drop_client()
        try:
            self._fleet.remove(CONTAINER, force=True)
        except MigrateError as exc:
            outcome.wrong.append(f"rm --force: {exc.message}")
        self._clean.clear()
        self.begin()

    def _make(self) -> Container:
        wanted = Run(image=self._image, name=CONTAINER, host="host1", argv=REDIS)
        container = self._fleet.run(wanted)
        self._outside = Outside(self._lab, container.address.partition("/")[0], PORT)
        self._outside.wait_for_server()
        self._outside.data("fill", self._size_mb, self._seed)
        self._client = self._outside.client(CLIENT_RATE)
        return container

    def _drop_client(self) -> None:
        if self._client:
            self._client.__exit__(None, None, None)
            self._client = None


def _client_saw(seen: Seen) -> str:
    if seen.problems:
        return f"told: {seen.problems[-1].removeprefix('the connection is lost: ')}"
    return f"gap {seen.longest_gap_s:.2f} s"


# The container's own names and pids differ when it was made anew in a cell before.
_HARMLESS = re.compile(r"descriptors, \d+ before$")


def _wait(what: Callable[[], _T], limit_s: float) -> _T | None:
    deadline = time.monotonic() + limit_s
    while not (value := what()):
        if time.monotonic() > deadline:
            return None
        time.sleep(0.05)
    return value
