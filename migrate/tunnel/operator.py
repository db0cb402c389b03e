"""The operator's own way to a machine: his keys, and a host key that somebody has looked at. Paramiko, as in transport.py."""

from __future__ import annotations

import contextlib
import os
import socket
import threading
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import paramiko

from migrate.errors import InvalidArgument, Unreachable
from migrate.tunnel import transport
from migrate.tunnel.remote import Ran

CONNECT_TIMEOUT_S = 15.0
_DEFAULT_KEYS = ("id_ed25519", "id_ecdsa", "id_rsa")
_CHUNK_BYTES = 128 << 10


@dataclass(frozen=True, kw_only=True)
class Login:
    """ "root@10.0.0.2", port 22."""

    user: str
    address: str
    port: int = 22

    def __str__(self) -> str:
        return f"{self.user}@{self.address}" + (f":{self.port}" if self.port != 22 else "")


def parse_login(text: str, port: int = 0) -> Login:
    """Of "root@10.0.0.2" or "10.0.0.2", also "root@10.0.0.2:2222"; root where no user is named."""
    user, at, rest = text.rpartition("@")
    address, colon, number = rest.partition(":")
    if not address or (at and not user) or (colon and not (number.isdigit() and 0 < int(number) < 65536)):
        raise InvalidArgument(
            f"{text!r} is no way to a machine", hint="such as root@10.0.0.2, with --port where sshd has another"
        )
    return Login(user=user or "root", address=address, port=port or int(number or 22))


def show_host_key(login: Login, *, timeout_s: float = CONNECT_TIMEOUT_S) -> str:
    """The line "ssh-ed25519 AAAA..." of the key that the machine shows. Nothing is sent to it. Raises Unreachable."""
    ssh = _connect(login, timeout_s)
    try:
        return _key_line(ssh)
    finally:
        ssh.close()


def log_in(
    login: Login, *, host_key: str, identity: Path | None = None, timeout_s: float = CONNECT_TIMEOUT_S
) -> OperatorSsh:
    """With the key in `identity`, else those of ssh-agent and of ~/.ssh. Raises Unreachable; nobody's keys are used for a machine
    that shows another host key than `host_key`.
    """
    ssh = _connect(login, timeout_s, host_key.split()[0])
    try:
        shown = _key_line(ssh)
        if shown.split()[:2] != host_key.split()[:2]:
            raise Unreachable(
                f"{login} shows the host key {transport.fingerprint(shown)}, not {transport.fingerprint(host_key)}",
                code="join.host_key",
                hint="if it was installed anew, compare the fingerprint on its console, then give it with --fingerprint",
            )
        _authenticate(ssh, login, identity)
    except BaseException:
        ssh.close()
        raise
    ssh.set_keepalive(15)
    return OperatorSsh(str(login), shown, ssh)


class OperatorSsh:
    """A migrate.tunnel.remote.Remote over one ssh connection; each script is a session of its own."""

    def __init__(self, where: str, host_key: str, ssh: paramiko.Transport) -> None:
        self.where, self.host_key, self._ssh = where, host_key, ssh

    def run(self, script: str, *, stdin: bytes | Path = b"", timeout_s: float = 120.0) -> Ran:
        deadline = time.monotonic() + timeout_s
        try:
            session = self._ssh.open_session(timeout=timeout_s)
        except (paramiko.SSHException, EOFError, OSError) as exc:
            raise self._gone(exc) from exc
        with contextlib.closing(session):
            try:
                session.exec_command(script)
                feeder = threading.Thread(target=_feed, args=(session, stdin), daemon=True)
                feeder.start()
                out, err = bytearray(), bytearray()
                while not session.exit_status_ready() or session.recv_ready() or session.recv_stderr_ready():
                    moved = _take(session, out, err)
                    if self._ssh.is_active() is False:
                        raise self._gone(self._ssh.get_exception())
                    if time.monotonic() > deadline:
                        raise Unreachable(
                            f"{self.where} did not end in {timeout_s:.0f} s: {script.splitlines()[0][:80]}",
                            code="join.timeout",
                            touched="something",
                        )
                    if not moved:
                        time.sleep(0.01)
                while _take(session, out, err):
                    pass
                status = session.recv_exit_status()
            except (paramiko.SSHException, EOFError, OSError) as exc:
                raise self._gone(exc) from exc
        if status < 0:  # killed by a signal, or the connection went with it
            raise self._gone(None)
        return Ran(status=status, out=out.decode(errors="replace"), err=err.decode(errors="replace"))

    def close(self) -> None:
        self._ssh.close()

    def _gone(self, reason: object) -> Unreachable:
        return Unreachable(
            f"the ssh connection to {self.where} ended{f': {reason}' if reason else ''}",
            code="join.lost",
            hint="give the command again: it goes on from what is there",
            touched="something",
        )


