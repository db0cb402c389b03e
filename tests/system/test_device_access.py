"""Which devices tasks of a container's cgroup may use, by the kernel's own answer."""

from __future__ import annotations

import json
import os
import stat
import subprocess
import sys
from pathlib import Path

import pytest

from agent.engine import device_access
from agent.engine.cgroup import Cgroup, probe
from agent.linux import bpf
from agent.linux.bpf import DeviceRule

pytestmark = pytest.mark.system
_OPEN = """
import json, os, sys
def tried(path, flags):
    try: os.close(os.open(path, flags))
    except OSError as exc: return exc.errno
    return 0
open(sys.argv[1] + "/cgroup.procs", "w").write("0")
print(json.dumps([[tried(path, flags) for flags in (os.O_RDONLY, os.O_WRONLY)] for path in sys.argv[2:]]))
"""


def opened(directory: Path, *nodes: Path) -> list[list[int]]:
    """errno of opening each to read and to write, from within the cgroup."""
    done = subprocess.run(
        [sys.executable, "-c", _OPEN, str(directory), *map(str, nodes)], capture_output=True, text=True, check=True
    )
    found: list[list[int]] = json.loads(done.stdout)
    return found


@pytest.mark.parametrize("way", ["v1", "v2"])
def test_only_what_is_allowed_opens(tmp_path: Path, way: str) -> None:
    """The usual devices open, another one only as it was asked for, the rest not at all: by root, with every capability."""
    cgroup = Cgroup("is-devices", f"{way}-{os.getpid()}", probe())
    if way == "v1" and "devices" not in cgroup.directories.legacy:
        pytest.skip("missing capability: a version 1 devices controller")
    nodes = {name: tmp_path / name for name in ("usual", "asked", "other")}
    for name, (major, minor) in {"usual": (1, 5), "asked": (1, 11), "other": (1, 2)}.items():
        os.mknod(nodes[name], stat.S_IFCHR | 0o600, os.makedev(major, minor))
    rules = [*device_access.DEFAULT, DeviceRule(kind="c", major=1, minor=11, access="r")]
    cgroup.create()
    try:
        if way == "v1":
            assert device_access.by_version_1(cgroup, rules)
            directory = cgroup.directories.legacy["devices"]
        else:
            bpf.allow_devices(cgroup.freezer, rules)
            bpf.allow_devices(cgroup.freezer, [])  # it is there: a second one would refuse everything
            directory = cgroup.freezer
        seen = opened(directory, nodes["usual"], nodes["asked"], nodes["other"])
    finally:
        cgroup.remove()
        cgroup.remove_beside("*")
        for each in cgroup.dirs:
            each.parent.rmdir()
    assert seen == [[0, 0], [0, 1], [1, 1]]
