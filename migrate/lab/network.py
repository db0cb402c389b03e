"""The lab's wires: a namespace a node, a bridge in the switch, a veth pair to each of the others.

    host1: migrate0 (10.88.0.11) ─ eth0 ══ host1 ┐
    host2: migrate0 (10.88.0.12) ─ eth0 ══ host2 ┼ br0 of the switch
    controller, client:            eth0 ══ NAME  ┘

A host's bridge holds its address and its uplink, as on a real host, so that a container on it is on the fleet's one
segment. Nothing of this is ever in the root network namespace: both ends of each pair are born where they belong.
"""

from __future__ import annotations

import subprocess
from collections.abc import Sequence

from migrate.lab.layout import BRIDGE, NETNS_DIR, PREFIX_LENGTH, UPLINK, Lab, LabError, Node, Role

# No spanning tree and no forwarding delay: a port must carry frames the instant that a moved container resumes.
_BRIDGE_OPTIONS = "type bridge forward_delay 0 stp_state 0"


def _ip(arguments: Sequence[str], *, commands: Sequence[str] = ()) -> str:
    text = "".join(f"{line}\n" for line in commands)
    result = subprocess.run(["ip", *arguments], check=False, input=text, capture_output=True, text=True)
    if result.returncode:
        said = (result.stderr or result.stdout).strip()
        raise LabError(f"ip {' '.join(arguments)}: {said}", hint="take the rest down and try again: migrate lab down")
    return result.stdout


def _bridge_mac(node: Node) -> str:
    """Pinned: by default a bridge takes the lowest address of its ports, and so a new one as containers come and go."""
    return "02:42:" + ":".join(f"{int(part):02x}" for part in node.address.split("."))


def _try_ip(*arguments: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(["ip", *arguments], capture_output=True, text=True, check=False)


def _commands(node: Node) -> list[str]:
    """What `ip -batch` is told inside the node's namespace, once its eth0 is there."""
    lines = ["link set lo up"]
    if node.role is Role.SWITCH:
        return [*lines, f"link add br0 {_BRIDGE_OPTIONS}", "link set br0 up"]
    if node.role in (Role.HOST, Role.BARE):
        return [
            *lines,
            f"link add {BRIDGE} address {_bridge_mac(node)} {_BRIDGE_OPTIONS}",
            f"link set {UPLINK} master {BRIDGE} up",
            f"addr add {node.address}/{PREFIX_LENGTH} dev {BRIDGE}",
            f"link set {BRIDGE} up",
        ]
    return [*lines, f"addr add {node.address}/{PREFIX_LENGTH} dev {UPLINK}", f"link set {UPLINK} up"]


def up(lab: Lab) -> None:
    """Make all namespaces and wires. Raises LabError; what was made until then is `down`'s to remove."""
    switch = lab.netns("switch")
    for node in lab.nodes:
        _ip(["netns", "add", lab.netns(node.name)])
        if node.role is not Role.SWITCH:
            pair = ["type", "veth", "peer", "name", UPLINK, "netns", lab.netns(node.name)]
            _ip(["link", "add", node.name, "netns", switch, *pair])
            _ip(["-n", switch, "link", "set", node.name, "master", "br0", "up"])
        _ip(["-n", lab.netns(node.name), "-batch", "-"], commands=_commands(node))


def names(prefix: str) -> list[str]:
    """The namespaces of a lab that have a name now, whatever state they are in."""
    if not NETNS_DIR.is_dir():
        return []
    return sorted(path.name for path in NETNS_DIR.iterdir() if path.name.startswith(f"{prefix}-"))


def down(prefix: str) -> None:
    """Remove whatever of a lab's network there is. Raises LabError after having tried everything."""
    failures: list[str] = []
    for name in sorted(names(prefix), key=lambda each: not each.endswith("-switch")):
        # The wires first: a mount namespace of somebody else may hold a copy of this one's name and keep it alive.
        for line in _try_ip("-n", name, "-o", "link", "show", "type", "veth").stdout.splitlines():
            _try_ip("-n", name, "link", "del", line.split(": ")[1].split("@")[0])  # its peer may have gone first
        result = _try_ip("netns", "del", name)
        # After a crash the name may be a plain file with no namespace mounted on it: `ip netns del` unlinks it all
        # the same, though it fails.
        if result.returncode and (NETNS_DIR / name).exists():
            failures.append(f"{name}: {result.stderr.strip()}")
    if failures:
        raise LabError(f"network namespaces could not be removed: {'; '.join(failures)}")
