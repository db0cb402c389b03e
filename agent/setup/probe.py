"""What this host can and cannot do, found out by trying. Behind `migrate doctor`, the agent's Facts, the tests' skips.

The caller may be the threaded agent: nothing here forks or changes namespaces; what does runs as probe_child.py, a
process of its own for each probe. A probe that fails in a way it did not foresee is a capability that is not there.
Standard library only.
"""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from pathlib import Path

from agent.errors import Unsupported
from agent.setup import criu, probe_host
from agent.setup.capability import Capability, Verdict

__all__ = ["Capability", "Verdict", "all_required", "probe"]

_CHILD = Path(__file__).with_name("probe_child.py")
_CHECKOUT = Path(__file__).resolve().parents[2]
_TIMEOUT_S = 120.0  # of a probe that hangs. One that is only slow must not be taken for a capability that is missing

# Name in `criu check --feature`, whether moves need it, what is lost without it.
_CRIU_FEATURES = (
    (
        "mem_dirty_track",
        False,
        "nothing to do: memory is tracked by userfaultfd-wp, or compared with a copy where that is missing too",
    ),
    ("uffd-noncoop", False, "no lazy restore: downtime grows with memory (about 0.8 s a GB)"),
    ("pidfd_store", False, "CRIU takes longer to recognise a process whose pid was used again"),
    ("network_lock_nftables", True, "apt-get install nftables, and a kernel with nf_tables"),
    ("move_mount_set_group", True, "boot Linux 5.15 or newer"),
    ("timens", True, "the kernel lacks CONFIG_TIME_NS: clocks would jump back in a container that moves"),
)


@dataclass(frozen=True, kw_only=True)
class _Child:
    """A probe of probe_child.py."""

    name: str
    remedy: str
    required: bool = False
    argument: str = ""


def probe(
    *,
    run_dir: Path = Path("/run/migrate"),
    state_dir: Path = Path("/var/lib/migrate"),
    criu_path: str = "",
    known: Sequence[Capability] = (),
) -> list[Capability]:
    """Try everything, about a second in all; never raises. The arguments are those of AgentConfig (criu_path: `criu`);
    what is `known` from one() is not tried again.

    `remedy` is kept where a capability is there, too: it says what the capability is good for.
    """
    host: list[tuple[str, bool, Callable[[], Capability]]] = [  # name and whether it is required: for one that breaks
        ("kernel", True, probe_host.kernel),
        ("architecture", False, probe_host.architecture),
        ("privileges", True, probe_host.privileges),
        ("CAP_SYS_RESOURCE", False, probe_host.cap_sys_resource),
        ("cgroup", False, probe_host.cgroup),
        ("ssh", True, probe_host.ssh),
        ("programs", True, probe_host.programs),
        ("run-tmpfs", False, lambda: probe_host.run_on_tmpfs(run_dir)),
        ("aes", False, probe_host.aes),
        ("huge-pages", False, probe_host.huge_pages),
        ("seccomp", True, probe_host.seccomp),
        ("sized-layers", False, probe_host.sized_layers),
        ("bfq", False, probe_host.bfq),
        ("bridged-frames", False, probe_host.bridged_frames),
    ]
    tried = {each.name: each for each in known}
    children = [(spec.name, spec.required, _bind(spec, tried)) for spec in _child_probes(state_dir)]
    with ThreadPoolExecutor(4, thread_name_prefix="probe") as pool:
        tasks = [pool.submit(_guarded, name, required, run) for name, required, run in (*host, *children)]
        of_criu = _criu(criu_path, pool)
        return [task.result() for task in tasks] + of_criu


def one(name: str, state_dir: Path = Path("/var/lib/migrate")) -> Capability:
    """One of the capabilities that a child process tries; for what the agent decides at its start. Raises StopIteration
    for a name that is none of theirs.
    """
    return _in_child(next(spec for spec in _child_probes(state_dir) if spec.name == name))


def all_required(capabilities: Sequence[Capability]) -> bool:
    """Whether containers run and move on this host."""
    return all(one.ok for one in capabilities if one.required)


