"""The source's end of a bulk tunnel: the system's ssh as a child process, its stdin and stdout as two pipes.

ssh and not a library: encryption then has a core of its own and costs half. What is pinned and what is signed for this
one move comes from the coordinator; no file of the user's or the system's ssh configuration is read. The other end of
the pipes is agent/door.py on the target.
"""

from __future__ import annotations

import fcntl
import os
import re
import shutil
import signal
import subprocess
import time
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any, Self

from agent.diagnosis.diagnose import diagnose
from agent.errors import InvalidArgument, TransferError, Unsupported

PIPE_BYTES = 1 << 20
CONNECT_TIMEOUT_S = 10
CLOSE_TIMEOUT_S = 1.0  # for each of: by itself, after SIGTERM
KILL_TIMEOUT_S = 30.0  # after SIGKILL: only a busy machine makes it longer than nothing
_POLL_S = 0.005
_KEY, _CERTIFICATE, _KNOWN_HOSTS, _LOG = "key", "key-cert.pub", "known_hosts", "ssh.log"
_ALIAS = "migrate-target"  # the one name in known_hosts, whatever the address

_AES_FIRST = "aes128-gcm@openssh.com,aes256-gcm@openssh.com,chacha20-poly1305@openssh.com,aes128-ctr"
_CHACHA_FIRST = "chacha20-poly1305@openssh.com,aes128-gcm@openssh.com,aes256-gcm@openssh.com,aes128-ctr"

_HOST_KEY = re.compile(r"[a-z0-9@.-]+ [A-Za-z0-9+/]+={0,2}")
_CERTIFICATE_LINE = re.compile(r"ssh-ed25519-cert-v01@openssh\.com [A-Za-z0-9+/]+={0,2}( [ -~]*)?")
_NAME = re.compile(r"[A-Za-z0-9:][A-Za-z0-9._:%-]*")

# The two lines of ssh -v that we read; both are as they were in OpenSSH 6.
_CIPHER = re.compile(r"^debug1: kex: server->client cipher: (\S+)", re.MULTILINE)
_LOGGED_IN = re.compile(r"^Authenticated to ", re.MULTILINE)


def generate_key(directory: Path) -> str:
    """A new key pair for one move in `directory` (made 0700). Returns the public line "ssh-ed25519 AAAA...".

    The private key never leaves the directory; the coordinator signs the public one.
    """
    directory.mkdir(mode=0o700, parents=True, exist_ok=True)
    directory.chmod(0o700)
    for name in (_KEY, f"{_KEY}.pub", _CERTIFICATE):
        (directory / name).unlink(missing_ok=True)
    argv = [_program("ssh-keygen"), "-q", "-t", "ed25519", "-N", "", "-C", "", "-f", str(directory / _KEY)]
    done = subprocess.run(argv, stdin=subprocess.DEVNULL, capture_output=True, text=True, check=False, timeout=30)
    if done.returncode != 0:
        raise TransferError(f"ssh-keygen failed: {done.stderr.strip()}", touched="nothing")
    return (directory / f"{_KEY}.pub").read_text().strip()


