"""IPv4 addresses of interfaces, by ioctl: netdevice(7). Standard library only."""

from __future__ import annotations

import fcntl
import ipaddress
import socket
import struct

_SIOCGIFADDR, _SIOCGIFNETMASK = 0x8915, 0x891B


def address_of(interface: str) -> str:
    """Its first IPv4 address; "" where it has none, or is not there."""
    return _ask(interface, _SIOCGIFADDR)


def subnet_of(interface: str) -> str:
    """ "10.88.0.0/16", of its first address; "" without one."""
    address, mask = address_of(interface), _ask(interface, _SIOCGIFNETMASK)
    return str(ipaddress.IPv4Interface(f"{address}/{mask}").network) if address else ""


def _ask(interface: str, what: int) -> str:
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as any_socket:
        try:
            answer = fcntl.ioctl(any_socket, what, struct.pack("256s", interface.encode()[:15]))
        except OSError:
            return ""
    return socket.inet_ntoa(answer[20:24])
