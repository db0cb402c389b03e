"""Published ports of a host, with a client outside of it: a namespace of its own behind a port of the bridge."""

from __future__ import annotations

import os
import socket
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path

import pytest

from agent.engine.container import Engine
from agent.engine.ports import PortError
from agent.engine.spec import ContainerSpec, Network, Port
from agent.engine.state import State
from tests.system.engine_host import EngineHost, engine_host, until

pytestmark = pytest.mark.system

BRIDGED_TO_IPTABLES = Path("/proc/sys/net/bridge/bridge-nf-call-iptables")
HOST = "10.77.0.1"
CLIENT = "10.77.255.2"
SERVE = "httpd -f -p 80 -h /etc"
# Prints what comes back. Anybody's Python, in whatever namespace it is started.
ECHO_UDP = """
import socket
one = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
one.bind(("", 53))
print("listens", flush=True)
while True:
    data, peer = one.recvfrom(2000)
    one.sendto(data, peer)
"""
ASK = """
import socket, sys
kind, address, port = sys.argv[1], sys.argv[2], int(sys.argv[3])
one = socket.socket(socket.AF_INET, socket.SOCK_DGRAM if kind == "udp" else socket.SOCK_STREAM)
one.settimeout(5)
one.connect((address, port))
one.send(b"GET /passwd HTTP/1.0\\r\\n\\r\\n")
print(one.recv(100).decode().splitlines()[0].replace("HTTP/1.1", "HTTP/1.0"))
"""
WHO = """
import socket
with socket.create_server(("", 80)) as server:
    print("listens", flush=True)
    while True:
        one, peer = server.accept()
        one.send(b"you are " + peer[0].encode())
        one.close()
"""
OK, SAID = "HTTP/1.0 200 OK", "GET /passwd HTTP/1.0"


@pytest.fixture
def outside(host: EngineHost) -> Iterator[list[str]]:
    """The beginning of a command that runs in a namespace which is another machine to this host."""
    holder = subprocess.Popen(["unshare", "--net", "sleep", "1000"], stdin=subprocess.DEVNULL)
    enter = ["nsenter", f"--net=/proc/{holder.pid}/ns/net"]
    try:
        mine = Path("/proc/thread-self/ns/net").readlink()
        until(lambda: Path(f"/proc/{holder.pid}/ns/net").readlink() != mine)
        if BRIDGED_TO_IPTABLES.exists():
            BRIDGED_TO_IPTABLES.write_text("0")  # as on a host without br_netfilter; docs/networks.md
        for line in (
            "link set lo up",
            f"link add out0 type veth peer name eth0 netns {holder.pid}",
            f"link set out0 master {host.config.bridge} up",
        ):
            subprocess.run(["ip", *line.split()], check=True)
        for line in (f"address add {CLIENT}/16 dev eth0", "link set eth0 up", "link set lo up"):
            subprocess.run([*enter, "ip", *line.split()], check=True)
        yield enter
    finally:
        holder.kill()
        holder.wait()
        subprocess.run(["ip", "link", "del", "out0"], check=False, stderr=subprocess.DEVNULL)


@contextmanager
def another_network() -> Iterator[tuple[list[str], str]]:
    """Behind another card of this host, 10.78.0.1, is a machine: how commands run there, its address. It has a route to the fleet."""
    with subprocess.Popen(["unshare", "--net", "sleep", "1000"], stdin=subprocess.DEVNULL) as holder:
        far, address = ["nsenter", f"--net=/proc/{holder.pid}/ns/net"], "10.78.0.2"
        try:
            mine = Path("/proc/thread-self/ns/net").readlink()
            until(lambda: Path(f"/proc/{holder.pid}/ns/net").readlink() != mine)
            for line in (
                f"link add card0 type veth peer name eth0 netns {holder.pid}",
                "address add 10.78.0.1/16 dev card0",
                "link set card0 up",
            ):
                subprocess.run(["ip", *line.split()], check=True)
            for line in (
                f"address add {address}/16 dev eth0",
                "link set eth0 up",
                "route add 10.77.0.0/16 via 10.78.0.1",
            ):
                subprocess.run([*far, "ip", *line.split()], check=True)
            yield far, address
        finally:
            holder.kill()


