"""One cell of the table of crashes: a verb under way, kill -9 of one process at one instant, and what there is afterwards."""

from __future__ import annotations

import signal
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from enum import StrEnum
from pathlib import Path

from bench.crash_look import Look, database
from bench.crash_verbs import IMAGE, Target, Verb
from migrate.client import Client
from migrate.errors import MigrateError
from migrate.lab import nodes, processes
from migrate.lab.layout import Lab
from migrate.records import Container, Run

BACK_LIMIT_S = 40.0  # the lab waits up to 5 s before it starts an agent again
SETTLE_LIMIT_S = 8.0
ACT_LIMIT_S = 60.0
LOOK_S = 0.0005
APPEAR_LIMIT_S = 1.0
DEATH_S = 0.5
_COUNTER = "i=0; while :; do i=$((i+1)); echo $i > /count; sleep 0.02; done"


class Victim(StrEnum):
    AGENT = "agent"
    MONITOR = "monitor"
    INIT = "init"  # stage or init, the container's first process
    ZYGOTE = "zygote"
    HELPER = "exec helper"
    COORDINATOR = "coordinator"


# Whom each verb needs. An instant of a victim that the verb itself makes counts from when it is there.
VICTIMS: dict[str, tuple[Victim, ...]] = {
    "create": (Victim.AGENT, Victim.COORDINATOR),
    "start": tuple(set(Victim) - {Victim.HELPER}),
    "exec": (Victim.AGENT, Victim.MONITOR, Victim.INIT, Victim.HELPER, Victim.COORDINATOR),
    "stop": (Victim.AGENT, Victim.MONITOR, Victim.INIT, Victim.COORDINATOR),
    "rm": (Victim.AGENT, Victim.COORDINATOR),
    "rm -f": (Victim.AGENT, Victim.MONITOR, Victim.COORDINATOR),
    "pause": (Victim.AGENT, Victim.MONITOR, Victim.COORDINATOR),
    "unpause": (Victim.AGENT, Victim.MONITOR, Victim.COORDINATOR),
    "update": (Victim.AGENT, Victim.MONITOR, Victim.COORDINATOR),
    "run --rm": tuple(set(Victim) - {Victim.HELPER}),
}


@dataclass(kw_only=True)
class Outcome:
    """What was seen of one kill."""

    verb: str
    victim: Victim
    instant_s: float
    killed: bool = False  # False: there was no such process at that instant
    state: str = ""  # of the container afterwards; "none"
    said: str = ""  # what the caller was told; "" = that it went well
    wrong: list[str] = field(default_factory=list)


