"""What the monitor and init of a container are told: its spec, and what follows from it on this host. See init.Plan."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from agent.engine import hostfiles, local, logs, mounted, reaper, rlimits, secret_files, usage
from agent.engine.cgroup import Cgroup
from agent.engine.spec import ContainerSpec


def make(
    spec: ContainerSpec,
    directory: Path,
    layers: Sequence[Path],
    cgroup: Cgroup,
    *,
    seccomp: str,
    mounts: Mapping[str, Any],
    own: local.Local = local.NOTHING,
) -> dict[str, Any]:
    """JSON. `mounts`: mounted.plan(); `directory`: the container's; `layers`: unpacked, base first; `seccomp`: the file of its filter,
    "" for none; every path is the host's.
    """
    return {**mounts, **own.plan()} | {
        "id": spec.id,
        "root": str(directory / "rootfs"),
        "layers": [str(layer) for layer in layers],
        "writable": str(directory / "layer"),
        "ids_base": spec.ids.base,
        "ids_count": spec.ids.count,
        "freezer": str(cgroup.freezer),
        "tasks": [str(path) for path in cgroup.tasks_files],
        "oom_events": str(usage.oom_events(cgroup.directories)),
        "hostname": hostfiles.name_of(spec),
        "domainname": spec.domainname,
        "argv": reaper.command(spec.argv, init=spec.init),
        "env": list(spec.env),
        "cwd": spec.cwd,
        "user": spec.user,
        "groups": list(spec.groups),
        "umask": umask(spec),
        "capabilities": list(spec.capabilities),
        "tty": spec.tty,
        "stdin_open": spec.stdin_open,
        "rlimits": rlimits.plan(spec.limits),
        "oom_score_adj": spec.limits.oom_score_adj,
        "seccomp": seccomp,
        "new_privileges": spec.isolation.new_privileges,
        "shared": shared(spec),
        "host_users": spec.isolation.user == "host",
        "devices": [{"source": device.source, "target": device.target} for device in spec.isolation.devices],
        "sysctls": dict(spec.isolation.sysctls),
        "secrets": secret_files.plan(directory, spec),
        "shm_bytes": spec.limits.shm_bytes or mounted.SHM_BYTES,
        "log": str(directory / "container.log"),
        "log_limits": logs.limits(spec.log_options),
        "exit": str(directory / "exit.json"),
        "remove_on_exit": spec.remove_on_exit,
    }


def shared(spec: ContainerSpec) -> list[str]:
    """Namespaces of the host's that it is in."""
    return [name for name in ("pid", "ipc", "uts") if getattr(spec.isolation, name) == "host"]


def umask(spec: ContainerSpec) -> int:
    """That its processes begin with."""
    return int(spec.umask, 8) if spec.umask else 0o022
