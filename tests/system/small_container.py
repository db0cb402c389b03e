"""Real containers for tests of the engine's lowest parts: one `small_monitor.py` each, no agent, no network, no cgroup limits."""

from __future__ import annotations

import os
import shutil
import socket
import subprocess
import sys
from pathlib import Path
from typing import Any

from agent.engine import init, spec, sync
from agent.engine.cgroup import probe

ROOT = Path(__file__).resolve().parents[2]
IDS_BASE = 1708 * 65536  # a range that no other test maps


def plan(directory: Path, *, argv: list[str], **changes: Any) -> init.Plan:
    """A plan with Docker's defaults for a container that lives under `directory`."""
    values: init.Plan = {
        "root": str(directory / "rootfs"),
        "ids_base": IDS_BASE,
        "ids_count": 65536,
        "hostname": "small",
        "argv": argv,
        "env": [],
        "cwd": "/",
        "user": "",
        "capabilities": list(spec.DEFAULT_CAPABILITIES),
        "tty": False,
        "rlimits": {},
        "oom_score_adj": 0,
        "shm_bytes": 1 << 20,
        "tasks": [],
    }
    values.update(changes)  # type: ignore[typeddict-item]  # a test may break a plan on purpose
    return values


def own_cgroup() -> Path:
    """The directory of this process in the version 2 hierarchy."""
    line = next(one for one in Path("/proc/self/cgroup").read_text().splitlines() if one.startswith("0::"))
    return probe().unified / line.removeprefix("0::/")


class SmallContainer:
    """Made up to `ready`; `start()` lets the program run. stdin is /dev/null unless `stdio` is given; output is in `output()`."""

    def __init__(
        self, directory: Path, layers: list[Path], the_plan: init.Plan, stdio: tuple[int, int, int] | None = None
    ) -> None:
        for path in (directory / "layer/upper", directory / "layer/work"):
            path.mkdir(parents=True, exist_ok=True)
        self.plan = the_plan
        self.messages: list[dict[str, Any]] = []
        self.terminal = -1  # its master, once it is ready with one; the caller's
        self._output = -1
        own: list[int] = []
        if stdio is None:
            self._output, write_end = os.pipe()
            null = os.open("/dev/null", os.O_RDWR)
            stdio, own = (null, write_end, write_end), [null, write_end]
        self.channel, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        self.channel.settimeout(20)
        program = [
            sys.executable,
            "-I",
            "-S",
            str(Path(__file__).with_name("small_monitor.py")),
            str(ROOT),
            str(theirs.fileno()),
        ]
        self.monitor = subprocess.Popen(program, pass_fds=(theirs.fileno(),), stdin=subprocess.DEVNULL)
        theirs.close()
        request = {
            "plan": the_plan,
            "layers": [str(layer) for layer in layers],
            "writable": str(directory / "layer"),
            "mount_at": str(directory / "rootfs"),
            "cgroup": str(own_cgroup()),
        }
        sync.send(self.channel, request, stdio)
        for fd in own:
            os.close(fd)
        self.pid = 0
        while not {"ready", "error", "eof"} & {message["type"] for message in self.messages}:
            self._next()

    def start(self) -> None:
        """Returns when execve has worked or an error has come."""
        sync.send(self.channel, {"type": "start"})
        while not {"error", "eof"} & {message["type"] for message in self.messages}:
            self._next()

    @property
    def error(self) -> dict[str, Any] | None:
        return next((message for message in self.messages if message["type"] == "error"), None)

    def wait(self) -> int | None:
        """The exit code of the first process, negative for a signal."""
        while self.messages[-1]["type"] != "exit":
            self._next()
        status: int | None = self.messages[-1]["status"]
        return status

    def output(self) -> str:
        """Everything written until every writer is gone."""
        with open(self._output, "rb") as file:
            self._output = -1
            return file.read().decode()

    def close(self) -> None:
        self.channel.close()
        self.monitor.wait(10)
        if self._output >= 0:
            os.close(self._output)

    def __enter__(self) -> SmallContainer:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def _next(self) -> None:
        message, fds = sync.receive(self.channel)
        if fds:
            (self.terminal,) = fds
        assert message is not None, f"the monitor died: {self.messages}"
        self.pid = message.get("pid", self.pid)
        self.messages.append(message)


def run(directory: Path, layers: list[Path], argv: list[str], **changes: Any) -> tuple[int | None, str]:
    """Run a program in a container of its own: (exit code, everything that it wrote)."""
    with SmallContainer(directory, layers, plan(directory, argv=argv, **changes)) as container:
        container.start()
        assert container.error is None, container.error
        text = container.output()
        return container.wait(), text


def busybox_like_layer(directory: Path) -> Path:
    """A layer made of this machine's own shell, coreutils and libraries: small, and always there."""
    programs = ["sh", "cat", "chmod", "chown", "cut", "env", "false", "grep", "id", "kill", "ls", "mkdir", "mknod"]
    programs += ["readlink", "rm", "sleep", "stat", "stty", "touch", "true", "tty", "umount", "uname", "wc"]
    layer = directory / "layer-base"
    for name in ("bin", "etc", "tmp"):
        (layer / name).mkdir(parents=True)
    (layer / "tmp").chmod(0o1777)
    needed: set[Path] = set()
    for name in programs:
        found = shutil.which(name)
        assert found, f"this machine has no {name}"
        shutil.copy2(os.path.realpath(found), layer / "bin" / name)
        for line in subprocess.run(["ldd", found], capture_output=True, text=True, check=True).stdout.splitlines():
            needed |= {Path(word) for word in line.split() if word.startswith("/")}
    for library in needed:
        place = layer / str(library).removeprefix("/")
        place.parent.mkdir(parents=True, exist_ok=True)
        shutil.copy2(os.path.realpath(library), place)
    (layer / "etc/passwd").write_text("root:x:0:0:root:/root:/bin/sh\napp:x:1000:1001::/home/app:/bin/sh\n")
    (layer / "etc/group").write_text("root:x:0:\napp:x:1001:\nextra:x:2000:app,other\n")
    (layer / "root").mkdir(mode=0o700)
    (layer / "home/app").mkdir(parents=True)
    os.chown(layer / "home/app", 1000, 1001)
    return layer
