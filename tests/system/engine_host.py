"""A host for tests of the engine: a network namespace with a bridge, a cgroup parent, a state directory, a tiny busybox image.

The calling thread, and whatever it starts, lives in the namespace until the host is closed; the machine's own network is never touched.
"""

from __future__ import annotations

import os
import shutil
import subprocess
import tempfile
import uuid
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path

import pytest

from agent.config import AgentConfig
from agent.engine.cgroup import Cgroup, probe
from agent.engine.container import Engine
from agent.engine.spec import ContainerSpec, IdRange, Limits, Network
from agent.errors import NotFound
from agent.linux import namespaces

LAYER = "sha256:" + "b" * 64
BUSYBOX = Path("/bin/busybox")
PREFIX = "heng"
IDS = IdRange(base=1_000_000)


class DirectoryImages:
    """One layer, unpacked."""

    def __init__(self, layer: Path) -> None:
        self._layer = layer

    def layer_path(self, diff_id: str) -> Path:
        if diff_id != LAYER:
            raise NotFound(f"no layer {diff_id}")
        return self._layer


class DirectoryLayer:
    """upper/ and work/, owned by the ids that the container sees."""

    def __init__(self, path: Path) -> None:
        self._path = path

    def create(self) -> None:
        for name in ("upper", "work"):
            (self._path / name).mkdir(parents=True, mode=0o755)

    def seed(self, files: Mapping[str, bytes]) -> None:
        for name, data in files.items():
            path = self._path / "upper" / name
            path.parent.mkdir(mode=0o755, parents=True, exist_ok=True)
            path.write_bytes(data)


class EngineHost:
    """`engine()` makes the agent's engine over this host; any number, one after the other."""

    def __init__(self, directory: Path) -> None:
        self.directory = directory
        self.image = directory / "image"
        self.cgroup_parent = directory.name
        self.config = AgentConfig(
            host="host1",
            state_dir=directory / "state",
            run_dir=directory / "run",
            bridge=f"{PREFIX}0",
            cgroup_parent=self.cgroup_parent,
        )
        self._count = 0

    def engine(self) -> Engine:
        engine = Engine(self.config, DirectoryImages(self.image), DirectoryLayer)
        engine.recover()
        return engine

    def spec(self, *argv: str, limits: Limits | None = None, **changes: object) -> ContainerSpec:
        """A container of the busybox image that runs `argv`, or a shell line given as one word."""
        self._count += 1
        spec = ContainerSpec(
            id=uuid.uuid4().hex,
            name=f"c{self._count}",
            image="busybox",
            image_digest="sha256:" + "a" * 64,
            layers=(LAYER,),
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


def requirements() -> str:
    """What this machine lacks for these tests, or ""."""
    if os.geteuid() != 0:
        return "root"
    if not BUSYBOX.exists():
        return "/bin/busybox (apt install busybox-static)"
    return ""


@contextmanager
def engine_host() -> Iterator[EngineHost]:
    """Make a host and take it apart again, killing what is left in it."""
    if missing := requirements():
        pytest.skip(f"needs {missing}")
    directory = Path(tempfile.mkdtemp(prefix=f"{PREFIX}-", dir="/var/tmp"))
    directory.chmod(0o711)
    host = EngineHost(directory)
    home = os.open("/proc/thread-self/ns/net", os.O_RDONLY)
    namespaces.unshare(namespaces.CLONE_NEWNET)
    try:
        _ip(f"link add {host.config.bridge} type bridge")
        _ip(f"address add 10.77.0.1/16 dev {host.config.bridge}")
        _ip(f"link set {host.config.bridge} up")
        _make_image(host.image)
        yield host
    finally:
        namespaces.setns(home, namespaces.CLONE_NEWNET)
        os.close(home)
        _take_apart(host)


def _ip(line: str) -> None:
    subprocess.run(["ip", *line.split()], check=True)


def _make_image(image: Path) -> None:
    for name in ("bin", "etc", "tmp", "root"):
        (image / name).mkdir(parents=True)
    (image / "tmp").chmod(0o1777)
    shutil.copy2(BUSYBOX, image / "bin" / "busybox")
    for applet in subprocess.run([str(BUSYBOX), "--list"], capture_output=True, text=True, check=True).stdout.split():
        if applet != "busybox":
            (image / "bin" / applet).symlink_to("busybox")
    (image / "etc" / "passwd").write_text("root:x:0:0:root:/root:/bin/sh\nworker:x:1000:1000::/tmp:/bin/sh\n")
    (image / "etc" / "group").write_text("root:x:0:\nworker:x:1000:\n")


def _take_apart(host: EngineHost) -> None:
    top = Cgroup("", host.cgroup_parent, probe())
    top.kill()
    top.wait_empty(10)
    for line in reversed(host.mounts()):
        subprocess.run(["umount", "-l", line.split()[4]], check=False)
    top.remove()
    shutil.rmtree(host.directory)
