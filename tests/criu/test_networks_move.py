"""Published ports, host files and networks when their container moves."""

from __future__ import annotations

import contextlib
import subprocess
import sys
from collections.abc import Iterator

import pytest

from migrate.errors import Cancelled, MigrateError, PrecheckError
from migrate.lab import nodes
from migrate.records import Container, Port, Run
from tests.criu.moving_lab import Dialogue, MovingLab, program, wait_for

pytestmark = pytest.mark.criu

HOSTS = {"host1": "10.88.0.11", "host2": "10.88.0.12"}
PORT = 5000


@pytest.fixture
def web(fleet: MovingLab) -> Iterator[Container]:
    """An echo server behind port 5000 of the host that it runs on."""
    container = fleet.client.run(
        Run(
            image="work",
            name="web",
            host="host1",
            argv=program("tcp_echo", "7000"),
            ports=(Port(container_port=7000, host_port=PORT), Port(container_port=7000, host_port=5001)),
            extra_hosts=("db:10.88.1.9", "home:host-gateway"),
            dns=("10.88.0.2",),
            dns_search=("a.example",),
        )
    )
    wait_for(lambda: not refused(fleet, "client", HOSTS["host1"]))
    yield container
    fleet.client.remove("web", force=True)


def on(fleet: MovingLab, node: str, code: str, *arguments: str) -> subprocess.CompletedProcess[str]:
    """Python in the namespaces of a node."""
    command = nodes.command(fleet.lab, node, [sys.executable, "-c", code, *arguments])
    return subprocess.run(command, capture_output=True, text=True, timeout=30)


def refused(fleet: MovingLab, node: str, address: str, port: int = PORT) -> bool:
    """Whether `node` cannot connect there, at once."""
    code = "import socket, sys; socket.create_connection((sys.argv[1], int(sys.argv[2])), timeout=5)"
    done = on(fleet, node, code, address, str(port))
    assert done.returncode == 0 or "ConnectionRefusedError" in done.stderr, done.stderr
    return done.returncode != 0


def rules(fleet: MovingLab, host: str) -> str:
    command = nodes.command(fleet.lab, host, ["nft", "list", "table", "ip", "migrate-ports"])
    return subprocess.run(command, capture_output=True, text=True, timeout=30).stdout


def test_connections_through_a_port_survive(fleet: MovingLab, web: Container) -> None:
    """One through each host, there and back: both go on; new ones are led by the host that has the container, and by no other."""
    through_first = Dialogue(fleet.lab, HOSTS["host1"], PORT)
    try:
        assert through_first.ask("a") == "1 a"
        fleet.move("web")
        assert through_first.ask("b") == "2 b"
        assert refused(fleet, "client", HOSTS["host1"])
        assert not refused(fleet, "client", HOSTS["host2"])
        assert not refused(fleet, "host2", "127.0.0.1")
        assert not refused(fleet, "host1", HOSTS["host2"], 5001)
        through_second = Dialogue(fleet.lab, HOSTS["host2"], PORT)
        try:
            assert through_second.ask("x") == "1 x"
            fleet.restart_agents()  # the first host has not one port any more, and goes on leading what it began
            assert through_first.ask("c") == "3 c"
            fleet.move("web")
            assert through_first.ask("d") == "4 d"
            assert through_second.ask("y") == "2 y"
        finally:
            through_second.close()
    finally:
        through_first.close()
    assert "5000" in rules(fleet, "host1")
    assert "5000" not in rules(fleet, "host2")
    container = fleet.client.inspect("web")
    assert (container.host, container.ports) == ("host1", web.ports)


def test_files_of_the_host_stay_as_they_were_written(fleet: MovingLab, web: Container) -> None:
    """/etc/hosts with --add-host, /etc/resolv.conf with --dns; host-gateway is the host that it was created on."""
    before = fleet.run("web", "cat", "/etc/hosts", "/etc/resolv.conf")
    assert before[0] == 0
    assert "10.88.1.9\tdb" in before[1]
    assert f"{HOSTS['host1']}\thome" in before[1]
    assert "nameserver 10.88.0.2\n" in before[1]
    assert "search a.example\n" in before[1]
    fleet.move("web")
    assert fleet.run("web", "cat", "/etc/hosts", "/etc/resolv.conf") == before


def test_a_port_that_is_taken_on_the_target(fleet: MovingLab, web: Container) -> None:
    """Refused before anything is touched, with the port, by whom it is taken and what to do; free again, it moves."""
    code = "import socket, sys\nwith socket.create_server(('', 5001)): print('listens', flush=True); sys.stdin.read()"
    command = nodes.command(fleet.lab, "host2", [sys.executable, "-c", code])
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE) as foreign:
        assert foreign.stdout is not None
        assert foreign.stdout.readline() == b"listens\n"
        with pytest.raises(PrecheckError, match="5001/tcp of host2 is taken by a program of the host") as caught:
            fleet.client.move("web", to="host2").result()
        assert "5001" in caught.value.hint
        foreign.communicate()
    other = fleet.client.run(
        Run(
            image="work",
            name="other",
            host="host1",
            argv=program("tcp_echo", "7000"),
            ports=(Port(container_port=7000, host_port=5002),),
        )
    )
    assert not refused(fleet, "client", HOSTS["host1"])
    fleet.move("other")
    fleet.client.remove(other.name, force=True)
    fleet.move("web")


