"""Two hosts that are the same have nothing against a move; each difference that matters is found by itself, with its remedy."""

from __future__ import annotations

import copy
from collections.abc import Callable

import pytest

from migrate.coordinator.preflight import catalog, hosts
from migrate.coordinator.preflight.finding import BLOCKER, WARNING, Finding
from migrate.coordinator.preflight.hosts import Host, compare
from migrate.rpc.version import OURS
from protos import agent_pb2, types_pb2

pytestmark = pytest.mark.unit

FACTS = agent_pb2.HostFacts(
    protocol=OURS.major,
    protocol_minor=OURS.minor,
    kernel="6.12.3-amd64",
    architecture="x86_64",
    criu_version="4.2.1",
    memory_available_bytes=4 << 30,
    disk_available_bytes=50 << 30,
    cpus=8,
    instructions=["aes", "avx", "avx2"],
    processor="GenuineIntel",
    cgroup="v2",
    lsm="apparmor",
    bridge="migrate0",
    bridge_addresses=["10.88.0.1/16"],
    bridge_mtu=1500,
    capabilities=[
        agent_pb2.Capability(name="criu", ok=True, required=True, remedy="make setup"),
        agent_pb2.Capability(name="userfaultfd", ok=True, remedy="CONFIG_USERFAULTFD"),
        agent_pb2.Capability(name="criu-uffd-noncoop", ok=True, remedy="CONFIG_USERFAULTFD"),
        agent_pb2.Capability(name="soft-dirty", ok=True),
        agent_pb2.Capability(name="bridged-frames", ok=True, remedy="sysctl net.bridge.bridge-nf-call-iptables=0"),
        agent_pb2.Capability(name="sized-layers", ok=True, remedy="apt-get install e2fsprogs"),
    ],
)
COMING = agent_pb2.Description(
    memory_bytes=200 << 20,
    layer_bytes=10 << 20,
    spec=types_pb2.ContainerSpec(
        name="web1", network=types_pb2.Network(address="10.88.1.2/16", gateway="10.88.0.1", mac="02:42:0a:58:01:02")
    ),
)

Change = Callable[[agent_pb2.HostFacts, agent_pb2.HostFacts, agent_pb2.Description], object]


def found(change: Change, *, missing_bytes: int = 0, clock_s: float = 0.0) -> list[Finding]:
    """What is found where `change` was made to (source, target, coming)."""
    here, there, coming = copy.deepcopy(FACTS), copy.deepcopy(FACTS), copy.deepcopy(COMING)
    change(here, there, coming)
    source = Host(name="host1", facts=here, clock_s=0.1, clock_error_s=0.01)
    target = Host(name="host2", facts=there, clock_s=0.1 + clock_s, clock_error_s=0.01)
    return list(compare(source, target, coming, missing_bytes))


def lacks(facts: agent_pb2.HostFacts, name: str) -> None:
    next(each for each in facts.capabilities if each.name == name).ok = False


def put(message: object, **values: object) -> None:
    for name, value in values.items():
        setattr(message, name, value)


def replace(field: object, *values: str) -> None:
    del field[:]  # type: ignore[attr-defined]
    field.extend(values)  # type: ignore[attr-defined]


def test_hosts_that_are_the_same() -> None:
    """Nothing speaks against it, and there is nothing to know."""
    assert found(lambda _here, _there, _coming: None) == []


@pytest.mark.parametrize(
    ("check", "severity", "where", "words", "change"),
    [
        ("protocol", BLOCKER, "host2", "protocol 6", lambda _h, t, _c: put(t, protocol=6)),
        ("architecture", BLOCKER, "host2", "aarch64", lambda _h, t, _c: put(t, architecture="aarch64")),
        ("criu", BLOCKER, "host2", "4.1.1, older than 4.2.1", lambda _h, t, _c: put(t, criu_version="4.1.1")),
        ("criu", BLOCKER, "host2", "CRIU none", lambda _h, t, _c: put(t, criu_version="")),
        ("capability", BLOCKER, "host1", "criu does not work", lambda h, _t, _c: lacks(h, "criu")),
        ("capability", BLOCKER, "host2", "criu does not work", lambda _h, t, _c: lacks(t, "criu")),
        ("kernel", WARNING, "host2", "6.1.0", lambda _h, t, _c: put(t, kernel="6.1.0-10-amd64")),
        ("feature", WARNING, "host2", "stands still longer", lambda _h, t, _c: lacks(t, "userfaultfd")),
        ("feature", WARNING, "host2", "published port", lambda _h, t, _c: lacks(t, "bridged-frames")),
        ("cpu-features", BLOCKER, "host2", "lack avx2", lambda _h, t, _c: replace(t.instructions, "aes", "avx")),
        ("cpu-features", WARNING, "host2", "AuthenticAMD", lambda _h, t, _c: put(t, processor="AuthenticAMD")),
        ("cgroup", WARNING, "host2", "hybrid", lambda _h, t, _c: put(t, cgroup="hybrid")),
        ("memory", BLOCKER, "host2", "needs 464 MiB", lambda _h, t, _c: put(t, memory_available_bytes=463 << 20)),
        ("disk", BLOCKER, "host2", "needs 74 MiB", lambda _h, t, _c: put(t, disk_available_bytes=73 << 20)),
        ("subnet", BLOCKER, "host2", "10.99.0.0/24", lambda _h, t, _c: replace(t.bridge_addresses, "10.99.0.1/24")),
        ("mtu", BLOCKER, "host2", "1450 bytes", lambda _h, t, _c: put(t, bridge_mtu=1450)),
    ],
)
def test_one_difference(check: str, severity: str, where: str, words: str, change: Change) -> None:
    """It is the only thing found, on that host, and says what to do."""
    (one,) = found(change)
    assert (one.check, one.severity, one.where) == (check, severity, where)
    assert words in one.what
    assert one.remedy
    assert one.check in catalog.CHECKS