class BulkTunnel:
    """A running ssh: bytes to and from the other host's transfer process, in order. Owns the process and both descriptors.

    `rx_fd` and `tx_fd` block; rx_fd ends, and tx_fd gives EPIPE, when the other side closes or the link dies. `cipher`
    is what was negotiated, `connect_s` how long the login took.
    """

    def __init__(self, process: subprocess.Popen[bytes], rx_fd: int, tx_fd: int, log: Path, target: str) -> None:
        self.process, self.rx_fd, self.tx_fd = process, rx_fd, tx_fd
        self.cipher = ""
        self.connect_s = 0.0
        self._log_path, self._target = log, target

    @classmethod
    def open(
        cls,
        directory: Path,
        *,
        certificate: str,
        address: str,
        port: int,
        user: str,
        host_keys: Sequence[str],
        source_address: str = "",
        timeout_s: float = CONNECT_TIMEOUT_S,
        number: int = 0,
    ) -> Self:
        """Log in with the key that generate_key() left in `directory` and `certificate`; returns once sshd let us in.

        What the door says comes later: end of file on rx_fd, and failure() then has its line. Raises TransferError with
        ssh's own words, Unsupported without an ssh program. `source_address`: bind to it; "" = the system chooses.
        `number`: of several with the same key.
        """
        _check(certificate, address, user, host_keys, source_address)
        if not (directory / _KEY).exists():
            raise TransferError(f"{directory} has no key: the tunnel was not prepared on this host", touched="nothing")
        if not number:  # the others find what the first one wrote
            _write(directory / _CERTIFICATE, certificate.strip() + "\n")
            _write(directory / _KNOWN_HOSTS, "".join(f"{_ALIAS} {' '.join(key.split()[:2])}\n" for key in host_keys))
        argv = _command(address, port, user, source_address, timeout_s)
        started = time.monotonic()
        stdin_read, tx_fd = os.pipe()
        rx_fd, stdout_write = os.pipe()
        try:
            for fd in (tx_fd, rx_fd):
                enlarge(fd)
            log = directory / (f"{number}.{_LOG}" if number else _LOG)
            with log.open("wb") as ssh_log:
                # Relative names and cwd: ssh would split paths at spaces and expand their percent signs.
                process = subprocess.Popen(
                    argv,
                    cwd=directory,
                    env={"PATH": os.environ.get("PATH", "/usr/bin:/bin"), "LC_ALL": "C"},
                    stdin=stdin_read,
                    stdout=stdout_write,
                    stderr=ssh_log,
                    start_new_session=True,
                )
        except BaseException:
            os.close(rx_fd)
            os.close(tx_fd)
            raise
        finally:
            os.close(stdin_read)
            os.close(stdout_write)
        tunnel = cls(process, rx_fd, tx_fd, log, f"{user}@{address} port {port}")
        try:
            tunnel._wait_logged_in(started + timeout_s + 2)
        except BaseException:
            tunnel.close()
            raise
        tunnel.connect_s = time.monotonic() - started
        return tunnel

    def close_tx(self) -> None:
        """The other side reads end of file after what was written; rx_fd goes on. Idempotent."""
        if self.tx_fd >= 0:
            os.close(self.tx_fd)
            self.tx_fd = -1

    def error_text(self) -> str:
        """What ssh, or the door through it, said that is not tracing; "" if nothing."""
        lines = [line.strip() for line in self._log().splitlines()]
        noise = ("debug", "Authenticated to ", "OpenSSH_", "Transferred: ", "Bytes per second: ")
        return "\n".join(line for line in lines if line and not line.startswith(noise))

    def failure(self, what: str) -> TransferError:
        """An error that begins with `what` and tells why the tunnel ended, as far as ssh or the door said."""
        status = self.process.poll()
        text = self.error_text() or (f"ssh ended with status {status}" if status is not None else "ssh says nothing")
        message = f"{what}: ssh to {self._target}: {text.splitlines()[-1]}"
        hint = diagnose(f"{message}\n{text}").remedy or f"ssh's own log: {self._log_path}"
        return TransferError(message, hint=hint, detail=text)

    def close(self) -> None:
        """Give up both descriptors; ssh is gone when this returns, killed if need be. Idempotent."""
        self.close_tx()
        if self.rx_fd >= 0:
            os.close(self.rx_fd)
            self.rx_fd = -1
        # With both pipes gone ssh ends when the target closes; a target that is gone is not waited for.
        for signal_number in (None, signal.SIGTERM, signal.SIGKILL):
            if signal_number is not None:
                self.process.send_signal(signal_number)
            try:
                self.process.wait(KILL_TIMEOUT_S if signal_number == signal.SIGKILL else CLOSE_TIMEOUT_S)
            except subprocess.TimeoutExpired:
                continue
            return

    def _wait_logged_in(self, deadline: float) -> None:
        while True:
            ended = self.process.poll() is not None  # before reading: its last words must be in what is read
            text = self._log()
            if found := _CIPHER.search(text):
                self.cipher = found[1]
            if _LOGGED_IN.search(text):
                return
            if ended:
                raise self.failure("cannot open the bulk tunnel")
            if time.monotonic() > deadline:
                raise self.failure("the bulk tunnel was not open in time")
            time.sleep(_POLL_S)

    def _log(self) -> str:
        return self._log_path.read_text(errors="replace")


