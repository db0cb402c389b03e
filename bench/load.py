"""What is done to a container of `bench.downtime` from the lab's client namespace, besides its client."""

from __future__ import annotations

import json
import signal
import subprocess
import sys
from collections.abc import Mapping
from types import TracebackType
from typing import Any, Self

from migrate.lab import nodes
from migrate.lab.demo_run import CheckFailed
from migrate.lab.layout import Lab

_LOOK = (
    "import socket, sys; s = socket.create_connection((sys.argv[1], int(sys.argv[2])), timeout=60); "
    "s.sendall(b'CHECK\\r\\n'); print(s.makefile().readline().strip())"
)


def look(lab: Lab, address: str, port: int) -> str:
    """What bench/shapes.py says of itself: ":0", or what is wrong."""
    command = nodes.command(lab, "client", [sys.executable, "-c", _LOOK, address, str(port)])
    done = subprocess.run(command, capture_output=True, text=True, timeout=120, check=False)
    return done.stdout.strip() or done.stderr.strip()[-300:]


class Load:
    """The process of bench.dirty; stands still until `resume`. Ends with the `with` block."""

    def __init__(self, lab: Lab, address: str, port: int, *, size_mb: float, mb_per_s: float) -> None:
        words = ("-m", "bench.dirty", address, str(port), str(size_mb), str(mb_per_s))
        self._process = subprocess.Popen(
            nodes.command(lab, "client", [sys.executable, *words]),
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
            bufsize=1,
            start_new_session=True,
        )
        self._read()  # it has filled what it will write
        self.pause()

    def report(self, word: str = "") -> Mapping[str, Any]:
        """What it did since the last report. Raises CheckFailed when it is gone."""
        assert self._process.stdin is not None
        self._process.stdin.write(f"{word}\n")
        return self._read()

    def _read(self) -> Mapping[str, Any]:
        assert self._process.stdout is not None
        line = self._process.stdout.readline()
        if not line:
            raise CheckFailed(f"the writer is gone, status {self._process.wait()}")
        found: Mapping[str, Any] = json.loads(line)
        return found

    def pause(self) -> None:
        self._process.send_signal(signal.SIGSTOP)

    def resume(self) -> None:
        self._process.send_signal(signal.SIGCONT)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, value: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self._process.kill()
        self._process.communicate()
