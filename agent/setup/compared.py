"""Facts of a host that are compared with another host's before a move. Each only reads. Standard library only."""

from __future__ import annotations

import fcntl
import socket
import struct
from ipaddress import IPv4Interface
from pathlib import Path

from agent.setup import probe_host

_SIOCGIFADDR, _SIOCGIFNETMASK = 0x8915, 0x891B  # linux/sockios.h
_LABELLING = ("apparmor", "selinux", "smack")


def cgroup_kind() -> str:
    """ "v1", "hybrid" (both), "v2", or "" without any."""
    v1, v2 = probe_host.cgroup_mounts()
    if v1:
        return "hybrid" if v2 else "v1"
    return "v2" if v2 else ""


def lsm(sys: Path = Path("/sys")) -> str:
    """The module that labels processes here, "" = none."""
    try:
        loaded = (sys / "kernel/security/lsm").read_text().strip().split(",")
    except OSError:  # securityfs is not mounted
        loaded = []
        if _read(sys / "module/apparmor/parameters/enabled").strip() == "Y":
            loaded.append("apparmor")
        if (sys / "fs/selinux/enforce").exists():
            loaded.append("selinux")
    return next((name for name in _LABELLING if name in loaded), "")


def lsm_label(pid: int, proc: Path = Path("/proc")) -> str:
    """What confines the process, "" where nothing does."""
    label = _read(proc / str(pid) / "attr/current").strip("\0\n ")
    return "" if label in ("unconfined", "kernel") or ":unconfined_t:" in label else label


def processor(cpuinfo: Path = Path("/proc/cpuinfo")) -> str:
    """Who made it, as the kernel says: "GenuineIntel", "AuthenticAMD", an implementer's number on aarch64."""
    for line in _read(cpuinfo).splitlines():
        name, _, value = line.partition(":")
        if name.strip() in ("vendor_id", "CPU implementer"):
            return value.strip()
    return ""


def bridge_addresses(bridge: str) -> list[str]:
    """ "10.88.0.1/16" where the bridge has an address of its own."""
    request = struct.pack("16s24x", bridge.encode()[:15])
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as asking:
        try:
            address, mask = (
                socket.inet_ntoa(fcntl.ioctl(asking, code, request)[20:24]) for code in (_SIOCGIFADDR, _SIOCGIFNETMASK)
            )
        except OSError:
            return []  # no such bridge, or none of its own
    return [str(IPv4Interface(f"{address}/{mask}"))]


def _read(path: Path) -> str:
    try:
        return path.read_text(errors="replace")
    except OSError:  # no such module, or a kernel that labels nothing: EINVAL
        return ""
