"""A container's mounts besides its root, as its spec says them and as this host makes them: the part of init.Plan."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path, PurePosixPath
from typing import Any

from agent.engine.spec import ContainerSpec, Mount
from agent.errors import InvalidArgument, NotFound
from agent.linux import openat2

PROPAGATIONS = ("", "private", "rprivate", "slave", "rslave", "shared", "rshared")
TMPFS_OPTIONS = ("exec", "noexec", "suid", "nosuid", "dev", "nodev", "uid", "gid", "nr_inodes")
RESERVED = ("/", "/proc", "/sys", "/dev")
KINDS = ("bind", "volume", "tmpfs")
SHM = "/dev/shm"  # noqa: S108  the container's
SHM_BYTES = 64 << 20


def check(spec: ContainerSpec) -> None:
    """Raises InvalidArgument for what cannot be mounted on any host."""
    seen: dict[str, Mount] = {}
    for mount in spec.mounts:
        target = mount.target
        if mount.kind not in KINDS:
            raise InvalidArgument(f"{mount.kind!r} is no kind of a mount: bind, volume or tmpfs")
        if not target.startswith("/") or ".." in PurePosixPath(target).parts or "\0" in target:
            raise InvalidArgument(f"the target of a mount is an absolute path, not {target!r}")
        inside = clean(target).startswith(("/proc/", "/sys/")) or (
            clean(target).startswith("/dev/") and mount.kind != "tmpfs"
        )
        if clean(target) in RESERVED or inside:
            raise InvalidArgument(f"nothing can be mounted at {target}: that is the container's own")
        if clean(target) in seen:
            raise InvalidArgument(f"two mounts have the target {target}")
        seen[clean(target)] = mount
        if mount.kind == "bind" and (not mount.source.startswith("/") or ".." in PurePosixPath(mount.source).parts):
            raise InvalidArgument(f"the source of a bind mount is an absolute path, not {mount.source!r}")
        if mount.propagation not in PROPAGATIONS:
            raise InvalidArgument(
                f"{mount.propagation!r} is no propagation of a mount", hint="rprivate, rslave, rshared"
            )
        for option in mount.options:
            if mount.kind != "tmpfs" or option.partition("=")[0] not in TMPFS_OPTIONS or "," in option:
                raise InvalidArgument(f"{option!r} is no option of a mount of the kind {mount.kind}")
    for target, mount in seen.items():
        above = next((str(parent) for parent in PurePosixPath(target).parents if str(parent) in seen), "")
        if above and seen[above].kind == "tmpfs" and mount.kind != "tmpfs":
            raise InvalidArgument(f"{target} lies in the tmpfs at {above}, where nothing can be mounted")


def clean(target: str) -> str:
    return "/" + "/".join(part for part in target.split("/") if part not in ("", "."))


def make_sources(spec: ContainerSpec) -> None:
    """Make those directories of the host that are to be made. Raises NotFound for a bind's source that is not there."""
    for mount in spec.mounts:
        if mount.kind != "bind" or os.path.lexists(mount.source):
            continue
        if not mount.create_source:
            raise NotFound(f"bind source path does not exist: {mount.source}", hint="make it on the host, or use -v")
        try:
            Path(mount.source).mkdir(mode=0o755, parents=True, exist_ok=True)
        except OSError as exc:
            raise InvalidArgument(f"cannot make {mount.source}: {exc.strerror}") from exc


def missing(mounts: Iterable[Mount]) -> list[str]:
    """The sources of binds that this host lacks."""
    return [mount.source for mount in mounts if mount.kind == "bind" and not Path(mount.source).exists()]


def plan(
    spec: ContainerSpec, volume: Callable[[str], tuple[Path, Path]], staging: Path, *, fresh: bool
) -> dict[str, Any]:
    """`volume`: of a name the path of its files and that of its marker of filling; `staging`: where a restore finds the binds and tmpfs;
    `fresh`: the container never ran.
    """
    found: dict[str, Any] = {"staging": str(staging)}
    binds, scratch = [], []
    for mount in _ordered(spec):
        if mount.kind == "tmpfs":
            scratch.append(_tmpfs(mount))
            continue
        source, marker = volume(mount.source) if mount.kind == "volume" else (Path(mount.source), Path())
        binds.append(
            {
                "source": str(source),
                "target": clean(mount.target),
                "read_only": mount.read_only,
                "idmapped": True,
                "propagation": mount.propagation.removeprefix("r") or "private",
                "fill": str(marker) if mount.kind == "volume" and fresh and not mount.no_copy else "",
            }
        )
    if binds:
        found["binds"] = binds
    if scratch:
        found["scratch"] = scratch
    if spec.read_only:
        found["read_only"] = True
    return found


