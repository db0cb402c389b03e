"""A few requests of rtnetlink(7), for the instants in which starting iproute2 costs more than the move has: links, veth pairs, addresses, a
default route, neighbours, a bridge's table. Each is one message and its answer, some 50 microseconds.

The socket belongs to the network namespace in which it was opened (namespaces.network_of). Standard library only.
"""

from __future__ import annotations

import errno
import os
import socket
import struct
from collections.abc import Iterator
from dataclasses import dataclass
from types import TracebackType
from typing import Self

from agent.linux import rtattr

# linux/netlink.h
_ERROR, _DONE = 2, 3
_REQUEST, _ACK, _DUMP = 0x1, 0x4, 0x300
_REPLACE, _EXCL, _CREATE = 0x100, 0x200, 0x400
_SOL_NETLINK, _EXT_ACK, _CAP_ACK = 270, 11, 10
_ERROR_TEXT, _ACK_TLVS, _CAPPED = 1, 0x200, 0x100

# linux/rtnetlink.h, linux/if_link.h, linux/if_addr.h, linux/neighbour.h
_NEWLINK, _DELLINK, _GETLINK, _NEWADDR, _NEWROUTE, _NEWNEIGH, _GETNEIGH = 16, 17, 18, 20, 24, 28, 30
_IFLA_ADDRESS, _IFLA_IFNAME, _IFLA_MTU, _IFLA_MASTER, _IFLA_LINKINFO, _IFLA_NET_NS_PID, _IFLA_AF_SPEC = (
    1,
    3,
    4,
    10,
    18,
    19,
    26,
)
_INFO_KIND, _INFO_DATA, _VETH_INFO_PEER = 1, 2, 1
_INET6_ADDR_GEN_MODE, _ADDR_GEN_NONE = 8, b"\x01"
_IFA_ADDRESS, _IFA_LOCAL = 1, 2
_RTA_OIF, _RTA_GATEWAY = 4, 5
_NDA_DST, _NDA_LLADDR = 1, 2
_NTF_MASTER = 0x4
_NUD_REACHABLE, _NUD_STALE = 0x2, 0x4
_RT_TABLE_MAIN, _RTPROT_STATIC, _RTN_UNICAST = 254, 4, 1
_IFF_UP = 1
_AF_BRIDGE, _AF_INET6 = 7, 10

_HEADER = struct.Struct("=IHHII")
_LINK = struct.Struct("=BxHiII")
_ADDRESS = struct.Struct("=BBBBi")
_ROUTE = struct.Struct("=BBBBBBBBI")
_NEIGHBOUR = struct.Struct("=BxxxiHBB")


@dataclass(frozen=True, kw_only=True)
class Link:
    """`master`: the index of the bridge that it is a port of, 0 without."""

    index: int
    name: str
    mtu: int
    master: int


@dataclass(frozen=True, kw_only=True)
class Neighbour:
    """An entry of the ARP or NDP table. `mac`: 6 bytes; `address`: text."""

    index: int
    address: str
    mac: bytes


