"""A lab with two hosts and the workloads' image, and what tests of real moves do with it."""

from __future__ import annotations

import io
import json
import os
import select
import signal
import subprocess
import sys
import tarfile
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from migrate.client import Client
from migrate.errors import MigrateError
from migrate.lab import down, images, nodes, observe, processes, up
from migrate.lab.layout import Lab
from migrate.records import Container, Migration

WORKLOADS = Path(__file__).resolve().parents[1] / "workloads"
INSIDE = "/opt/workloads"
# One connection for its whole life; a line in, a line out. Runs in the client's namespace.
_DIALOGUE = """
import socket, sys
connection = socket.create_connection((sys.argv[1], int(sys.argv[2])), timeout=60)
stream = connection.makefile("rwb")
print(connection.getsockname()[1], flush=True)
for line in sys.stdin.buffer:
    stream.write(line)
    stream.flush()
    sys.stdout.buffer.write(stream.readline())
    sys.stdout.flush()
"""


@contextmanager
def moving_lab(prefix: str) -> Iterator[MovingLab]:
    """Up, with the images `work` (Python and tests/workloads) and `redis` on host1; gone at the end."""
    down.down(prefix, force=True)
    try:
        lab = up.up(prefix, hosts=2, criu=os.environ.get("MIGRATE_CRIU", ""), say=lambda _: None)
        with Client(lab.socket) as client:
            client.import_image(_workloads(), "work", host="host1")
            with images.redis_rootfs().open("rb") as tar:
                client.import_image(tar, "redis", host="host1")
            yield MovingLab(lab, client)
    finally:
        down.down(prefix, force=True)


def _workloads() -> io.BytesIO:
    image = io.BytesIO(images.python_rootfs().read_bytes())
    with tarfile.open(fileobj=image, mode="a") as tar:
        for path in sorted(WORKLOADS.glob("*.py")):
            tar.add(path, f"{INSIDE}/{path.name}")
    image.seek(0)
    return image


def program(name: str, *arguments: str) -> tuple[str, ...]:
    """The command line of a workload."""
    return ("/usr/bin/python3", "-u", f"{INSIDE}/{name}.py", *arguments)


def wait_for(what: Callable[[], Any], *, timeout_s: float = 20.0) -> Any:
    """What `what` returns, as soon as that is true."""
    deadline = time.monotonic() + timeout_s
    while not (value := what()):
        assert time.monotonic() < deadline, f"not so after {timeout_s:.0f} s: {what}"
        time.sleep(0.02)
    return value


class Dialogue:
    """One TCP connection from the client's namespace to a container."""

    def __init__(self, lab: Lab, address: str, port: int) -> None:
        command = nodes.command(lab, "client", [sys.executable, "-c", _DIALOGUE, address.partition("/")[0], str(port)])
        self._process = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, bufsize=1)
        self.port = int(self.answer())

    def ask(self, line: str) -> str:
        self.say(line)
        return self.answer()

    def say(self, line: str) -> None:
        assert self._process.stdin is not None
        self._process.stdin.write(line + "\n")

    def answer(self) -> str:
        """The next line from there; AssertionError when the connection is gone or nothing comes for 20 s."""
        assert self._process.stdout is not None
        assert select.select([self._process.stdout], [], [], 20)[0], "no answer for 20 s"
        line = self._process.stdout.readline()
        assert line.endswith("\n"), f"the connection is gone after {line!r}"
        return line.removesuffix("\n")

    def close(self) -> None:
        self._process.kill()
        self._process.communicate()


class MovingLab:
    """The fleet as a user has it, and the hosts' directories from outside."""

    def __init__(self, lab: Lab, client: Client) -> None:
        self.lab, self.client = lab, client
        self.idle = observe.snapshot(lab.prefix)  # before the first container

    def cli(self, *words: str, timeout_s: float = 60.0) -> subprocess.CompletedProcess[str]:
        """The command `migrate`; never raises for its exit status."""
        return subprocess.run(
            self.command(*words), env=self.environment, capture_output=True, text=True, timeout=timeout_s
        )

    def command(self, *words: str) -> list[str]:
        return [sys.executable, "-m", "migrate", *words]

    @property
    def environment(self) -> dict[str, str]:
        return {**os.environ, "MIGRATE_LAB": self.lab.prefix, "MIGRATE_COORDINATOR": str(self.lab.socket)}

    def move(self, name: str) -> Migration:
        """To the other host; the record, with journal and marks."""
        to = "host2" if self.client.inspect(name).host == "host1" else "host1"
        record = self.client.move(name, to=to).result()
        return self.client.migration(record.id)

    def upper(self, container: Container) -> Path:
        """The writable layer, where the container is now."""
        return self.lab.node_dir(container.host) / "var/containers" / container.id / "layer/upper"

    def status(self, name: str, workload: str) -> dict[str, Any]:
        """What the workload has written of itself last."""
        path = self.upper(self.client.inspect(name)) / f"srv/{workload}.json"
        found: dict[str, Any] = json.loads(path.read_text())
        return found

    def later(self, name: str, workload: str) -> dict[str, Any]:
        """A status that was written after this call began."""
        before = self.status(name, workload)["count"]
        wait_for(lambda: self.status(name, workload)["count"] > before)
        return self.status(name, workload)

    def run(self, name: str, *argv: str, tty: bool = False) -> tuple[int, str]:
        """`migrate exec`: its status and its output, stdout and stderr together."""
        session = self.client.exec(name, argv, tty=tty)
        text = b"".join(output.data for output in session)
        assert session.exit_code is not None
        return session.exit_code, text.decode()

    def control_file(self, container: Container, controller: str, v1: str, v2: str) -> str:
        """A file of the container's cgroup on the host where it is now, on v1 or v2, whichever has the controller."""
        group = self.lab.container_cgroup(container.host) / container.id
        for path in (Path("/sys/fs/cgroup") / controller / group / v1, Path("/sys/fs/cgroup") / group / v2):
            if path.exists():
                return path.read_text().strip()
        raise AssertionError(f"{group} has neither {v1} nor {v2}")

    def empty(self) -> None:
        """Remove every container."""
        for container in self.client.containers(all=True):
            self.client.remove(container.name, force=True)

    def left(self, timeout_s: float = 15.0) -> list[str]:
        """What is there of containers that are no more, a line each, once it has had that time to go."""
        deadline = time.monotonic() + timeout_s
        while (
            found := observe.differences(self.idle, observe.snapshot(self.lab.prefix))
        ) and time.monotonic() < deadline:
            time.sleep(0.2)
        directories = [self.lab.node_dir(host) / "var/containers" for host in ("host1", "host2")]
        return found + [str(path) for directory in directories for path in directory.iterdir()]

    def restart_agents(self) -> None:
        """SIGKILL to both; returns when the coordinator reaches the new ones."""
        for host in ("host1", "host2"):
            pid = self._agent(host)
            process = processes.read(pid)
            assert process is not None
            assert processes.send(process, signal.SIGKILL)
            wait_for(lambda host=host, pid=pid: self._agent(host) not in (0, pid))
        wait_for(self._reachable)

    def _agent(self, host: str) -> int:
        programs = nodes.states(self.lab.state_dir)[host].programs
        return next(each.pid for each in programs if each.name == "agent")

    def _reachable(self) -> bool:
        try:
            return all(host.reachable for host in self.client.hosts(facts=True))
        except MigrateError:
            return False
