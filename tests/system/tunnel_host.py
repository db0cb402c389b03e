"""A host for the tunnel tests, in namespaces of its own: two real sshds, one door, an echoing gRPC server.

Started by tests/system/tunnel_lab.py as `unshare -n -m -p ... python -m tests.system.tunnel_host DIRECTORY CA_LINE`.
Speaks JSON lines on stdin and stdout. Its sshds: "own" has config_text() whole, "system" is Debian's configuration, with
PAM, plus the drop-in; each has its own host key. Everything dies with this process: it is pid 1 of a pid namespace.
"""

from __future__ import annotations

import contextlib
import json
import os
import shutil
import subprocess
import sys
import threading
import time
import zlib
from collections.abc import Iterator
from concurrent import futures
from pathlib import Path

import grpc

from agent.door import Door, Waiting
from agent.errors import AgentError, NotFound
from agent.setup import sshd
from migrate.rpc import channels
from migrate.rpc.errors import ErrorInterceptor

LIMIT_S = 120  # of waiting for what comes at once on an idle machine
PORTS = {"own": 2201, "system": 2202}
# What Debian 12 ships, where a host has it: everything that our drop-in must overrule.
SYSTEM = """\
Include {drop_ins}/*.conf
Port {port}
ListenAddress 0.0.0.0
HostKey {host_key}
PidFile none
KbdInteractiveAuthentication no
UsePAM {pam}
X11Forwarding yes
PrintMotd no
AcceptEnv LANG LC_*
Subsystem sftp /usr/lib/openssh/sftp-server
LogLevel VERBOSE
"""


class Echo(grpc.GenericRpcHandler):
    """/test/Echo returns its bytes, /test/Fail raises, /test/Stream sends `n` MiB."""

    calls = 0

    def service(self, details: grpc.HandlerCallDetails) -> grpc.RpcMethodHandler | None:
        if details.method == "/test/Echo":
            return grpc.unary_unary_rpc_method_handler(self.echo)
        if details.method == "/test/Fail":
            return grpc.unary_unary_rpc_method_handler(self.fail)
        if details.method == "/test/Stream":
            return grpc.unary_stream_rpc_method_handler(self.stream)
        return None

    def echo(self, request: bytes, context: grpc.ServicerContext) -> bytes:
        Echo.calls += 1
        return request

    def fail(self, request: bytes, context: grpc.ServicerContext) -> bytes:
        raise NotFound("no container web1", hint="migrate ps")

    def stream(self, request: bytes, context: grpc.ServicerContext) -> Iterator[bytes]:
        block = os.urandom(1 << 20)
        for _ in range(int(request)):
            yield block


