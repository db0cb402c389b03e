"""Two machines as a fleet, seen from where their operator sits: the network namespace `lab-vm` of this machine, beside both.

The coordinator runs there, with its state in a scratch directory; the command line talks to it; commands on the machines themselves
go through the VM tools' own ssh.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
import time
from collections.abc import Sequence
from pathlib import Path
from types import TracebackType
from typing import Any, Self

from migrate.lab.demo_run import CheckFailed, RunningClient
from migrate.tunnel.pki import CertificateAuthority

NAMESPACE = "lab-vm"
SUBNET, CONTAINERS = "10.78.0.0/24", "10.78.0.64/26"
PATIENCE = 30  # emulated processors are 7 to 17 times slower, and the machine under them has other work
READY_LIMIT_S = 600.0


def address(number: int) -> str:
    return f"10.78.0.{number}"


class Machine:
    """One of the virtual machines: vm1 is number 1."""

    def __init__(self, number: int, tools: Path) -> None:
        self.number, self.name, self._tools = number, f"vm{number}", tools

    def run(self, script: str) -> str:
        """What the shell commands print on the machine. Raises CheckFailed."""
        done = subprocess.run(
            [str(self._tools / "vm"), str(self.number), script], capture_output=True, text=True, check=False
        )
        if done.returncode:
            raise CheckFailed(
                f"{self.name}: {script}: status {done.returncode}: {(done.stderr or done.stdout).strip()}"
            )
        return done.stdout

    def put(self, *files: Path, to: str) -> None:
        names = [str(file) for file in files]
        subprocess.run([str(self._tools / "vm-cp"), str(self.number), *names, to], check=True)

    def service(self, verb: str) -> str:
        return self.run(f"systemctl {verb} migrate-agent").strip()


class Fleet:
    """The coordinator of both machines, and the command `migrate`. With-block: the coordinator ends with it."""

    def __init__(self, directory: Path) -> None:
        self._directory = directory
        self.socket = directory / "s.sock"
        self.log = directory / "coordinator.log"
        self._process: subprocess.Popen[bytes] | None = None
        directory.mkdir(mode=0o700, parents=True, exist_ok=True)
        self._authority = CertificateAuthority.load_or_create(directory / "state")

    def authority_file(self) -> Path:
        """ca.pub, for the hosts."""
        path = self._directory / "ca.pub"
        path.write_text(self._authority.public_openssh() + "\n")
        return path

    def start(self, tables: Sequence[str]) -> None:
        """`tables`: what each host's set-up printed, its [[hosts]] with the keys to pin."""
        config = self._directory / "coordinator.toml"
        top = {
            "state_dir": str(self._directory / "state"),
            "socket": str(self.socket),
            "group": "",
            "patience": PATIENCE,
        }
        fleet = {"name": "vm", "subnet": SUBNET, "container_range": CONTAINERS, "gateway": ""}
        config.write_text("\n".join([toml(top), "[fleet]", toml(fleet), *tables]))
        with self.log.open("ab") as log:
            argv = inside([sys.executable, "-m", "migrate.coordinator", "--config", str(config)])
            self._process = subprocess.Popen(argv, stdin=subprocess.DEVNULL, stdout=log, stderr=log)
        self.wait_ready()

    def wait_ready(self) -> None:
        """Until every agent answers. Raises CheckFailed."""
        deadline = time.monotonic() + READY_LIMIT_S
        while True:
            hosts = self._hosts()
            if hosts and all(host["reachable"] for host in hosts):
                return
            if time.monotonic() > deadline:
                errors = [host["error"] for host in hosts] or [self.log.read_text()[-2000:]]
                raise CheckFailed(f"the hosts were not ready after {READY_LIMIT_S:.0f} s: {'; '.join(errors)}")
            time.sleep(1)

    def _hosts(self) -> Any:
        try:
            return self.json("hosts", "--format", "json")
        except CheckFailed:
            return []  # no coordinator yet

    def migrate(self, *words: str, show: bool = True) -> str:
        """Type `migrate WORDS`; show the command and what it prints. Raises CheckFailed when it fails."""
        if show:
            print(f"    $ migrate {' '.join(word or repr('') for word in words)}", flush=True)
        process = self._start(words, subprocess.STDOUT)
        assert process.stdout is not None
        lines = []
        for line in process.stdout:
            lines.append(line)
            if show:
                print(f"      {line.rstrip()}", flush=True)
        if status := process.wait():
            raise CheckFailed(f"migrate {' '.join(words)} ended with {status}: {''.join(lines[-5:]).strip()}")
        return "".join(lines)

    def json(self, *words: str) -> Any:
        process = self._start(words, subprocess.PIPE)
        out, err = process.communicate()
        # `migrate hosts` ends with 1 where a host lacks something, and prints all the same.
        if not out:
            raise CheckFailed(f"migrate {' '.join(words)} ended with {process.returncode}: {err.strip()}")
        return json.loads(out)

    def inspect(self, container: str) -> Any:
        return self.json("inspect", container)[0]

    def last_move(self, container: str) -> Any:
        """The newest move's record, with journal and marks, as `migrate migrations show` has it."""
        newest = self.json("migrations", "--container", container, "-n", "1", "--format", "json")[0]
        return self.json("migrations", "show", newest["id"], "--format", "json")

    def _start(self, words: Sequence[str], stderr: int) -> subprocess.Popen[str]:
        environment = {**os.environ, "MIGRATE_COORDINATOR": str(self.socket), "PYTHONUNBUFFERED": "1"}
        argv = [sys.executable, "-m", "migrate", *words]
        return subprocess.Popen(
            argv, env=environment, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=stderr, text=True
        )

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, value: BaseException | None, traceback: TracebackType | None
    ) -> None:
        if self._process is not None:
            self._process.terminate()
            try:
                self._process.wait(20)
            except subprocess.TimeoutExpired:
                self._process.kill()
                self._process.wait()


def toml(values: dict[str, Any]) -> str:
    """Key = value lines: JSON's strings and numbers are TOML's."""
    return "".join(f"{name} = {json.dumps(value)}\n" for name, value in values.items())


def inside(argv: Sequence[str]) -> list[str]:
    """The command, in the network beside the machines."""
    return ["nsenter", f"--net=/run/netns/{NAMESPACE}", *argv]


def client(where: str, port: int, rate: float) -> RunningClient:
    """INCR on one connection, `rate` times a second; see migrate.lab.client."""
    return RunningClient(inside([sys.executable, "-m", "migrate.lab.client", where, str(port), str(rate)]))


def wait_for_server(where: str, port: int) -> None:
    """Until something listens. Raises CheckFailed."""
    ping = f"import socket; socket.create_connection(({where!r}, {port}), timeout=5)"
    deadline = time.monotonic() + READY_LIMIT_S
    while subprocess.run(inside([sys.executable, "-c", ping]), capture_output=True, check=False).returncode:
        if time.monotonic() > deadline:
            raise CheckFailed(f"nothing answers on {where}:{port} after {READY_LIMIT_S:.0f} s")
        time.sleep(1)
