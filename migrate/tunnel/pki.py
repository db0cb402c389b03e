"""The fleet's SSH certificate authority: what it signs is the only way into a host, and every signature says for what.

    control   the coordinator's own key, one hour, command `control`
    bulk      a source's key made for one move, five minutes, command `bulk ID`, from that source's address only

The CA's key never leaves its directory. There is no list of revoked certificates: they are short instead.
"""

from __future__ import annotations

import ipaddress
import os
import re
import secrets
import threading
import time
from dataclasses import dataclass
from pathlib import Path

from cryptography.exceptions import UnsupportedAlgorithm
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey, Ed25519PublicKey
from cryptography.hazmat.primitives.serialization.ssh import SSHCertificateBuilder, SSHCertificateType

from migrate.errors import InvalidArgument, MigrateError

USER = "migrate"  # the ssh user on every host, and the only principal
BULK_VALID_S = 300
CONTROL_VALID_S = 3600
CLOCK_SKEW_S = 60  # certificates begin this much in the past

MIGRATION_ID = re.compile(r"[0-9a-f][0-9a-f-]{0,63}")


@dataclass(frozen=True, kw_only=True)
class Credentials:
    """What an ssh client needs to log in: private key and certificate, both in OpenSSH's text form."""

    private_key: str
    certificate: str
    valid_until_unix_s: float


class CertificateAuthority:
    """An ed25519 key in `directory` (0700): `ca` (0600) and `ca.pub`. Thread-safe: signing shares nothing."""

    def __init__(self, key: Ed25519PrivateKey) -> None:
        self._key = key

    @classmethod
    def load_or_create(cls, directory: Path, name: str = "ca") -> CertificateAuthority:
        """The same authority for the same directory and name, until it is exchanged. MigrateError if others can read the key."""
        return cls(_load_or_create_key(directory, name))

    def exchange(self, directory: Path) -> None:
        """From now on `ca.next` signs, and is `ca`; what was that is `ca.old`. Each is a whole key at any instant."""
        following = _load_or_create_key(directory, "ca.next")
        (directory / "ca.old").unlink(missing_ok=True)
        os.link(directory / "ca", directory / "ca.old")
        (directory / "ca.next").rename(directory / "ca")
        _sync_directory(directory)
        self._key = following
        (directory / "ca.pub").write_text(_public_line(following.public_key()) + "\n")
        (directory / "ca.next.pub").unlink(missing_ok=True)

    def public_openssh(self) -> str:
        """One line "ssh-ed25519 AAAA..." for TrustedUserCAKeys."""
        return _public_line(self._key.public_key())

    def sign_user(
        self,
        public_key: str,
        *,
        key_id: str,
        principal: str,
        force_command: str,
        valid_s: float,
        source_address: str | None = None,
        valid_from_unix_s: float | None = None,
    ) -> str:
        """A user certificate, one line, without any extension: no pty, no forwarding, no rc file.

        `key_id` is what the target's sshd logs. `source_address`: an address or a network in CIDR form, or several with
        commas; sshd refuses the certificate from anywhere else. `valid_from_unix_s` defaults to a minute ago.
        """
        key = parse_public_key(public_key)
        if not force_command or not force_command.isprintable():
            raise InvalidArgument(f"a certificate needs a forced command, not {force_command!r}")
        begin = time.time() - CLOCK_SKEW_S if valid_from_unix_s is None else valid_from_unix_s
        end = begin + CLOCK_SKEW_S + valid_s if valid_from_unix_s is None else begin + valid_s
        builder = (
            SSHCertificateBuilder()
            .public_key(key)
            .serial(secrets.randbits(63))
            .type(SSHCertificateType.USER)
            .key_id(key_id.encode())
            .valid_principals([principal.encode()])
            .valid_after(int(begin))
            .valid_before(int(end))
            .add_critical_option(b"force-command", force_command.encode())
        )
        if source_address is not None:
            builder = builder.add_critical_option(b"source-address", _check_networks(source_address).encode())
        return builder.sign(self._key).public_bytes().decode()


class Signer:
    """Signs for moves: what the coordinator's steps see of the authority."""

    def __init__(self, authority: CertificateAuthority, *, user: str = USER, valid_s: float = BULK_VALID_S) -> None:
        self._authority, self._user, self._valid_s = authority, user, valid_s

    def sign_bulk(self, public_key: str, migration_id: str, source_address: str) -> str:
        """A certificate that opens the one tunnel of `migration_id`, from `source_address`, within five minutes.

        InvalidArgument for a key that is not ed25519, an id that is not hexadecimal, an address that is none: all three
        come from other hosts and end up in what sshd acts on.
        """
        if not MIGRATION_ID.fullmatch(migration_id):
            raise InvalidArgument(f"{migration_id!r} is not a migration id: hexadecimal digits and hyphens, at most 64")
        return self._authority.sign_user(
            public_key,
            key_id=f"migrate bulk {migration_id}",
            principal=self._user,
            force_command=f"bulk {migration_id}",
            valid_s=self._valid_s,
            source_address=source_address,
        )


