"""The files that a container gets from its host: /etc/hosts, /etc/hostname, /etc/resolv.conf.

They are written into the writable layer before the first start, so they are the container's own from then on and move
with it.
"""

from __future__ import annotations

import contextlib
import ipaddress
from pathlib import Path

from agent.engine.spec import ContainerSpec

# systemd-resolved keeps the real servers here; its /etc/resolv.conf names a stub on the host's loopback.
_RESOLV_CONF = (Path("/run/systemd/resolve/resolv.conf"), Path("/etc/resolv.conf"))


def make(spec: ContainerSpec, *, host_network: bool = False) -> dict[str, bytes]:
    """Path inside the container -> contents. In the host's network its files are right as they are."""
    files = {
        "/etc/hostname": f"{spec.hostname}\n".encode(),
        "/etc/hosts": _hosts(spec).encode(),
        "/etc/resolv.conf": resolv_conf(_RESOLV_CONF).encode(),
    }
    if host_network:
        for name in ("/etc/hosts", "/etc/resolv.conf"):
            with contextlib.suppress(OSError):  # the host has none
                files[name] = Path(name).read_bytes()
    return files


def resolv_conf(candidates: tuple[Path, ...]) -> str:
    """The first readable candidate without name servers on loopback: that address is the container itself in there."""
    for path in candidates:
        try:
            lines = path.read_text(errors="replace").splitlines()
        except OSError:
            continue
        return "".join(f"{line}\n" for line in lines if not _is_local_server(line))
    return ""


def _hosts(spec: ContainerSpec) -> str:
    lines = ["127.0.0.1\tlocalhost", "::1\tlocalhost ip6-localhost ip6-loopback"]
    address = spec.network.address.partition("/")[0] or "127.0.1.1"
    return "\n".join([*lines, f"{address}\t{spec.hostname}", ""])


def _is_local_server(line: str) -> bool:
    words = line.split()
    if len(words) < 2 or words[0] != "nameserver":
        return False
    try:
        return ipaddress.ip_address(words[1].partition("%")[0]).is_loopback
    except ValueError:
        return False
