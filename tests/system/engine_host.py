"""A host for tests of the engine: a network namespace with a bridge, a cgroup parent, a state directory, a tiny busybox image.

The calling thread, and whatever it starts, lives in the namespace until the host is closed; the machine's own network is never touched.
"""

from __future__ import annotations

import io
import os
import shutil
import signal
import subprocess
import tarfile
import tempfile
import time
import uuid
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path

from agent.config import AgentConfig
from agent.engine.cgroup import Cgroup, probe
from agent.engine.container import Engine
from agent.engine.spec import ContainerSpec, IdRange, Limits, Network
from agent.engine.state import State
from agent.linux import namespaces
from agent.storage.images import ImageStore
from agent.storage.layers import WritableLayer
from agent.storage.manifest import ImageConfig

BUSYBOX = Path("/bin/busybox")
IMAGE = "busybox:latest"
PREFIX = "heng"
IDS = IdRange(base=1_000_000)


class EngineHost:
    """`engine()` makes the agent's engine over this host; any number, one after the other: the next one begins with the end of the
    one before, as agents do, whose idle monitors it would wait for.
    """

    def __init__(self, directory: Path) -> None:
        self.directory = directory
        self.cgroup_parent = directory.name
        self.config = AgentConfig(
            host="host1",
            state_dir=directory / "state",
            run_dir=directory / "run",
            bridge=f"{PREFIX}0",
            cgroup_parent=self.cgroup_parent,
        )
        self._count = 0
        self._engine: Engine | None = None
        self.images = ImageStore(self.config.images_dir)

    def engine(self) -> Engine:
        self.close()
        self._engine = Engine(self.config, self.images, WritableLayer)
        self._engine.recover()
        return self._engine

    def empty(self) -> None:
        """Take away every container, also of a move, by the engine that there is; its end."""
        engine = self._engine or self.engine()
        for status in engine.list():
            engine.roles.end(status.spec.id, status.migration_id, status.epoch)
            engine.cgroup(status.spec.id).freeze(False) if status.state == State.FROZEN else None
            engine.remove(status.spec.id, force=True)
        self.close()

    def close(self) -> None:
        """Of the engine, if there is one; containers run on."""
        if self._engine is not None:
            self._engine.close()
            self._engine = None

    def spec(self, *argv: str, limits: Limits | None = None, **changes: object) -> ContainerSpec:
        """A container of the busybox image that runs `argv`, or a shell line given as one word."""
        self._count += 1
        image = self.images.get(IMAGE)
        spec = ContainerSpec(
            id=uuid.uuid4().hex,
            name=f"c{self._count}",
            image=IMAGE,
            image_digest=image.digest,
            layers=image.layers,
            argv=argv if len(argv) > 1 else ("/bin/sh", "-c", argv[0]),
            env=("PATH=/bin", "GREETING=hello"),
            cwd="/",
            user="",
            hostname=f"c{self._count}.test",
            ids=IDS,
            network=Network(
                address=f"10.77.{self._count // 250}.{self._count % 250 + 2}/16",
                mac=f"02:42:0a:4d:{self._count // 250:02x}:{self._count % 250 + 2:02x}",
                gateway="10.77.0.1",
            ),
            limits=limits or Limits(),
        )
        return replace(spec, **changes)  # type: ignore[arg-type]

    def links(self) -> set[str]:
        out = subprocess.run(["ip", "-o", "link"], capture_output=True, text=True, check=True).stdout
        return {line.split(": ")[1].partition("@")[0] for line in out.splitlines()}

    def mounts(self) -> list[str]:
        return [line for line in Path("/proc/self/mountinfo").read_text().splitlines() if str(self.directory) in line]

    def cgroups(self) -> list[str]:
        """Container cgroups that exist in any hierarchy."""
        found = set()
        for directory in Cgroup(self.cgroup_parent, "x").dirs:
            if directory.parent.is_dir():
                found |= {entry.name for entry in directory.parent.iterdir() if entry.is_dir()}
        return sorted(found - {"monitors"})


