"""What the key of one move cannot do: each attempt with OpenSSH's own client, on our sshd and on a system's drop-in.

Whoever gets in ends in dial with the certificate's verb, so "no migration ... waits" is the sign that
nothing else ran. Where sshd refuses before that, its own words or its log say why.
"""

from __future__ import annotations

import socket
import subprocess
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from agent.transfer import ssh
from migrate.tunnel import pki
from tests.system.tunnel_lab import COORDINATOR, SOURCE, Lab, lab

pytestmark = [pytest.mark.system, pytest.mark.parametrize("name", ["own", "system"])]
__all__ = ["lab"]

MOVE = "aaaa0123456789abcdef0123456789ab"
REFUSED_BY_DOOR = f"dial: no migration {MOVE} waits for a tunnel here"


class Key:
    """The key of one move, and OpenSSH's client with it."""

    def __init__(self, lab: Lab, name: str, directory: Path) -> None:
        self.lab, self.name, self.directory = lab, name, directory
        self.public = ssh.generate_key(directory)
        self.certify(lab.signer.sign_bulk(self.public, MOVE, SOURCE))
        (directory / "known_hosts").write_text(f"target {lab.host_keys[name]}\n")
        self.since = len(lab.log(name))

    def certify(self, certificate: str) -> None:
        (self.directory / "key-cert.pub").write_text(certificate + "\n")

    def argv(self, *arguments: str, program: str = "ssh", user: str = pki.USER, bind: str = SOURCE) -> list[str]:
        options = [
            "BatchMode=yes",
            "StrictHostKeyChecking=yes",
            "UserKnownHostsFile=known_hosts",
            "HostKeyAlias=target",
        ]
        options += ["IdentityFile=key", "IdentitiesOnly=yes", "IdentityAgent=none", f"BindAddress={bind}"]
        options += [f"Port={self.lab.ports[self.name]}", f"User={user}"]
        if (self.directory / "key-cert.pub").exists():
            options.append("CertificateFile=key-cert.pub")
        return [
            program,
            "-F",
            "none",
            "-o",
            "RequestTTY=no",
            *(word for option in options for word in ("-o", option)),
            *arguments,
        ]

    def run(
        self, *arguments: str, program: str = "ssh", user: str = pki.USER, bind: str = SOURCE, stdin: str = ""
    ) -> tuple[int, str, str]:
        argv = self.argv(*arguments, program=program, user=user, bind=bind)
        done = subprocess.run(argv, cwd=self.directory, input=stdin, capture_output=True, text=True, timeout=20)
        return done.returncode, done.stdout, done.stderr

    def logged(self, text: str) -> bool:
        return self.lab.logged(self.name, text, self.since)


@pytest.fixture
def key(lab: Lab, name: str, tmp_path: Path) -> Iterator[Key]:
    calls = lab.ask("facts")["calls"]
    yield Key(lab, name, tmp_path / "key")
    assert lab.ask("facts")["calls"] == calls, "something reached the agent's gRPC"


def test_it_can_do_its_own_move(key: Key) -> None:
    """The counterproof: the same client with the same key and options gets through when its move waits."""
    key.lab.ask("expect", migration=MOVE)
    status, out, err = key.run(COORDINATOR, stdin="pages")
    assert (status, err) == (0, "")
    assert '"bytes": 5' in out


def test_no_shell(key: Key) -> None:
    """No terminal is given, and without one a login ends in dial, with the verb of the certificate."""
    status, out, err = key.run("-tt", COORDINATOR, stdin="id\nexit\n")
    assert (status, out) == (255, "")
    assert "PTY allocation request failed" in err
    status, out, err = key.run(COORDINATOR, stdin="id\nexit\n")
    assert (status, out) == (1, "")
    assert REFUSED_BY_DOOR in err


@pytest.mark.parametrize("command", ["id", "/bin/sh -c id", "control", "bulk 00ff", "cat /etc/passwd; true"])
def test_no_other_command(key: Key, command: str) -> None:
    """Whatever is asked for, the certificate's verb runs: another command, the control verb, another move."""
    key.lab.ask("expect", migration="00ff")
    status, out, err = key.run(COORDINATOR, command)
    assert (status, out) == (1, "")
    assert REFUSED_BY_DOOR in err
    assert key.lab.ask("forget", migration="00ff") == {"still_waiting": True}


