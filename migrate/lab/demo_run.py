"""How the demo does things: the command line for the fleet, processes in the client namespace for the outside."""
# ruff: noqa: T201
# A program that talks to people.

from __future__ import annotations

import contextlib
import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Mapping
from dataclasses import dataclass
from types import TracebackType
from typing import Any, Self

from migrate.lab import client as demo_client
from migrate.lab import nodes
from migrate.lab.layout import Lab
from migrate.records import Migration

_SERVER_TIMEOUT_S = 20.0


class CheckFailed(Exception):
    """Something that the demo promises does not hold."""


class Checks:
    """Says what holds, and stops at what does not."""

    def expect(self, what: str, holds: bool, otherwise: str) -> None:
        print(f"    {'ok  ' if holds else 'NOT '}{what}")
        if not holds:
            raise CheckFailed(f"not true: {what}: {otherwise}")


def say(text: str) -> None:
    print(f"\n== {text}", flush=True)


class Shell:
    """The command `migrate`, as a person would type it."""

    def __init__(self, lab: Lab) -> None:
        self.lab = lab
        self._environment = {
            **os.environ,
            "MIGRATE_LAB": lab.prefix,
            "MIGRATE_COORDINATOR": str(lab.socket),
            "PYTHONUNBUFFERED": "1",
        }

    def migrate(self, *words: str) -> None:
        """Show the command and what it prints, as it comes. Raises CheckFailed when it fails."""
        shown = " ".join(word or "''" for word in words)
        print(f"    $ migrate {shown}", flush=True)
        process = self._start(words, stdout=subprocess.PIPE, stderr=subprocess.STDOUT)
        assert process.stdout is not None
        try:
            for line in process.stdout:
                print(f"      {line.rstrip()}", flush=True)
        finally:
            status = process.wait()
        if status:
            raise CheckFailed(f"migrate {shown} ended with {status}")

    def json(self, *words: str) -> Any:
        """What the command prints, parsed."""
        return json.loads(self.quietly(*words))

    def quietly(self, *words: str) -> str:
        """What the command prints, which nobody sees. Raises CheckFailed when it fails."""
        process = self._start(words, stdout=subprocess.PIPE, stderr=subprocess.PIPE)
        out, err = process.communicate()
        if process.returncode:
            shown = " ".join(word if len(word) < 200 else "..." for word in words)
            raise CheckFailed(f"migrate {shown} ended with {process.returncode}: {err.strip()}")
        return out

    def _start(self, words: tuple[str, ...], *, stdout: int, stderr: int) -> subprocess.Popen[str]:
        command = [sys.executable, "-m", "migrate", *words]
        return subprocess.Popen(
            command, env=self._environment, stdin=subprocess.DEVNULL, stdout=stdout, stderr=stderr, text=True
        )

    def container(self, name: str) -> Any:
        return next(each for each in self.containers() if each["name"] == name)

    def containers(self) -> Any:
        return self.json("ps", "--all", "--format", "json")

    def images(self) -> Any:
        return self.json("images", "--format", "json")

    def last_migration(self, container: str) -> Migration:
        """The newest move of a container, with its journal and marks."""
        from migrate.client import Client

        with Client(self.lab.socket) as client:
            newest = client.migrations(container=container, limit=1)[0]
            return client.migration(newest.id)


@dataclass(frozen=True, kw_only=True)
class Seen:
    """What the client saw since it was last asked; see migrate.lab.client.Since."""

    port: int
    value: int
    began_unix_ns: int
    replies: int
    longest_gap_s: float
    longest_gap_unix_ns: int
    problems: list[str]


class Outside:
    """The client namespace: another machine on the fleet's network, as far as a container can tell."""

    def __init__(self, lab: Lab, address: str, port: int) -> None:
        self._lab, self._address, self._port = lab, address, port

    def wait_for_server(self, timeout_s: float = _SERVER_TIMEOUT_S) -> None:
        """Until something listens. Raises CheckFailed when nothing does."""
        deadline = time.monotonic() + timeout_s
        ping = f"import socket; socket.create_connection(({self._address!r}, {self._port}), timeout=1)"
        while subprocess.run(self._command("-c", ping), capture_output=True, check=False).returncode:
            if time.monotonic() > deadline:
                raise CheckFailed(f"nothing answers on {self._address}:{self._port} after {timeout_s:.0f} s")
            time.sleep(0.1)

    def data(self, verb: str, size_mb: int, seed: str) -> Mapping[str, Any]:
        """Run migrate.lab.data there; returns what it found."""
        words = ("-m", "migrate.lab.data", verb, self._address, str(self._port), str(size_mb), seed)
        result = subprocess.run(self._command(*words), capture_output=True, text=True, check=False)
        if result.returncode:
            raise CheckFailed(f"{verb} failed: {result.stderr.strip()[-500:]}")
        found: Mapping[str, Any] = json.loads(result.stdout)
        return found

    def client(self, rate: float = 0.0) -> RunningClient:
        """`rate`: requests a second; 0 = as fast as the answers come."""
        return RunningClient(self._command("-m", demo_client.__name__, self._address, str(self._port), str(rate)))

    def _command(self, *words: str) -> list[str]:
        return nodes.command(self._lab, "client", [sys.executable, *words])


class RunningClient:
    """The process of migrate.lab.client; ends with the `with` block."""

    def __init__(self, command: list[str]) -> None:
        # Not in our process group: Ctrl-C is for the demo, which ends the client itself.
        self._process = subprocess.Popen(
            command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, bufsize=1, start_new_session=True
        )
        self.port = self.report().port

    def report(self) -> Seen:
        """What it saw since the last report. Raises CheckFailed when it is gone."""
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        try:
            self._process.stdin.write("\n")
        except (OSError, BrokenPipeError):
            pass  # it has ended; its last words are in the pipe
        line = self._process.stdout.readline()
        if not line:
            raise CheckFailed(f"the client is gone, status {self._process.wait()}")
        return Seen(**json.loads(line))

    def pause(self) -> None:
        """Ask nothing until `resume`; the connection stays. The first report after it counts the pause as a gap."""
        self._process.send_signal(signal.SIGSTOP)

    def resume(self) -> None:
        self._process.send_signal(signal.SIGCONT)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, value: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self._process.kill()
        self._process.wait()
        for pipe in (self._process.stdin, self._process.stdout):
            if pipe is not None:
                with contextlib.suppress(BrokenPipeError):  # a line that the client did not live to read
                    pipe.close()
