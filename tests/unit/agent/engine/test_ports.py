"""Who has a port of the host, and what nft is told; without a kernel's table."""

from __future__ import annotations

import dataclasses
import socket
from collections.abc import Iterator
from pathlib import Path

import pytest

from agent.config import AgentConfig
from agent.engine import port_rules, ports
from agent.engine.ports import PortError, Ports
from agent.engine.spec import ContainerSpec, Network, Port
from agent.linux import conntrack, interfaces, nft
from tests.unit.agent.engine.test_hostfiles import spec

pytestmark = pytest.mark.unit

LOOPBACK = "127.0.0.1"


class Host:
    """A host whose table is a list of scripts; its sockets are real, on loopback."""

    def __init__(self, directory: Path) -> None:
        self.scripts: list[str] = []
        self.refuses = False
        self.flushed = False  # somebody else has deleted the table
        self.whole = ""
        self.config = AgentConfig(host="host1", run_dir=directory / "run", bridge="br")
        self.config.run_dir.mkdir()
        self.forwarding = {}
        for name in ("all", "default", "lo", "br", "card0", "docker0"):
            self.forwarding[name] = directory / "conf" / name / "forwarding"
            self.forwarding[name].parent.mkdir(parents=True)
            self.forwarding[name].write_text("0\n")

        self.agents: list[Ports] = []

    def agent(self) -> Ports:
        """A new one; the one before has ended."""
        for one in self.agents:
            one.close()
        self.agents.append(Ports(self.config))
        return self.agents[-1]

    def apply(self, script: str) -> None:
        if self.refuses:
            raise OSError(22, "nft: no")
        if self.flushed and not script.startswith("add table"):
            raise OSError(22, "nft: No such file or directory")
        self.flushed = False
        self.scripts.append(script)
        if script.startswith("add table"):
            self.whole = script

    def table(self, family: str, name: str) -> str:
        return self.whole


@pytest.fixture
def host(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Host]:
    made = Host(tmp_path)
    monkeypatch.setattr(nft, "apply", made.apply)
    monkeypatch.setattr(nft, "table", made.table)
    monkeypatch.setattr(interfaces, "address_of", lambda name: "192.0.2.9" if name == "card0" else "")
    monkeypatch.setattr(conntrack, "forget", lambda _matches: 0)
    monkeypatch.setattr(ports, "_CONF", tmp_path / "conf")
    yield made
    for one in made.agents:
        one.close()


def free_port() -> int:
    with socket.socket() as one:
        one.bind((LOOPBACK, 0))
        return int(one.getsockname()[1])


def web(number: int, *, name: str = "web1", protocol: str = "tcp") -> ContainerSpec:
    port = Port(host_address=LOOPBACK, host_port=number, container_port=80, protocol=protocol)
    return dataclasses.replace(spec(ports=(port,)), id=name * 8, name=name)


def test_the_script_says_the_whole_table() -> None:
    """Ports of every address and of one, both protocols; what may be masqueraded is named."""
    network = Network(
        address="10.88.1.2/16",
        mac="",
        ports=(
            Port(host_port=8080, container_port=80),
            Port(host_port=53, container_port=53, protocol="udp", host_address=LOOPBACK),
        ),
    )
    text = port_rules.script("br0", [network], guarded=["br0"])
    assert "add element ip migrate-ports any { tcp . 8080 : 10.88.1.2 . 80 }" in text
    assert "add element ip migrate-ports at { 127.0.0.1 . udp . 53 : 10.88.1.2 . 53 }" in text
    assert "add element ip migrate-ports behind { 10.88.1.2 . tcp . 80, 10.88.1.2 . udp . 53 }" in text
    assert 'forward iifname "br0" oifname != "br0"' in text
    assert "add element" not in port_rules.script("br0", [])


def test_a_container_without_ports_costs_nothing(host: Host) -> None:
    """No process, no file, no rule: at its start, its end and the agent's start."""
    taken = host.agent()
    taken.publish(spec())
    taken.withdraw(spec().id)
    taken.recover([spec()])
    assert host.scripts == []
    assert list(host.config.run_dir.iterdir()) == []


@pytest.mark.parametrize("protocol", ["tcp", "udp"])
def test_a_published_port_is_nobody_elses(host: Host, protocol: str) -> None:
    """Another container and another program are refused, also one that comes with SO_REUSEADDR; afterwards it is free."""
    taken, number = host.agent(), free_port()
    taken.publish(web(number, protocol=protocol))
    taken.publish(web(number, protocol=protocol))  # idempotent
    assert len(host.scripts) == 1
    with pytest.raises(PortError, match="container web1 publishes it"):
        taken.publish(web(number, name="web2", protocol=protocol))
    kind = socket.SOCK_STREAM if protocol == "tcp" else socket.SOCK_DGRAM
    with socket.socket(socket.AF_INET, kind) as other:
        if protocol == "tcp":
            other.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        with pytest.raises(OSError, match="in use"):
            other.bind((LOOPBACK, number))
            other.listen()
    taken.withdraw(web(number).id)
    assert "add element" not in host.scripts[-1]
    taken.publish(web(number, name="web2", protocol=protocol))
    taken.withdraw(web(number, name="web2").id)


