"""One cell of the matrix of faults: web1 moves, something is done to it in the middle, and everything that can be seen afterwards.

A move through the command line, the faults from outside, the lab's supervisors start agents and coordinator again. Then, when the
move has ended: where does web1 run, was it ever twice, what did its client see, what is left, what was the user told.
"""

from __future__ import annotations

import io
import os
import re
import secrets
import shlex
import subprocess
import sys
import tarfile
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import TypeVar

from bench import fault_tick
from bench.fault_harm import Field, NotThere, copy_database
from bench.fault_instants import Instant, JournalReader, hold
from bench.fault_scene import Scene
from bench.fault_table import AT_END, Injury
from bench.fault_watch import INSIDE, TICK_FILE, TICK_PORT, Observer, Watch, ticks_on_disk
from bench.load import Load
from migrate.client import Client
from migrate.coordinator.steps import POSTCOPY
from migrate.errors import MigrateError
from migrate.lab import images, observe
from migrate.lab.demo_run import CheckFailed, Outside, RunningClient, Seen
from migrate.lab.layout import Lab
from migrate.records import Container, Migration, Run

IMAGE = "faults"
PORT = 6379
_REDIS = "redis-server --bind 0.0.0.0 --protected-mode no --save '' --dir /tmp"
ACTIVE = ("running", "waiting")
END_LIMIT_S = 300.0
REPAIR_LIMIT_S = 120.0
CLEAN_LIMIT_S = 20.0
SSHD_LIMIT_S = 80.0  # sshd ends sessions whose other end was cut off after a minute (agent/setup/sshd.py)
AFTER_S = 0.5  # how long the client goes on before it is asked
CLIENT_RATE = 200.0
# So that memory still follows when web1 runs on the target: written after the round ahead, and sent slowly.
REST_BANDWIDTH, REST_MB, REST_MB_PER_S = "4M", 12.0, 40.0
_T = TypeVar("_T")


@dataclass(kw_only=True)
class Outcome:
    """What was seen of one cell."""

    mode: str
    injuries: tuple[Injury, ...]
    done: list[str] = field(default_factory=list)  # the injuries that were done
    not_done: list[str] = field(default_factory=list)  # the others, and why
    state: str = ""  # of the move: succeeded, failed, needs-attention, ...
    took_s: float = 0.0  # from the first injury until the move had ended
    ran_on: list[str] = field(default_factory=list)  # where copies were seen running, in order
    where: str = ""  # "host1:running"
    client: str = ""  # "gap 0.81 s", "told: ..." or what is wrong
    said: str = ""  # what the command printed as its error
    repair: str = ""  # what was typed after it, and what came of it
    meanwhile: str = ""  # the move's state when a fault that lasts was taken back
    notes: list[str] = field(default_factory=list)
    wrong: list[str] = field(default_factory=list)

    @property
    def name(self) -> str:
        return " + ".join(str(each) for each in self.injuries)

    @property
    def verdict(self) -> str:
        """In a word."""
        if self.wrong:
            return "WRONG"
        if not self.done:
            return "not there"
        words = {"succeeded": "moved", "failed": "undone", "": "unknown move"}
        word = words.get(self.state, self.state)
        return f"repaired, {word}" if self.repair else word