def ask(address: str, port: int, *, kind: str = "tcp", where: tuple[str, ...] | list[str] = ()) -> str:
    """What the other side says, or the name of the error."""
    command = [*where, sys.executable, "-c", ASK, kind, address, str(port)]
    done = subprocess.run(command, capture_output=True, text=True, timeout=20)
    return done.stdout.strip() or done.stderr.strip().rpartition("\n")[2]


def table() -> str:
    """nft's list of ours."""
    return subprocess.run(["nft", "list", "table", "ip", "migrate-ports"], capture_output=True, text=True).stdout


def published(host: EngineHost, line: str, *ports: Port) -> ContainerSpec:
    spec = host.spec(line)
    network = spec.network
    return host.spec(line, network=Network(address=network.address, mac=network.mac, ports=ports))


def run(engine: Engine, spec: ContainerSpec) -> None:
    engine.create(spec, 1)
    engine.start(spec.id)


def test_a_published_port_from_everywhere(host: EngineHost, engine: Engine, outside: list[str]) -> None:
    """From another machine, from the host by each of its addresses, from another container; it ends with the container."""
    spec = published(host, SERVE, Port(host_port=8080, container_port=80))
    run(engine, spec)
    until(lambda: ask(HOST, 8080) == OK)
    assert ask(HOST, 8080, where=outside) == OK
    assert ask("127.0.0.1", 8080) == OK
    other = host.spec(f"wget -q -O - http://{HOST}:8080/passwd")
    run(engine, other)
    engine.wait(other.id, 20)
    assert b"".join(entry.data for entry in engine.logs(other.id)).startswith(b"root:")
    itself = ["nsenter", f"--net=/proc/{engine.inspect(spec.id).pid}/ns/net"]
    assert ask(HOST, 8080, where=itself) == OK
    engine.stop(spec.id, timeout_s=0)
    assert "8080" not in table()
    assert ask(HOST, 8080, where=outside).startswith("ConnectionRefusedError")
    engine.start(spec.id)
    until(lambda: ask(HOST, 8080, where=outside) == OK)
    engine.remove(spec.id, force=True)
    assert ask(HOST, 8080).startswith("ConnectionRefusedError")


def test_udp(host: EngineHost, engine: Engine, outside: list[str]) -> None:
    """Datagrams come and go by the same port."""
    spec = published(host, "sleep 1000", Port(host_port=5353, container_port=53, protocol="udp"))
    run(engine, spec)
    inside = ["nsenter", f"--net=/proc/{engine.inspect(spec.id).pid}/ns/net"]  # busybox has no server of datagrams
    with subprocess.Popen([*inside, sys.executable, "-c", ECHO_UDP], stdout=subprocess.PIPE) as server:
        try:
            assert server.stdout is not None
            assert server.stdout.readline() == b"listens\n"
            assert ask(HOST, 5353, kind="udp", where=outside) == SAID
            assert ask("127.0.0.1", 5353, kind="udp") == SAID
        finally:
            server.kill()


def test_a_client_that_was_too_early(host: EngineHost, engine: Engine, outside: list[str]) -> None:
    """Datagrams sent before the port is published, or to a container that is gone, do not keep their sender away from this one."""
    keep = published(host, "sleep 1000", Port(host_port=8080, container_port=80))
    run(engine, keep)  # connection tracking works from the first published port on
    code = ASK.replace("one.connect", "one.bind(('', 3333)); one.connect").replace(
        "(5)", "(2)"
    )  # one flow, as far as the kernel can tell
    early = [*outside, sys.executable, "-c", code, "udp", HOST, "5353"]
    assert subprocess.run(early, capture_output=True).returncode != 0
    for _ in range(2):
        spec = published(host, "sleep 1000", Port(host_port=5353, container_port=53, protocol="udp"))
        run(engine, spec)
        inside = ["nsenter", f"--net=/proc/{engine.inspect(spec.id).pid}/ns/net"]
        with subprocess.Popen([*inside, sys.executable, "-c", ECHO_UDP], stdout=subprocess.PIPE) as server:
            try:
                assert server.stdout is not None
                assert server.stdout.readline() == b"listens\n"
                assert subprocess.run(early, capture_output=True, text=True).stdout.strip() == SAID
            finally:
                server.kill()
        engine.remove(spec.id, force=True)