@contextmanager
def engine_host() -> Iterator[EngineHost]:
    """Make a host and take it apart again, killing what is left in it."""
    assert BUSYBOX.exists(), f"{BUSYBOX} is missing: apt install busybox-static"
    directory = Path(tempfile.mkdtemp(prefix=f"{PREFIX}-", dir="/var/tmp"))
    directory.chmod(0o711)
    host = EngineHost(directory)
    home = os.open("/proc/thread-self/ns/net", os.O_RDONLY)
    namespaces.unshare(namespaces.CLONE_NEWNET)
    try:
        _ip(
            f"link add {host.config.bridge} address 02:42:0a:4d:00:01 type bridge"
        )  # pinned, as agent/setup/bridge.py does
        _ip(f"address add 10.77.0.1/16 dev {host.config.bridge}")
        _ip(f"link set {host.config.bridge} up")
        host.images.import_tar(IMAGE, ImageConfig(), [_image_tar()])
        yield host
    finally:
        host.close()
        namespaces.setns(home, namespaces.CLONE_NEWNET)
        os.close(home)
        _take_apart(host)


def _ip(line: str) -> None:
    subprocess.run(["ip", *line.split()], check=True)


def _image_tar() -> bytes:
    """A root file system of one program."""
    files = {
        "etc/passwd": b"root:x:0:0:root:/root:/bin/sh\nworker:x:1000:1000::/tmp:/bin/sh\n",
        "etc/group": b"root:x:0:\nworker:x:1000:\n",
        "bin/busybox": BUSYBOX.read_bytes(),
    }
    applets = subprocess.run([str(BUSYBOX), "--list"], capture_output=True, text=True, check=True).stdout.split()
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w") as tar:
        for name, mode in (("bin", 0o755), ("etc", 0o755), ("root", 0o700), ("tmp", 0o1777)):
            entry = tarfile.TarInfo(name)
            entry.type, entry.mode = tarfile.DIRTYPE, mode
            tar.addfile(entry)
        for name, data in files.items():
            entry = tarfile.TarInfo(name)
            entry.size, entry.mode = len(data), 0o755 if name.startswith("bin/") else 0o644
            tar.addfile(entry, io.BytesIO(data))
        for applet in sorted(set(applets) - {"busybox"}):
            entry = tarfile.TarInfo(f"bin/{applet}")
            entry.type, entry.linkname = tarfile.SYMTYPE, "busybox"
            tar.addfile(entry)
    return buffer.getvalue()


def _take_apart(host: EngineHost) -> None:
    top = Cgroup("", host.cgroup_parent, probe())
    top.kill()
    top.wait_empty(10)
    for line in reversed(host.mounts()):
        subprocess.run(["umount", "-l", line.split()[4]], check=False)
    top.remove()
    shutil.rmtree(host.directory)


def monitor_pid(host: EngineHost, spec: ContainerSpec) -> int:
    """Of the monitor that the container has now; 0 while there is none."""
    try:
        return int((host.config.runtime_dir / spec.id / "monitor.pid").read_text())
    except FileNotFoundError:
        return 0


def lose(host: EngineHost, engine: Engine, spec: ContainerSpec) -> None:
    """Kill its monitor where it can have no successor: what is known of its init is of another process."""
    record = engine.store.record(spec.id)
    engine.store.write_record(spec.id, replace(record, start_ticks=record.start_ticks + 1))
    os.kill(monitor_pid(host, spec), signal.SIGKILL)
    until(lambda: engine.inspect(spec.id).state == "lost")


def until(condition: Callable[[], bool], timeout_s: float = 60) -> None:
    deadline = time.monotonic() + timeout_s
    while not condition():
        assert time.monotonic() < deadline, "timed out"
        time.sleep(0.02)
