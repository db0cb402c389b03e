"""What the bulk tunnel refuses to hand to ssh, and how ssh is called. The rest is in tests/system/test_tunnel_bulk.py."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from agent.errors import InvalidArgument, TransferError, Unsupported
from agent.transfer import ssh

pytestmark = pytest.mark.unit

GOOD: dict[str, Any] = {
    "certificate": "ssh-ed25519-cert-v01@openssh.com AAAA",
    "address": "192.0.2.1",
    "port": 22,
    "user": "migrate",
    "host_keys": ["ssh-ed25519 AAAA host1"],
}


@pytest.mark.parametrize(
    "change",
    [
        {"certificate": "ssh-ed25519 AAAA"},
        {"certificate": "ssh-ed25519-cert-v01@openssh.com AAAA\nssh-ed25519 BBBB"},
        {"address": "-oProxyCommand=id"},
        {"address": "a b"},
        {"address": ""},
        {"user": "-x"},
        {"user": "a\nb"},
        {"source_address": "-o"},
        {"host_keys": []},
        {"host_keys": ["AAAA"]},
        {"host_keys": ["ssh-ed25519 AAAA\n* ssh-ed25519 BBBB"]},
    ],
)
def test_nothing_is_injected(tmp_path: Path, change: dict[str, Any]) -> None:
    """Options, spaces and lines do not get from a request into ssh's arguments or files; nothing is written."""
    with pytest.raises(InvalidArgument):
        ssh.BulkTunnel.open(tmp_path, **{**GOOD, **change})
    assert list(tmp_path.iterdir()) == []


def test_a_tunnel_that_was_not_prepared(tmp_path: Path) -> None:
    """Without a key in the directory the error says so, before ssh is asked."""
    with pytest.raises(TransferError, match="not prepared"):
        ssh.BulkTunnel.open(tmp_path, **GOOD)


def test_no_ssh_program(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A host without OpenSSH's client is told which package it lacks."""
    monkeypatch.setenv("PATH", str(tmp_path))
    with pytest.raises(Unsupported) as caught:
        ssh.generate_key(tmp_path / "key")
    assert caught.value.hint == "install openssh-client"


@pytest.mark.parametrize("address", ["host1", "192.0.2.1", "::1", "fe80::1%eth0", "a-b.example"])
def test_addresses_that_ssh_takes(address: str) -> None:
    """Names, IPv4, IPv6 with a zone; the address is the last argument, after "--"."""
    ssh._check(GOOD["certificate"], address, "migrate", GOOD["host_keys"], "")
    assert ssh._command(address, 22, "migrate", "", 10)[-2:] == ["--", address]


def test_the_cpu_chooses_the_cipher(monkeypatch: pytest.MonkeyPatch) -> None:
    """AES-GCM first where the CPU has AES, chacha20 first where it does not; the other stays as second choice."""
    for has_aes, first in ((True, "aes128-gcm@openssh.com"), (False, "chacha20-poly1305@openssh.com")):
        monkeypatch.setattr(ssh, "_cpu_has_aes", lambda value=has_aes: value)
        option = next(word for word in ssh._command("h", 22, "u", "", 10) if word.startswith("Ciphers="))
        assert option.removeprefix("Ciphers=").split(",")[0] == first
        assert len(option.split(",")) == 4