class FaultLab:
    """web1 with its data, its witness and its one client, kept or made anew from cell to cell."""

    def __init__(self, lab: Lab, fleet: Client, *, size_mb: int = 16) -> None:
        self._lab, self._fleet, self._size_mb = lab, fleet, size_mb
        self._seed = secrets.token_hex(8)
        self._client: RunningClient | None = None
        self._outside: Outside | None = None
        self._observer, self._imported = Observer(lab), False
        self._number = 0  # of the container: one that cannot be removed keeps its name
        self._clean: dict[str, observe.Snapshot] = {}  # by the host where web1 is
        self._environment = {**os.environ, "MIGRATE_LAB": lab.prefix, "MIGRATE_COORDINATOR": str(lab.socket)}
        self._scratch = lab.node_dir("client") / "faults"
        self._scratch.mkdir(parents=True, exist_ok=True)

    @property
    def _name(self) -> str:
        return f"web{self._number}"

    def begin(self) -> None:
        """The container runs on host1 and has moved there and back once; what the hosts then hold is what is clean."""
        if not self._imported:
            self._fleet.import_image(_image(), IMAGE, host="host1")
            self._imported = True
        self._make()
        for target in ("host2", "host1"):
            self._fleet.move(self._name, to=target).result()
            self._settle(target, CLEAN_LIMIT_S)
            self._clean[target] = observe.snapshot(self._lab.prefix)

    def end(self) -> None:
        self._drop_client()
        self._observer.close()
        self._fleet.remove(self._name, force=True)

    def injure(self, injuries: Sequence[Injury], *, mode: str = "auto") -> Outcome:
        """One cell: a move to the other host, and this in it. Afterwards web1 runs on one of both, under its client."""
        outcome = Outcome(mode=mode, injuries=tuple(injuries))
        container = self._fleet.inspect(self._name)
        scene = Scene(self._lab, container.id, container.host, "host2" if container.host == "host1" else "host1")
        old = self._scratch / "before.db"
        old.unlink(missing_ok=True)
        copy_database(self._lab, old)
        at = Field(scene=scene, fleet=self._fleet, old=old)
        assert self._client is not None
        self._client.report()
        self._observer.report()
        with Watch(scene) as watch, self._writing(container, outcome), ExitStack() as healing:
            begun = self._move_and_injure(at, outcome, healing)
            record = self._wait_for_the_end(at, outcome)
            outcome.took_s = time.monotonic() - begun
            healing.close()  # an operator looks at links and disks first
            self._where()
            for thread in at.threads:
                thread.join(END_LIMIT_S)
            if record and record.state == "needs-attention":
                self._do_as_told(at, record.failure.hint if record.failure else "", outcome)
            elif at.migration_id and not outcome.state:  # the database does not know it
                self._do_as_told(at, outcome.said, outcome)
            outcome.where = self._where()
            time.sleep(AFTER_S)
        outcome.ran_on = watch.ran_on
        if scene.target in watch.ran_on[:-1] and watch.ran_on[-1] == scene.source:
            outcome.notes.append(f"a copy ran on {scene.target}, off the network, before it was ended")
        outcome.notes += at.notes
        outcome.wrong += at.wrong
        if watch.both:
            outcome.wrong.append(f"two running copies in {watch.both} of {watch.looks} looks")
        self._judge(outcome)
        self._go_on(outcome)
        return outcome

    @contextmanager
    def _writing(self, container: Container, outcome: Outcome) -> Iterator[None]:
        """Where memory follows: somebody writes into it, and looks at each page in the end."""
        if not _memory_follows(outcome):
            yield
            return
        address = container.address.partition("/")[0]
        with Load(self._lab, address, PORT, size_mb=REST_MB, mb_per_s=REST_MB_PER_S) as load:
            load.resume()
            yield
            try:
                found = load.report("verify")
            except (CheckFailed, OSError) as exc:
                outcome.wrong += [] if _client_may_be_told(outcome) else [f"writer: {exc}"]
            else:
                outcome.wrong += [f"writer: {found['wrong']} of {found['pages']} pages"] if found["wrong"] else []

    # ------------------------------------------------------------ the move and what is done to it

    def _move_and_injure(self, at: Field, outcome: Outcome, healing: ExitStack) -> float:
        """When it was first hurt."""
        journal = JournalReader(self._lab)
        command = [sys.executable, "-m", "migrate", "move", self._name, "--to", at.scene.target, "--quiet"]
        if _memory_follows(outcome):
            command += ["--bandwidth", REST_BANDWIDTH]
        move = subprocess.Popen(
            [*command, "--mode", outcome.mode],
            env=self._environment,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
        )
        begun = 0.0
        for injury in outcome.injuries:
            held = hold(at.scene, injury.instant, journal, lambda: move.poll() is not None)
            if held is None:
                outcome.not_done.append(f"{injury}: the move had ended")
                continue
            try:
                at.migration_id = at.migration_id or journal.migration_id()
                begun = begun or time.monotonic()
                self._injure(injury, at, outcome, healing)
            finally:
                held.let_go()
        try:
            text, _ = move.communicate(timeout=END_LIMIT_S)
        except subprocess.TimeoutExpired:
            move.kill()
            text, _ = move.communicate()
            outcome.wrong.append(f"`migrate move` did not end in {END_LIMIT_S:.0f} s")
        at.migration_id = at.migration_id or journal.migration_id()
        outcome.said = text.decode().strip()
        return begun or time.monotonic()

    def _injure(self, injury: Injury, at: Field, outcome: Outcome, healing: ExitStack) -> None:
        try:
            heal = injury.fault.begin(at)
        except NotThere as exc:
            outcome.not_done.append(f"{injury}: {exc}")
            return
        outcome.done.append(str(injury))
        if injury.fault.lasts_s == AT_END:
            healing.callback(heal)
            return

        def later() -> None:
            time.sleep(injury.fault.lasts_s)
            outcome.meanwhile = self._state(at)
            heal()

        if injury.fault.lasts_s:
            thread = threading.Thread(target=later, daemon=True)
            thread.start()
            healing.callback(thread.join)

    def _state(self, at: Field) -> str:
        try:
            record = self._fleet.migration(at.migration_id)
        except MigrateError as exc:
            return exc.message
        return f"{record.state}: {record.step}" if record.state in ACTIVE else record.state

    def _wait_for_the_end(self, at: Field, outcome: Outcome) -> Migration | None:
        """The move, once it is neither running nor waiting. None: the coordinator does not know it, or it does not end."""
        lost = False

        def ended() -> bool:
            nonlocal lost
            try:
                outcome.state = self._fleet.migration(at.migration_id).state
            except MigrateError as exc:
                lost = exc.code.endswith("not_found")  # else the coordinator is not back yet
                return lost
            return outcome.state not in ACTIVE

        if not at.migration_id:
            return None
        if not _wait(ended, END_LIMIT_S):
            outcome.wrong.append(f"the move is still {outcome.state or 'unknown'} after {END_LIMIT_S:.0f} s")
            return None
        if lost:
            outcome.state = ""
            return None
        return self._fleet.migration(at.migration_id)

    def _do_as_told(self, at: Field, hint: str, outcome: Outcome) -> None:
        """Type what it says, as a user would."""
        found = re.search(r"migrate repair [-\w ]+", hint)
        if not found:
            outcome.wrong.append("it needs attention, and no command is named")
            return
        typed = shlex.split(found[0])
        done = subprocess.run(
            [sys.executable, "-m", *typed],
            env=self._environment,
            capture_output=True,
            text=True,
            timeout=REPAIR_LIMIT_S,
        )
        self._wait_for_the_end(at, outcome)
        outcome.repair = f"{' '.join(['migrate repair', *typed[3:]])}: {outcome.state}, status {done.returncode}"

    # ------------------------------------------------------------ what was seen

    def _where(self) -> str:
        """Where the fleet says that web1 is, once both hosts answer again."""

        def reachable() -> bool:
            try:
                return all(host.reachable for host in self._fleet.hosts(facts=True))
            except MigrateError:
                return False

        _wait(reachable, REPAIR_LIMIT_S)
        try:
            container = self._fleet.inspect(self._name)
        except MigrateError as exc:
            return f"gone ({exc.message})"
        return f"{container.host}:{container.state}"

    def _judge(self, outcome: Outcome) -> None:
        alive = outcome.where.endswith((":running", ":lost"))
        assert self._client is not None
        seen = self._client.report()
        outcome.client = _client_saw(seen)
        lost = seen.problems and _client_may_be_told(outcome)
        heard = self._observer.report()
        outcome.wrong += [f"witness: {problem}" for problem in heard["problems"]]
        if alive:
            outcome.wrong += [] if lost else [f"client: {problem}" for problem in seen.problems]
            if not seen.replies and not lost:
                outcome.wrong.append("client: no answer since the fault")
            host = outcome.where.partition(":")[0]
            outcome.wrong += ticks_on_disk(self._upper(host), int(heard["last"]))
            outcome.wrong += self._data()
        else:
            outcome.wrong.append(f"web1 is {outcome.where}")
        if outcome.done and outcome.state not in ("succeeded", "cancelled") and "hint:" not in outcome.said:
            outcome.wrong.append("the command failed without saying what to type next")
        host = outcome.where.partition(":")[0]
        if host in self._clean:
            cut = any(each.fault.kind == "cut" for each in outcome.injuries)
            left = self._settle(host, SSHD_LIMIT_S if cut else CLEAN_LIMIT_S)
            outcome.wrong += [f"left over: {line}" for line in left]

    def _upper(self, host: str) -> Path:
        container = self._fleet.inspect(self._name)
        return self._lab.node_dir(host) / "var/containers" / container.id / "layer/upper"

    def _data(self) -> list[str]:
        assert self._outside is not None
        try:
            found = self._outside.data("verify", self._size_mb, self._seed)
        except CheckFailed as exc:
            return [f"data: {exc}"]
        return [f"data: {found}"] if found["missing"] or found["wrong"] else []

    def _settle(self, host: str, limit_s: float) -> list[str]:
        """What is left beside web1 on `host`, once that does not get less any more."""
        if host not in self._clean:
            time.sleep(2)
            return []
        left: list[str] = []

        def clean() -> bool:
            left[:] = observe.differences(self._clean[host], observe.snapshot(self._lab.prefix))
            left[:] = [line for line in left if not _HARMLESS.search(line)]
            return not left

        _wait(clean, limit_s)
        return left

    # ------------------------------------------------------------ from cell to cell

    def _go_on(self, outcome: Outcome) -> None:
        """web1 stays where it is if all is well with it; else it is made anew."""
        if not outcome.wrong and outcome.where.endswith(":running"):
            assert self._client is not None
            if "told" in outcome.client:
                self._drop_client()
                assert self._outside is not None
                self._client = self._outside.client(CLIENT_RATE)
            return
        self._drop_client()
        try:
            self._fleet.remove(self._name, force=True)
        except MigrateError as exc:
            outcome.wrong.append(f"rm --force: {exc.message}")
        self._clean.clear()
        self.begin()

    def _make(self) -> Container:
        observer = self._lab.node("client").address
        tick = f"python3 {INSIDE} tick {observer} {TICK_PORT} /{TICK_FILE}"
        argv = ("/bin/sh", "-c", f"{tick} & exec {_REDIS}")
        self._number += 1
        container = self._fleet.run(Run(image=IMAGE, name=self._name, host="host1", argv=argv))
        self._outside = Outside(self._lab, container.address.partition("/")[0], PORT)
        self._outside.wait_for_server()
        self._outside.data("fill", self._size_mb, self._seed)
        self._client = self._outside.client(CLIENT_RATE)
        return container

    def _drop_client(self) -> None:
        if self._client:
            self._client.__exit__(None, None, None)
            self._client = None


def _client_may_be_told(outcome: Outcome) -> bool:
    return any(each.fault.client_may_be_told for each in outcome.injuries)


def _memory_follows(outcome: Outcome) -> bool:
    """In the instants that are asked for."""
    order = list(Instant)
    follows = order[order.index(Instant.RESTORE) : order.index(Instant.UNDO)]
    return outcome.mode == POSTCOPY and any(each.instant in follows for each in outcome.injuries)


def _image() -> io.BytesIO:
    """Python, Redis, and the witness."""
    image = io.BytesIO(images.python_rootfs().read_bytes())
    with tarfile.open(fileobj=image, mode="a") as tar:
        names = set(tar.getnames())
        with tarfile.open(images.redis_rootfs()) as redis:
            for member in redis:
                if member.name not in names:
                    tar.addfile(member, redis.extractfile(member) if member.isreg() else None)
        tar.add(fault_tick.__file__, INSIDE.lstrip("/"))
    image.seek(0)
    return image


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