def test_a_port_of_loopback_is_the_hosts_alone(host: EngineHost, engine: Engine, outside: list[str]) -> None:
    """-p 127.0.0.1:8080:80 is not reached by the host's other addresses, nor by a frame from outside that says 127.0.0.1."""
    spec = published(host, SERVE, Port(host_address="127.0.0.1", host_port=8080, container_port=80))
    run(engine, spec)
    until(lambda: ask("127.0.0.1", 8080) == OK)
    assert ask(HOST, 8080, where=outside).startswith("ConnectionRefusedError")
    for line in (
        "sysctl -qw net.ipv4.conf.all.route_localnet=1",
        f"ip route replace 127.0.0.1 via {HOST} dev eth0 table local",
    ):
        subprocess.run([*outside, *line.split()], check=True)
    subprocess.run([*outside, "ip", "route", "del", "local", "127.0.0.1", "dev", "lo", "table", "local"], check=False)
    with socket.create_server(("127.0.0.1", 8081)):  # a service that only the host itself may reach
        assert "imed out" in ask("127.0.0.1", 8081, where=outside)


def test_a_taken_port_is_an_error_at_the_start(host: EngineHost, engine: Engine) -> None:
    """The container stays as it was and starts when the port is free; nothing of it runs in between."""
    spec = published(host, SERVE, Port(host_port=8080, container_port=80))
    engine.create(spec, 1)
    with socket.create_server((HOST, 8080)):
        with pytest.raises(PortError, match="8080/tcp of host1 is taken by a program"):
            engine.start(spec.id)
        assert engine.inspect(spec.id).state == State.CREATED
        assert host.links() & {f"vm{spec.id[:11]}"} == set()
    engine.start(spec.id)
    second = published(host, SERVE, Port(host_port=8080, container_port=80))
    engine.create(second, 1)
    with pytest.raises(PortError, match=f"container {spec.name} publishes it"):
        engine.start(second.id)


def test_the_next_one_behind_the_same_port(host: EngineHost, engine: Engine) -> None:
    """Whoever has seen a container exit can start another with its port at once, also while it is still cleaned up after."""
    for _ in range(8):
        spec = published(host, "true", Port(host_port=8080, container_port=80))
        run(engine, replace(spec, remove_on_exit=True))
        engine.wait(spec.id, 20)


def test_an_agent_that_died(host: EngineHost, engine: Engine, outside: list[str]) -> None:
    """Ports work while no agent runs; the next one keeps those of living containers and drops those of dead ones."""
    lives = published(host, SERVE, Port(host_port=8080, container_port=80))
    dies = published(host, SERVE, Port(host_port=8081, container_port=80))
    for spec in (lives, dies):
        run(engine, spec)
    pid = engine.inspect(dies.id).pid
    engine.close()
    until(lambda: ask(HOST, 8080, where=outside) == OK)
    os.kill(pid, 9)
    until(lambda: not Path(f"/proc/{pid}").exists())
    after = host.engine()
    try:
        assert "8080" in table()
        assert "8081" not in table()
        assert ask(HOST, 8080, where=outside) == OK
        with pytest.raises(OSError, match="in use"):
            socket.create_server((HOST, 8080))
        with socket.create_server((HOST, 8081)):
            pass
    finally:
        for spec in (lives, dies):
            after.remove(spec.id, force=True)
        after.close()


def test_other_tables_are_left_alone(host: EngineHost, engine: Engine) -> None:
    """Ours come and go; what others have in the same namespace stays byte for byte."""
    foreign = (
        "table ip theirs {\n\tchain forward {\n\t\ttype filter hook forward priority filter; policy accept;\n\t}\n}\n"
    )
    subprocess.run(["nft", "-f", "-"], input=foreign, text=True, check=True)
    spec = published(host, SERVE, Port(host_port=8080, container_port=80))
    run(engine, spec)
    engine.remove(spec.id, force=True)
    assert subprocess.run(["nft", "list", "table", "ip", "theirs"], capture_output=True, text=True).stdout == foreign


