"""What must be unique in the fleet and follow a container for life: id, name, address, MAC, range of host ids.

All of it is chosen and written in one transaction, and is free again when the container is removed.
"""

from __future__ import annotations

import ipaddress
import re
import secrets
import sqlite3
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass

from migrate.coordinator.store import Container, ContainerId, Desired, Fleet, Store, check_free, refuse_cordoned
from migrate.errors import AlreadyExists, InvalidArgument, WrongState

IDS_COUNT = 65536
# Above what distributions give to users and subuids; the container's user namespace has the same range on every host.
FIRST_IDS_BASE = 16 * IDS_COUNT  # 1 048 576: 1 000 000 rounded up
END_OF_IDS = 2**32 - IDS_COUNT  # the last range holds 2**32 - 1, which means "no id" to the kernel

NAME = re.compile(r"[a-zA-Z0-9][a-zA-Z0-9_.-]{0,62}")
ID = re.compile(r"[0-9a-f]{32}")
MAC = re.compile(r"[0-9a-f]{2}(:[0-9a-f]{2}){5}")

ADJECTIVES = (
    "able", "brave", "bright", "calm", "clever", "cool", "deft", "eager", "fair", "fast", "firm", "fond", "glad",
    "good", "keen", "kind", "light", "lively", "loyal", "lucid", "mellow", "merry", "neat", "nimble", "noble",
    "patient", "placid", "polite", "prompt", "proud", "quick", "quiet", "ready", "serene", "sharp", "steady",
    "swift", "tidy", "warm", "wise",
)  # fmt: skip
SURNAMES = (
    "babbage", "bell", "bohr", "bose", "cerf", "curie", "darwin", "dijkstra", "euler", "faraday", "fermat", "floyd",
    "franklin", "galois", "gauss", "germain", "goedel", "hamilton", "hilbert", "hopper", "hypatia", "kepler",
    "knuth", "lamport", "liskov", "lovelace", "maxwell", "meitner", "mendel", "noether", "pascal", "perlman",
    "ramanujan", "ritchie", "shannon", "tesla", "thompson", "torvalds", "turing", "volta", "wing",
)  # fmt: skip


@dataclass(frozen=True, kw_only=True)
class Allocation:
    """`address` with the subnet's prefix length; `ids_base`: first host uid and gid of IDS_COUNT; `others()`: the
    specs of all other containers, while make_spec runs.
    """

    id: ContainerId
    name: str
    address: str
    mac: str
    gateway: str
    ids_base: int
    created_unix_ns: int
    others: Callable[[], list[str]]


def create(
    store: Store,
    *,
    owner: str,
    make_spec: Callable[[Allocation], str],
    name: str = "",
    address: str = "",
    mac: str = "",
    desired: Desired = Desired.RUNNING,
) -> Container:
    """Allocate and record a new container of host `owner`, at epoch 1.

    `make_spec` gets the allocation and returns the spec's JSON; it runs inside the transaction and must not use the
    store. `name`, `address` (with or without a prefix length) and `mac` are checked instead of chosen when given.
    Raises AlreadyExists (taken), InvalidArgument, NotFound (owner), WrongState (nothing left, or the owner is cordoned).
    """
    store.host(owner)
    fleet = store.fleet()
    with store.database.transaction() as db:
        refuse_cordoned(db, owner)
        chosen = _name(db, name)
        ip = _address(db, fleet, [host.address for host in store.hosts()], address, store.reserved)
        hardware = _mac(db, ip, mac)
        prefix = ipaddress.IPv4Network(fleet.subnet).prefixlen
        allocation = Allocation(
            id=ContainerId(secrets.token_hex(16)),
            name=chosen,
            address=f"{ip}/{prefix}",
            mac=hardware,
            gateway=fleet.gateway,
            ids_base=_ids_base(db, store.reserved),
            created_unix_ns=time.time_ns(),
            others=lambda: [row["spec"] for row in db.execute("select spec from containers")],
        )
        container = Container(
            id=allocation.id,
            name=chosen,
            spec=make_spec(allocation),
            owner=owner,
            epoch=1,
            desired=desired,
            address=str(ip),
            mac=hardware,
            ids_base=allocation.ids_base,
            created_unix_ns=allocation.created_unix_ns,
        )
        db.execute(
            "insert into containers(id, name, spec, owner, epoch, desired, address, mac, ids_base, created_unix_ns)"
            " values(?,?,?,?,?,?,?,?,?,?)",
            (
                container.id,
                container.name,
                container.spec,
                container.owner,
                container.epoch,
                container.desired,
                container.address,
                container.mac,
                container.ids_base,
                container.created_unix_ns,
            ),
        )
    return container