def test_no_sftp(key: Key) -> None:
    """The sftp subsystem ends in dial where sshd has one, and does not exist where it has none."""
    status, out, err = key.run("-s", COORDINATOR, "sftp")
    assert out == ""
    if key.name == "own":
        assert (status, "subsystem request failed" in err) == (255, True)
    else:
        assert status == 1  # without text: a subsystem's stderr goes nowhere
        assert key.logged(f"Starting session: forced-command (key-option) 'bulk {MOVE}'")
    status, out, _ = key.run("-b", "-", COORDINATOR, program="sftp", stdin="ls /\n")
    assert status != 0
    assert "etc" not in out


def test_no_tcp_forward_over_stdio(key: Key) -> None:
    """-W: sshd refuses to open the channel."""
    status, out, err = key.run("-W", f"127.0.0.1:{key.lab.ports[key.name]}", COORDINATOR)
    assert status != 0
    assert out == ""  # an sshd behind the forward would have sent its banner
    assert "administratively prohibited" in err


@pytest.mark.parametrize(
    "forward",
    [
        ("-L", "127.0.0.1:5501:127.0.0.1:{port}"),
        ("-D", "127.0.0.1:5501"),
        ("-L", "127.0.0.1:5501:/run/migrate/agent.sock"),
        ("-L", "127.0.0.1:5501:/run/migrate/door.sock"),
    ],
)
def test_no_local_forward(key: Key, forward: tuple[str, str]) -> None:
    """-L to a port or a unix socket, and -D: the client listens, but no connection gets through sshd."""
    option = forward[1].format(port=key.lab.ports[key.name])
    # Its move waits, so the session itself stays open, and the forward has all the time it wants.
    key.lab.ask("expect", migration=MOVE)
    argv = key.argv(forward[0], option, COORDINATOR)
    client = subprocess.Popen(
        argv, cwd=key.directory, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.PIPE
    )
    try:
        with connect("127.0.0.1", 5501) as attempt:
            if forward[0] == "-D":  # SOCKS5: no authentication, connect to 127.0.0.1:port
                attempt.sendall(b"\x05\x01\x00")
                assert attempt.recv(2) == b"\x05\x00"
                attempt.sendall(b"\x05\x01\x00\x01\x7f\x00\x00\x01" + key.lab.ports[key.name].to_bytes(2, "big"))
                received = attempt.recv(300)  # the client says yes before it asks sshd
                received = received[10:] or attempt.recv(300)
            else:
                received = attempt.recv(300)
        assert received == b""
    finally:
        _, err = client.communicate(b"", timeout=10)
    if "/" in option:
        assert key.logged("refused streamlocal port forward")
    else:
        assert b"administratively prohibited" in err


@pytest.mark.parametrize("forward", ["127.0.0.1:5502:127.0.0.1:22", "5502", "/tmp/htun-remote.sock:127.0.0.1:22"])
def test_no_remote_forward(key: Key, forward: str) -> None:
    """-R with a port, as a SOCKS proxy, or with a unix socket: sshd refuses to listen."""
    status, _, err = key.run("-N", "-o", "ExitOnForwardFailure=yes", "-R", forward, COORDINATOR)
    assert status == 255
    assert "remote port forwarding failed" in err
    with socket.socket() as probe:
        assert probe.connect_ex(("127.0.0.1", 5502)) != 0
    assert not Path("/tmp/htun-remote.sock").exists()


def test_no_tunnel_device(key: Key) -> None:
    """-w: no tun device, neither here nor there."""
    status, _, err = key.run("-N", "-o", "ExitOnForwardFailure=yes", "-w", "0:0", COORDINATOR)
    assert status == 255
    assert "open failed" in err  # by the server: the client could, it is root


def test_no_other_source_address(key: Key) -> None:
    """From any address but the source's, sshd does not take the certificate, and its log says so."""
    status, out, err = key.run(COORDINATOR, bind="127.0.0.9")
    assert (status, out) == (255, "")
    assert "Permission denied (publickey)" in err
    assert key.logged("not from a permitted source address (127.0.0.9)")


