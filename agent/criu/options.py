"""From a container's description to CRIU's request: pure functions. pycriu is imported here and in `images.py` only.

Each option says why. The names are those of images/rpc.proto; the same as the command line's with '-' for '_'.
"""

from __future__ import annotations

import importlib
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

STDIO_FDS = {"stdin": 201, "stdout": 202, "stderr": 203}  # numbers in CRIU's own table, see swrk.py
GHOST_LIMIT_BYTES = 256 << 20  # CRIU's default of 1 MiB refuses an ordinary deleted log file
CLONE_NEWNET = 0x40000000  # linux/sched.h
LOG_LEVEL = 2  # errors and warnings: higher levels cost milliseconds a thread inside the freeze
# A lazy dump insists on a page server, and after the hold, refused or not, it would listen there on all addresses and wait for ever.
# The monitor keeps the port taken (departure.py): then CRIU cannot listen, lets the tasks go and ends.
UNUSED_PORT = 27


@dataclass(frozen=True, kw_only=True)
class Stdio:
    """Keys of the container's stdio, as CRIU names it: "pipe:[123]", or "" where there is nothing of ours."""

    stdin: str = ""
    stdout: str = ""
    stderr: str = ""


def load(pycriu_path: Path) -> Any:
    """pycriu.rpc_pb2. Its folder goes first: a distribution's older pycriu would shadow it."""
    if str(pycriu_path) not in sys.path:
        sys.path.insert(0, str(pycriu_path))
    return importlib.import_module("pycriu.rpc_pb2")


def dump(
    rpc: Any,
    *,
    pid: int,
    root: Path,
    images_dir: Path,
    external: Sequence[tuple[str, str, str]],
    skeleton: bool,
    carry_network: bool,
) -> bytes:
    """A DUMP that is held at post-dump. `external`: (mount point, key, source); `skeleton`: leave lazy memory in the tasks.

    `carry_network`: dump the network namespace's links, addresses, routes and settings; else the target makes them anew, 40 ms sooner.
    """
    request = rpc.criu_req(type=rpc.DUMP)
    o = request.opts
    _common(rpc, o, images_dir, "dump.log")
    o.pid = pid
    if not carry_network:
        o.empty_ns = CLONE_NEWNET
    o.root = str(root)
    o.file_locks = True
    o.link_remap = True  # a file that was unlinked while open, whose inode has other names
    o.ghost_limit = GHOST_LIMIT_BYTES
    o.external.extend(f"mnt[{mount_point}]:{key}" for mount_point, key, _ in external)
    if skeleton:
        o.lazy_pages = True
        o.ps.address = "127.0.0.1"
        o.ps.port = UNUSED_PORT
    return bytes(request.SerializeToString())


def restore(
    rpc: Any,
    *,
    root: Path,
    images_dir: Path,
    external: Sequence[tuple[str, str, str]],
    cgroup_roots: Sequence[tuple[str, str]],
    peer: str,
    stdio: Stdio,
    lazy: bool,
    carry_network: bool,
) -> bytes:
    """A RESTORE that is frozen at pre-resume. `cgroup_roots`: (controller, path); `peer`: the veth end that becomes eth0, "" without."""
    request = rpc.criu_req(type=rpc.RESTORE)
    o = request.opts
    _common(rpc, o, images_dir, "restore.log")
    o.root = str(root)
    o.file_locks = True
    o.rst_sibling = True  # init becomes the monitor's child: it reaps it, as after an ordinary start
    o.external.extend(f"mnt[{key}]:{source}" for _, key, source in external)
    if not carry_network:
        o.empty_ns = CLONE_NEWNET
    elif peer:
        o.external.append(f"netdev[eth0]:{peer}")
    for controller, path in cgroup_roots:
        o.cg_root.add(ctrl=controller, path=path)
    keys = {"stdin": stdio.stdin, "stdout": stdio.stdout, "stderr": stdio.stderr}
    for stream, key in keys.items():
        if key:
            o.inherit_fd.add(key=key, fd=STDIO_FDS[stream])
    o.lazy_pages = lazy
    return bytes(request.SerializeToString())


def _common(rpc: Any, o: Any, images_dir: Path, log: str) -> None:
    o.images_dir = str(images_dir)
    o.images_dir_fd = -1
    o.log_level = LOG_LEVEL
    o.log_file = log
    o.notify_scripts = True
    o.tcp_established = True
    o.network_lock = rpc.NFTABLES  # needs no binary, and the iptables way fails on containers that have none
    o.manage_cgroups_mode = (
        rpc.SOFT
    )  # with cg_root on restore: ours, limits kept, and a cgroup namespace of the container's own
    o.orphan_pts_master = True
