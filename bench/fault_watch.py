"""Who looks at web1 while something is done to its move: at the kernel's cgroups of both hosts, and at what it sends out of itself."""

from __future__ import annotations

import json
import subprocess
import sys
import threading
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from bench import fault_tick
from bench.fault_scene import LOOK_EVERY_S, Scene
from migrate.lab import nodes, processes
from migrate.lab.layout import Lab

TICK_PORT = 9053
TICK_FILE = "srv/ticks"
INSIDE = "/opt/fault_tick.py"


@dataclass
class Watch:
    """Looks at both hosts all the time: which of them runs web1. A copy runs when its cgroup has tasks, is not frozen, and no
    CRIU is at work on it.
    """

    scene: Scene
    looks: int = 0
    both: int = 0  # looks that saw two running copies: must stay 0
    ran_on: list[str] = field(default_factory=list)  # in order: changes only
    _stop: threading.Event = field(default_factory=threading.Event)
    _criu: dict[str, processes.Process] = field(default_factory=dict)
    _was_frozen: set[str] = field(default_factory=set)

    def __enter__(self) -> Watch:
        self._thread = threading.Thread(target=self._look, daemon=True)
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._stop.set()
        self._thread.join()

    def _look(self) -> None:
        hosts = (self.scene.source, self.scene.target)
        while not self._stop.wait(LOOK_EVERY_S):
            running = [host for host in hosts if self._runs(host)]
            self.looks += 1
            if len(running) == 2:
                self.both += 1
            seen = "+".join(running)
            if seen and (not self.ran_on or self.ran_on[-1] != seen):
                self.ran_on.append(seen)

    def _runs(self, host: str) -> bool:
        group = self.scene.group(host)
        if group.held and (group.frozen or host in self._was_frozen):
            self._was_frozen.add(host)
            return False
        self._was_frozen.discard(host)
        if not group.populated or group.frozen or self.scene.traced(host):
            return False
        if pid := self.scene.criu(host):
            process = processes.read(pid)
            if process:
                self._criu[host] = process  # also after its monitor's death
        known = self._criu.get(host)
        at_work = known is not None and processes.alive(known.pid, known.start_ticks)
        after = self.scene.group(host)  # it may have been frozen since
        return not at_work and after.populated and not after.held


class Observer:
    """Outside, in the client's namespace: hears what the witness in web1 sends (fault_tick.py)."""

    def __init__(self, lab: Lab) -> None:
        program = Path(fault_tick.__file__)
        address = lab.node("client").address
        command = nodes.command(lab, "client", [sys.executable, str(program), "hear", address, str(TICK_PORT)])
        self._process = subprocess.Popen(
            command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, bufsize=1, start_new_session=True
        )
        self._line()

    def report(self) -> dict[str, Any]:
        """Since the last report; see fault_tick.Heard.report."""
        assert self._process.stdin is not None
        self._process.stdin.write("\n")
        found: dict[str, Any] = json.loads(self._line())
        return found

    def _line(self) -> str:
        assert self._process.stdout is not None
        if not (line := self._process.stdout.readline()):
            raise OSError(f"the observer is gone, status {self._process.wait()}")
        return line

    def close(self) -> None:
        self._process.kill()
        self._process.communicate()


def ticks_on_disk(upper: Path, heard: int) -> list[str]:
    """What is wrong with the file that web1 appends to: a number is missing or there twice, or was heard outside and is not there."""
    try:
        text = (upper / TICK_FILE).read_bytes()
    except OSError as exc:
        return [f"the file is gone: {exc}"]
    numbers = text[: text.rfind(b"\n") + 1].split()
    for index, number in enumerate(numbers, 1):
        if number != b"%d" % index:
            return [f"the file's line {index} of {len(numbers)} is {number[:40]!r}"]
    return [f"number {heard} was heard outside, the file ends at {len(numbers)}"] if heard > len(numbers) else []
