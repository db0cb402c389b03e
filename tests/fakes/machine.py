"""A machine in memory that somebody can be logged in to: answers the scripts of migrate.join as a real one would.

Keeps what is on it: whole releases, halves, whether it is set up; `fail` maps a step ("unpack", "release", "doctor", "setup", "purge")
to the Ran that it ends with, once.
"""

from __future__ import annotations

import json
import platform
import re
import time
from pathlib import Path
from typing import Any

from migrate.errors import Unreachable
from migrate.tunnel.operator import Login
from migrate.tunnel.remote import Ran

KEY = "ssh-ed25519 AAAAC3NzaC1lZDI1NTE5AAAAIGW6aL3/pOQXbW32g+fDVPFdv9Wz5CgR/ZudyZNOwJyi"
OTHER_KEY = "ssh-ed25519 AAAAC3NzaC1lZDI1NTE5AAAAINztveIrsyZ8i+ruNFHYTbJxovbFMlpCvBmqPlvpZzpk"


class FakeMachine:
    """Both a migrate.tunnel.remote.Remote and the migrate.join.adding.Door that leads to it."""

    def __init__(self, where: str = "root@10.0.0.2") -> None:
        self.where, self.host_key = where, KEY
        self.reachable, self.python3 = True, True
        self.releases: list[str] = []
        self.halves: list[str] = []
        self.host = ""
        self.trusted: list[str] = []
        self.agent = ""  # the release that it runs from
        self.facts: dict[str, Any] = {}  # of the probe, that are not the usual ones
        self.lacking: list[str] = []
        self.fail: dict[str, Ran] = {}
        self.steps: list[str] = []

    # ------------------------------------------------------------ Door

    def show_host_key(self, login: Login) -> str:
        if not self.reachable:
            raise Unreachable(f"{login.address} port {login.port} cannot be reached: no route")
        return self.host_key

    def log_in(self, login: Login, *, host_key: str, identity: Path | None) -> FakeMachine:
        assert host_key == self.host_key
        return self

    # ------------------------------------------------------------ Remote

    def run(self, script: str, *, stdin: bytes | Path = b"", timeout_s: float = 120.0) -> Ran:
        if script.startswith("command -v python3"):
            return Ran(status=0 if self.python3 else 127, out="", err="")
        if script.startswith("python3 - "):
            return Ran(status=0, out=json.dumps(self._probe()) + "\n", err="")
        step = self._step(script)
        self.steps.append(step)
        if step in self.fail:
            return self.fail.pop(step)
        return getattr(self, f"_{step}")(script, stdin)

    def close(self) -> None:
        pass

    def _step(self, script: str) -> str:
        words = {
            "rm -rf --": "clear",
            "tar -xzf": "unpack",
            "agent.setup.release": "release",
            "agent.setup.doctor": "doctor",
        }
        words |= {"agent.setup.host": "setup", "agent.setup.purge": "purge"}
        return next(step for word, step in words.items() if word in script)

    def _probe(self) -> dict[str, Any]:
        usual = {
            "uid": 0, "python": "3.11", "kernel": "6.12.48+deb13", "machine": platform.machine(), "systemd": True,
            "unix_s": time.time(), "free_bytes": 10 << 30, "missing": [], "host": self.host, "releases": self.releases,
            "halves": self.halves, "current": "", "card": {"name": "eth0", "bridge": False},
        }  # fmt: skip
        return {**usual, **self.facts}

    def _clear(self, script: str, stdin: bytes | Path) -> Ran:
        self.halves.remove(script.rpartition("/")[2].strip("'"))
        return Ran(status=0, out="", err="")

    def _unpack(self, script: str, stdin: bytes | Path) -> Ran:
        assert isinstance(stdin, Path) and stdin.is_file()
        name = re.search(r"releases/(\.\S+) ", script)
        assert name
        self.halves = [name[1]]
        return Ran(status=0, out="", err="")

    def _release(self, script: str, stdin: bytes | Path) -> Ran:
        name = re.search(r"--id (\S+)", script)
        assert name
        assert self.halves == [f".{name[1]}"] or name[1] in self.releases
        self.halves, self.releases = [], sorted({*self.releases, name[1]})
        return Ran(status=0, out=f"installed in /opt/migrate/releases/{name[1]}\n", err="")

    def _doctor(self, script: str, stdin: bytes | Path) -> Ran:
        rows = [
            {"name": name, "ok": False, "required": True, "value": "no", "remedy": f"get {name}", "verdict": "missing"}
            for name in self.lacking
        ]
        return Ran(status=1 if rows else 0, out=json.dumps({"ok": not rows, "capabilities": rows}), err="")

    def _setup(self, script: str, stdin: bytes | Path) -> Ran:
        assert isinstance(stdin, bytes)
        name, release = re.search(r"--name (\S+)", script), re.search(r"releases/(\S+?)/bin", script)
        assert name and release and release[1] in self.releases
        self.host, self.agent, self.trusted = name[1], release[1], stdin.decode().split("\n")[:-1]
        return Ran(status=0, out="", err="migrate-agent.service runs\n")

    def _purge(self, script: str, stdin: bytes | Path) -> Ran:
        self.releases, self.host, self.agent = [], "", ""
        return Ran(status=0, out="gone\n", err="")
