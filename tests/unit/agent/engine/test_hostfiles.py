"""/etc/hosts and /etc/resolv.conf of a container."""

from __future__ import annotations

import dataclasses
from pathlib import Path

import pytest

from agent.engine import hostfiles
from agent.engine.spec import ContainerSpec, IdRange, Network
from agent.errors import InvalidArgument
from agent.linux import interfaces

pytestmark = pytest.mark.unit

OF_HOST = "# comment\nnameserver 127.0.0.53\nnameserver 10.0.0.2\nsearch host.example\noptions edns0\n"


def spec(**network: object) -> ContainerSpec:
    return ContainerSpec(
        id="0" * 32,
        name="web1",
        image="app",
        image_digest="",
        layers=(),
        argv=("true",),
        env=(),
        cwd="/",
        user="",
        hostname="web",
        ids=IdRange(base=1_000_000),
        network=Network(address="10.88.1.2/16", mac="", **network),  # type: ignore[arg-type]
    )


def resolv(tmp_path: Path, text: str = OF_HOST, *, host_network: bool = False, **wanted: object) -> str:
    path = tmp_path / "resolv.conf"
    path.write_text(text)
    return hostfiles.resolv_conf((path,), spec(**wanted).network, host_network=host_network)


def test_servers_on_loopback_are_left_out(tmp_path: Path) -> None:
    """In there 127.0.0.53 is the container itself; the rest of the host's file stays."""
    assert resolv(tmp_path) == "# comment\nsearch host.example\noptions edns0\nnameserver 10.0.0.2\n"


def test_public_servers_where_none_is_left(tmp_path: Path) -> None:
    """As Docker: also where the host has no file at all."""
    assert "nameserver 8.8.8.8\nnameserver 8.8.4.4\n" in resolv(tmp_path, "nameserver 127.0.0.1\n")
    assert hostfiles.resolv_conf((tmp_path / "absent",), spec().network) == "nameserver 8.8.8.8\nnameserver 8.8.4.4\n"


def test_what_is_asked_for_replaces_what_the_host_says(tmp_path: Path) -> None:
    """Each of the three by itself; "." is no search domain."""
    text = resolv(tmp_path, dns=("10.88.0.1",), dns_search=("a.example", "b.example"), dns_options=("ndots:2",))
    assert text == "# comment\nnameserver 10.88.0.1\nsearch a.example b.example\noptions ndots:2\n"
    assert "search" not in resolv(tmp_path, dns_search=(".",))
    assert "nameserver 10.0.0.2" in resolv(tmp_path, dns_search=(".",))


def test_in_the_host_network_its_loopback_is_right(tmp_path: Path) -> None:
    """The stub on 127.0.0.53 answers there."""
    assert "nameserver 127.0.0.53" in resolv(tmp_path, host_network=True)


def test_extra_hosts(monkeypatch: pytest.MonkeyPatch) -> None:
    """Lines after the container's own; host-gateway is the bridge's address, and an error where that has none."""
    monkeypatch.setattr(interfaces, "address_of", lambda bridge: {"migrate0": "10.88.0.11"}.get(bridge, ""))
    wanted = spec(extra_hosts=("db:10.88.1.9", "me:host-gateway", "six:fd00::1"))
    hosts = hostfiles.make(wanted, "migrate0")["/etc/hosts"].decode()
    assert hosts.endswith("10.88.1.2\tweb\n10.88.1.9\tdb\n10.88.0.11\tme\nfd00::1\tsix\n")
    with pytest.raises(InvalidArgument, match="me:host-gateway"):
        hostfiles.make(wanted, "br0")


def test_the_domain_is_in_hosts(monkeypatch: pytest.MonkeyPatch) -> None:
    """The whole name first, as `hostname -f` wants it."""
    named = dataclasses.replace(spec(), domainname="example.org")
    assert b"10.88.1.2\tweb.example.org web\n" in hostfiles.make(named)["/etc/hosts"]


def test_a_time_zone_is_a_copy_of_the_hosts(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """By name, or the host's own; a name that is none, leads away or is no zone is refused with what to give."""
    monkeypatch.setattr(hostfiles, "_ZONES", tmp_path)
    monkeypatch.setattr(hostfiles, "_LOCALTIME", tmp_path / "localtime")
    (tmp_path / "Berlin").write_bytes(b"TZif2 berlin")
    (tmp_path / "zone.tab").write_bytes(b"a table")

    def localtime(zone: str) -> bytes | None:
        return hostfiles.make(dataclasses.replace(spec(), timezone=zone)).get("/etc/localtime")

    assert (localtime(""), localtime("Berlin"), localtime("local")) == (None, b"TZif2 berlin", None)
    (tmp_path / "localtime").write_bytes(b"TZif2 here")
    assert localtime("local") == b"TZif2 here"
    for wrong in ("Atlantis", "../Berlin", "/etc/passwd", "zone.tab"):
        with pytest.raises(InvalidArgument) as refused:
            localtime(wrong)
        assert "tzdata" in refused.value.hint