def test_what_the_target_has_more_of_is_no_matter() -> None:
    """A newer CRIU and kernel, more instructions, longer frames, more room."""

    def change(_h: agent_pb2.HostFacts, there: agent_pb2.HostFacts, _c: agent_pb2.Description) -> None:
        put(there, criu_version="4.10", kernel="6.18.1", bridge_mtu=9000, memory_available_bytes=1 << 40)
        there.instructions.append("avx512f")

    assert found(change) == []


def test_what_the_source_lacks_itself_is_not_missed() -> None:
    """Neither host has userfaultfd: nothing gets worse by the move."""

    def change(here: agent_pb2.HostFacts, there: agent_pb2.HostFacts, _c: agent_pb2.Description) -> None:
        lacks(here, "userfaultfd"), lacks(there, "userfaultfd")
        lacks(there, "soft-dirty")  # each host tracks by what it has

    assert found(change) == []


def test_what_only_some_containers_need() -> None:
    """A security profile, processors by number, a layer of limited size: found where this one has them, and only then."""
    assert found(lambda _h, t, _c: put(t, lsm="")) == []
    assert found(lambda _h, t, _c: put(t, cpus=2)) == []
    assert found(lambda _h, t, _c: lacks(t, "sized-layers")) == []
    (profile,) = found(lambda _h, t, c: (put(t, lsm="selinux"), put(c, lsm_label="docker-default")))
    assert (profile.check, profile.severity) == ("lsm", BLOCKER)
    assert "docker-default" in profile.what
    (cpuset,) = found(lambda _h, t, c: (put(t, cpus=2), put(c.spec.limits, cpuset_cpus="0,2-3")))
    assert (cpuset.check, cpuset.remedy) == ("cpuset", "migrate update --cpuset-cpus 0-1 web1")
    assert found(lambda _h, t, c: (put(t, cpus=4), put(c.spec.limits, cpuset_cpus="0,2-3"))) == []
    (sized,) = found(lambda _h, t, c: (lacks(t, "sized-layers"), put(c.spec.limits, storage_bytes=1 << 30)))
    assert (sized.check, sized.severity) == ("feature", BLOCKER)


def test_missing_image_layers_need_room_too() -> None:
    """They count beside the container's own files."""
    (one,) = found(lambda _h, t, _c: put(t, disk_available_bytes=100 << 20), missing_bytes=300 << 20)
    assert (one.check, "needs 374 MiB" in one.what) == ("disk", True)


@pytest.mark.parametrize(("ahead_s", "words"), [(5.0, "5.0 s ahead of"), (-3.0, "3.0 s behind")])
def test_clocks_that_differ(ahead_s: float, words: str) -> None:
    """By more than what nobody can know: how long the answers took."""
    (one,) = found(lambda _h, _t, _c: None, clock_s=ahead_s)
    assert (one.check, one.severity, words in one.what) == ("clock", WARNING, True)
    assert found(lambda _h, _t, _c: None, clock_s=0.9) == []
    source = Host(name="host1", facts=FACTS, clock_s=0, clock_error_s=4)
    target = Host(name="host2", facts=FACTS, clock_s=ahead_s, clock_error_s=4)
    assert not list(compare(source, target, COMING))


def test_a_container_without_a_network_has_no_subnet() -> None:
    """Nothing of the bridges matters to it."""
    assert found(lambda _h, t, c: (c.spec.network.Clear(), replace(t.bridge_addresses, "10.99.0.1/24"))) == []


@pytest.mark.parametrize(
    ("text", "parts"),
    [("4.2.1", (4, 2, 1)), ("v4.2", (4, 2)), ("4.2.1-3~bpo12", (4, 2, 1)), ("", ()), ("git", ())],
)
def test_versions(text: str, parts: tuple[int, ...]) -> None:
    """As CRIU and distributions write them; what is none is older than everything."""
    assert hosts.version(text) == parts