def test_a_flushed_firewall(host: EngineHost, engine: Engine) -> None:
    """`nft flush ruleset` takes ours along; the next published port, or the agent's next start, brings it back."""
    first = published(host, SERVE, Port(host_port=8080, container_port=80))
    run(engine, first)
    subprocess.run(["nft", "flush", "ruleset"], check=True)
    run(engine, published(host, SERVE, Port(host_port=8081, container_port=80)))
    until(lambda: ask(HOST, 8080) == ask(HOST, 8081) == OK, 10)


def test_a_host_forwards_for_published_ports_alone() -> None:
    """A host that was no router does not become one: what others send through it to elsewhere is dropped, also after a restart of
    its agent. With `way_out` it is one, and what leaves has its address.
    """
    with engine_host() as host, another_network() as (far, address):
        lan = host.spec("sleep", "1000")
        engine = host.engine()
        run(engine, lan)
        run(engine, published(host, SERVE, Port(host_port=8080, container_port=80)))
        inside = ["nsenter", f"--net=/proc/{engine.inspect(lan.id).pid}/ns/net"]  # its gateway is this host
        with subprocess.Popen([*far, sys.executable, "-c", WHO], stdout=subprocess.PIPE, text=True) as server:
            try:
                assert server.stdout is not None
                assert server.stdout.readline() == "listens\n"
                assert "imed out" in ask(address, 80, where=inside)
                until(lambda: ask("10.78.0.1", 8080, where=far) == OK, 10)  # by a card that is no port of the bridge
                engine.close()
                engine = host.engine()
                assert "imed out" in ask(address, 80, where=inside)
                assert ask("10.78.0.1", 8080, where=far) == OK
                inner = [*inside, sys.executable, "-c", WHO]
                with subprocess.Popen(inner, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL) as served:
                    assert "imed out" in ask(lan.network.address.partition("/")[0], 80, where=far)
                    served.kill()
                engine.close()
                host.config = replace(host.config, way_out="masquerade")
                engine = host.engine()
                assert ask(address, 80, where=inside) == "you are 10.78.0.1"
                assert "imed out" in ask(lan.network.address.partition("/")[0], 80, where=far)
            finally:
                server.kill()
                for status in engine.list():
                    engine.remove(status.spec.id, force=True)
                engine.close()


def test_without_ports_no_table_is_made() -> None:
    """A container that publishes nothing leaves the host's firewall and its forwarding as they were."""
    with engine_host() as host:
        engine = host.engine()
        spec = host.spec("sleep", "1000")
        run(engine, spec)
        assert table() == ""
        assert Path(f"/proc/sys/net/ipv4/conf/{host.config.bridge}/forwarding").read_text() == "0\n"
        engine.remove(spec.id, force=True)
        engine.close()


def test_network_none_is_lo_alone(host: EngineHost, engine: Engine) -> None:
    """--network none: lo, up, and nothing else; no end of it is on the host."""
    spec = host.spec(
        "ip -o link; ping -c 1 -W 1 127.0.0.1 >/dev/null && echo alive",
        network=Network(address="", mac="", mode="none"),
    )
    before = host.links()
    run(engine, spec)
    engine.wait(spec.id, 20)
    text = b"".join(entry.data for entry in engine.logs(spec.id)).decode()
    assert [line.split(": ")[1] for line in text.splitlines() if ": " in line] == ["lo"]
    assert "alive" in text
    assert host.links() == before


def test_network_host_is_the_hosts(host: EngineHost, engine: Engine, outside: list[str]) -> None:
    """--network host: the host's interfaces, and a server in there is reached by the host's address."""
    spec = host.spec(SERVE.replace("-p 80", "-p 8080"), network=Network(address="", mac="", mode="host"))
    run(engine, spec)
    assert Path(f"/proc/{engine.inspect(spec.id).pid}/ns/net").readlink() == Path("/proc/thread-self/ns/net").readlink()
    until(lambda: ask(HOST, 8080, where=outside) == OK)