def test_network_none_moves(fleet: MovingLab) -> None:
    """It has lo alone on the target too."""
    wanted = Run(image="work", name="alone", host="host1", network_mode="none", argv=program("tcp_echo", "7000"))
    fleet.client.run(wanted)
    try:
        fleet.move("alone")
        code, text = fleet.run("alone", "cat", "/proc/net/dev")
        names = [line.partition(":")[0].strip() for line in text.splitlines() if ":" in line]
        assert (code, names) == (0, ["lo"])
        ask = "import socket; s = socket.create_connection(('127.0.0.1', 7000)); s.send(b'x\\n'); print(s.recv(9))"
        assert fleet.run("alone", "python3", "-c", ask) == (0, "b'1 x\\n'\n")
    finally:
        fleet.client.remove("alone", force=True)


def test_a_network_that_the_container_may_change_moves(fleet: MovingLab) -> None:
    """With CAP_NET_ADMIN CRIU carries it: the address that was added inside, and parameters that are not the container's to write."""
    ping_range = "/proc/sys/net/ipv4/ping_group_range"
    fleet.client.run(
        Run(image="work", name="admin", host="host1", cap_add=("NET_ADMIN",), argv=program("tcp_echo", "7000"))
    )
    try:
        before = fleet.run("admin", "cat", ping_range)
        add = (
            "import fcntl, socket, struct; s = socket.socket(); name = b'lo:1'; address = socket.inet_aton('10.99.0.1');"
            "fcntl.ioctl(s, 0x8916, struct.pack('16sHH4s8x', name, socket.AF_INET, 0, address))"
        )
        assert fleet.run("admin", "python3", "-c", add) == (0, "")
        fleet.move("admin")
        assert "10.99.0.1" in fleet.run("admin", "cat", "/proc/net/fib_trie")[1]
        assert fleet.run("admin", "cat", ping_range) == before
        assert fleet.run("admin", "cat", "/proc/sys/net/ipv4/ip_unprivileged_port_start") == (0, "0\n")
    finally:
        fleet.client.remove("admin", force=True)


def test_network_host_does_not_move(fleet: MovingLab) -> None:
    """The check says why; the container runs on, on the host's own address."""
    wanted = Run(image="work", name="rooted", host="host1", network_mode="host", argv=program("tcp_echo", "7000"))
    fleet.client.run(wanted)
    try:
        wait_for(lambda: not refused(fleet, "client", HOSTS["host1"], 7000))
        with pytest.raises(PrecheckError, match="it uses the host's network"):
            fleet.client.move("rooted", to="host2").result()
        assert not refused(fleet, "client", HOSTS["host1"], 7000)
    finally:
        fleet.client.remove("rooted", force=True)


def test_a_move_that_is_undone(fleet: MovingLab, web: Container) -> None:
    """The target led the port to the source's container meanwhile; afterwards it has not one, and anybody there may take it."""
    assert fleet.run("web", "dd", "if=/dev/urandom", "of=/srv/big", "bs=1M", "count=200")[0] == 0
    moving = fleet.client.move("web", to="host2")
    move = wait_for(lambda: next((one.id for one in fleet.client.migrations(active=True) if one.step == "precopy"), ""))
    through_target = Dialogue(fleet.lab, HOSTS["host2"], PORT)
    try:
        assert fleet.client.cancel(move)[1]
        with pytest.raises(Cancelled):
            moving.result()
        assert through_target.ask("a") == "1 a"  # what has begun goes on
        assert "5000" not in rules(fleet, "host2")
        assert refused(fleet, "client", HOSTS["host2"])
        take = "import socket; socket.create_server(('', 5000)).close()"
        assert on(fleet, "host2", take).returncode == 0
        assert not refused(fleet, "client", HOSTS["host1"])
    finally:
        through_target.close()


def test_agents_that_die_in_a_move(fleet: MovingLab, web: Container) -> None:
    """Both at once while files are sent: afterwards exactly the host that has the container leads the ports."""
    assert fleet.run("web", "dd", "if=/dev/urandom", "of=/srv/big", "bs=1M", "count=200")[0] == 0
    moving = fleet.client.move("web", to="host2")
    wait_for(lambda: any(one.step == "precopy" for one in fleet.client.migrations(active=True)))
    fleet.restart_agents()
    with contextlib.suppress(MigrateError):  # it may go on or be undone
        moving.result()
    wait_for(lambda: not fleet.client.migrations(active=True), timeout_s=60)
    here = fleet.client.inspect("web").host
    there = "host2" if here == "host1" else "host1"
    assert "5000" in rules(fleet, here)
    assert "5000" not in rules(fleet, there)
    assert not refused(fleet, "client", HOSTS[here])
    assert refused(fleet, "client", HOSTS[there])