def open_several(count: int, directory: Path, **target: Any) -> list[BulkTunnel]:
    """`count` connections, `target` as in BulkTunnel.open(): all of them, or the error of one and none. The first one first: what keeps it
    out keeps all out; the others at the same time.
    """
    opened = [BulkTunnel.open(directory, **target)]
    if count > 1:
        with ThreadPoolExecutor(count - 1) as pool:
            others = [pool.submit(BulkTunnel.open, directory, number=number, **target) for number in range(1, count)]
        opened += [each.result() for each in others if each.exception() is None]
        if failed := [exc for each in others if (exc := each.exception()) is not None]:
            close_all(opened)
            raise failed[0]
    return opened


def close_all(tunnels: Sequence[BulkTunnel]) -> None:
    """At the same time: each may wait a while for its ssh. Idempotent."""
    if tunnels:
        with ThreadPoolExecutor(len(tunnels)) as pool:
            for done in [pool.submit(tunnel.close) for tunnel in tunnels]:
                done.result()


def _command(address: str, port: int, user: str, source_address: str, timeout_s: float) -> list[str]:
    options = {
        "BatchMode": "yes",
        "LogLevel": "DEBUG1",  # for the cipher and the moment of login; a few dozen lines
        "StrictHostKeyChecking": "yes",
        "HostKeyAlias": _ALIAS,
        "UserKnownHostsFile": _KNOWN_HOSTS,
        "GlobalKnownHostsFile": "none",
        "UpdateHostKeys": "no",
        "VerifyHostKeyDNS": "no",
        "CheckHostIP": "no",
        "IdentityFile": _KEY,
        "CertificateFile": _CERTIFICATE,
        "IdentitiesOnly": "yes",
        "IdentityAgent": "none",
        "PreferredAuthentications": "publickey",
        "Ciphers": _AES_FIRST if _cpu_has_aes() else _CHACHA_FIRST,
        "Compression": "no",
        "ServerAliveInterval": "5",
        "ServerAliveCountMax": "3",
        "ConnectTimeout": str(max(1, round(timeout_s))),
        "ConnectionAttempts": "1",
        "ControlMaster": "no",
        "ControlPath": "none",
        "ClearAllForwardings": "yes",
        "ForwardAgent": "no",
        "IPQoS": "throughput",
    }
    if source_address:
        options["BindAddress"] = source_address
    argv = [_program("ssh"), "-F", "none", "-T", "-p", str(port), "-l", user]
    for name, value in options.items():
        argv += ["-o", f"{name}={value}"]
    return [*argv, "--", address]


def _check(certificate: str, address: str, user: str, host_keys: Sequence[str], source_address: str) -> None:
    if not _CERTIFICATE_LINE.fullmatch(certificate.strip()):
        raise InvalidArgument(f"not a certificate for an ed25519 key: {certificate[:60]!r}")
    if not host_keys:
        raise InvalidArgument(f"no host key is pinned for {address}")
    for key in host_keys:
        if not _HOST_KEY.fullmatch(" ".join(key.split()[:2])) or "\n" in key.strip():
            raise InvalidArgument(f"not a host key of the form 'ssh-ed25519 AAAA...': {key[:60]!r}")
    for name in (address, user, *([source_address] if source_address else [])):
        if not _NAME.fullmatch(name):
            raise InvalidArgument(f"{name!r} is no address or user for ssh")


def _cpu_has_aes() -> bool:
    """chacha20 is faster only where AES has no instructions of its own."""
    try:
        text = Path("/proc/cpuinfo").read_text()
    except OSError:
        return False
    return re.search(r"^(flags|Features)\s*:.*\baes\b", text, re.MULTILINE) is not None


def _program(name: str) -> str:
    found = shutil.which(name)
    if found is None:
        raise Unsupported(f"{name} is missing on this host", hint="install openssh-client")
    return found


def enlarge(fd: int) -> None:
    try:
        fcntl.fcntl(fd, fcntl.F_SETPIPE_SZ, PIPE_BYTES)
    except OSError:
        pass  # above fs.pipe-max-size or the user's quota: slower, not wrong


def _write(path: Path, text: str) -> None:
    with os.fdopen(os.open(path, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600), "w") as file:
        file.write(text)
