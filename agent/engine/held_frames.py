"""What clients send to a container while it stands still: held by the source, and sent after it when it runs elsewhere.

Without this such a frame is lost, and its sender tries again only after 0.2, 0.6, 1.4, 3 s: a client that happened to ask at the instant
of the freeze waits for several times the freeze. The announcement of the target (gratuitous ARP) is heard here like everywhere on the
network, and says when and where to. When the move is undone the frames go to the container here.

Frames go on with the sending card's own address as their sender: with the client's, switches would look for the client here.
Standard library only.
"""

from __future__ import annotations

import contextlib
import ctypes
import socket
import struct
from collections import deque

from agent.engine.link import LinkPlan
from agent.linux.rtnetlink import RouteSocket

MOST_FRAMES, MOST_BYTES = 4096, 16 << 20  # the oldest go first: what is lost is what was lost without us

# linux/if_packet.h, linux/if_ether.h, asm-generic/socket.h
_SOL_PACKET, _PACKET_VNET_HDR = 263, 15
_PACKET_OUTGOING = 4
_ETH_P_ALL = 0x0003
_SO_ATTACH_FILTER = 26
_VNET = 10  # struct virtio_net_hdr before each frame: unfinished checksums and segments survive the way in and out
_DESTINATION, _SOURCE, _TYPE, _ARP_SENDER = 0, 6, 12, 22
_ETH_P_ARP = b"\x08\x06"
_LONGEST = 1 << 17

# linux/filter.h: (code, jump if true, jump if false, value)
_LOAD_WORD, _LOAD_HALF, _IF_EQUAL, _RETURN = 0x20, 0x28, 0x15, 0x06


class HeldFrames:
    """Frames for one container, from `start` on. `fileno` is readable when some have come: call `take`."""

    def __init__(self, plan: LinkPlan) -> None:
        """Raises OSError where this host has no packet sockets."""
        self._mac = bytes.fromhex(plan.mac.replace(":", ""))
        self._host_end, self._bridge = plan.host, plan.bridge
        self._frames: deque[bytes] = deque()
        self._bytes = 0
        with RouteSocket() as route:
            bridge = route.index(plan.bridge)
            self._ports = {link.name for link in route.links() if link.master == bridge and link.name != plan.host}
        self._heard_at = ""
        kind = socket.SOCK_RAW | socket.SOCK_NONBLOCK
        self._socket = socket.socket(socket.AF_PACKET, kind, socket.htons(_ETH_P_ALL))
        try:
            self._socket.setsockopt(_SOL_PACKET, _PACKET_VNET_HDR, 1)
            self._attach_filter()
        except OSError:
            self._socket.close()
            raise

    def fileno(self) -> int:
        return self._socket.fileno()

    def start(self) -> None:
        """From now on: what came before was delivered as ever."""
        self._read()
        self._frames.clear()
        self._bytes, self._heard_at = 0, ""

    def take(self) -> int:
        """Hold what has come. Once the container was announced elsewhere, send everything there; returns how many frames were."""
        self._read()
        return self._send(self._heard_at) if self._heard_at else 0

    def give_back(self) -> int:
        """To the container, which runs on here; returns how many frames."""
        self._read()
        return self._send(self._host_end)

    def close(self) -> None:
        self._socket.close()

    def _read(self) -> None:
        while True:
            try:
                data, (name, _, kind, _, _) = self._socket.recvfrom(_LONGEST)
            except OSError:  # no more, or one that the kernel cannot hand over: a monitor does not end for a frame
                return
            frame = memoryview(data)[_VNET:]
            if kind == _PACKET_OUTGOING:
                # What this host itself sends, or forwards from its published ports. Announced, the bridge knows where to.
                if name == self._bridge and not self._heard_at and frame[_DESTINATION:_SOURCE] == self._mac:
                    self._hold(data)
                continue
            if name not in self._ports:
                continue
            if frame[_DESTINATION:_SOURCE] == self._mac:
                self._hold(data)
            elif frame[_TYPE : _TYPE + 2] == _ETH_P_ARP and frame[_ARP_SENDER : _ARP_SENDER + 6] == self._mac:
                self._heard_at = name

    def _hold(self, data: bytes) -> None:
        self._frames.append(data)
        self._bytes += len(data)
        while len(self._frames) > MOST_FRAMES or self._bytes > MOST_BYTES:
            self._bytes -= len(self._frames.popleft())

    def _send(self, interface: str) -> int:
        """Raises nothing: a frame that cannot be sent is lost, as without us."""
        sent = 0
        try:
            with socket.socket(socket.AF_PACKET, socket.SOCK_RAW, 0) as out:
                out.setsockopt(_SOL_PACKET, _PACKET_VNET_HDR, 1)
                out.bind((interface, 0))
                own = out.getsockname()[4]
                for held in self._frames:
                    data = bytearray(held)
                    data[_VNET + _SOURCE : _VNET + _TYPE] = own
                    with contextlib.suppress(OSError):  # longer than this link takes, or a full queue
                        out.send(data)
                        sent += 1
        except OSError:
            pass  # the interface has gone
        self._frames.clear()
        self._bytes = 0
        return sent

    def _attach_filter(self) -> None:
        """In the kernel: frames to the container, and ARP that speaks for it. All else would wake us for every packet of the host."""
        high, low = struct.unpack("!IH", self._mac)
        program = [
            (_LOAD_WORD, 0, 0, _DESTINATION),
            (_IF_EQUAL, 0, 2, high),
            (_LOAD_HALF, 0, 0, _DESTINATION + 4),
            (_IF_EQUAL, 6, 0, low),
            (_LOAD_HALF, 0, 0, _TYPE),
            (_IF_EQUAL, 0, 5, 0x0806),
            (_LOAD_WORD, 0, 0, _ARP_SENDER),
            (_IF_EQUAL, 0, 3, high),
            (_LOAD_HALF, 0, 0, _ARP_SENDER + 4),
            (_IF_EQUAL, 0, 1, low),
            (_RETURN, 0, 0, _LONGEST),
            (_RETURN, 0, 0, 0),
        ]
        code = ctypes.create_string_buffer(b"".join(struct.pack("=HBBI", *line) for line in program))
        self._socket.setsockopt(
            socket.SOL_SOCKET, _SO_ATTACH_FILTER, struct.pack("@HP", len(program), ctypes.addressof(code))
        )
