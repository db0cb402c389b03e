"""The bridge that a host's containers are on, with the host's network card as its port, so that containers, hosts and clients are
one segment and a moved address is reached the same way as before:

    host's addresses and routes ─ migrate0 (bridge, the card's MAC) ─┬─ eth0 (the card)
                                                                     └─ vm<id> ═══ eth0 of a container

`python -m agent.setup.bridge --bridge migrate0 --uplink eth0`, at every boot, from migrate-network.service. It does nothing where
the card is the bridge's port already: hosts whose own network configuration makes the bridge keep it. Standard library only.
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from agent.errors import AgentError, Unsupported

_LIMIT_S = 30.0
# No spanning tree and no forwarding delay: a port must carry frames the instant that a moved container resumes.
_OPTIONS = "type bridge forward_delay 0 stp_state 0"
_LEARNED = ("proto kernel", "proto ra")  # the kernel makes these anew for the bridge
OWN_WAY = (
    "make the bridge with the host's own network configuration (systemd-networkd, NetworkManager, ifupdown), the card as its port, "
    "no spanning tree, no forwarding delay; then run this again"
)


class BridgeError(AgentError):
    """iproute2 refused; the message carries its words."""

    code = "setup.bridge"


def ensure(bridge: str, uplink: str) -> str:
    """Make `bridge`, hang the card `uplink` on it, move the card's addresses and routes. Returns what was done, "" for nothing.

    A few milliseconds without network; TCP connections and ssh sessions survive, for address and MAC stay the same.
    Raises BridgeError, with everything put back, or Unsupported where a DHCP client holds the card's address.
    """
    card = usable(bridge, uplink)
    if card.get("master") == bridge:
        return ""
    routes = [line for family in ("-4", "-6") for line in _ip([family, "route", "show", "dev", uplink]).splitlines()]
    do, undo = plan(card, routes, bridge, exists=_link(bridge) is not None)
    try:
        _batch(do)
    except BridgeError as exc:
        _batch(undo, force=True)
        raise BridgeError(f"{exc.message}; everything was put back", hint=OWN_WAY) from exc
    return f"{uplink} is a port of {bridge} now, which has its addresses: {' '.join(_addresses(card)) or 'none'}"


def usable(bridge: str, uplink: str) -> dict[str, Any]:
    """The card, as `ip -json address show` has it. Raises BridgeError, having touched nothing, when it cannot be the bridge's port."""
    card = _link(uplink)
    if card is None:
        raise BridgeError(f"there is no network card {uplink!r}", hint=f"one of: {' '.join(_cards())}")
    if Path("/sys/class/net", uplink, "bridge").exists():
        raise BridgeError(f"{uplink} is a bridge itself", hint=f"name the card: one of {' '.join(_cards())}")
    if card.get("master", bridge) != bridge:
        raise BridgeError(f"{uplink} is a port of {card['master']}", hint=f"use that bridge: --bridge {card['master']}")
    return card


def plan(
    card: dict[str, Any], routes: Sequence[str], bridge: str, *, exists: bool = False
) -> tuple[list[str], list[str]]:
    """Lines for `ip -batch`: what to do, and what undoes it. `card`: as `ip -json address show` has it; `routes`: lines of `ip
    route show dev CARD`. Raises Unsupported.
    """
    name = card["ifname"]
    if any(each.get("dynamic") and each["family"] == "inet" for each in card["addr_info"]):
        raise Unsupported(
            f"the address of {name} comes from DHCP: its client would put it back on {name}", hint=OWN_WAY
        )
    addresses = _addresses(card)
    # Pinned to the card's: by default a bridge takes the lowest address of its ports, and so a new one as containers come.
    make = [f"link set {bridge} {_OPTIONS}"] if exists else [f"link add {bridge} address {card['address']} {_OPTIONS}"]
    kept = [line for line in routes if line.strip() and not any(word in line for word in _LEARNED)]
    words = [" ".join(word for word in line.split() if word not in ("linkdown", "dead")) for line in kept]
    do = [
        *make,
        f"link set {bridge} up",
        *(f"address del {each} dev {name}" for each in addresses),
        f"link set {name} master {bridge}",
        f"link set {name} up",
        *(f"address add {each} dev {bridge}" for each in addresses),
        *(f"route replace {line} dev {bridge}" for line in words),
    ]
    undo = [
        f"link set {name} nomaster",
        *(f"address del {each} dev {bridge}" for each in addresses),
        *([] if exists else [f"link del {bridge}"]),
        *(f"address replace {each} dev {name}" for each in addresses),
        *(f"route replace {line} dev {name}" for line in words),
    ]
    return do, undo


def _addresses(card: dict[str, Any]) -> list[str]:
    """With prefix length; link-local ones and those that routers advertise come back by themselves."""
    return [
        f"{each['local']}/{each['prefixlen']}" + (f" broadcast {each['broadcast']}" if "broadcast" in each else "")
        for each in card["addr_info"]
        if each.get("scope") == "global" and not each.get("dynamic")
    ]


def _link(name: str) -> dict[str, Any] | None:
    found = [each for each in json.loads(_ip(["-json", "address", "show"])) if each.get("ifname") == name]
    return found[0] if found else None


def _cards() -> list[str]:
    links = json.loads(_ip(["-json", "link", "show"]))
    names = [str(each["ifname"]) for each in links if each["link_type"] == "ether"]
    return [name for name in names if not Path("/sys/class/net", name, "bridge").exists()]


def _ip(arguments: Sequence[str], text: str = "") -> str:
    try:
        done = subprocess.run(
            ["ip", *arguments], input=text, capture_output=True, text=True, timeout=_LIMIT_S, check=False
        )
    except FileNotFoundError as exc:
        raise Unsupported("ip is not installed", hint="install iproute2") from exc
    if done.returncode:
        raise BridgeError(f"ip {' '.join(arguments)}: {done.stderr.strip()}")
    return done.stdout


def _batch(lines: Sequence[str], *, force: bool = False) -> None:
    """One process for all lines, so that a host does not stay without an address between two of them."""
    options = ["-force"] if force else []
    try:
        _ip([*options, "-batch", "-"], "".join(f"{line}\n" for line in lines))
    except BridgeError:
        if not force:  # an undo does what it can
            raise


def main(argv: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(
        prog="python3 -m agent.setup.bridge", description="the bridge of this host's containers"
    )
    parser.add_argument("--bridge", required=True)
    parser.add_argument("--uplink", required=True, metavar="CARD", help="the network card towards the other hosts")
    arguments = parser.parse_args(argv)
    try:
        did = ensure(arguments.bridge, arguments.uplink)
    except AgentError as exc:
        sys.stderr.write(f"error: {exc.message}\n" + (f"hint: {exc.hint}\n" if exc.hint else ""))
        return 1
    sys.stdout.write(f"{did or f'{arguments.uplink} is a port of {arguments.bridge}'}\n")
    return 0


if __name__ == "__main__":
    sys.exit(main())