class RouteSocket:
    """Use as a context manager. Every request raises OSError with the kernel's own words where it has some."""

    def __init__(self, opened: int = -1) -> None:
        """`opened`: a descriptor of one, which becomes its own."""
        if opened >= 0:
            self._socket = socket.socket(fileno=opened)
        else:
            self._socket = socket.socket(socket.AF_NETLINK, socket.SOCK_RAW, socket.NETLINK_ROUTE)
        self._socket.setsockopt(_SOL_NETLINK, _EXT_ACK, 1)
        self._socket.setsockopt(_SOL_NETLINK, _CAP_ACK, 1)
        self._sequence = 0

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, value: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self.close()

    def close(self) -> None:
        self._socket.close()

    def fileno(self) -> int:
        return self._socket.fileno()

    def links(self) -> list[Link]:
        return [_link(payload) for payload in self._ask(_GETLINK, _DUMP, _LINK.pack(0, 0, 0, 0, 0))]

    def index(self, name: str) -> int:
        """Raises OSError (ENODEV) where there is no such link."""
        return self.link(name).index

    def link(self, name: str) -> Link:
        """Raises OSError (ENODEV) where there is none."""
        (payload,) = self._ask(_GETLINK, 0, _LINK.pack(0, 0, 0, 0, 0) + _text(_IFLA_IFNAME, name), f"link {name}")
        return _link(payload)

    def add_pair(
        self, name: str, *, index: int, mtu: int, peer: str, peer_mac: bytes, peer_pid: int = 0, master: int = 0
    ) -> None:
        """A veth pair: `name` here, under the number `index`, up, without a link-local address of its own, and a port of
        the bridge `master` (0: of none); `peer` in the network namespace of `peer_pid` (0: here), down.

        Made where it will be: to move a link to another namespace takes 20 ms. Raises OSError; then there is no pair.
        """
        there = _text(_IFLA_IFNAME, peer) + rtattr.pack(_IFLA_ADDRESS, peer_mac) + _u32(_IFLA_MTU, mtu)
        if peer_pid:
            there += _u32(_IFLA_NET_NS_PID, peer_pid)
        data = rtattr.pack(_VETH_INFO_PEER, _LINK.pack(0, 0, 0, 0, 0) + there)
        info = rtattr.pack(_INFO_KIND, b"veth\0") + rtattr.pack(_INFO_DATA, data)
        wanted = _text(_IFLA_IFNAME, name) + _u32(_IFLA_MTU, mtu) + rtattr.pack(_IFLA_LINKINFO, info)
        self._do(_NEWLINK, _CREATE | _EXCL, _LINK.pack(0, 0, index, 0, 0) + wanted, f"veth {name} peer {peer}")
        try:
            self._no_link_local(index)
            up = _LINK.pack(0, 0, index, _IFF_UP, _IFF_UP) + (_u32(_IFLA_MASTER, master) if master else b"")
            self._do(_NEWLINK, 0, up, f"link {name} up")
        except OSError:
            self.delete(index)
            raise

    def delete(self, index: int) -> None:
        """The link; of a pair both ends."""
        self._do(_DELLINK, 0, _LINK.pack(0, 0, index, 0, 0), f"delete link {index}")

    def set_master(self, index: int, master: int) -> None:
        """Make the link a port of the bridge `master`; 0: of none."""
        self._set(index, _u32(_IFLA_MASTER, master), f"master {master}")

    def set_up(self, index: int) -> None:
        self._do(_NEWLINK, 0, _LINK.pack(0, 0, index, _IFF_UP, _IFF_UP), f"link {index} up")

    def set_down(self, index: int) -> None:
        self._do(_NEWLINK, 0, _LINK.pack(0, 0, index, 0, _IFF_UP), f"link {index} down")

    def move(self, index: int, pid: int, name: str) -> None:
        """Into the network namespace of `pid`, under another name. The link must be down."""
        wanted = _u32(_IFLA_NET_NS_PID, pid) + _text(_IFLA_IFNAME, name)
        self._set(index, wanted, f"netns {pid} name {name}")

    def add_address(self, index: int, address: str) -> None:
        """`address`: "10.88.1.2/16"."""
        bare, _, length = address.partition("/")
        family, packed = _packed(bare)
        head = _ADDRESS.pack(family, int(length), 0, 0, index)
        wanted = rtattr.pack(_IFA_LOCAL, packed) + rtattr.pack(_IFA_ADDRESS, packed)
        self._do(_NEWADDR, _CREATE | _REPLACE, head + wanted, f"address {address}")

    def add_default_route(self, index: int, gateway: str) -> None:
        family, packed = _packed(gateway)
        head = _ROUTE.pack(family, 0, 0, 0, _RT_TABLE_MAIN, _RTPROT_STATIC, 0, _RTN_UNICAST, 0)
        wanted = rtattr.pack(_RTA_GATEWAY, packed) + _u32(_RTA_OIF, index)
        self._do(_NEWROUTE, _CREATE | _REPLACE, head + wanted, f"default route via {gateway}")

    def neighbours(self) -> list[Neighbour]:
        """Those with a hardware address."""
        found = []
        for payload in self._ask(_GETNEIGH, _DUMP, _NEIGHBOUR.pack(0, 0, 0, 0, 0)):
            family, index, _, _, _ = _NEIGHBOUR.unpack_from(payload)
            got = rtattr.unpack(payload[_NEIGHBOUR.size :])
            mac, address = got.get(_NDA_LLADDR, b""), got.get(_NDA_DST, b"")
            if len(mac) == 6 and any(mac) and address and family in (socket.AF_INET, socket.AF_INET6):
                found.append(Neighbour(index=index, address=socket.inet_ntop(family, address), mac=mac))
        return found

    def replace_neighbour(self, neighbour: Neighbour) -> None:
        """As "stale": used at once, and confirmed when it is."""
        family, packed = _packed(neighbour.address)
        head = _NEIGHBOUR.pack(family, neighbour.index, _NUD_STALE, 0, 0)
        wanted = rtattr.pack(_NDA_DST, packed) + rtattr.pack(_NDA_LLADDR, neighbour.mac)
        self._do(_NEWNEIGH, _CREATE | _REPLACE, head + wanted, f"neighbour {neighbour.address}")

    def replace_fdb(self, index: int, mac: bytes) -> None:
        """Tell the bridge that `mac` is behind its port `index`, as if it had been heard there: `bridge fdb replace ... master dynamic`.

        Not permanent: that would tell the bridge that the address is its own, which stalls its clients for half a minute.
        """
        head = _NEIGHBOUR.pack(_AF_BRIDGE, index, _NUD_REACHABLE, _NTF_MASTER, 0)
        self._do(
            _NEWNEIGH, _CREATE | _REPLACE, head + rtattr.pack(_NDA_LLADDR, mac), f"fdb {mac.hex(':')} on port {index}"
        )

    # ------------------------------------------------------------ messages

    def _no_link_local(self, index: int) -> None:
        mode = rtattr.pack(_AF_INET6, rtattr.pack(_INET6_ADDR_GEN_MODE, _ADDR_GEN_NONE))
        try:
            self._set(index, rtattr.pack(_IFLA_AF_SPEC, mode), "addrgenmode none")
        except OSError as exc:
            if exc.errno != errno.EAFNOSUPPORT:  # a kernel without IPv6 gives none anyway
                raise

    def _set(self, index: int, attributes: bytes, what: str) -> None:
        self._do(_NEWLINK, 0, _LINK.pack(0, 0, index, 0, 0) + attributes, f"link {index} {what}")

    def _do(self, kind: int, flags: int, payload: bytes, what: str) -> None:
        for _ in self._ask(kind, flags | _ACK, payload, what):
            pass

    def _ask(self, kind: int, flags: int, payload: bytes, what: str = "") -> list[bytes]:
        """Payloads of the answers. Raises OSError."""
        self._sequence += 1
        size = _HEADER.size + len(payload)
        self._socket.send(_HEADER.pack(size, kind, flags | _REQUEST, self._sequence, 0) + payload)
        answers: list[bytes] = []
        while True:
            for answer, answer_flags, body in self._receive():
                if answer == _DONE:
                    return answers
                if answer == _ERROR:
                    _raise(body, answer_flags, what)
                    return answers
                answers.append(body)
            if not flags & (_DUMP | _ACK):
                return answers

    def _receive(self) -> Iterator[tuple[int, int, bytes]]:
        data = self._socket.recv(1 << 17)
        at = 0
        while at + _HEADER.size <= len(data):
            size, kind, flags, sequence, _ = _HEADER.unpack_from(data, at)
            if sequence == self._sequence:
                yield kind, flags, data[at + _HEADER.size : at + size]
            at += size + 3 & ~3