class Host:
    def __init__(self, directory: Path, ca_line: str) -> None:
        self.directory = directory
        self.servers: dict[str, subprocess.Popen[bytes]] = {}
        self.waiting: dict[str, Waiting] = {}
        self.results: dict[str, dict[str, object]] = {}
        self.counts: dict[str, int] = {}
        self.arrived: dict[str, threading.Event] = {}
        self.ca_line = ca_line
        self.host_keys: dict[str, str] = {}

    def set_up(self) -> dict[str, object]:
        subprocess.run(["ip", "link", "set", "lo", "up"], check=True)
        subprocess.run(["mount", "-t", "tmpfs", "-o", "mode=755", "none", "/run"], check=True)
        run = Path("/run/migrate")
        run.mkdir(mode=0o755)
        dial = sshd.install_dial(self.directory / "lib", door=run / "door.sock")
        etc = self.directory / "etc"
        etc.mkdir()
        for name in ("passwd", "group", "shadow", "gshadow"):
            shutil.copy2(f"/etc/{name}", etc / name)
        sshd.ensure_user(dial, prefix=self.directory)
        for name in ("passwd", "group", "shadow", "gshadow"):
            subprocess.run(["mount", "--bind", etc / name, f"/etc/{name}"], check=True)
        self._configure_own()
        self._configure_system()
        for name in PORTS:
            self.start_sshd(name)
        agent_socket = run / "agent.sock"
        self.grpc = grpc.server(
            futures.ThreadPoolExecutor(8), interceptors=[ErrorInterceptor()], options=channels.SERVER_OPTIONS
        )
        self.grpc.add_generic_rpc_handlers([Echo()])
        self.grpc.add_insecure_port(channels.unix_target(agent_socket))
        self.grpc.start()
        agent_socket.chmod(0o600)
        self.door = Door(run / "door.sock", sshd.USER, agent_socket)
        self.door.start()
        return {"host_keys": self.host_keys, "ports": PORTS}

    def _configure_own(self) -> None:
        ca = self.directory / "own-ca.pub"
        ca.write_text(self.ca_line + "\n")
        self.host_keys["own"] = sshd.ensure_host_key(self.directory / "own-host")
        text = sshd.config_text(
            port=PORTS["own"],
            listen=["0.0.0.0"],
            host_key=self.directory / "own-host",
            pid_file=self.directory / "own.pid",
            ca=ca,
        )
        (self.directory / "own.conf").write_text(text)

    def _configure_system(self) -> None:
        drop_ins = self.directory / "sshd_config.d"
        self.host_keys["system"] = sshd.ensure_host_key(self.directory / "system-host")
        text = SYSTEM.format(
            drop_ins=drop_ins,
            port=PORTS["system"],
            host_key=self.directory / "system-host",
            pam="yes" if Path("/etc/pam.d/sshd").exists() else "no",
        )
        config = self.directory / "system.conf"
        config.write_text(text)
        drop_ins.mkdir()
        ca = self.directory / "system-ca.pub"
        sshd.install_drop_in(self.ca_line, ca=ca, drop_in=drop_ins / "60-migrate.conf", config=config)

    # ------------------------------------------------------------ commands

    def start_sshd(self, name: str) -> dict[str, object]:
        argv = sshd.server_command(self.directory / f"{name}.conf")
        with (self.directory / f"{name}.log").open("ab") as log:
            self.servers[name] = subprocess.Popen(argv, stdin=subprocess.DEVNULL, stdout=log, stderr=log)
        return {}

    def stop_sshd(self, name: str) -> dict[str, object]:
        """The listener and the sessions: as if the machine had gone, but with connections closed."""
        server = self.servers.pop(name)
        pids = [server.pid]
        for pid in pids:  # grows: sshd has a child for each connection, and that one the child that carries the bytes
            pids += map(int, Path(f"/proc/{pid}/task/{pid}/children").read_text().split())
        for pid in pids:
            os.kill(pid, 9)
        server.wait()
        return {}

    def expect(self, migration: str) -> dict[str, object]:
        """A receiver that counts: {"bytes", "crc", "seconds", "cpu_s"} in `result` once the source has closed."""
        waiting = self.waiting[migration] = self.door.expect(migration)
        self.results.pop(migration, None)
        self.counts.pop(migration, None)
        self.arrived[migration] = threading.Event()
        threading.Thread(target=self._receive, args=(migration, waiting), daemon=True).start()
        return {}

    def _receive(self, migration: str, waiting: Waiting) -> None:
        try:
            rx, tx, connection = waiting.wait(60)
        except AgentError as exc:
            self.results[migration] = {"error": exc.message}
            return
        self.arrived[migration].set()
        buffer = memoryview(bytearray(1 << 20))
        count = crc = 0
        started, cpu = time.monotonic(), time.thread_time()
        while n := os.readv(rx, [buffer]):
            self.counts[migration] = count = count + n
            crc = zlib.crc32(buffer[:n], crc)
        seconds = time.monotonic() - started
        with contextlib.suppress(BrokenPipeError):  # some tests kill the source
            os.write(tx, json.dumps({"bytes": count, "crc": crc}).encode())
        self.results[migration] = {
            "bytes": count,
            "crc": crc,
            "seconds": seconds,
            "cpu_s": time.thread_time() - cpu,
        }
        for fd in (rx, tx):
            os.close(fd)
        connection.close()

    def wait_arrived(self, migration: str) -> dict[str, object]:
        """Until the receiver holds the tunnel."""
        return {"arrived": self.arrived[migration].wait(LIMIT_S)}

    def wait_bytes(self, migration: str, count: int) -> dict[str, object]:
        """Until the receiver has got so many."""
        deadline = time.monotonic() + LIMIT_S
        while self.counts.get(migration, 0) < count and time.monotonic() < deadline:
            time.sleep(0.01)
        return {"bytes": self.counts.get(migration, 0)}

    def result(self, migration: str) -> dict[str, object]:
        """Waits for the receiver's end; {} if it does not come."""
        deadline = time.monotonic() + LIMIT_S
        while migration not in self.results and time.monotonic() < deadline:
            time.sleep(0.01)
        return self.results.get(migration, {})

    def forget(self, migration: str) -> dict[str, object]:
        """{"still_waiting": whether nobody had come}."""
        waiting = self.waiting.pop(migration)
        still = migration in self.door._expected
        waiting.close()
        return {"still_waiting": still}

    def stop_agent(self) -> dict[str, object]:
        self.door.stop()
        return {}

    def start_agent(self) -> dict[str, object]:
        self.door.start()
        return {}

    def facts(self) -> dict[str, object]:
        return {
            "calls": Echo.calls,
            "fds": sum(1 for _ in Path("/proc/self/fd").iterdir()),
            "dials": sum(map(_is_dial, Path("/proc").glob("[0-9]*/cmdline"))),
        }

    def problems_with(self, extra: str) -> dict[str, object]:
        """What problems() says of the system's configuration when `extra` stands at its beginning."""
        config = self.directory / "extra.conf"
        config.write_text(extra + "\n" + (self.directory / "system.conf").read_text())
        return {"problems": sshd.problems(ca=self.directory / "system-ca.pub", config=config)}

    def drop_in_refused(self, extra: str) -> dict[str, object]:
        """install_drop_in() where it cannot work: the error, and whether the file is gone again."""
        config = self.directory / "extra.conf"
        config.write_text(extra + "\n" + (self.directory / "system.conf").read_text())
        drop_in = self.directory / "elsewhere.d" / "60-migrate.conf"
        try:
            sshd.install_drop_in(self.ca_line, ca=self.directory / "x-ca.pub", drop_in=drop_in, config=config)
        except AgentError as exc:
            return {"error": exc.message, "hint": exc.hint, "left": drop_in.exists()}
        return {"error": ""}


def _is_dial(cmdline: Path) -> bool:
    try:
        return b"/lib/dial" in cmdline.read_bytes()
    except OSError:
        return False  # it ended meanwhile


def main() -> None:
    host = Host(Path(sys.argv[1]), sys.argv[2])
    print(json.dumps(host.set_up()), flush=True)
    for line in sys.stdin:
        command = json.loads(line)
        try:
            answer = getattr(host, command.pop("cmd"))(**command)
        except Exception as exc:  # noqa: BLE001  the test must see it, not a closed pipe
            answer = {"failed": f"{type(exc).__name__}: {exc}"}
        print(json.dumps(answer), flush=True)


if __name__ == "__main__":
    main()
