"""A container's link, from its monitor: furnished before there are tasks; in a move cut at the freeze and joined at the end.

What the container was given at its start (lo, eth0, its address and route) is made anew on the target, where it cannot have changed it;
else (CAP_NET_ADMIN, `network.may_change`) CRIU carries the whole namespace. For a process with a single thread; standard library
only.
"""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path

from agent.linux import namespaces
from agent.linux.rtnetlink import Neighbour, RouteSocket

LOOPBACK = 1  # the index of lo in every network namespace (include/linux/if.h)
_LISTEN = "0A"  # include/net/tcp_states.h


@dataclass(frozen=True, kw_only=True)
class LinkPlan:
    """`host`: the veth end on this host, "" for a container without a network; `peer`: what becomes eth0; `mac`: "02:42:..."."""

    bridge: str
    host: str = ""
    peer: str = ""
    mac: str = ""
    address: str = ""
    gateway: str = ""


def cut(plan: LinkPlan) -> None:
    """Off the bridge; the link stays up, for routes dumped with the link down do not restore."""
    if plan.host:
        with RouteSocket() as route:
            route.set_master(route.index(plan.host), 0)


def join(plan: LinkPlan) -> None:
    """Onto the bridge."""
    if plan.host:
        with RouteSocket() as route:
            route.set_master(route.index(plan.host), route.index(plan.bridge))


def seal(plan: LinkPlan) -> None:
    """As if its cable was pulled: off the bridge, and what is sent meets nobody, not even this host, which answers ARP on any link that
    is up.
    """
    if plan.host:
        with RouteSocket() as route:
            index = route.index(plan.host)
            route.set_master(index, 0)
            route.set_down(index)


def tell_bridge(plan: LinkPlan) -> None:
    """The bridge may still have the container behind the uplink, from when it ran elsewhere. Raises OSError while the port does not
    forward.
    """
    if plan.host:
        with RouteSocket() as route:
            route.replace_fdb(route.index(plan.host), bytes.fromhex(plan.mac.replace(":", "")))


def furnish(plan: LinkPlan, pid: int) -> None:
    """In a restore: give the new network namespace of `pid` lo and eth0, which is `plan.peer` before."""
    if plan.peer:
        with RouteSocket() as route:
            route.move(route.index(plan.peer), pid, "eth0")
    with open_inside(pid) as inside:
        inside.set_up(LOOPBACK)
        configure(plan, inside)


def configure(plan: LinkPlan, inside: RouteSocket) -> None:
    """Its address and route, by a socket that was opened in there: for any process, without a change of namespace."""
    if plan.address:
        eth0 = inside.index("eth0")
        inside.add_address(eth0, plan.address)
        inside.set_up(eth0)
        if plan.gateway:
            inside.add_default_route(eth0, plan.gateway)


def unaccepted(pid: int) -> int:
    """TCP connections that wait in the accept queues of the network namespace of `pid`: CRIU does not dump them.

    Of a listening socket, /proc/net/tcp shows the length of that queue where others have theirs of received bytes (net/ipv4/tcp_ipv4.c).
    """
    count = 0
    for name in ("tcp", "tcp6"):
        try:
            lines = Path(f"/proc/{pid}/net/{name}").read_text().splitlines()[1:]
        except FileNotFoundError:
            continue  # a kernel without IPv6
        for line in lines:
            words = line.split()
            if words[3] == _LISTEN:
                count += int(words[4].partition(":")[2], 16)
    return count


def save_neighbours(pid: int, path: Path) -> None:
    """CRIU does not carry them, and an address that must be asked for first costs the client a second."""
    with open_inside(pid) as inside:
        names = {link.index: link.name for link in inside.links()}
        path.write_text(
            json.dumps(
                [
                    {"dst": each.address, "lladdr": each.mac.hex(":"), "dev": names[each.index]}
                    for each in inside.neighbours()
                    if each.index in names
                ]
            )
        )


def bring_neighbours(pid: int, path: Path) -> None:
    neighbours = json.loads(path.read_text())
    if not neighbours:
        return
    with open_inside(pid) as inside:
        indexes = {link.name: link.index for link in inside.links()}
        for each in neighbours:
            if each["dev"] in indexes:
                mac = bytes.fromhex(each["lladdr"].replace(":", ""))
                inside.replace_neighbour(Neighbour(index=indexes[each["dev"]], address=each["dst"], mac=mac))


def open_inside(pid: int) -> RouteSocket:
    with namespaces.network_of(pid):
        return RouteSocket()