def _raise(body: bytes, flags: int, what: str) -> None:
    """An error message: nothing for an acknowledgement, else OSError with the kernel's text."""
    (code,) = struct.unpack_from("=i", body)
    if code == 0:
        return
    text = ""
    if flags & _ACK_TLVS and flags & _CAPPED:
        text = rtattr.unpack(body[4 + _HEADER.size :]).get(_ERROR_TEXT, b"").rstrip(b"\0").decode(errors="replace")
    reason = os.strerror(-code)
    raise OSError(-code, f"{what}: {f'{text} ({reason})' if text else reason}")


def _link(payload: bytes) -> Link:
    got = rtattr.unpack(payload[_LINK.size :])
    return Link(
        index=int(_LINK.unpack_from(payload)[2]),
        name=got[_IFLA_IFNAME].rstrip(b"\0").decode(),
        mtu=_number(got.get(_IFLA_MTU)),
        master=_number(got.get(_IFLA_MASTER)),
    )


def _u32(kind: int, value: int) -> bytes:
    return struct.pack("=HHi", 8, kind, value)


def _text(kind: int, value: str) -> bytes:
    return rtattr.pack(kind, value.encode() + b"\0")


def _number(value: bytes | None) -> int:
    return int.from_bytes(value or b"\0", "little")


def _packed(address: str) -> tuple[socket.AddressFamily, bytes]:
    family = socket.AF_INET6 if ":" in address else socket.AF_INET
    return family, socket.inet_pton(family, address)