def test_not_tomorrow(key: Key) -> None:
    """An expired certificate: refused, and sshd's log says "expired"."""
    signed = {"key_id": "old", "principal": pki.USER, "force_command": f"bulk {MOVE}", "source_address": SOURCE}
    key.certify(key.lab.authority.sign_user(key.public, **signed, valid_s=300, valid_from_unix_s=time.time() - 301))  # type: ignore[arg-type]
    key.lab.ask("expect", migration=MOVE)
    status, out, err = key.run(COORDINATOR)
    assert (status, out) == (255, "")
    assert "Permission denied (publickey)" in err
    assert key.logged("Certificate invalid: expired")
    assert key.lab.ask("forget", migration=MOVE) == {"still_waiting": True}


def test_not_yet(key: Key) -> None:
    """A certificate whose time has not come is refused: the clocks of the fleet matter, and the log says so."""
    signed = {"key_id": "new", "principal": pki.USER, "force_command": f"bulk {MOVE}", "source_address": SOURCE}
    key.certify(key.lab.authority.sign_user(key.public, **signed, valid_s=300, valid_from_unix_s=time.time() + 600))  # type: ignore[arg-type]
    assert key.run(COORDINATOR)[0] == 255
    assert key.logged("Certificate invalid: not yet valid")


def test_not_another_fleets_hosts(key: Key, tmp_path: Path) -> None:
    """A host that trusts another authority refuses the certificate."""
    other = pki.CertificateAuthority.load_or_create(tmp_path / "pki")
    key.certify(pki.Signer(other).sign_bulk(key.public, MOVE, SOURCE))
    status, _, err = key.run(COORDINATOR)
    assert status == 255
    assert "Permission denied (publickey)" in err


def test_not_a_host_with_another_key(key: Key) -> None:
    """The client, for its part, talks to no host but the pinned one."""
    other = "system" if key.name == "own" else "own"
    (key.directory / "known_hosts").write_text(f"target {key.lab.host_keys[other]}\n")
    status, _, err = key.run(COORDINATOR)
    assert status == 255
    assert "Host key verification failed" in err


def test_not_without_certificate(key: Key) -> None:
    """The bare key is nothing."""
    (key.directory / "key-cert.pub").unlink()
    status, _, err = key.run(COORDINATOR)
    assert status == 255
    assert "Permission denied" in err


@pytest.mark.parametrize("user", ["root", "nobody"])
def test_not_as_another_user(key: Key, user: str) -> None:
    """The authority's signature counts for `migrate` alone, even when it names another principal."""
    for principal in (pki.USER, user):
        key.certify(
            key.lab.authority.sign_user(key.public, key_id="x", principal=principal, force_command="id", valid_s=60)
        )
        status, out, _ = key.run(COORDINATOR, "id", user=user)
        assert (status, out) == (255, "")


def test_a_certificate_for_any_command_still_ends_in_dial(key: Key) -> None:
    """Should the authority ever sign something else, the login shell is the second wall: dial runs it, which refuses."""
    key.certify(key.lab.authority.sign_user(key.public, key_id="x", principal=pki.USER, force_command="id", valid_s=60))
    status, out, err = key.run(COORDINATOR)
    assert (status, out) == (126, "")
    assert "has no other command" in err


def test_one_tunnel_a_move(key: Key) -> None:
    """While a move's tunnel is open, the same key does not get a second one."""
    key.lab.ask("expect", migration=MOVE)
    first = subprocess.Popen(key.argv(COORDINATOR), cwd=key.directory, stdin=subprocess.PIPE, stdout=subprocess.PIPE)
    try:
        assert key.lab.ask("wait_arrived", migration=MOVE) == {"arrived": True}
        status, _, err = key.run(COORDINATOR)
        assert status == 1
        assert REFUSED_BY_DOOR in err
    finally:
        out, _ = first.communicate(b"abc", timeout=10)
    assert b'"bytes": 3' in out


def connect(address: str, port: int) -> socket.socket:
    """To the client's own listening port, once it is there and the login is done."""
    deadline = time.monotonic() + 10
    while True:
        attempt = socket.socket()
        attempt.settimeout(10)
        if attempt.connect_ex((address, port)) == 0:
            return attempt
        attempt.close()
        assert time.monotonic() < deadline
        time.sleep(0.02)