class CrashHost:
    """One host of the lab, with a container that stays; cells one after the other."""

    def __init__(self, lab: Lab, fleet: Client, host: str) -> None:
        self._lab, self._fleet, self._host = lab, fleet, host
        self.look = Look(lab, host)
        self._number = int(host.removeprefix("host"))
        self._count = 0
        self.stays = fleet.run(
            Run(image=IMAGE, name=f"stays{self._number}", host=host, argv=("busybox", "sh", "-c", _COUNTER))
        )

    def measure(self, verb: Verb) -> float:
        """Seconds that the verb takes when nobody dies."""
        target = self._target()
        verb.prepare(target)
        begun = time.monotonic()
        verb.act(target)
        took_s = time.monotonic() - begun
        target.gone()
        return took_s

    def kill(self, verb: Verb, victim: Victim, instant_s: float) -> Outcome:
        """`instant_s` after the verb's begin, or after the victim came to be."""
        outcome = Outcome(verb=verb.name, victim=victim, instant_s=instant_s)
        target = self._target()
        try:
            verb.prepare(target)
            before = self._counter()
            self._act_and_kill(verb, target, outcome)
            self._wait_until_back(outcome)
            if victim is Victim.INIT:
                time.sleep(DEATH_S)  # of the container: by and by
            outcome.state = target.state() or "none"
            allowed = verb.after + (("exited",) if victim in (Victim.INIT, Victim.MONITOR) else ())
            if outcome.killed and outcome.state.replace("none", "") not in allowed:
                outcome.wrong.append(f"it is {outcome.state} after the crash")
            outcome.wrong += self._settled()
            self._unharmed(before, outcome)
            self._again(verb, target, outcome)
        except MigrateError as exc:
            outcome.wrong.append(f"{type(exc).__name__}: {exc} (hint: {exc.hint})")
        self._clear(target, outcome)
        return outcome

    # ------------------------------------------------------------ the kill

    def _act_and_kill(self, verb: Verb, target: Target, outcome: Outcome) -> None:
        said: list[MigrateError] = []

        def act() -> None:
            try:
                verb.act(target)
            except MigrateError as exc:
                said.append(exc)

        find = self._finder(target, outcome.victim)
        there = find()
        acting = threading.Thread(target=act)
        begun = time.monotonic()
        acting.start()
        while not there and time.monotonic() - begun < APPEAR_LIMIT_S and acting.is_alive():
            there = find()
            begun = time.monotonic() if there else begun
        while time.monotonic() - begun < outcome.instant_s:
            time.sleep(LOOK_S)
        process = processes.read(find() or there) if there else None
        outcome.killed = process is not None and processes.send(process, signal.SIGKILL)
        acting.join(ACT_LIMIT_S)
        if acting.is_alive():
            outcome.wrong.append(f"the call did not end in {ACT_LIMIT_S:.0f} s")
            return
        for exc in said:
            outcome.said = f"{exc.code}: {exc} (hint: {exc.hint})"
            if not exc.hint:
                outcome.wrong.append(f"an error without a hint: {exc.code}: {exc}")

    def _finder(self, target: Target, victim: Victim) -> Callable[[], int]:
        look = self.look
        match victim:
            case Victim.AGENT:
                return look.agent
            case Victim.ZYGOTE:
                return look.zygote
            case Victim.HELPER:
                return look.helper
            case Victim.COORDINATOR:
                return self._coordinator
        known = {path.name for path in (look.run_dir / "containers").glob("*")}
        mine = [self._fleet.inspect(target.name).id] if target.state() else []

        def monitor() -> int:
            for container_id in mine or {path.name for path in (look.run_dir / "containers").glob("*")} - known:
                if pid := look.monitor(container_id):
                    return pid
            return 0

        return monitor if victim is Victim.MONITOR else lambda: look.init_of(pid) if (pid := monitor()) else 0

    def _coordinator(self) -> int:
        return next(
            each.pid for each in nodes.states(self._lab.state_dir)["controller"].programs if each.name == "coordinator"
        )

    def _wait_until_back(self, outcome: Outcome) -> None:
        deadline = time.monotonic() + BACK_LIMIT_S
        while time.monotonic() < deadline:
            try:
                if self.look.agent() and self._fleet.inspect(self.stays.id).state in ("running", "exited", "lost"):
                    return
            except MigrateError:
                pass  # the coordinator is not back yet
            time.sleep(0.05)
        outcome.wrong.append(f"the host does not answer again within {BACK_LIMIT_S:.0f} s")

    # ------------------------------------------------------------ afterwards

    def _listed(self) -> list[Container]:
        return self._fleet.containers(all=True, host=self._host)

    def _settled(self) -> list[str]:
        """What is wrong and stays so: namespaces, monitors and links go a little after what ended them."""
        deadline = time.monotonic() + SETTLE_LIMIT_S
        while (wrong := self.look.wrong(self._listed())) and time.monotonic() < deadline:
            time.sleep(0.1)
        return wrong

    def _counter(self) -> int:
        """What the container that stays has counted; while it writes, the file is empty for an instant."""
        path = self.look.state_dir / "containers" / self.stays.id / "layer/upper/count"
        while not (text := path.read_text().strip()):
            time.sleep(LOOK_S)
        return int(text)

    def _unharmed(self, before: int, outcome: Outcome) -> None:
        now = self._fleet.inspect(self.stays.id)
        if (now.state, now.pid) != ("running", self.stays.pid):
            outcome.wrong.append(f"{now.name} is {now.state} with pid {now.pid}, was {self.stays.pid}")
            return
        later = self._counter()
        deadline = time.monotonic() + SETTLE_LIMIT_S
        while self._counter() <= later and time.monotonic() < deadline:
            time.sleep(0.02)
        if not before <= later < self._counter():
            outcome.wrong.append(f"the counter of {now.name} stands at {later}, was {before} before")

    def _again(self, verb: Verb, target: Target, outcome: Outcome) -> None:
        try:
            verb.again(target)
        except MigrateError as exc:
            outcome.wrong.append(f"{verb.name} again: {exc.code}: {exc} (hint: {exc.hint})")

    def _clear(self, target: Target, outcome: Outcome) -> None:
        try:
            target.gone()
            outcome.wrong += [f"in the end: {line}" for line in self._settled()]
            outcome.wrong += database(self._lab, self._fleet.containers(all=True)) if self._lab.hosts == 1 else []
        except MigrateError as exc:
            outcome.wrong.append(f"rm --force: {exc.code}: {exc}")

    def _target(self) -> Target:
        self._count += 1
        return Target(
            fleet=self._fleet, name=f"c{self._number}-{self._count}", host=self._host, port=18000 + self._number
        )


def log_end(lab: Lab, host: str, lines: int = 12) -> list[str]:
    return Path(lab.log_dir(host) / "agent.log").read_text(errors="replace").splitlines()[-lines:]
