"""The agent's side of monitor.sock, against a scripted monitor and against a real, idle one."""

from __future__ import annotations

import errno
import os
import socket
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from agent.engine import sync
from agent.engine.container import Engine
from agent.engine.launch import ContainerStartError, MonitorClient, MonitorError
from agent.engine.pool import Pool
from agent.engine.supervise import Live
from agent.errors import InvalidArgument

pytestmark = pytest.mark.unit


class Scripted:
    """The other end of a client's connection; `reply` sees each request in a thread of its own."""

    def __init__(self, reply: Callable[[socket.socket, dict[str, Any]], None]) -> None:
        ours, self.socket = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        self.events: list[dict[str, Any]] = []
        self.ended = threading.Event()
        self._reply = reply
        self._thread = threading.Thread(target=self._serve)
        self._thread.start()
        self.client = MonitorClient(ours, on_event=self.events.append, on_close=self.ended.set)

    def close(self) -> None:
        self.client.close()
        self._thread.join()
        self.socket.close()

    def _serve(self) -> None:
        while True:
            try:
                message, _ = sync.receive(self.socket)
            except OSError:
                return
            if message is None:
                return
            self._reply(self.socket, message)


def test_replies_find_their_askers() -> None:
    """Two threads ask at once, the answers come in the other order, each gets its own."""
    waiting: list[dict[str, Any]] = []

    def reply(sock: socket.socket, message: dict[str, Any]) -> None:
        waiting.append(message)
        if len(waiting) == 2:
            for request in reversed(waiting):
                sync.send(sock, {"seq": request["seq"], "ok": True, "echo": request["word"]})

    peer = Scripted(reply)
    answers: dict[str, str] = {}
    threads = [
        threading.Thread(target=lambda w=word: answers.update({w: peer.client.request("say", word=w)["echo"]}))
        for word in ("a", "b")
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    peer.close()
    assert answers == {"a": "a", "b": "b"}


@pytest.mark.parametrize(
    ("cmd", "kind"), [("create", ContainerStartError), ("start", ContainerStartError), ("kill", MonitorError)]
)
def test_refusals_carry_step_and_errno(cmd: str, kind: type[ContainerStartError | MonitorError]) -> None:
    """What the monitor says arrives: a StartError for create and start, a MonitorError for the rest."""

    def reply(sock: socket.socket, message: dict[str, Any]) -> None:
        sync.send(sock, {"seq": message["seq"], "ok": False, "step": "exec", "errno": 2, "text": "x: no such file"})

    peer = Scripted(reply)
    with pytest.raises(kind) as caught:
        peer.client.request(cmd)
    peer.close()
    assert (caught.value.step, caught.value.errno) == ("exec", 2)
    assert "x: no such file" in caught.value.message


def test_descriptors_come_with_the_reply() -> None:
    """Descriptors sent with a reply are the asker's."""

    def reply(sock: socket.socket, message: dict[str, Any]) -> None:
        read, write = os.pipe()
        os.write(write, b"through")
        sync.send(sock, {"seq": message["seq"], "ok": True}, [read])
        os.close(read)
        os.close(write)

    peer = Scripted(reply)
    (fd,) = peer.client.request("stdio").fds
    assert os.read(fd, 20) == b"through"
    os.close(fd)
    peer.close()


def test_time_limit() -> None:
    """A monitor that does not answer is an error of step "timeout"; its late answer disturbs nobody."""
    late: list[dict[str, Any]] = []

    def reply(sock: socket.socket, message: dict[str, Any]) -> None:
        if message["cmd"] == "slow":
            late.append(message)
            return
        sync.send(sock, {"seq": late[0]["seq"], "ok": True})
        sync.send(sock, {"seq": message["seq"], "ok": True, "which": "second"})

    peer = Scripted(reply)
    with pytest.raises(MonitorError) as caught:
        peer.client.request("slow", timeout_s=0.05)
    assert caught.value.step == "timeout"
    assert peer.client.request("next")["which"] == "second"
    peer.close()


def test_end_of_the_monitor_wakes_everybody() -> None:
    """A pending request fails at once, on_close is called once, and later requests fail too."""

    def reply(sock: socket.socket, message: dict[str, Any]) -> None:
        sync.send(sock, {"event": "exit", "exit_code": 0})
        sock.shutdown(socket.SHUT_RDWR)

    peer = Scripted(reply)
    began = time.monotonic()
    with pytest.raises(MonitorError, match="ended during wait"):
        peer.client.request("wait", timeout_s=30)
    assert time.monotonic() - began < 5
    assert peer.ended.wait(5)
    assert peer.events == [{"event": "exit", "exit_code": 0}]
    with pytest.raises(MonitorError, match="is gone"):
        peer.client.request("again")
    peer.close()


def test_oversized_request_is_refused_before_it_is_sent() -> None:
    """A command line that no packet holds is the caller's error."""
    peer = Scripted(lambda sock, message: None)
    with pytest.raises(InvalidArgument, match="at most 65536"):
        peer.client.request("create", plan={"argv": ["x" * 70000]})
    peer.close()


def test_a_monitor_that_ends_instead_of_passing_a_signal_on() -> None:
    """Its container has just ended by itself, which is what was wanted: `rm` right after an exit failed with that. Refusals are errors."""
    peer = Scripted(lambda sock, message: sock.shutdown(socket.SHUT_RDWR))
    Engine._signal(Live(client=peer.client), 9)
    peer.close()
    peer = Scripted(lambda sock, message: sync.send(sock, {"seq": message["seq"], "ok": False, "errno": errno.EPERM}))
    with pytest.raises(MonitorError):
        Engine._signal(Live(client=peer.client), 9)
    peer.close()


@pytest.fixture
def monitor(tmp_path: Path) -> Iterator[MonitorClient]:
    """A real monitor, idle."""
    (tmp_path / "run").mkdir()
    pool = Pool(tmp_path / "zygote.log", None, size=0)
    idle = pool.take()
    idle.inside.close()
    client = MonitorClient(idle.connection)
    client.request("become", runtime_dir=str(tmp_path / "run"))
    yield client
    if not client.closed:
        client.request("discard")
    client.close()
    assert idle.process.wait(10)
    pool.close()
    assert (tmp_path / "zygote.log").read_text() == ""
    assert sorted(entry.name for entry in (tmp_path / "run").iterdir()) == ["monitor.log"]


def test_idle_monitor_answers(monitor: MonitorClient, tmp_path: Path) -> None:
    """It says what it is, refuses what it does not know and what its state does not allow, and goes on."""
    assert monitor.request("status").fields["state"] == "idle"
    for cmd, number in (("nonsense", errno.EINVAL), ("kill", errno.ESRCH), ("stdin", errno.EBADF)):
        with pytest.raises(MonitorError) as caught:
            monitor.request(cmd, signal=9, data="")
        assert caught.value.errno == number
    with pytest.raises(ContainerStartError) as refused:
        monitor.request("start")
    assert refused.value.errno == errno.EBUSY
    pid = int((tmp_path / "run" / "monitor.pid").read_text())
    assert str(tmp_path / "run") in Path(f"/proc/{pid}/cmdline").read_text(), "ps shows whose it is"
    assert "Threads:\t1\n" in Path(f"/proc/{pid}/status").read_text()


def test_monitor_survives_its_clients(monitor: MonitorClient, tmp_path: Path) -> None:
    """A second client may come and go; signals that end a program do not end a monitor."""
    second = MonitorClient.connect(tmp_path / "run")
    assert second.request("status")["state"] == "idle"
    second.close()
    pid = int((tmp_path / "run" / "monitor.pid").read_text())
    for number in (1, 2, 15):
        os.kill(pid, number)
    assert monitor.request("status")["pid"] == 0


def test_connecting_to_nobody(tmp_path: Path) -> None:
    """Without a monitor there is an error with ENOENT, and no thread is left."""
    threads = threading.active_count()
    with pytest.raises(MonitorError) as caught:
        MonitorClient.connect(tmp_path)
    assert caught.value.errno == errno.ENOENT
    assert threading.active_count() == threads