class ControlCredentials:
    """The coordinator's own key in `directory` (`control`, 0600), its certificate renewed in time. Thread-safe."""

    def __init__(self, authority: CertificateAuthority, directory: Path, *, user: str = USER) -> None:
        self._authority, self._user = authority, user
        key = _load_or_create_key(directory, "control")
        self._public_key, self._private_key = _public_line(key.public_key()), _private_text(key).decode()
        self._lock = threading.Lock()
        self._current: Credentials | None = None

    def renew(self) -> None:
        """The next login has a certificate of the authority's key of now."""
        with self._lock:
            self._current = None

    def current(self) -> Credentials:
        """Valid for at least half an hour. sshd looks at a certificate only when a connection begins."""
        with self._lock:
            now = time.time()
            if self._current is None or self._current.valid_until_unix_s - now < CONTROL_VALID_S / 2:
                self._current = Credentials(
                    private_key=self._private_key,
                    certificate=self._authority.sign_user(
                        self._public_key,
                        key_id="migrate control",
                        principal=self._user,
                        force_command="control",
                        valid_s=CONTROL_VALID_S,
                    ),
                    valid_until_unix_s=now + CONTROL_VALID_S,
                )
            return self._current


def parse_public_key(line: str) -> Ed25519PublicKey:
    """The key of one line "ssh-ed25519 AAAA... [comment]"; nothing else is accepted."""
    if len(line) > 1024 or not re.fullmatch(r"ssh-ed25519 [A-Za-z0-9+/]+={0,2}( [ -~]*)?\n?", line):
        raise InvalidArgument(f"not a public key of the form 'ssh-ed25519 AAAA...': {line[:60]!r}")
    try:
        key = serialization.load_ssh_public_key(" ".join(line.split()[:2]).encode())
    except (ValueError, UnsupportedAlgorithm) as exc:
        raise InvalidArgument(f"not an ed25519 public key: {line[:60]!r}: {exc}") from exc
    if not isinstance(key, Ed25519PublicKey):
        raise InvalidArgument(f"not an ed25519 public key: {line[:60]!r}")
    return key


def _check_networks(text: str) -> str:
    try:
        # strict: "10.0.0.5/24" is a typing mistake, and sshd would refuse the certificate with "bad source-address"
        return ",".join(str(ipaddress.ip_network(part.strip())) for part in text.split(","))
    except ValueError as exc:
        raise InvalidArgument(f"{text!r} is not an address or a network: {exc}") from exc


def _public_line(key: Ed25519PublicKey) -> str:
    return key.public_bytes(serialization.Encoding.OpenSSH, serialization.PublicFormat.OpenSSH).decode()


def _private_text(key: Ed25519PrivateKey) -> bytes:
    return key.private_bytes(
        serialization.Encoding.PEM, serialization.PrivateFormat.OpenSSH, serialization.NoEncryption()
    )


def _load_or_create_key(directory: Path, name: str) -> Ed25519PrivateKey:
    directory.mkdir(mode=0o700, parents=True, exist_ok=True)
    path = directory / name
    if not path.exists():
        key = Ed25519PrivateKey.generate()
        # link(), not rename(): of two processes that start at once, one key wins and both use it.
        temporary = directory / f".{name}.{os.getpid()}.{secrets.token_hex(4)}"
        with os.fdopen(os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), "wb") as file:
            file.write(_private_text(key))
            file.flush()
            os.fsync(file.fileno())
        try:
            os.link(temporary, path)
        except FileExistsError:
            pass
        temporary.unlink()
        _sync_directory(directory)
    if path.stat().st_mode & 0o077:
        raise MigrateError(f"{path} can be read by others", code="pki.key_exposed", hint=f"chmod 600 {path}")
    loaded = serialization.load_ssh_private_key(path.read_bytes(), password=None)
    if not isinstance(loaded, Ed25519PrivateKey):
        raise MigrateError(f"{path} is not an ed25519 key", code="pki.bad_key")
    (directory / f"{name}.pub").write_text(_public_line(loaded.public_key()) + "\n")
    return loaded


def _sync_directory(directory: Path) -> None:
    fd = os.open(directory, os.O_RDONLY | os.O_DIRECTORY)
    try:
        os.fsync(fd)
    finally:
        os.close(fd)
