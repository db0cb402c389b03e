"""Bulk data through the system's ssh, a real sshd, dial and door to a receiver."""

from __future__ import annotations

import json
import os
import resource
import subprocess
import time
import zlib
from pathlib import Path

import pytest

from agent.errors import TransferError
from agent.transfer import ssh
from tests.system.tunnel_lab import LIMIT_S, Lab, lab

pytestmark = pytest.mark.system
__all__ = ["lab"]

MOVE = "0123456789abcdef0123456789abcdef"
BULK_BYTES = 200 << 20


def send_and_confirm(tunnel: ssh.BulkTunnel, size: int) -> tuple[dict[str, object], int]:
    """Write `size` random bytes, half-close, and return what the receiver says it got and the checksum of what was sent."""
    block = os.urandom(1 << 20)
    crc = 0
    for _ in range(size >> 20):
        view = memoryview(block)
        while view:
            view = view[os.write(tunnel.tx_fd, view) :]
        crc = zlib.crc32(block, crc)
    tunnel.close_tx()
    answer = b""
    while data := os.read(tunnel.rx_fd, 4096):
        answer += data
    return json.loads(answer), crc


@pytest.mark.parametrize("name", ["own", "system"])
def test_200_mib_arrive_unchanged(lab: Lab, tmp_path: Path, name: str) -> None:
    """Every byte arrives, the answer comes back after the half-close, both pipes hold 1 MiB, ssh ends by itself."""
    lab.ask("expect", migration=MOVE)
    tunnel = lab.bulk(tmp_path / "key", MOVE, name)
    assert tunnel.cipher in ("aes128-gcm@openssh.com", "chacha20-poly1305@openssh.com")
    before = resource.getrusage(resource.RUSAGE_CHILDREN)
    started = time.monotonic()
    answer, crc = send_and_confirm(tunnel, BULK_BYTES)
    seconds = time.monotonic() - started
    assert tunnel.process.wait(LIMIT_S) == 0
    tunnel.close()
    after = resource.getrusage(resource.RUSAGE_CHILDREN)
    cpu_s = after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime
    result = lab.ask("result", migration=MOVE)
    print(
        f"\nbulk, sshd {name}: login {tunnel.connect_s * 1000:.0f} ms, {tunnel.cipher}, "
        f"{BULK_BYTES / 1e6 / seconds:.0f} MB/s, ssh {cpu_s / (BULK_BYTES / 1e9):.2f} CPU-s/GB, "
        f"receiver {float(result['cpu_s']) / (BULK_BYTES / 1e9):.2f} CPU-s/GB"  # type: ignore[arg-type]
    )
    assert answer == {"bytes": BULK_BYTES, "crc": crc}
    assert tunnel.error_text() == ""


def test_the_pipes_are_large(lab: Lab, tmp_path: Path) -> None:
    """Both pipes of a tunnel hold 1 MiB: with the default 64 KiB there are many more wake-ups."""
    import fcntl

    lab.ask("expect", migration=MOVE)
    tunnel = lab.bulk(tmp_path / "key", MOVE)
    sizes = [fcntl.fcntl(fd, fcntl.F_GETPIPE_SZ) for fd in (tunnel.rx_fd, tunnel.tx_fd)]
    tunnel.close()
    assert sizes == [1 << 20, 1 << 20]


def test_close_in_the_middle(lab: Lab, tmp_path: Path) -> None:
    """close() without ceremony: the receiver sees end of file, no ssh is left, and no dial on the target."""
    lab.ask("expect", migration=MOVE)
    tunnel = lab.bulk(tmp_path / "key", MOVE)
    assert lab.ask("wait_arrived", migration=MOVE) == {"arrived": True}
    os.write(tunnel.tx_fd, b"x" * 4096)
    assert lab.ask("wait_bytes", migration=MOVE, count=4096) == {"bytes": 4096}  # what ssh still holds may go with it
    tunnel.close()
    tunnel.close()
    assert tunnel.process.returncode is not None
    assert lab.ask("result", migration=MOVE)["bytes"] == 4096
    deadline = time.monotonic() + LIMIT_S
    while lab.ask("facts")["dials"]:
        assert time.monotonic() < deadline
        time.sleep(0.05)


