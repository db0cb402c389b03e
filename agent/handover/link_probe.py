"""How fast the bulk tunnel between two hosts is: ssh is opened as for a move, a little is sent, nothing is kept.

    source                                target
      p ------------------------------->    one byte back: a round trip, PINGS times
      d, random bytes, end of file ---->    counts them
      <------------------ 8 bytes            how many there were

The source's key lives in /run while that goes on. Each half works on two descriptors, so that a test can join them by pipes.
"""

from __future__ import annotations

import contextlib
import os
import select
import shutil
import struct
import threading
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from agent.door import Door
from agent.errors import AgentError, TransferError
from agent.transfer import ssh

PINGS = 5
SEND_S = 0.5  # of sending, at most ...
SEND_BYTES = 64 << 20  # ... and no more than this
LIMIT_S = 20.0  # of all of it
FORGOTTEN_S = 60.0  # after which a key that nobody used goes
_CHUNK = 1 << 18
_COUNT = struct.Struct("=Q")


@dataclass(frozen=True, kw_only=True)
class LinkSpeed:
    """Seconds for the login and for the shortest round trip; bytes a second from the source's memory to the target's."""

    connect_s: float
    round_trip_s: float
    bytes_per_s: float


class LinkProbe:
    """Both halves on one host. `directory`: on a tmpfs; what a dead agent left in it goes."""

    def __init__(self, directory: Path, door: Door) -> None:
        self._directory, self._door = directory, door
        shutil.rmtree(directory, ignore_errors=True)

    def prepare(self, probe_id: str) -> str:
        """Source: the public key of this measurement."""
        key = ssh.generate_key(self._directory / probe_id)
        forget = threading.Timer(FORGOTTEN_S, self._forget, [probe_id])
        forget.daemon = True
        forget.start()
        return key

    def expect(self, probe_id: str) -> None:
        """Target: let the tunnel of this measurement in, once; in a thread, until it is over or has not come."""
        waiting = self._door.expect(probe_id)

        def serve() -> None:
            with waiting, contextlib.suppress(AgentError, OSError):  # nobody came, or it broke: the source says so
                rx_fd, tx_fd, connection = waiting.wait(LIMIT_S)
                with connection:
                    try:
                        answer(rx_fd, tx_fd)
                    finally:
                        os.close(rx_fd)
                        os.close(tx_fd)

        threading.Thread(target=serve, name=f"link-probe-{probe_id}", daemon=True).start()

    def run(
        self, probe_id: str, *, certificate: str, address: str, port: int, user: str, host_keys: Sequence[str]
    ) -> LinkSpeed:
        """Source: open ssh to the target, which expects it, and measure. Raises TransferError, Unsupported."""
        try:
            tunnel = ssh.BulkTunnel.open(
                self._directory / probe_id,
                certificate=certificate,
                address=address,
                port=port,
                user=user,
                host_keys=host_keys,
            )
            try:
                round_trip_s = ping(tunnel.rx_fd, tunnel.tx_fd)
                sent, started = send(tunnel.tx_fd), time.monotonic()
                tunnel.close_tx()
                (arrived,) = _COUNT.unpack(_read(tunnel.rx_fd, _COUNT.size))
                took_s = sent.took_s + time.monotonic() - started
            except OSError as exc:
                raise tunnel.failure(f"the tunnel broke while it was measured: {exc}") from exc
            finally:
                tunnel.close()
            if arrived != sent.count:
                raise TransferError(
                    f"{sent.count} bytes were sent through the tunnel, {arrived} arrived", touched="nothing"
                )
            return LinkSpeed(connect_s=tunnel.connect_s, round_trip_s=round_trip_s, bytes_per_s=arrived / took_s)
        finally:
            self._forget(probe_id)

    def _forget(self, probe_id: str) -> None:
        shutil.rmtree(self._directory / probe_id, ignore_errors=True)


@dataclass(frozen=True, kw_only=True)
class Sent:
    """Bytes, and the seconds until the last of them was out of our hands."""

    count: int
    took_s: float


def ping(rx_fd: int, tx_fd: int) -> float:
    """The shortest of PINGS round trips, in seconds."""
    trips = []
    for _ in range(PINGS):
        started = time.monotonic()
        os.write(tx_fd, b"p")
        _read(rx_fd, 1)
        trips.append(time.monotonic() - started)
    return min(trips)


def send(tx_fd: int) -> Sent:
    """Random bytes, which nothing packs, for SEND_S or until SEND_BYTES; `tx_fd` is not closed."""
    chunk, count = os.urandom(_CHUNK), 0
    os.set_blocking(tx_fd, False)
    os.write(tx_fd, b"d")
    started = time.monotonic()
    while count < SEND_BYTES and (left_s := started + SEND_S - time.monotonic()) > 0:
        if select.select([], [tx_fd], [], left_s)[1]:
            count += os.write(tx_fd, chunk)
    return Sent(count=count, took_s=time.monotonic() - started)


def answer(rx_fd: int, tx_fd: int) -> None:
    """The target's half. Raises OSError, TransferError when nothing comes any more."""
    while (one := _read(rx_fd, 1)) == b"p":
        os.write(tx_fd, one)
    count = 0
    while data := _some(rx_fd, _CHUNK):
        count += len(data)
    os.write(tx_fd, _COUNT.pack(count))


def _read(fd: int, size: int) -> bytes:
    data = b""
    while len(data) < size:
        more = _some(fd, size - len(data))
        if not more:
            raise BrokenPipeError("the other side closed it")
        data += more
    return data


def _some(fd: int, size: int) -> bytes:
    if not select.select([fd], [], [], LIMIT_S)[0]:
        raise TransferError(f"nothing came through the tunnel for {LIMIT_S:g} s", touched="nothing")
    return os.read(fd, size)