def _child_probes(state_dir: Path) -> list[_Child]:
    layers = state_dir
    while not layers.is_dir():
        layers = layers.parent
    _, v2 = probe_host.cgroup_mounts()
    return [
        _Child(
            name="cgroup-freezer",
            required=True,
            argument=str(v2 or ""),
            remedy="mount a cgroup2 hierarchy, it needs no controllers: mount -t cgroup2 none /sys/fs/cgroup/unified. "
            "It holds a container still between its two hosts",
        ),
        _Child(
            name="user-namespaces",
            required=True,
            remedy="sysctl user.max_user_namespaces=65536; a kernel with CONFIG_USER_NS",
        ),
        _Child(
            name="overlayfs",
            required=True,
            argument=str(layers),
            remedy=f"put state_dir on ext4 or xfs: {layers} cannot hold an overlay's layers",
        ),
        _Child(
            name="idmapped-mounts",
            required=True,
            argument=str(layers),
            remedy=f"put state_dir on ext4, xfs or btrfs: {probe_host.filesystem_of(layers)} cannot be id-mapped",
        ),
        _Child(
            name="network",
            required=True,
            remedy="a kernel with CONFIG_NET_NS, CONFIG_BRIDGE, CONFIG_VETH; apt-get install iproute2",
        ),
        _Child(name="nftables", required=True, remedy="apt-get install nftables, and a kernel with nf_tables"),
        _Child(
            name="file-events",
            argument=str(layers),
            remedy="Linux 6.6 or newer, and CAP_SYS_ADMIN: without it a move looks at every file in the freeze",
        ),
        _Child(
            name="soft-dirty",
            remedy="nothing to do where userfaultfd-wp is there; else a kernel with CONFIG_MEM_SOFT_DIRTY",
        ),
        _Child(name="userfaultfd-wp", remedy="nothing to do where soft-dirty is there; else Linux 6.7 or newer"),
        _Child(name="userfaultfd", remedy="a kernel with CONFIG_USERFAULTFD: without it no lazy restore"),
        _Child(
            name="userfaultfd-userns",
            remedy="sysctl vm.unprivileged_userfaultfd=1: a lazy restore opens its descriptor as the container's root",
        ),
        _Child(
            name="huge-tmpfs",
            remedy="staging memory is written 2-3 times slower; a kernel with CONFIG_TRANSPARENT_HUGEPAGE",
        ),
    ]


def _bind(spec: _Child, tried: Mapping[str, Capability]) -> Callable[[], Capability]:
    return lambda: tried.get(spec.name) or _in_child(spec)


def _in_child(spec: _Child) -> Capability:
    argv = [sys.executable, "-I", "-S", str(_CHILD), str(_CHECKOUT), spec.name, spec.argument]
    done = subprocess.run(
        argv, stdin=subprocess.DEVNULL, capture_output=True, text=True, timeout=_TIMEOUT_S, check=False
    )
    try:
        answer = json.loads(done.stdout)
    except ValueError:
        last = (done.stderr.strip().splitlines() or [f"ended with {done.returncode}"])[-1]
        answer = {"ok": False, "value": f"the probe died: {last}"}
    return Capability(
        name=spec.name, ok=answer["ok"], value=answer["value"], remedy=spec.remedy, required=spec.required
    )


def _criu(configured: str, pool: ThreadPoolExecutor) -> list[Capability]:
    missing = Capability(name="criu", ok=False, value="none", remedy=criu.REMEDY, required=True)
    try:
        install = criu.locate(configured)
    except Unsupported as exc:
        return [replace(missing, value=exc.message, remedy=exc.hint)]
    complaint = criu.check(install.binary)
    if complaint:
        return [replace(missing, value=f"{install.version_text} at {install.binary}: {complaint}")]
    found = Capability(
        name="criu", ok=True, value=f"{install.version_text} at {install.binary}", remedy=criu.REMEDY, required=True
    )

    def feature(row: tuple[str, bool, str]) -> Capability:
        name, required, remedy = row
        there = criu.has_feature(install.binary, name)
        return Capability(
            name=f"criu-{name}", ok=there, value="yes" if there else "no", remedy=remedy, required=required
        )

    return [found, *pool.map(feature, _CRIU_FEATURES)]


def _guarded(name: str, required: bool, run: Callable[[], Capability]) -> Capability:
    try:
        return run()
    except Exception as exc:  # noqa: BLE001  # one probe that breaks must not hide what the others found
        return Capability(
            name=name,
            ok=False,
            value=f"the probe failed: {exc}",
            remedy="report this as an error of migrate",
            required=required,
        )
