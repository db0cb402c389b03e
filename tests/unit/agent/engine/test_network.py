"""What is said to iproute2, and how its refusals come back."""

from __future__ import annotations

import subprocess
from collections.abc import Sequence
from dataclasses import replace

import pytest

from agent.engine import network
from agent.engine.network import NetworkError
from agent.engine.spec import Network
from tests.unit.agent.engine.test_store import SPEC as BARE_SPEC

pytestmark = pytest.mark.unit

SPEC = replace(
    BARE_SPEC, network=Network(address="10.88.0.2/16", mac="02:42:0a:58:00:02", gateway="10.88.0.1", mtu=1400)
)


class Iproute:
    """Records commands and answers them; `refuse` maps a word of the command line to (status, stderr)."""

    def __init__(self) -> None:
        self.commands: list[tuple[list[str], list[str]]] = []
        self.refuse: dict[str, tuple[int, str]] = {}
        self.stdout = ""

    def __call__(self, command: Sequence[str], text: str = "") -> subprocess.CompletedProcess[str]:
        self.commands.append((list(command), text.splitlines()))
        for word, (status, stderr) in self.refuse.items():
            if word in " ".join(command) + text:
                return subprocess.CompletedProcess(list(command), status, "", stderr)
        return subprocess.CompletedProcess(list(command), 0, self.stdout, "")


@pytest.fixture
def iproute(monkeypatch: pytest.MonkeyPatch) -> Iproute:
    recorder = Iproute()
    monkeypatch.setattr(network, "_run", recorder)
    return recorder


def test_interface_names_fit() -> None:
    """Both names of a pair differ and fit the 15 characters of an interface name."""
    names = {network.host_end("f" * 32), network.peer_end("f" * 32)}
    assert len(names) == 2
    assert all(len(name) <= 15 for name in names)


def test_attach_makes_the_pair_and_sets_it_up_inside(iproute: Iproute) -> None:
    """The old pair goes; the peer is born in the container's namespace; address and route are set there."""
    network.attach(SPEC, 42, "br0")
    host = network.host_end(SPEC.id)
    (delete, _), (outside, outside_lines), (inside, inside_lines) = iproute.commands
    assert delete == ["ip", "link", "del", "dev", host]
    assert outside == ["ip", "-batch", "-"]
    assert outside_lines == [
        f"link add {host} index {network.host_index(SPEC.id)} mtu 1400 type veth"
        " peer name eth0 address 02:42:0a:58:00:02 mtu 1400 netns 42",
        f"link set dev {host} master br0 up",
    ]
    assert inside == ["nsenter", "--net=/proc/42/ns/net", "ip", "-batch", "-"]
    assert inside_lines == [
        "link set dev lo up",
        "address add 10.88.0.2/16 dev eth0",
        "link set dev eth0 up",
        "route add default via 10.88.0.1 dev eth0",
    ]


def test_container_without_an_address_gets_loopback_only(iproute: Iproute) -> None:
    """No address, no pair."""
    network.attach(replace(SPEC, network=Network(address="", mac="")), 42, "br0")
    assert [lines for _, lines in iproute.commands] == [["link set dev lo up"]]


def test_peer_for_a_restore_is_up_and_off_the_bridge(iproute: Iproute) -> None:
    """The host's end for CRIU is up without an address of its own, and joins no bridge before the move is decided."""
    assert network.prepare_peer(SPEC, "br0") == network.peer_end(SPEC.id)
    lines = iproute.commands[-1][1]
    assert lines[-1] == f"link set dev {network.host_end(SPEC.id)} addrgenmode none up"
    assert not any("master" in line for line in lines)


def test_index_of_the_hosts_end_is_no_small_one() -> None:
    """A namespace's first indexes are left to what is in the container; the highest fits what Linux takes (31 bits)."""
    assert 1 << 20 < network.host_index("0" * 32) < network.host_index("f" * 32) < 1 << 31


def test_mtu_is_the_bridges_when_the_spec_has_none(iproute: Iproute) -> None:
    """mtu 0 means: what the bridge has."""
    iproute.stdout = '[{"mtu": 1450}]'
    network.attach(replace(SPEC, network=replace(SPEC.network, mtu=0)), 42, "br0")
    assert any("mtu 1450" in line for _, lines in iproute.commands for line in lines)


def test_link_plan_names_what_the_monitor_handles() -> None:
    """Both ends, bridge, address; a container without an address has nothing to cut or join."""
    plan = network.link_plan(SPEC, "br0")
    assert (plan.host, plan.peer, plan.bridge) == (network.host_end(SPEC.id), network.peer_end(SPEC.id), "br0")
    assert (plan.mac, plan.address, plan.gateway) == ("02:42:0a:58:00:02", "10.88.0.2/16", "10.88.0.1")
    bare = network.link_plan(replace(SPEC, network=Network(address="", mac="")), "br0")
    assert (bare.host, bare.peer) == ("", "")


def test_only_a_container_with_net_admin_can_change_its_network() -> None:
    """What a move has to carry follows from the capabilities."""
    assert not network.may_change(SPEC)
    assert network.may_change(replace(SPEC, capabilities=(*SPEC.capabilities, "CAP_NET_ADMIN")))


def test_refusal_carries_ips_words_and_the_line(iproute: Iproute) -> None:
    """The message has what ip said and the line that failed, found by its number."""
    iproute.refuse["master"] = (1, 'Cannot find device "x"\nCommand failed -:2\n')
    with pytest.raises(NetworkError, match=r'master br0 up: Cannot find device "x"$'):
        network.attach(SPEC, 42, "br0")


def test_removing_what_is_not_there_is_fine(iproute: Iproute) -> None:
    """Only "Cannot find device" is no error."""
    iproute.refuse["del"] = (1, 'Cannot find device "vm"\n')
    network.remove(SPEC.id)
    iproute.refuse["del"] = (2, "RTNETLINK answers: Operation not permitted\n")
    with pytest.raises(NetworkError, match="not permitted"):
        network.remove(SPEC.id)


def test_missing_bridge_says_how_to_make_it(iproute: Iproute) -> None:
    """The hint can be typed."""
    iproute.refuse["br9"] = (1, 'Device "br9" does not exist.\n')
    with pytest.raises(NetworkError) as caught:
        network.bridge_mtu("br9")
    assert caught.value.hint.startswith("ip link add br9 type bridge")


def test_configured_uplink_wins() -> None:
    """Nothing is looked for where the operator has said it."""
    assert network.uplinks("br0", "bond0") == ["bond0"]
