"""rtnetlink against iproute2: what one says, the other sees. In network namespaces of the test's own."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

pytestmark = pytest.mark.system

ROOT = Path(__file__).resolve().parents[2]
NAMES = (f"rtnl-{os.getpid()}-a", f"rtnl-{os.getpid()}-b")
A, B = NAMES


@pytest.fixture(autouse=True)
def namespaces() -> Iterator[None]:
    """Two network namespaces: a has a bridge and a pair, its peer down."""
    for name in NAMES:
        subprocess.run(["ip", "netns", "add", name], check=True)
    try:
        for words in ("br0 type bridge", "v0 type veth peer name v1"):
            subprocess.run(["ip", "-n", A, "link", "add", *words.split()], check=True)
        for name in ("br0", "v0"):
            subprocess.run(["ip", "-n", A, "link", "set", name, "up"], check=True)
        yield
    finally:
        for name in NAMES:
            subprocess.run(["ip", "netns", "del", name], check=True)


def inside(code: str) -> str:
    """Run Python in namespace a, with `route` open there; returns what it printed."""
    imports = "from agent.linux.rtnetlink import *; from agent.linux.namespaces import network_of"
    program = f"import sys; sys.path.insert(0, {str(ROOT)!r})\n{imports}\nroute = RouteSocket()\n{code}"
    command = ["ip", "netns", "exec", A, sys.executable, "-I", "-S", "-c", program]
    done = subprocess.run(command, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    return done.stdout


def ip(namespace: str, *words: str) -> Any:
    return json.loads(
        subprocess.run(["ip", "-n", namespace, "-json", *words], capture_output=True, check=True).stdout or "[]"
    )


def test_links_are_those_that_ip_lists() -> None:
    """Index, name, MTU and bridge of every link."""
    subprocess.run(["ip", "-n", A, "link", "set", "v0", "master", "br0", "mtu", "1400"], check=True)
    said = inside("for l in route.links(): print(l.index, l.name, l.mtu, l.master)").splitlines()
    index = {each["ifname"]: each["ifindex"] for each in ip(A, "link")}
    wanted = [
        f"{each['ifindex']} {each['ifname']} {each['mtu']} {index[each['master']] if 'master' in each else 0}"
        for each in ip(A, "link")
    ]
    assert said == wanted


def test_port_joins_and_leaves_a_bridge() -> None:
    """set_master is `ip link set master` and `nomaster`."""
    inside("route.set_master(route.index('v0'), route.index('br0'))")
    (shown,) = ip(A, "link", "show", "dev", "v0")
    assert shown["master"] == "br0"
    inside("route.set_master(route.index('v0'), 0)")
    (shown,) = ip(A, "link", "show", "dev", "v0")
    assert "master" not in shown


def test_pair_is_born_in_two_namespaces() -> None:
    """One end here: number, MTU, port of the bridge, up, no link-local address; the other there, down, with its name and MAC. One
    delete ends both."""
    holder = subprocess.Popen(["ip", "netns", "exec", B, "sleep", "60"])
    try:
        made = f"""
import time, sys
while not __import__('os').path.samefile('/proc/{holder.pid}/ns/net', '/run/netns/{B}'): time.sleep(0.01)
mac = bytes.fromhex('02420a580002')
route.add_pair('vmx', index=268435465, mtu=1400, peer='eth0', peer_mac=mac, peer_pid={holder.pid}, master=route.index('br0'))
"""
        inside(made)
        (here,) = ip(A, "-d", "link", "show", "dev", "vmx")
        assert (here["ifindex"], here["mtu"], here["master"], here["inet6_addr_gen_mode"]) == (
            268435465,
            1400,
            "br0",
            "none",
        )
        assert "UP" in here["flags"]
        (there,) = [each for each in ip(B, "link") if each["ifname"] == "eth0"]
        assert (there["address"], there["mtu"]) == ("02:42:0a:58:00:02", 1400)
        assert "UP" not in there["flags"]
        inside("route.delete(route.index('vmx'))")
        assert "eth0" not in [each["ifname"] for each in ip(B, "link")]
    finally:
        holder.kill()
        holder.wait()


def test_link_is_furnished_in_another_namespace() -> None:
    """A peer moves there under its new name, gets its address, comes up, and has a default route and a neighbour."""
    holder = subprocess.Popen(["ip", "netns", "exec", B, "sleep", "60"])
    try:
        inside(
            f"""
import time
while not __import__('os').path.samefile('/proc/{holder.pid}/ns/net', '/run/netns/{B}'): time.sleep(0.01)
route.move(route.index('v1'), {holder.pid}, 'eth0')
with network_of({holder.pid}): there = RouteSocket()
eth0 = there.index('eth0')
there.add_address(eth0, '10.9.8.7/16')
there.set_up(eth0)
there.add_default_route(eth0, '10.9.0.1')
there.replace_neighbour(Neighbour(index=eth0, address='10.9.0.1', mac=bytes.fromhex('020000000001')))
print([(n.address, n.mac.hex()) for n in there.neighbours()])
"""
        )
        (link,) = [each for each in ip(B, "-4", "address", "show") if each["ifname"] == "eth0"]
        assert "UP" in link["flags"]
        assert [(a["local"], a["prefixlen"]) for a in link["addr_info"]] == [("10.9.8.7", 16)]
        assert ("default", "10.9.0.1") in [(r["dst"], r.get("gateway")) for r in ip(B, "route")]
        (entry,) = ip(B, "neigh")
        assert (entry["dst"], entry["lladdr"], entry["state"]) == ("10.9.0.1", "02:00:00:00:00:01", ["STALE"])
    finally:
        holder.kill()
        holder.wait()


def test_address_moves_to_a_port_of_the_bridge() -> None:
    """An address that was heard behind one port is behind the other afterwards, and not for ever."""
    for words in ("v0 master br0", "v1 master br0", "v1 up"):
        subprocess.run(["ip", "-n", A, "link", "set", *words.split()], check=True)
    mac = "02:00:00:00:00:09"
    add = ["bridge", "-n", A, "fdb", "replace", mac, "dev", "v1", "master", "dynamic"]
    subprocess.run(add, check=True)
    inside("route.replace_fdb(route.index('v0'), bytes.fromhex('020000000009'))")
    table = subprocess.run(["bridge", "-n", A, "fdb", "show"], capture_output=True, text=True, check=True).stdout
    (entry,) = [line for line in table.splitlines() if line.startswith(mac)]
    assert "dev v0" in entry
    assert "permanent" not in entry


def test_refusal_says_what_was_asked_and_why() -> None:
    """The request, and the kernel's reason."""
    said = inside("try: route.index('nothing0')\nexcept OSError as exc: print(exc)")
    assert said.strip() == "[Errno 19] link nothing0: No such device"
    said = inside(
        "try: route.add_pair('v0', index=77, mtu=1400, peer='p', peer_mac=bytes([2] * 6))\nexcept OSError as exc: print(exc)"
    )
    assert "veth v0 peer p" in said and "File exists" in said
    said = inside("try: route.replace_fdb(route.index('v0'), bytes(6))\nexcept OSError as exc: print(exc)")
    assert "fdb 00:00:00:00:00:00 on port" in said
