"""The coordinator's tunnel to a real sshd, dial, door and gRPC server."""

from __future__ import annotations

import statistics
import time

import grpc
import pytest

from migrate import errors
from migrate.tunnel import pki
from migrate.tunnel.control import ControlTunnel
from tests.system.tunnel_lab import SOURCE, Lab, lab

pytestmark = pytest.mark.system
__all__ = ["lab"]


def echo(tunnel: ControlTunnel, data: bytes = b"x", timeout_s: float = 10) -> bytes:
    with tunnel.native():
        answer: bytes = tunnel.channel().unary_unary("/test/Echo")(data, timeout=timeout_s)
        return answer


def eventually_echo(tunnel: ControlTunnel, timeout_s: float) -> float:
    """Seconds until a call works again."""
    started = time.monotonic()
    while True:
        try:
            echo(tunnel)
            return time.monotonic() - started
        except errors.Unreachable:
            assert time.monotonic() - started < timeout_s, tunnel.state
            time.sleep(0.05)


@pytest.mark.parametrize("name", ["own", "system"])
def test_calls_go_through(lab: Lab, name: str) -> None:
    """Without waiting for the connection: small calls, 8 MB at once, and errors with their code, on both kinds of sshd."""
    with lab.control(name).start() as tunnel:
        assert echo(tunnel, b"hello") == b"hello"
        big = b"p" * (8 << 20)
        assert echo(tunnel, big) == big
        with pytest.raises(errors.NotFound, match="web1") as caught, tunnel.native():
            tunnel.channel().unary_unary("/test/Fail")(b"", timeout=10)
        assert caught.value.hint == "migrate ps"
        state = tunnel.state
        assert (state.connected, state.error, state.connects) == (True, "", 1)
        assert state.cipher == "aes128-gcm@openssh.com"


def test_a_stream_and_its_rate(lab: Lab) -> None:
    """64 MiB of stream arrive whole; the rate is printed, it is not what control is for."""
    with lab.control().start() as tunnel:
        echo(tunnel)
        started = time.monotonic()
        total = sum(len(block) for block in tunnel.channel().unary_stream("/test/Stream")(b"64", timeout=60))
        print(f"\ncontrol stream: {total / 1e6 / (time.monotonic() - started):.0f} MB/s")
        assert total == 64 << 20


def test_round_trip(lab: Lab) -> None:
    """An echo through ssh takes milliseconds, not the tens that a delayed acknowledgement or a polling loop would."""
    with lab.control().start() as tunnel:
        started = time.monotonic()
        echo(tunnel)
        first = time.monotonic() - started
        times = []
        for _ in range(300):
            started = time.monotonic()
            echo(tunnel)
            times.append(time.monotonic() - started)
        times.sort()
        print(
            f"\ncontrol: first call {first * 1000:.0f} ms, then median {statistics.median(times) * 1000:.2f} ms, "
            f"p99 {times[296] * 1000:.2f} ms"
        )
        assert statistics.median(times) < 0.02


def test_it_comes_back_after_sshd_died(lab: Lab) -> None:
    """While sshd is down calls fail at once with its reason; when it is back so is the tunnel, on the same channel."""
    with lab.control().start() as tunnel:
        echo(tunnel)
        lab.ask("stop_sshd", name="own")
        try:
            with pytest.raises(errors.Unreachable):
                echo(tunnel)
            time.sleep(0.5)
            started = time.monotonic()
            with pytest.raises(errors.Unreachable, match="Connection refused"):
                echo(tunnel)
            assert time.monotonic() - started < 2
            assert not tunnel.state.connected
        finally:
            lab.ask("start_sshd", name="own")
        print(f"\nback after {eventually_echo(tunnel, 15):.1f} s")
        assert tunnel.state.connects == 2


def test_a_silent_network_costs_one_wait(lab: Lab, monkeypatch: pytest.MonkeyPatch) -> None:
    """Where packets vanish, calls after the first failed attempt fail at once although another attempt is under way."""
    import socket

    from migrate.tunnel import transport

    monkeypatch.setattr(transport, "CONNECT_TIMEOUT_S", 3.0)
    with socket.socket() as full:  # a listener whose queue is full answers no further SYN
        full.bind(("127.0.0.5", 0))
        full.listen(0)
        port = full.getsockname()[1]
        fillers = [socket.socket() for _ in range(4)]
        for filler in fillers:
            filler.setblocking(False)
            filler.connect_ex(("127.0.0.5", port))
        silent = ControlTunnel(
            "host9", "127.0.0.5", port, "migrate", [lab.host_keys["own"]], lab.credentials.current
        ).start()
        try:
            with pytest.raises(errors.Unreachable):
                silent.wait_connected(3.2)
            time.sleep(0.5)  # the second attempt has begun
            started = time.monotonic()
            with pytest.raises(errors.Unreachable, match="timed out"):
                echo(silent)
            assert time.monotonic() - started < 1
        finally:
            for filler in fillers:
                filler.close()
            silent.close()