def _tmpfs(mount: Mount) -> dict[str, Any]:
    """Docker's: no programs, no devices, no set-uid, unless the options say so."""
    flags, data = ["nosuid", "nodev", "noexec"], []
    for option in mount.options:
        if "=" in option:
            data.append(option)
        elif option.startswith("no"):
            flags.append(option)
        else:
            flags = [flag for flag in flags if flag != f"no{option}"]
    if mount.read_only:
        flags.append("ro")
    return {
        "target": clean(mount.target),
        "size_bytes": mount.size_bytes,
        "mode": mount.mode or 0o1777,
        "flags": sorted(set(flags)),
        "data": data,
    }


def external(
    spec: ContainerSpec, staging: Path, points: Callable[[str], str] = lambda target: target
) -> list[tuple[str, str, str]]:
    """The mounts that come from the host, as init.external_mounts(). `points`: where a target really is in the container."""
    found = [mount for mount in _ordered(spec) if mount.kind != "tmpfs"] + tmpfs(spec)
    return [
        (points(clean(mount.target)), f"bind-{number}", str(staging / str(number)))
        for number, mount in enumerate(found)
    ]


def tmpfs(spec: ContainerSpec) -> list[Mount]:
    """Those that move as files do, in that order: all but one that another lies in, which CRIU carries. /dev/shm is the last."""
    above = {str(parent) for mount in spec.mounts for parent in PurePosixPath(clean(mount.target)).parents}
    found = [mount for mount in _ordered(spec) if mount.kind == "tmpfs" and clean(mount.target) not in above]
    if spec.isolation.ipc != "host" and SHM not in above and all(clean(each.target) != SHM for each in spec.mounts):
        found.append(Mount(kind="tmpfs", target=SHM, size_bytes=spec.limits.shm_bytes or SHM_BYTES, mode=0o1777))
    return found


def scratch(spec: ContainerSpec) -> list[dict[str, Any]]:
    """Their part of the plan."""
    return [_tmpfs(mount) for mount in tmpfs(spec)]


def staged(plan: Mapping[str, Any], spec: ContainerSpec, places: Sequence[Path]) -> list[dict[str, Any]]:
    """What CRIU is given to take, in the order of external(): the plan's binds, and where its tmpfs have come."""
    found = list(plan.get("binds", ()))
    for one, source in zip(scratch(spec), places, strict=True):
        read_only = "ro" in one["flags"]
        found.append(
            {"source": str(source), "target": one["target"], "read_only": read_only, "idmapped": False, "fill": ""}
        )
    return found


def of_the_host(spec: ContainerSpec, shared: Callable[[str], bool]) -> list[bool]:
    """Of each of the plan's binds, in their order, whether what is written there is not the container's own. `shared`: of a volume."""
    return [
        not mount.read_only and (mount.kind == "bind" or shared(mount.source))
        for mount in _ordered(spec)
        if mount.kind != "tmpfs"
    ]


def real_point(pid: int) -> Callable[[str], str]:
    """Of a container's init: the path without links that a mount's target is now. Raises OSError."""

    def resolve(target: str) -> str:
        top = os.open(f"/proc/{pid}/root", os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC)
        try:
            fd = openat2.open_in_root(top, os.fsencode(target), os.O_PATH)
            try:
                return os.readlink(f"/proc/self/fd/{fd}")  # noqa: PTH115  the path that it has over there
            finally:
                os.close(fd)
        finally:
            os.close(top)

    return resolve


def _ordered(spec: ContainerSpec) -> list[Mount]:
    """What is above first."""
    return sorted(spec.mounts, key=lambda mount: len(PurePosixPath(clean(mount.target)).parts))