def test_a_conflict_names_a_renamed_container(host: Host) -> None:
    """By its name of now; one that publishes nothing is not made to."""
    taken, number = host.agent(), free_port()
    before = web(number)
    taken.publish(before)
    taken.renamed(dataclasses.replace(before, name="front"))
    taken.renamed(web(number, name="web3"))
    with pytest.raises(PortError, match="container front publishes it"):
        taken.publish(web(number, name="web2"))
    assert len(host.scripts) == 1


def test_a_foreign_listener_is_an_error(host: Host) -> None:
    """With the port and what to do; nothing is published, and the look before a move finds the same."""
    with socket.create_server((LOOPBACK, 0)) as foreign:
        number = foreign.getsockname()[1]
        taken = host.agent()
        with pytest.raises(PortError, match=rf"{number}/tcp of host1 is taken by a program") as caught:
            taken.publish(web(number))
        assert f":{number}" in caught.value.hint
        assert [one.message for one in taken.blockers(web(number).network.ports)] == [caught.value.message]
    assert host.scripts == []
    assert taken.blockers(web(number).network.ports) == []


def test_past_connections_of_a_server_are_no_conflict(host: Host) -> None:
    """TIME_WAIT lasts a minute; whoever replaces a server by a container does not wait for it."""
    with socket.create_server((LOOPBACK, 0)) as server:
        number = server.getsockname()[1]
        with socket.create_connection((LOOPBACK, number)) as client:
            accepted, _ = server.accept()
            accepted.close()  # first, so TIME_WAIT is here
            assert client.recv(1) == b""
    host.agent().publish(web(number))


def test_an_address_of_another_host(host: Host) -> None:
    """Published on one address, a container cannot go where that is not."""
    port = Port(host_address="192.0.2.1", host_port=8080, container_port=80)
    (found,) = host.agent().blockers([port])
    assert "192.0.2.1 is no address of host1" in found.message


def test_a_refused_table_leaves_nothing(host: Host) -> None:
    """The port is free again, and the next try publishes it."""
    taken, number = host.agent(), free_port()
    host.refuses = True
    with pytest.raises(PortError, match="nft: no"):
        taken.publish(web(number))
    with socket.create_server((LOOPBACK, number)):
        pass
    host.refuses = False
    taken.publish(web(number))
    assert len(host.scripts) == 1


def test_what_an_agent_left_is_made_anew(host: Host) -> None:
    """The next agent's table has exactly what runs now, and is emptied if nothing does; after a boot nothing is done."""
    first, number = host.agent(), free_port()
    first.publish(web(number))
    host.scripts.clear()
    host.agent().recover([])
    assert len(host.scripts) == 1
    assert "add element" not in host.scripts[0]
    host.whole = ""
    host.scripts.clear()
    host.agent().recover([])
    assert host.scripts == []


def test_a_flushed_firewall_is_made_anew(host: Host) -> None:
    """Somebody's `nft flush ruleset`: the next change brings everything back, not only its own port."""
    taken, first, second = host.agent(), free_port(), free_port()
    taken.publish(web(first))
    host.flushed = True
    taken.publish(web(second, name="web2"))
    assert host.scripts[-1].startswith("add table")
    assert f"tcp . {first} " in host.scripts[-1]
    assert f"tcp . {second} " in host.scripts[-1]


def test_forwarding_that_was_turned_off_again(host: Host) -> None:
    """`sysctl --system` with ip_forward = 0: the next change turns it on again, where it was on for us."""
    taken = host.agent()
    taken.publish(web(free_port()))
    for path in host.forwarding.values():
        path.write_text("0\n")
    taken.publish(web(free_port(), name="web2"))
    assert {name for name, path in host.forwarding.items() if path.read_text() == "1"} == {"br", "card0"}


def test_forwarding_that_was_off_is_guarded(host: Host) -> None:
    """A host that becomes a router for its ports becomes none for others, also after a restart of its agent; one that was a router
    is left as it was.
    """
    host.agent().publish(web(free_port()))
    on = {name for name, path in host.forwarding.items() if path.read_text() == "1"}
    assert on == {"br", "card0"}  # where clients may come in
    assert port_rules.guarded_in(host.whole) == on
    host.agent().recover([])
    assert port_rules.guarded_in(host.whole) == on
    host.whole = ""
    host.agent().publish(web(free_port()))
    assert port_rules.guarded_in(host.whole) == set()