def test_a_host_without_agent_is_told_as_such(lab: Lab) -> None:
    """ssh works but the door is shut: the error names the socket that nobody serves, and heals by itself."""
    with lab.control().start() as tunnel:
        tunnel.wait_connected(10)
        lab.ask("stop_agent")
        try:
            with pytest.raises(errors.Unreachable, match=r"no agent answers on /run/migrate/door\.sock"):
                for _ in range(20):
                    echo(tunnel)
            assert tunnel.state.connected
        finally:
            lab.ask("start_agent")
        eventually_echo(tunnel, 10)
        assert tunnel.state.error == ""


def test_another_host_key_is_refused(lab: Lab) -> None:
    """A host that shows another key than the pinned one: both fingerprints in the error, no credentials sent."""
    since = len(lab.log("own"))
    with lab.control(host_keys=[lab.host_keys["system"]]).start() as tunnel:
        with pytest.raises(errors.Unreachable) as caught:
            tunnel.wait_connected(1.5)
        assert caught.value.code == "tunnel.host_key"
        assert caught.value.message.count("SHA256:") == 2
        with pytest.raises(errors.Unreachable, match="SHA256"):
            echo(tunnel)
    assert "CERT" not in lab.log("own")[since:]


def test_another_authority_is_refused(lab: Lab) -> None:
    """A certificate of an authority that the host does not trust: the hint says what to compare."""
    other = pki.CertificateAuthority.load_or_create(lab.directory / "other")
    credentials = pki.ControlCredentials(other, lab.directory / "other")
    with lab.control(credentials=credentials.current).start() as tunnel:
        with pytest.raises(errors.Unreachable) as caught:
            tunnel.wait_connected(1.5)
        assert caught.value.code == "tunnel.refused"
        assert "ca.pub" in caught.value.hint


def test_the_certificate_is_asked_for_each_connection(lab: Lab) -> None:
    """A tunnel whose first certificate is expired gets in with the renewed one."""
    good = lab.credentials.current()
    public = (lab.directory / "coordinator" / "control.pub").read_text()
    old = lab.authority.sign_user(
        public, key_id="old", principal=pki.USER, force_command="control", valid_s=60, valid_from_unix_s=1e9
    )
    handed = iter([pki.Credentials(private_key=good.private_key, certificate=old, valid_until_unix_s=1e9)])
    with lab.control(credentials=lambda: next(handed, good)).start() as tunnel:
        tunnel.wait_connected(10)
        assert tunnel.state.connects == 1
        assert echo(tunnel) == b"x"


def test_a_source_address_can_be_chosen(lab: Lab) -> None:
    """The bind option is what sshd sees."""
    since = len(lab.log("own"))
    with lab.control(source_address=SOURCE).start() as tunnel:
        echo(tunnel)
    assert f"from {SOURCE}" in lab.log("own")[since:]


def test_nothing_is_left_on_the_host(lab: Lab) -> None:
    """Ten tunnels opened and closed leave no dial and no descriptor behind."""
    with lab.control().start() as tunnel:
        echo(tunnel)
    before = settled(lab)
    for _ in range(10):
        with lab.control().start() as tunnel:
            echo(tunnel)
    assert settled(lab) == before


def settled(lab: Lab) -> tuple[object, object]:
    """(descriptors of the agent, dial processes), once both have stopped changing."""
    last = None
    while True:
        facts = lab.ask("facts")
        now = (facts["fds"], facts["dials"])
        if now == last:
            return now
        last = now
        time.sleep(0.3)


def test_close_is_prompt_and_final(lab: Lab) -> None:
    """close() with a call under way ends the call, the threads and the directory within a second."""
    tunnel = lab.control().start()
    echo(tunnel)
    call = tunnel.channel().unary_stream("/test/Stream")(b"2000", timeout=60)
    next(call)
    started = time.monotonic()
    tunnel.close()
    tunnel.close()
    assert time.monotonic() - started < 2
    with pytest.raises(grpc.RpcError):
        for _ in call:
            pass
    assert not tunnel.socket_path.parent.exists()
    assert not tunnel._threads


def test_the_control_certificate_opens_no_bulk(lab: Lab) -> None:
    """The verb is the certificate's: asking for another one changes nothing."""
    from migrate.tunnel import transport

    lab.ask("expect", migration="00aa")
    ssh = transport.connect(
        "host1",
        address="127.0.0.1",
        port=lab.ports["own"],
        user=pki.USER,
        host_keys=[lab.host_keys["own"]],
        credentials=lab.credentials.current(),
    )
    session = ssh.open_session()
    session.exec_command("bulk 00aa")
    session.shutdown_write()
    session.recv(100)
    ssh.close()
    assert lab.ask("forget", migration="00aa") == {"still_waiting": True}
