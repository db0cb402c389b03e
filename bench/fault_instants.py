"""The instants of a move at which something is done to it: every row of the coordinator's journal, and what happens between two of them.

An instant is entered from outside, exactly: at a row of the journal the coordinator is stopped (SIGSTOP) as soon as the row is in its
database; in between, the process that would end what goes on is stopped. Whoever was stopped goes on after the fault. The product
knows nothing of it.
"""

from __future__ import annotations

import signal
import sqlite3
import time
from collections.abc import Callable
from dataclasses import dataclass
from enum import StrEnum
from pathlib import Path

from bench.fault_scene import LOOK_EVERY_S, Scene, Victim
from migrate.lab import processes
from migrate.lab.layout import Lab


class Instant(StrEnum):
    """In the order of a move. The value is the row's step, where it is a row."""

    # Rows of the journal: the step is begun, nothing has come of it yet.
    PRECHECK = "precheck"
    RESERVE = "reserve"
    TUNNEL = "tunnel"
    LAYERS = "layers"
    PRECOPY = "precopy"
    ROUNDS = "rounds"  # the sender is stopped while the journal says precopy
    FREEZE = "freeze"  # a row
    DUMP = "dump"  # CRIU is stopped while it traces web1's init
    SEND = "send"  # the sender is stopped when the tasks are frozen in the kernel
    RESTORE = "restore"  # a row
    RESTORING = "restoring"  # CRIU on the target is stopped when the first task exists there
    RESTORED = "restored"  # CRIU on the target is stopped when it holds all tasks, about to let them go
    PIVOT = "pivot"  # a row: the target owns web1, nobody has been told
    RESUME = "resume"
    # Past the pivot: the source's agent is stopped while the target restores, until web1 runs there.
    THAWED = "thawed"
    REST = "rest"  # a row
    FOLLOWING = "following"  # post-copy only: memory follows, and web1 runs on the target without it
    RELEASE = "release"  # a row
    UNDO = "undo"  # a row: it is decided to go back. Reached by a move that fails, after another fault


ROWS = {
    Instant.PRECHECK: ("precheck", "started"),
    Instant.RESERVE: ("reserve", "started"),
    Instant.TUNNEL: ("tunnel", "started"),
    Instant.LAYERS: ("layers", "started"),
    Instant.PRECOPY: ("precopy", "started"),
    Instant.FREEZE: ("freeze", "started"),
    Instant.RESTORE: ("restore", "started"),
    Instant.PIVOT: ("saga", "committed"),
    Instant.RESUME: ("resume", "started"),
    Instant.REST: ("rest", "started"),
    Instant.RELEASE: ("release", "started"),
    Instant.UNDO: ("saga", "aborting"),
}


def instants(mode: str) -> tuple[Instant, ...]:
    """Those that a move of this mode reaches by itself, in order."""
    missing = {Instant.UNDO}
    if mode == "stop-and-copy":
        missing |= {Instant.PRECOPY, Instant.ROUNDS}
    if mode != "postcopy":
        missing.add(Instant.FOLLOWING)
    return tuple(each for each in Instant if each not in missing)


def database(lab: Lab) -> Path:
    return lab.node_dir("controller") / "var/coordinator.db"


class JournalReader:
    """The rows that come after this was made. Opened for each look: the file may be another one since."""

    def __init__(self, lab: Lab) -> None:
        self._path = database(lab)
        self._from = self._seq()

    def _seq(self) -> int:
        with sqlite3.connect(f"file:{self._path}?mode=ro", uri=True, timeout=5) as db:
            return int(db.execute("select coalesce(max(seq), 0) from journal").fetchone()[0])

    def rows(self) -> list[tuple[str, str]]:
        """(step, event), in order. None yet where the file cannot be read this instant."""
        try:
            db = sqlite3.connect(f"file:{self._path}?mode=ro", uri=True, timeout=1)
        except sqlite3.Error:
            return []
        try:
            query = "select step, event from journal where seq > ? order by seq"
            return [(str(step), str(event)) for step, event in db.execute(query, (self._from,))]
        except sqlite3.Error:
            return []
        finally:
            db.close()

    def migration_id(self) -> str:
        """Of the first row; "": there is none."""
        with sqlite3.connect(f"file:{self._path}?mode=ro", uri=True, timeout=5) as db:
            row = db.execute("select saga from journal where seq > ? order by seq", (self._from,)).fetchone()
        return str(row[0]) if row else ""

    def step(self) -> str:
        """The step that was begun last."""
        return next((step for step, event in reversed(self.rows()) if event == "started"), "")


@dataclass(frozen=True)
class Held:
    """A stopped process."""

    process: processes.Process

    def let_go(self) -> None:
        """It may be the one that was killed."""
        processes.send(self.process, signal.SIGCONT)


def hold(scene: Scene, instant: Instant, journal: JournalReader, over: Callable[[], bool]) -> Held | None:
    """Wait for the instant and stop who would end it. None: the move ended first."""

    def who() -> int:
        if row := ROWS.get(instant):
            return scene.program("controller", "coordinator") if row in journal.rows() else 0
        match instant:
            case Instant.ROUNDS:
                return scene.pid_of(Victim.SENDER) if journal.step() == "precopy" else 0
            case Instant.DUMP:
                return scene.criu(scene.source) if scene.traced(scene.source) else 0
            case Instant.SEND:  # rounds of precopy freeze the tasks too, for an instant
                frozen = scene.group(scene.source).frozen and journal.step() == "freeze"
                return scene.pid_of(Victim.SENDER) if frozen else 0
            case Instant.RESTORING:
                return scene.criu(scene.target) if scene.group(scene.target).populated else 0
            case Instant.RESTORED:
                return scene.criu(scene.target) if scene.traced(scene.target) else 0
            case Instant.THAWED:
                return scene.program(scene.source, "agent") if scene.group(scene.target).populated else 0
            case Instant.FOLLOWING:
                return scene.pid_of(Victim.SENDER) if scene.runs_on_target() and journal.step() == "rest" else 0
        raise ValueError(instant)

    while not (pid := who()):
        if over():
            return None
        time.sleep(LOOK_EVERY_S)
    process = processes.read(pid)
    if process is None or not processes.send(process, signal.SIGSTOP):
        return None
    held = Held(process)
    while instant is Instant.THAWED and not scene.runs_on_target():
        if over():
            held.let_go()
            return None
        time.sleep(LOOK_EVERY_S)
    return held
