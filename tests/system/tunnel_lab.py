"""Fixtures of the tunnel tests: the host of tunnel_host.py, an authority, and this process inside the host's network.

pytest's main thread enters the network namespace for as long as the module's tests run, and every thread made then is
in it; it is the only way for paramiko and gRPC in this process to reach an sshd that listens nowhere else.
"""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from agent.linux import namespaces
from agent.transfer import ssh
from migrate.tunnel import pki
from migrate.tunnel.control import ControlTunnel

ROOT = Path(__file__).resolve().parents[2]
COORDINATOR = "127.0.0.1"
SOURCE = "127.0.0.2"  # every address of 127/8 is this namespace's; a bulk certificate is for this one
LIMIT_S = 120  # of waiting for what comes at once on an idle machine
NEEDED = ("sshd", "ssh", "ssh-keygen", "useradd", "unshare", "ip")


def missing() -> str:
    """Why the tests cannot run here, "" if they can."""
    path = f"{os.environ.get('PATH', '')}:/usr/sbin:/sbin"
    lacking = [name for name in NEEDED if shutil.which(name, path=path) is None]
    if lacking:
        return f"missing programs: {', '.join(lacking)}"
    return "" if os.geteuid() == 0 else "not root"


class Lab:
    """The running host and who may come in."""

    def __init__(self, directory: Path) -> None:
        self.directory = directory
        self.authority = pki.CertificateAuthority.load_or_create(directory / "pki")
        self.signer = pki.Signer(self.authority)
        self.credentials = pki.ControlCredentials(self.authority, directory / "coordinator")
        argv = ["unshare", "-n", "-m", "-p", "--fork", "--kill-child", "--mount-proc", "--propagation", "private"]
        argv += [sys.executable, "-m", "tests.system.tunnel_host", str(directory), self.authority.public_openssh()]
        self.process = subprocess.Popen(argv, cwd=ROOT, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
        facts = self._answer()
        self.host_keys: dict[str, str] = facts["host_keys"]  # type: ignore[assignment]
        self.ports: dict[str, int] = facts["ports"]  # type: ignore[assignment]

    def ask(self, cmd: str, **arguments: object) -> dict[str, object]:
        assert self.process.stdin is not None
        self.process.stdin.write(json.dumps({"cmd": cmd, **arguments}) + "\n")
        self.process.stdin.flush()
        return self._answer()

    def _answer(self) -> dict[str, object]:
        assert self.process.stdout is not None
        line = self.process.stdout.readline()
        assert line, "the host of the test died; its last words are above"
        answer: dict[str, object] = json.loads(line)
        assert "failed" not in answer, answer
        return answer

    def log(self, name: str) -> str:
        return (self.directory / f"{name}.log").read_text()

    def logged(self, name: str, text: str, since: int, timeout_s: float = LIMIT_S) -> bool:
        """Whether sshd `name` logs `text` after byte `since`; sshd writes it about when the client sees the end."""
        deadline = time.monotonic() + timeout_s
        while text not in self.log(name)[since:]:
            if time.monotonic() > deadline:
                print(self.log(name)[since:])
                return False
            time.sleep(0.02)
        return True

    def control(self, name: str = "own", **changes: object) -> ControlTunnel:
        arguments: dict[str, object] = {
            "host_keys": [self.host_keys[name]],
            "credentials": self.credentials.current,
            **changes,
        }
        return ControlTunnel("host1", COORDINATOR, self.ports[name], pki.USER, **arguments)  # type: ignore[arg-type]

    def bulk(self, directory: Path, migration: str, name: str = "own", **changes: object) -> ssh.BulkTunnel:
        public = ssh.generate_key(directory)
        arguments: dict[str, object] = {
            "certificate": self.signer.sign_bulk(public, migration, SOURCE),
            "address": COORDINATOR,
            "port": self.ports[name],
            "user": pki.USER,
            "host_keys": [self.host_keys[name]],
            "source_address": SOURCE,
            "timeout_s": LIMIT_S,
            **changes,
        }
        return ssh.BulkTunnel.open(directory, **arguments)  # type: ignore[arg-type]


@pytest.fixture(scope="module")
def lab() -> Iterator[Lab]:
    if reason := missing():
        pytest.skip(reason)
    directory = Path(tempfile.mkdtemp(prefix="htun", dir="/var/tmp"))
    directory.chmod(0o755)  # sshd's user runs dial from here
    made = Lab(directory)
    before = os.open("/proc/thread-self/ns/net", os.O_RDONLY)
    try:
        pid = Path(f"/proc/{made.process.pid}/task/{made.process.pid}/children").read_text().split()[0]
        inside = os.open(f"/proc/{pid}/ns/net", os.O_RDONLY)
        namespaces.setns(inside, namespaces.CLONE_NEWNET)
        os.close(inside)
        _wait_for_ports(made)
        yield made
    finally:
        namespaces.setns(before, namespaces.CLONE_NEWNET)
        os.close(before)
        made.process.kill()
        made.process.communicate()
        shutil.rmtree(directory)


def _wait_for_ports(made: Lab) -> None:
    import socket

    for port in made.ports.values():
        deadline = time.monotonic() + LIMIT_S
        while True:
            with socket.socket() as probe:
                if probe.connect_ex((COORDINATOR, port)) == 0:
                    break
            assert time.monotonic() < deadline, f"no sshd on port {port}"
            time.sleep(0.02)