@dataclass(frozen=True, kw_only=True)
class Place:
    """What a build's containers get: they never move, so they have no row of their own."""

    address: str
    mac: str
    gateway: str
    ids_base: int


@contextmanager
def reserved(store: Store) -> Iterator[Place]:
    """An address and a range of host ids that no container gets before the end. Raises WrongState (nothing left).

    In memory: a coordinator that ends takes the build along, by its stream.
    """
    fleet = store.fleet()
    with store.database.transaction() as db:
        ip = _address(db, fleet, [host.address for host in store.hosts()], "", store.reserved)
        base = _ids_base(db, store.reserved)
        store.reserved |= {str(ip), str(base)}
    try:
        yield Place(
            address=f"{ip}/{ipaddress.IPv4Network(fleet.subnet).prefixlen}",
            mac="02:42:" + ip.packed.hex(":"),
            gateway=fleet.gateway,
            ids_base=base,
        )
    finally:
        with store.database.transaction():  # whoever looks at the set is in one
            store.reserved -= {str(ip), str(base)}


def check_name(wanted: str) -> None:
    """Raises InvalidArgument."""
    if not NAME.fullmatch(wanted) or ID.fullmatch(wanted):
        hint = "a letter or digit, then letters, digits, _ . -; at most 63; not 32 hex digits, which are an id"
        raise InvalidArgument(f"{wanted!r} cannot be a container's name", hint=hint)


def _name(db: sqlite3.Connection, wanted: str) -> str:
    if wanted:
        check_name(wanted)
        check_free(db, "name", wanted)
        return wanted
    taken = {row["name"] for row in db.execute("select name from containers")}
    free = [name for a in ADJECTIVES for s in SURNAMES if (name := f"{a}_{s}") not in taken]
    if free:
        return secrets.choice(free)
    return f"{secrets.choice(ADJECTIVES)}_{secrets.choice(SURNAMES)}_{secrets.token_hex(4)}"


def _address(
    db: sqlite3.Connection, fleet: Fleet, hosts: list[str], wanted: str, building: set[str]
) -> ipaddress.IPv4Address:
    subnet = ipaddress.IPv4Network(fleet.subnet)
    never = {
        str(subnet.network_address),
        str(subnet.broadcast_address),
        fleet.gateway,
        *fleet.reserved,
        *hosts,
        *building,
    }
    if wanted:
        try:
            interface = ipaddress.IPv4Interface(wanted if "/" in wanted else f"{wanted}/{subnet.prefixlen}")
        except ValueError as exc:
            raise InvalidArgument(f"{wanted!r} is not an IPv4 address: {exc}") from exc
        if interface.network != subnet:
            raise InvalidArgument(
                f"{wanted} is not in the fleet's subnet {subnet}", hint="leave --ip out for a free one"
            )
        if str(interface.ip) in never:
            raise AlreadyExists(f"{interface.ip} is reserved: a host's, the gateway's or the subnet's own")
        check_free(db, "address", str(interface.ip))
        return interface.ip
    taken = never | {row["address"] for row in db.execute("select address from containers")}
    first, last = ipaddress.IPv4Address(fleet.first), ipaddress.IPv4Address(fleet.last)
    for number in range(int(first), int(last) + 1):
        if str(ip := ipaddress.IPv4Address(number)) not in taken and ip in subnet:
            return ip
    raise WrongState(f"no free address from {first} to {last}", hint="remove containers or widen the fleet's range")


def _mac(db: sqlite3.Connection, ip: ipaddress.IPv4Address, wanted: str) -> str:
    if not wanted:
        mac = "02:42:" + ip.packed.hex(":")
        # Somebody may have asked for just this one by hand; then any other locally administered one will do.
        while db.execute("select 1 from containers where mac=?", (mac,)).fetchone():
            mac = "02:43:" + secrets.token_bytes(4).hex(":")
        return mac
    mac = wanted.lower()
    if not MAC.fullmatch(mac) or int(mac[:2], 16) & 1:
        raise InvalidArgument(f"{wanted!r} is not the MAC of one interface", hint="such as 02:42:0a:58:01:02")
    check_free(db, "mac", mac)
    return mac


def _ids_base(db: sqlite3.Connection, building: set[str]) -> int:
    taken = {row["ids_base"] for row in db.execute("select ids_base from containers")}
    for base in range(FIRST_IDS_BASE, END_OF_IDS, IDS_COUNT):
        if base not in taken and str(base) not in building:
            return base
    raise WrongState("every range of host ids is taken", hint="remove containers")