def _take(session: paramiko.Channel, out: bytearray, err: bytearray) -> bool:
    """What has arrived, without waiting; whether there was any."""
    moved = False
    while session.recv_ready():
        out += session.recv(_CHUNK_BYTES)
        moved = True
    while session.recv_stderr_ready():
        err += session.recv_stderr(_CHUNK_BYTES)
        moved = True
    return moved


def _feed(session: paramiko.Channel, source: bytes | Path) -> None:
    with contextlib.suppress(paramiko.SSHException, EOFError, OSError):  # it ended without reading all
        if isinstance(source, bytes):
            session.sendall(source)
        else:
            with source.open("rb") as file:
                while block := file.read(_CHUNK_BYTES):
                    session.sendall(block)
        session.shutdown_write()


def _connect(login: Login, timeout_s: float, kind: str = "") -> paramiko.Transport:
    """As far as keys have been exchanged. `kind`: of the host key to ask for."""
    try:
        connection = socket.create_connection((login.address, login.port), timeout_s)
    except OSError as exc:
        raise Unreachable(
            f"{login.address} port {login.port} cannot be reached: {exc.strerror or exc}",
            hint="is the machine up, sshd running, the port right (--port), no firewall between?",
        ) from exc
    ssh = paramiko.Transport(connection)
    try:
        if kind:
            options = ssh.get_security_options()
            kept = [name for name in options.key_types if name == kind or (kind == "ssh-rsa" and "rsa" in name)]
            options.key_types = kept or options.key_types
        ssh.banner_timeout = ssh.auth_timeout = ssh.handshake_timeout = timeout_s
        ssh.start_client(timeout=timeout_s)
    except (paramiko.SSHException, EOFError, OSError) as exc:
        ssh.close()
        raise Unreachable(
            f"{login.address} port {login.port} does not speak ssh as expected: {exc}", code="join.protocol"
        ) from exc
    return ssh


def _authenticate(ssh: paramiko.Transport, login: Login, identity: Path | None) -> None:
    tried = 0
    for key in _keys(identity):
        tried += 1
        try:
            ssh.auth_publickey(login.user, key)
            return
        except paramiko.AuthenticationException:
            continue
        except (paramiko.SSHException, EOFError, OSError) as exc:
            raise Unreachable(
                f"{login.address} ended the connection during login: {exc}",
                code="join.refused",
                hint="it may allow few tries: name the right key with --identity",
            ) from exc
    what = f"{tried} key{'' if tried == 1 else 's'}" if tried else "no key that could be tried"
    raise Unreachable(
        f"{login.address} does not let {login.user} in: {what}",
        code="join.refused",
        hint=f"name the key with --identity FILE; or first: ssh-copy-id -p {login.port} {login.user}@{login.address}",
    )


def _keys(identity: Path | None) -> Iterator[paramiko.PKey]:
    if identity is not None:
        yield _load(identity)
        return
    if os.environ.get("SSH_AUTH_SOCK"):
        agent = paramiko.Agent()
        try:
            yield from agent.get_keys()
        finally:
            agent.close()
    for name in _DEFAULT_KEYS:
        path = Path.home() / ".ssh" / name
        if path.is_file():
            with contextlib.suppress(InvalidArgument):  # one with a passphrase is for ssh-agent
                yield _load(path)


def _load(path: Path) -> paramiko.PKey:
    try:
        return paramiko.PKey.from_path(path)
    except paramiko.PasswordRequiredException as exc:
        raise InvalidArgument(f"{path} has a passphrase", hint=f"give it to ssh-agent: ssh-add {path}") from exc
    except (OSError, paramiko.SSHException, ValueError, TypeError) as exc:
        raise InvalidArgument(f"{path} is no private key that can be used: {exc}", hint="--identity FILE") from exc


def _key_line(ssh: paramiko.Transport) -> str:
    key = ssh.get_remote_server_key()
    return f"{key.get_name()} {key.get_base64()}"