def test_a_killed_ssh_is_an_end_on_both_sides(lab: Lab, tmp_path: Path) -> None:
    """ssh dies: the source gets EPIPE and end of file, the target end of file, nobody waits for ever."""
    lab.ask("expect", migration=MOVE)
    tunnel = lab.bulk(tmp_path / "key", MOVE)
    assert lab.ask("wait_arrived", migration=MOVE) == {"arrived": True}
    os.write(tunnel.tx_fd, b"x" * 4096)
    tunnel.process.kill()
    assert os.read(tunnel.rx_fd, 1) == b""
    tunnel.process.wait(LIMIT_S)  # its descriptors close one after the other
    with pytest.raises(BrokenPipeError):
        os.write(tunnel.tx_fd, b"y")
    tunnel.close()
    assert int(lab.ask("result", migration=MOVE)["bytes"]) <= 4096  # type: ignore[call-overload]


def test_a_move_that_the_target_does_not_know(lab: Lab, tmp_path: Path) -> None:
    """The login works, then end of file; failure() has the door's line and a hint."""
    tunnel = lab.bulk(tmp_path / "key", "0f0f")
    assert os.read(tunnel.rx_fd, 1) == b""
    tunnel.process.wait(LIMIT_S)
    error = tunnel.failure("no greeting")
    tunnel.close()
    assert error.message.endswith("dial: no migration 0f0f waits for a tunnel here")
    assert error.hint == "the target has forgotten this move; start it again"


def test_another_host_key_stops_the_source(lab: Lab, tmp_path: Path) -> None:
    """A target that shows another host key gets nothing from us: ssh's own words, and what to compare."""
    since = len(lab.log("own"))
    with pytest.raises(TransferError, match="Host key verification failed") as caught:
        lab.bulk(tmp_path / "key", MOVE, host_keys=[lab.host_keys["system"]])
    assert "fingerprints" in caught.value.hint
    assert "CERT" not in lab.log("own")[since:]


def test_nobody_there(lab: Lab, tmp_path: Path) -> None:
    """A closed port: TransferError with the reason, long before the time for connecting is over."""
    started = time.monotonic()
    with pytest.raises(TransferError, match="Connection refused"):
        lab.bulk(tmp_path / "key", MOVE, port=2299)
    assert time.monotonic() - started < LIMIT_S / 2


def test_the_private_key_stays_private(lab: Lab, tmp_path: Path) -> None:
    """The directory is 0700, the key 0600, and a second key for the same move replaces the first with its certificate."""
    directory = tmp_path / "key"
    first = ssh.generate_key(directory)
    (directory / "key-cert.pub").write_text("old")
    assert directory.stat().st_mode & 0o777 == 0o700
    assert (directory / "key").stat().st_mode & 0o777 == 0o600
    assert ssh.generate_key(directory) != first
    assert sorted(path.name for path in directory.iterdir()) == ["key", "key.pub"]


def test_a_directory_with_spaces_and_percent(lab: Lab, tmp_path: Path) -> None:
    """ssh would split and expand such a path; ours are relative to it."""
    lab.ask("expect", migration=MOVE)
    tunnel = lab.bulk(tmp_path / "a b %h 'c", MOVE)
    answer, _ = send_and_confirm(tunnel, 1 << 20)
    tunnel.close()
    assert answer["bytes"] == 1 << 20


def test_no_configuration_of_the_users_is_read(lab: Lab, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """An agent, an askpass program and a proxy in the environment do not reach ssh."""
    monkeypatch.setenv("SSH_AUTH_SOCK", "/nonexistent")
    monkeypatch.setenv("SSH_ASKPASS", "/bin/false")
    lab.ask("expect", migration=MOVE)
    tunnel = lab.bulk(tmp_path / "key", MOVE)
    environment = Path(f"/proc/{tunnel.process.pid}/environ").read_bytes()
    tunnel.close()
    assert sorted(entry.partition(b"=")[0] for entry in environment.split(b"\0") if entry) == [b"LC_ALL", b"PATH"]


def test_no_ssh_process_outlives_its_tunnel() -> None:
    """After all of the above this process has no child that runs ssh."""
    children = subprocess.run(["ps", "--ppid", str(os.getpid()), "-o", "args="], capture_output=True, text=True).stdout
    assert "ssh -F none" not in children
