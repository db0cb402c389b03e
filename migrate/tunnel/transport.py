"""One authenticated ssh connection with a pinned host key. Paramiko stays in this file and in control.py."""

from __future__ import annotations

import base64
import binascii
import hashlib
import io
import socket
from collections.abc import Sequence

import paramiko

from migrate.errors import InvalidArgument, Unreachable
from migrate.tunnel.pki import Credentials

CONNECT_TIMEOUT_S = 10.0
KEEPALIVE_INTERVAL_S = 5
SILENCE_TIMEOUT_S = 15  # unacknowledged data, keepalives included: the connection is dead
_CIPHERS = ("aes128-gcm@openssh.com", "aes256-gcm@openssh.com", "aes128-ctr")


def connect(
    name: str,
    *,
    address: str,
    port: int,
    user: str,
    host_keys: Sequence[str],
    credentials: Credentials,
    source_address: str | None = None,
    timeout_s: float = CONNECT_TIMEOUT_S,
) -> paramiko.Transport:
    """Log in to the host `name`. `host_keys`: the only acceptable ones, "ssh-ed25519 AAAA..."; nothing is ever added.

    Raises Unreachable; its code says which part failed: "unreachable" (network), "tunnel.protocol", "tunnel.host_key",
    "tunnel.refused" (sshd does not take the certificate). The credentials are sent only to a host with a pinned key.
    """
    pinned = [_parse_host_key(line) for line in host_keys]
    if not pinned:
        raise InvalidArgument(
            f"no host key is known for {name}", hint=f"add it to the inventory: ssh-keyscan {address}"
        )
    where = f"{name} ({address} port {port})"
    try:
        source = (source_address, 0) if source_address else None
        connection = socket.create_connection((address, port), timeout_s, source)
    except OSError as exc:
        raise Unreachable(f"{where}: {exc.strerror or exc}", hint=f"is the host up, and sshd on port {port}?") from exc
    connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_USER_TIMEOUT, SILENCE_TIMEOUT_S * 1000)
    transport = paramiko.Transport(connection)
    try:
        options = transport.get_security_options()
        options.ciphers = [cipher for cipher in _CIPHERS if cipher in options.ciphers]
        options.key_types = _key_types(pinned, options.key_types)
        transport.banner_timeout = transport.auth_timeout = transport.handshake_timeout = timeout_s
        _negotiate(transport, where, pinned, timeout_s)
        _log_in(transport, where, user, credentials)
        transport.set_keepalive(KEEPALIVE_INTERVAL_S)
    except BaseException:
        transport.close()
        raise
    return transport


def fingerprint(host_key: str) -> str:
    """ "SHA256:..." as ssh prints it, for a line "ssh-ed25519 AAAA..."."""
    return _fingerprint(_parse_host_key(host_key)[1])


def _negotiate(transport: paramiko.Transport, where: str, pinned: list[tuple[str, bytes]], timeout_s: float) -> None:
    known = ", ".join(f"{kind} {_fingerprint(blob)}" for kind, blob in pinned)
    try:
        transport.start_client(timeout=timeout_s)
    except paramiko.ssh_exception.IncompatiblePeer as exc:
        raise Unreachable(
            f"{where}: no common algorithm: {exc}", code="tunnel.protocol", hint=f"the host keys pinned for it: {known}"
        ) from exc
    except (paramiko.SSHException, EOFError, OSError) as exc:
        raise Unreachable(f"{where} does not speak ssh as expected: {exc}", code="tunnel.protocol") from exc
    shown = transport.get_remote_server_key()
    if (shown.get_name(), shown.asbytes()) not in pinned:
        raise Unreachable(
            f"{where} shows the host key {shown.get_name()} {_fingerprint(shown.asbytes())}, pinned is {known}",
            code="tunnel.host_key",
            hint="if the host was reinstalled, compare the fingerprint on its console and change the inventory",
        )


def _log_in(transport: paramiko.Transport, where: str, user: str, credentials: Credentials) -> None:
    key = paramiko.Ed25519Key.from_private_key(io.StringIO(credentials.private_key))
    key.load_certificate(credentials.certificate)
    try:
        transport.auth_publickey(user, key)
    except paramiko.AuthenticationException as exc:
        raise Unreachable(
            f"{where} refuses the coordinator's certificate for user {user}",
            code="tunnel.refused",
            hint="compare /etc/migrate/ca.pub there with the fleet's ca.pub, and the clocks; its sshd log says which",
        ) from exc
    except (paramiko.SSHException, EOFError, OSError) as exc:
        raise Unreachable(f"{where} ended the connection during login: {exc}", code="tunnel.protocol") from exc


def _parse_host_key(line: str) -> tuple[str, bytes]:
    words = line.split()
    try:
        blob = base64.b64decode(words[1], validate=True)
    except (IndexError, binascii.Error) as exc:
        raise InvalidArgument(f"not a host key of the form 'ssh-ed25519 AAAA...': {line[:60]!r}") from exc
    return words[0], blob


def _fingerprint(blob: bytes) -> str:
    return "SHA256:" + base64.b64encode(hashlib.sha256(blob).digest()).decode().rstrip("=")


def _key_types(pinned: list[tuple[str, bytes]], supported: Sequence[str]) -> list[str]:
    """Ask only for kinds of keys that are pinned: a host has several, and would show its own favourite."""
    kinds = {kind for kind, _ in pinned}
    wanted = [name for name in supported if name in kinds or ("ssh-rsa" in kinds and name.startswith("rsa-sha2-"))]
    if not wanted:
        raise InvalidArgument(f"host keys of kind {', '.join(sorted(kinds))} are not supported; pin the ed25519 one")
    return wanted
