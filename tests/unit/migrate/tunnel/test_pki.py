"""Keys and certificates; OpenSSH's own ssh-keygen reads what we sign."""

from __future__ import annotations

import shutil
import subprocess
import time
from pathlib import Path

import pytest
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric.ec import SECP256R1, generate_private_key
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from hypothesis import given
from hypothesis import strategies as st

from migrate.errors import InvalidArgument, MigrateError
from migrate.tunnel import pki

pytestmark = pytest.mark.unit

MOVE = "0123456789abcdef0123456789abcdef"


def public(key: object) -> str:
    form = (serialization.Encoding.OpenSSH, serialization.PublicFormat.OpenSSH)
    return key.public_key().public_bytes(*form).decode()  # type: ignore[attr-defined]


KEY = public(Ed25519PrivateKey.generate())
AUTHORITY = pki.CertificateAuthority(Ed25519PrivateKey.generate())


def test_the_authority_is_the_same_after_a_restart(tmp_path: Path) -> None:
    """One directory, one key: 0600 in a 0700 directory, loaded again the next time."""
    directory = tmp_path / "pki"
    first = pki.CertificateAuthority.load_or_create(directory).public_openssh()
    assert pki.CertificateAuthority.load_or_create(directory).public_openssh() == first
    assert (directory / "ca.pub").read_text() == first + "\n"
    assert (directory / "ca").stat().st_mode & 0o777 == 0o600
    assert directory.stat().st_mode & 0o777 == 0o700
    assert sorted(path.name for path in directory.iterdir()) == ["ca", "ca.pub"]


def test_an_exposed_key_is_refused(tmp_path: Path) -> None:
    """A CA key that others can read is an error with the command that repairs it."""
    pki.CertificateAuthority.load_or_create(tmp_path)
    (tmp_path / "ca").chmod(0o644)
    with pytest.raises(MigrateError) as caught:
        pki.CertificateAuthority.load_or_create(tmp_path)
    assert caught.value.hint == f"chmod 600 {tmp_path}/ca"


@pytest.mark.skipif(shutil.which("ssh-keygen") is None, reason="missing capability: ssh (no ssh-keygen)")
def test_ssh_keygen_reads_a_bulk_certificate(tmp_path: Path) -> None:
    """OpenSSH sees one principal, the forced command, the source address, five minutes and no extensions at all."""
    (tmp_path / "c.pub").write_text(pki.Signer(AUTHORITY).sign_bulk(KEY, MOVE, "10.0.0.5"))
    text = subprocess.run(
        ["ssh-keygen", "-L", "-f", tmp_path / "c.pub"], capture_output=True, text=True, check=True
    ).stdout
    lines = [line.strip() for line in text.splitlines()]
    assert f"force-command bulk {MOVE}" in lines
    assert "source-address 10.0.0.5/32" in lines
    assert lines[lines.index("Principals:") + 1] == "migrate"
    assert "Extensions: (none)" in lines
    assert f'Key ID: "migrate bulk {MOVE}"' in lines


def test_times(monkeypatch: pytest.MonkeyPatch) -> None:
    """A bulk certificate begins a minute ago and ends in five; a validity in the past can be asked for."""
    monkeypatch.setattr(time, "time", lambda: 1_000_000.0)
    certificate = serialization.load_ssh_public_identity(
        pki.Signer(AUTHORITY).sign_bulk(KEY, MOVE, "10.0.0.5").encode()
    )
    assert isinstance(certificate, serialization.SSHCertificate)
    assert (certificate.valid_after, certificate.valid_before) == (1_000_000 - 60, 1_000_000 + 300)
    certificate.verify_cert_signature()


def test_the_control_certificate_is_renewed_before_it_ends(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The same certificate for half an hour, then a new one for the same key."""
    now = [1_000_000.0]
    monkeypatch.setattr(time, "time", lambda: now[0])
    credentials = pki.ControlCredentials(AUTHORITY, tmp_path)
    first = credentials.current()
    now[0] += 1700
    assert credentials.current() is first
    now[0] += 200
    second = credentials.current()
    assert second.certificate != first.certificate
    assert second.private_key == first.private_key
    assert second.valid_until_unix_s - now[0] == 3600


@pytest.mark.parametrize(
    "bad",
    [
        "",
        "ssh-ed25519",
        "ssh-ed25519 AAAA",
        public(generate_private_key(SECP256R1())),
        KEY + "\n" + KEY,
        KEY + "\ncert-authority " + KEY,
        'command="sh" ' + KEY,
        KEY.replace("ssh-ed25519 ", "ssh-ed25519-cert-v01@openssh.com "),
        "ssh-ed25519 " + KEY.split()[1][:-8],
    ],
    ids=["empty", "no-key", "short", "ecdsa", "two", "authority", "command", "certificate", "cut"],
)
def test_keys_that_are_not_signed(bad: str) -> None:
    """Only one plain ed25519 line is signed; a key of a host cannot smuggle options or lines."""
    with pytest.raises(InvalidArgument):
        pki.Signer(AUTHORITY).sign_bulk(bad, MOVE, "10.0.0.5")


@given(st.text(max_size=80))
def test_ids_cannot_inject(text: str) -> None:
    """Whatever is not hexadecimal digits and hyphens never reaches a forced command."""
    if all(c in "0123456789abcdef-" for c in text) and text and text[0] != "-" and len(text) <= 64:
        pki.Signer(AUTHORITY).sign_bulk(KEY, text, "10.0.0.5")
    else:
        with pytest.raises(InvalidArgument):
            pki.Signer(AUTHORITY).sign_bulk(KEY, text, "10.0.0.5")


@pytest.mark.parametrize("bad", ["", "host1", "10.0.0.5/24", "10.0.0.5,", "0.0.0.0/0x", "10.0.0.5 -p"])
def test_addresses_that_are_none(bad: str) -> None:
    """A source address that sshd could not read is refused here, not when the move fails."""
    with pytest.raises(InvalidArgument):
        pki.Signer(AUTHORITY).sign_bulk(KEY, MOVE, bad)
