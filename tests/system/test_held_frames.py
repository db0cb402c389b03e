"""Frames that a container's clients send while it stands still. In network namespaces of the test's own; the wire is a veth pair."""

from __future__ import annotations

import os
import socket
import struct
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

pytestmark = pytest.mark.system

ROOT = Path(__file__).resolve().parents[2]
SPACE = f"held-{os.getpid()}"
MAC = "02:42:0a:58:00:09"
# On the host: a bridge with an uplink and a container's veth, whose end here is off the bridge. Commands come as lines.
HOST = """
import sys
sys.path.insert(0, sys.argv[1])
from agent.engine.held_frames import HeldFrames
from agent.engine.link import LinkPlan
held = HeldFrames(LinkPlan(bridge="br0", host="vm0", peer="vp0", mac=sys.argv[2], address="10.9.0.9/16"))
for line in sys.stdin:
    print(getattr(held, line.strip())(), flush=True)
"""
# At the other end of the wire, or inside the container: send frames, print the frames that come.
PEER = """
import socket, sys
wire = socket.socket(socket.AF_PACKET, socket.SOCK_RAW, socket.htons(3))
wire.bind((sys.argv[1], 3))
wire.settimeout(0.3)
for line in sys.stdin:
    if line.strip():
        wire.send(bytes.fromhex(line))
        print("sent", flush=True)
        continue
    while True:
        try:
            data, (_, _, kind, _, _) = wire.recvfrom(65536)
        except TimeoutError:
            break
        if kind != 4 and b"to you" in data:
            print(data.hex(), flush=True)
    print("", flush=True)
"""


@pytest.fixture(autouse=True)
def host() -> Iterator[None]:
    subprocess.run(["ip", "netns", "add", SPACE], check=True)
    try:
        lines = (
            "link add br0 type bridge\nlink add up0 type veth peer name wire0\nlink add vm0 type veth peer name vp0\n"
        )
        lines += "link set up0 master br0\n" + "".join(
            f"link set {n} up\n" for n in ("br0", "up0", "wire0", "vm0", "vp0")
        )
        subprocess.run(["ip", "-n", SPACE, "-batch", "-"], input=lines, text=True, check=True)
        yield
    finally:
        subprocess.run(["ip", "netns", "del", SPACE], check=True)


class Program:
    """Python in the host's network namespace; a line in, an answer out."""

    def __init__(self, code: str, *arguments: str) -> None:
        command = ["ip", "netns", "exec", SPACE, sys.executable, "-I", "-S", "-c", code, *arguments]
        self._process = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, bufsize=1)

    def ask(self, line: str) -> str:
        assert self._process.stdin and self._process.stdout
        self._process.stdin.write(line + "\n")
        return self._process.stdout.readline().strip()

    def received(self) -> list[bytes]:
        """Those of our frames that have come, until none comes any more."""
        found = []
        answer = self.ask("")
        while answer:
            found.append(bytes.fromhex(answer))
            assert self._process.stdout
            answer = self._process.stdout.readline().strip()
        return found

    def close(self) -> None:
        self._process.kill()
        self._process.communicate()


@pytest.fixture
def held() -> Iterator[Program]:
    program = Program(HOST, str(ROOT), MAC)
    assert program.ask("start") == "None"
    yield program
    program.close()


@pytest.fixture
def wire() -> Iterator[Program]:
    program = Program(PEER, "wire0")
    program.received()
    yield program
    program.close()


def packed(mac: str) -> bytes:
    return bytes.fromhex(mac.replace(":", ""))


def frame(number: int, to: str = MAC) -> bytes:
    return packed(to) + packed("02:00:00:00:00:77") + b"\x08\x00" + b"to you %02d" % number + bytes(50)


def announcement() -> bytes:
    ip = socket.inet_aton("10.9.0.9")
    arp = struct.pack("!HHBBH", 1, 0x0800, 6, 4, 2) + packed(MAC) + ip + b"\xff" * 6 + ip
    return b"\xff" * 6 + packed(MAC) + b"\x08\x06" + arp


def card(name: str) -> bytes:
    shown = subprocess.run(["ip", "-n", SPACE, "-o", "link", "show", name], capture_output=True, text=True, check=True)
    return packed(shown.stdout.split("link/ether ")[1].split()[0])


def test_frames_follow_the_container_when_it_is_announced(held: Program, wire: Program) -> None:
    """Held, in order, until the gratuitous ARP; then out where that came from, as from the card itself; later ones at once."""
    for number in range(3):
        wire.ask(frame(number).hex())
    wire.ask(frame(9, to="02:00:00:00:00:55").hex())
    assert held.ask("take") == "0"
    assert wire.received() == []
    wire.ask(announcement().hex())
    assert held.ask("take") == "3"
    came = wire.received()
    assert [each[14:23] for each in came] == [b"to you %02d" % number for number in range(3)]
    assert {each[:6] for each in came} == {packed(MAC)}
    assert {each[6:12] for each in came} == {card("up0")}
    wire.ask(frame(4).hex())
    assert held.ask("take") == "1"
    assert [each[14:23] for each in wire.received()] == [b"to you 04"]


def test_frames_of_the_host_itself_follow_too(held: Program, wire: Program) -> None:
    """Those that it forwards from a published port, once each; from the announcement on the bridge alone sends them."""
    itself = Program(PEER, "br0")
    try:
        itself.ask(frame(5).hex())
        wire.received()  # the bridge does not know where to and tries everywhere
        wire.ask(announcement().hex())
        assert held.ask("take") == "1"
        assert [(each[14:23], each[6:12]) for each in wire.received()] == [(b"to you 05", card("up0"))]
        itself.ask(frame(6).hex())
        assert held.ask("take") == "0"
        assert [each[14:23] for each in wire.received()] == [b"to you 06"]
    finally:
        itself.close()


def test_frames_come_back_when_the_move_is_undone(held: Program, wire: Program) -> None:
    """The container itself gets them, on its own side of the pair."""
    inside = Program(PEER, "vp0")
    try:
        inside.received()
        wire.ask(frame(7).hex())
        assert held.ask("give_back") == "1"
        assert [each[14:23] for each in inside.received()] == [b"to you 07"]
        assert wire.received() == []
    finally:
        inside.close()


def test_a_frame_that_cannot_go_takes_no_other_along(held: Program, wire: Program) -> None:
    """One longer than the link takes by now is lost, the next one goes."""
    wire.ask((frame(1) + bytes(1200)).hex())
    wire.ask(frame(2).hex())
    assert held.ask("take") == "0"
    subprocess.run(["ip", "-n", SPACE, "link", "set", "up0", "mtu", "1000"], check=True)
    wire.ask(announcement().hex())
    assert held.ask("take") == "1"
    assert [each[14:23] for each in wire.received()] == [b"to you 02"]


def test_an_announcement_of_somebody_else_sends_nothing(held: Program, wire: Program) -> None:
    """Only ARP that speaks for the container counts."""
    wire.ask(frame(1).hex())
    wire.ask(announcement().replace(packed(MAC), packed("02:00:00:00:00:55")).hex())
    assert held.ask("take") == "0"
