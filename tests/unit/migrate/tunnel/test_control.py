"""The tunnel without a network: what a dying ssh connection must not do. The rest is in tests/system/test_tunnel_control.py."""

from __future__ import annotations

import socket
from pathlib import Path

import pytest

from migrate import errors
from migrate.tunnel import control, pki

pytestmark = pytest.mark.unit


class DeadSession:
    """A paramiko channel whose connection has just been reset: closing it tries to send, and fails."""

    closed = False

    def sendall(self, data: bytes) -> None:
        raise OSError("Socket is closed")

    def close(self) -> None:
        self.closed = True
        raise EOFError


def test_a_session_on_a_dead_connection_ends_quietly() -> None:
    """Neither sending nor closing on a reset connection ends a thread with an exception; the session is closed."""
    ours, theirs = socket.socketpair()
    session = DeadSession()
    with ours, theirs:
        theirs.sendall(b"request")
        control._send(ours, session)  # type: ignore[arg-type]
    assert session.closed


def test_a_tunnel_that_was_never_started_can_be_closed(tmp_path: Path) -> None:
    """close() without start(): nothing hangs, the private directory is gone from where it was asked for."""
    never = lambda: pytest.fail("nobody connects")  # noqa: E731
    tunnel = control.ControlTunnel("host1", "127.0.0.1", 1, pki.USER, [], never, runtime_dir=tmp_path)
    assert tunnel.socket_path.parent.parent == tmp_path
    assert tunnel.socket_path.parent.stat().st_mode & 0o777 == 0o700
    tunnel.close()
    assert not tunnel.socket_path.parent.exists()


def test_too_long_a_path_is_told_at_once(tmp_path: Path) -> None:
    """A runtime directory whose path leaves no room for a socket: an error with the remedy, and nothing left there."""
    long = tmp_path / ("d" * 90)
    long.mkdir()
    with pytest.raises(errors.InvalidArgument) as caught:
        control.ControlTunnel("host1", "127.0.0.1", 1, pki.USER, [], pytest.fail, runtime_dir=long)  # type: ignore[arg-type]
    assert "shorter" in caught.value.hint
    assert list(long.iterdir()) == []


def test_a_host_without_a_pinned_key_is_never_contacted() -> None:
    """No key in the inventory: the tunnel says so instead of trusting whoever answers."""
    credentials = pki.Credentials(private_key="", certificate="", valid_until_unix_s=0)
    with (
        control.ControlTunnel("host1", "127.0.0.1", 1, pki.USER, [], lambda: credentials).start() as tunnel,
        pytest.raises(errors.Unreachable, match="no host key is known for host1"),
    ):
        tunnel.wait_connected(1)
