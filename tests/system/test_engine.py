"""Containers through the engine, end to end: monitor, init, cgroups, network, log. Root; nothing in the machine's own network."""

from __future__ import annotations

import errno
import os
import subprocess
import sys
import threading
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from agent.engine import init
from agent.engine.container import Engine
from agent.engine.launch import ContainerStartError, MonitorError
from agent.engine.network import NetworkError
from agent.engine.spec import ContainerSpec, Limits, Network
from agent.engine.state import ContainerStatus, State
from agent.errors import AlreadyExists, InvalidArgument, NotFound, StaleEpoch, WrongState
from tests.system.engine_host import EngineHost, until

pytestmark = pytest.mark.system

ROOT = Path(__file__).resolve().parents[2]
TICKER = "i=0; while :; do i=$((i+1)); echo tick $i; sleep 0.01; done"


def run(engine: Engine, spec: ContainerSpec, timeout_s: float = 20) -> ContainerStatus:
    """Create, start, wait for the end."""
    engine.create(spec, 1)
    engine.start(spec.id)
    status = engine.wait(spec.id, timeout_s)
    assert status.state == State.EXITED
    return status


def output(engine: Engine, container_id: str) -> str:
    return b"".join(entry.data for entry in engine.logs(container_id)).decode()


def test_output_and_exit_status(host: EngineHost, engine: Engine) -> None:
    """Both streams are in the log with the time they were written, and the exit status is kept."""
    before = time.time_ns()
    spec = host.spec("echo out; echo err >&2; exit 3")
    status = run(engine, spec)
    entries = list(engine.logs(spec.id))
    assert sorted((entry.stream, entry.data) for entry in entries) == [("stderr", b"err\n"), ("stdout", b"out\n")]
    assert all(before < entry.unix_ns < time.time_ns() for entry in entries)
    assert (status.exit_code, status.error, status.pid) == (3, "", 0)
    assert before < status.started_unix_ns < status.finished_unix_ns < time.time_ns()


@pytest.mark.parametrize(
    ("line", "code"), [("true", 0), ("false", 1), ("no-such-program", 127), ("kill -9 $$; sleep 5", 0)]
)
def test_exit_codes(host: EngineHost, engine: Engine, line: str, code: int) -> None:
    """0, 1, a shell's 127; and a container's init that signals itself with SIGKILL is not harmed, as pid 1 never is."""
    assert run(engine, host.spec(line)).exit_code == code


def test_a_creation_that_starts(host: EngineHost, engine: Engine) -> None:
    """It runs when the answer is there, what is on disk names its init, and nothing calls it unfinished."""
    spec = host.spec("read line; echo $line", stdin_open=True)
    status = engine.create(spec, 1, start=True)
    assert status.state == State.RUNNING
    assert engine.store.record(spec.id).pid == status.pid
    assert not engine.store.unfinished(spec.id)
    with pytest.raises(AlreadyExists):
        engine.create(spec, 1, start=True)
    engine.kill(spec.id, "KILL")
    assert engine.wait(spec.id, 10).exit_code == 137


@pytest.mark.parametrize("line", [("/bin/absent", "x"), ("/etc/passwd", "x")])
def test_a_creation_that_cannot_start_leaves_nothing(host: EngineHost, engine: Engine, line: tuple[str, ...]) -> None:
    """Not even a container: who asked for both has neither, and may ask again."""
    spec = host.spec(*line)
    for _ in range(2):
        with pytest.raises(ContainerStartError):
            engine.create(spec, 1, start=True)
        with pytest.raises(NotFound):
            engine.inspect(spec.id)
        assert host.cgroups() == []
        assert host.mounts() == []
        assert list(host.config.containers_dir.iterdir()) == []
        assert list(host.config.runtime_dir.iterdir()) == []


def test_killed_container_has_137(host: EngineHost, engine: Engine) -> None:
    """SIGKILL from outside is 128 + 9."""
    spec = host.spec("sleep", "1000")
    engine.create(spec, 1)
    assert engine.start(spec.id).state == State.RUNNING
    engine.kill(spec.id, "KILL")
    assert engine.wait(spec.id, 10).exit_code == 137


def test_program_that_is_not_there(host: EngineHost, engine: Engine) -> None:
    """The start fails at step exec with ENOENT; the container has exited with 127, says why, and leaves nothing on the host."""
    spec = host.spec("/bin/absent", "x")
    engine.create(spec, 1)
    with pytest.raises(ContainerStartError) as caught:
        engine.start(spec.id)
    assert (caught.value.step, caught.value.errno) == ("exec", errno.ENOENT)
    status = engine.inspect(spec.id)
    assert (status.state, status.exit_code) == (State.EXITED, 127)
    assert "/bin/absent" in status.error
    until(lambda: (host.cgroups(), host.mounts(), host.links() - {"lo", host.config.bridge}) == ([], [], set()))


def test_file_that_is_no_program(host: EngineHost, engine: Engine) -> None:
    """EACCES at exec is 126, as in a shell."""
    spec = host.spec("/etc/passwd", "x")
    engine.create(spec, 1)
    with pytest.raises(ContainerStartError):
        engine.start(spec.id)
    assert engine.inspect(spec.id).exit_code == 126


def test_start_that_fails_in_the_middle_can_be_repeated(host: EngineHost, engine: Engine) -> None:
    """A gateway that the kernel refuses: the error has its words, nothing stays, the container is still only created."""
    spec = host.spec("true", network=Network(address="10.77.9.9/16", mac="02:42:0a:4d:09:09", gateway="192.0.2.1"))
    engine.create(spec, 1)
    for _ in range(2):
        with pytest.raises(NetworkError, match=r"default route via 192.*invalid gateway"):
            engine.start(spec.id)
        assert engine.inspect(spec.id).state == State.CREATED
        until(lambda: (host.cgroups(), host.mounts(), host.links() - {"lo", host.config.bridge}) == ([], [], set()))


def test_identity_inside(host: EngineHost, engine: Engine) -> None:
    """Root inside is the host's first mapped id; hostname, hosts file, environment, directory and user are the spec's."""
    spec = host.spec(
        "cat /proc/self/uid_map; hostname; cat /etc/hosts /etc/hostname; echo $GREETING; pwd; id -un; id -u",
        user="worker",
        cwd="/tmp/made",
    )
    status = run(engine, spec)
    lines = output(engine, spec.id).splitlines()
    assert status.exit_code == 0
    assert lines[0].split() == ["0", str(spec.ids.base), str(spec.ids.count)]
    assert lines[1] == spec.hostname
    assert f"{spec.network.address.partition('/')[0]}\t{spec.hostname}" in lines
    assert lines[-5:] == [spec.hostname, "hello", "/tmp/made", "worker", "1000"]


def test_ids_on_disk_are_unshifted(host: EngineHost, engine: Engine) -> None:
    """What the container's root and user 1000 write lies in the writable layer as 0 and 1000."""
    spec = host.spec("echo a > /root/file; touch /tmp/his; chown 1000 /tmp/his")
    assert run(engine, spec).exit_code == 0
    upper = host.config.containers_dir / spec.id / "layer" / "upper"
    assert (upper / "root/file").stat().st_uid == 0
    assert (upper / "tmp/his").stat().st_uid == 1000


def test_network_reaches_the_bridge(host: EngineHost, engine: Engine) -> None:
    """eth0 has the spec's address and MAC, the gateway answers, and after the end the pair is gone."""
    spec = host.spec("cat /sys/class/net/eth0/address; ip -4 addr show eth0; ping -c 1 -W 5 10.77.0.1")
    status = run(engine, spec)
    text = output(engine, spec.id)
    assert status.exit_code == 0, text
    assert spec.network.mac in text
    assert spec.network.address in text
    until(lambda: host.links() == {"lo", host.config.bridge})


def test_second_start_keeps_files_and_log(host: EngineHost, engine: Engine) -> None:
    """An exited container starts again with its writable layer; the log goes on; the exit status is the new one."""
    spec = host.spec("[ -e /seen ] && exit 4; touch /seen; echo first")
    assert run(engine, spec).exit_code == 0
    engine.start(spec.id)
    assert engine.wait(spec.id, 10).exit_code == 4
    assert output(engine, spec.id) == "first\n"


def test_stop_waits_for_a_program_that_obeys(host: EngineHost, engine: Engine) -> None:
    """The stop signal is delivered and the program's own status is kept."""
    spec = host.spec("trap 'echo bye; exit 5' TERM; echo ready; while :; do sleep 0.05; done")
    engine.create(spec, 1)
    engine.start(spec.id)
    until(lambda: "ready" in output(engine, spec.id))
    status = engine.stop(spec.id, 10)
    assert (status.state, status.exit_code) == (State.EXITED, 5)
    assert output(engine, spec.id).endswith("bye\n")
    assert engine.stop(spec.id).exit_code == 5  # idempotent


def test_stop_kills_a_program_that_does_not(host: EngineHost, engine: Engine) -> None:
    """SIGTERM ignored: SIGKILL after the time given, not before."""
    spec = host.spec("trap '' TERM; echo ready; while :; do sleep 0.05; done")
    engine.create(spec, 1)
    engine.start(spec.id)
    until(lambda: "ready" in output(engine, spec.id))
    began = time.monotonic()
    assert engine.stop(spec.id, 0.5).exit_code == 137
    assert 0.5 <= time.monotonic() - began < 8


def test_everything_dies_with_init(host: EngineHost, engine: Engine) -> None:
    """A background process does not outlive the first one, and its last output is kept."""
    spec = host.spec("(trap '' TERM; echo child; sleep 1000) & sleep 0.3; echo end")
    assert run(engine, spec).exit_code == 0
    assert sorted(output(engine, spec.id).split()) == ["child", "end"]
    assert host.cgroups() == []


def test_large_output_is_complete(host: EngineHost, engine: Engine) -> None:
    """200,000 lines written as fast as possible, right before the exit, are all there, in order."""
    spec = host.spec("seq 1 200000")
    run(engine, spec, 60)
    numbers = [int(entry.data) for entry in engine.logs(spec.id)]
    assert numbers == list(range(1, 200001))


def test_follow_ends_with_the_container(host: EngineHost, engine: Engine) -> None:
    """A follower sees lines while they come and stops at the end."""
    spec = host.spec("for i in 1 2 3 4 5; do echo $i; sleep 0.1; done")
    engine.create(spec, 1)
    engine.start(spec.id)
    arrived = []
    for entry in engine.logs(spec.id, follow=True):
        arrived.append((entry.data, engine.inspect(spec.id).state))
    assert [data for data, _ in arrived] == [b"1\n", b"2\n", b"3\n", b"4\n", b"5\n"]
    assert arrived[0][1] == State.RUNNING


def test_memory_limit_kills(host: EngineHost, engine: Engine) -> None:
    """A program over memory_bytes is killed by the kernel; one below lives; the limit is the cgroup's."""
    hungry = "x=$(head -c 50000000 /dev/zero | tr '\\0' x); echo ${#x}"
    spec = host.spec(hungry, limits=Limits(memory_bytes=16 << 20))
    status = run(engine, spec, 60)
    assert "50000000" not in output(engine, spec.id)
    assert status.exit_code != 0
    spec = host.spec(hungry, limits=Limits(memory_bytes=512 << 20))
    assert run(engine, spec, 60).exit_code == 0
    assert output(engine, spec.id) == "50000000\n"


def test_pids_limit_refuses_forks(host: EngineHost, engine: Engine) -> None:
    """The eleventh process does not come into being."""
    spec = host.spec("for i in $(seq 1 30); do sleep 30 & done; echo made", limits=Limits(pids=10))
    engine.create(spec, 1)
    engine.start(spec.id)
    until(lambda: "can't fork" in output(engine, spec.id))
    assert len(engine.cgroup(spec.id).procs()) <= 10


def test_cpu_limit_slows(host: EngineHost, engine: Engine) -> None:
    """With 0.2 cpus a busy loop gets about a fifth of the time."""
    spec = host.spec("while :; do :; done", limits=Limits(cpus=0.2))
    engine.create(spec, 1)
    pid = engine.start(spec.id).pid

    def cpu_s() -> float:
        fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
        return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")

    began, used = time.monotonic(), cpu_s()
    time.sleep(2)
    share = (cpu_s() - used) / (time.monotonic() - began)
    assert share < 0.3


def test_limits_that_the_kernel_refuses(host: EngineHost, engine: Engine) -> None:
    """A nonsensical limit is the caller's error, at create, and nothing stays."""
    spec = host.spec("true", limits=Limits(pids=-5))
    with pytest.raises(InvalidArgument, match="-5"):
        engine.create(spec, 1)
    with pytest.raises(NotFound):
        engine.inspect(spec.id)
    assert host.cgroups() == []


def test_attach_before_start_misses_nothing(host: EngineHost, engine: Engine) -> None:
    """Attached while created: the first byte arrives, input goes in, and the end brings the exit code."""
    spec = host.spec("echo hello; while read line; do echo got $line; done; exit 6", stdin_open=True)
    engine.create(spec, 1)
    attachment = engine.attach(spec.id)
    engine.start(spec.id)
    attachment.write(b"one\ntwo\n")
    attachment.close_stdin()
    text = b"".join(piece.data for piece in attachment)
    assert text == b"hello\ngot one\ngot two\n"
    assert attachment.exit_code == 6
    attachment.close()


def test_input_larger_than_any_buffer(host: EngineHost, engine: Engine) -> None:
    """Megabytes go through stdin in order: what comes out has their checksum."""
    spec = host.spec("md5sum", "-", stdin_open=True)
    engine.create(spec, 1)
    attachment = engine.attach(spec.id)
    engine.start(spec.id)
    data = os.urandom(3_000_000)
    attachment.write(data)
    attachment.close_stdin()
    summed = b"".join(piece.data for piece in attachment).split()[0].decode()
    assert summed == subprocess.run(["md5sum"], input=data, capture_output=True).stdout.split()[0].decode()
    attachment.close()


def test_detaching_leaves_the_container_alone(host: EngineHost, engine: Engine) -> None:
    """Somebody who looks on and leaves changes nothing; input is refused where stdin is not open."""
    spec = host.spec(TICKER)
    engine.create(spec, 1)
    engine.start(spec.id)
    attachment = engine.attach(spec.id)
    assert b"tick" in next(iter(attachment)).data
    with pytest.raises(MonitorError) as caught:
        attachment.write(b"x")
    assert caught.value.errno == errno.EBADF
    attachment.close()
    lines = output(engine, spec.id).count("\n")
    until(lambda: output(engine, spec.id).count("\n") > lines)
    assert engine.inspect(spec.id).state == State.RUNNING


def test_terminal(host: EngineHost, engine: Engine) -> None:
    """A tty container's shell is interactive: it has a controlling terminal, a window size, job control's ^C."""
    spec = host.spec("/bin/sh", "-i", tty=True, stdin_open=True)
    engine.create(spec, 1)
    attachment = engine.attach(spec.id)
    seen = bytearray()
    reader = threading.Thread(target=lambda: [seen.extend(piece.data) for piece in attachment])
    engine.start(spec.id)
    reader.start()
    attachment.resize(33, 111)
    attachment.write(b"stty size; echo $((6*7))\n")
    until(lambda: b"33 111" in seen and b"42" in seen)
    attachment.write(b"sleep 1000\n")
    until(lambda: seen.endswith(b"sleep 1000\r\n"))
    time.sleep(0.3)
    attachment.write(b"\x03")
    attachment.write(b"exit 7\n")
    reader.join(10)
    assert attachment.exit_code == 7
    attachment.close()


def test_removal(host: EngineHost, engine: Engine) -> None:
    """A running container is removed only by force; then nothing of it is left anywhere, and it is not found."""
    spec = host.spec("sleep", "1000")
    engine.create(spec, 1)
    engine.start(spec.id)
    with pytest.raises(WrongState) as caught:
        engine.remove(spec.id)
    assert "migrate stop" in caught.value.hint
    engine.remove(spec.id, force=True)
    with pytest.raises(NotFound):
        engine.inspect(spec.id)
    assert not (host.config.runtime_dir / spec.id).exists()
    assert not (host.config.containers_dir / spec.id).exists()
    until(lambda: (host.cgroups(), host.mounts(), host.links()) == ([], [], {"lo", host.config.bridge}))


def test_a_move_under_way_protects_the_container(host: EngineHost, engine: Engine) -> None:
    """With a role set stop, remove and exec are refused and name the move; frozen, kill is too; so are an older epoch and
    another move.
    """
    spec = host.spec(TICKER)
    engine.create(spec, 4)
    engine.start(spec.id)
    engine.roles.begin(spec.id, "m1", "source", 4)
    for verb in (engine.stop, engine.running_pid, engine.start, lambda c: engine.remove(c, force=True)):
        with pytest.raises(WrongState, match="move m1"):
            verb(spec.id)
    engine.cgroup(spec.id).freeze(True)
    assert engine.inspect(spec.id).state == State.FROZEN
    with pytest.raises(WrongState, match="move m1"):
        engine.kill(spec.id)
    engine.cgroup(spec.id).freeze(False)
    with pytest.raises(StaleEpoch):
        engine.roles.begin(spec.id, "m0", "source", 3)
    with pytest.raises(WrongState, match="move m1"):
        engine.roles.begin(spec.id, "m2", "source", 4)
    engine.roles.end(spec.id, "m2", 5)
    assert engine.inspect(spec.id).migration_id == "m1"
    engine.roles.end(spec.id, "m1", 5)
    assert (engine.inspect(spec.id).epoch, engine.inspect(spec.id).migration_id) == (5, "")
    assert engine.stop(spec.id, 0).state == State.EXITED


def test_place_for_an_arriving_container(host: EngineHost, engine: Engine) -> None:
    """A target's container is arriving, needs no layers yet, cannot be started, and forget() leaves nothing."""
    spec = host.spec("true", layers=("sha256:" + "f" * 64,))
    status = engine.create(spec, 2, migration_id="m1", role="target")
    assert status.state == State.ARRIVING
    with pytest.raises(WrongState):
        engine.start(spec.id)
    client = engine.roles.spawn_monitor(spec.id)
    assert client.request("status")["state"] == "idle"
    engine.roles.forget(spec.id, discard=True)
    engine.roles.forget(spec.id, discard=True)
    with pytest.raises(NotFound):
        engine.inspect(spec.id)
    assert host.cgroups() == []


def test_source_that_released_its_tasks_forgets_them(host: EngineHost, engine: Engine) -> None:
    """forget(discard) of a running source: tasks die, no exit status is written, nothing stays."""
    spec = host.spec(TICKER)
    engine.create(spec, 1)
    pid = engine.start(spec.id).pid
    engine.roles.begin(spec.id, "m1", "source", 1)
    engine.roles.forget(spec.id, discard=True)
    assert not Path(f"/proc/{pid}").exists()
    until(lambda: (host.cgroups(), host.mounts(), host.links()) == ([], [], {"lo", host.config.bridge}))


def test_cycles_leak_nothing(host: EngineHost, engine: Engine) -> None:
    """After 20 containers the process has the same descriptors and threads, the host the same mounts, cgroups and links."""

    def cycle() -> None:
        spec = host.spec("echo x")
        assert run(engine, spec).exit_code == 0
        engine.remove(spec.id)

    cycle()
    time.sleep(1)  # until the pool of monitors is full

    def traces() -> tuple[int, int, list[str], list[str], set[str]]:
        fds = len(list(Path("/proc/self/fd").iterdir()))
        threads = [
            one for one in threading.enumerate() if not one.name.startswith(("sync", "cgroups"))
        ]  # some of them, when needed
        return fds, len(threads), host.mounts(), host.cgroups(), host.links()

    before = traces()
    began = time.monotonic()
    for _ in range(20):
        cycle()
    print(f"{(time.monotonic() - began) / 20 * 1000:.0f} ms a cycle")
    until(lambda: traces() == before)  # the pool of monitors is filled again


def test_many_at_once(host: EngineHost, engine: Engine) -> None:
    """Ten threads start, stop and remove containers side by side."""
    failures: list[BaseException] = []

    def one(number: int) -> None:
        try:
            spec = host.spec(f"exit {number}")
            assert run(engine, spec, 60).exit_code == number
            engine.remove(spec.id)
        except BaseException as exc:  # noqa: BLE001  # shown by the main thread
            failures.append(exc)

    threads = [threading.Thread(target=one, args=(number,)) for number in range(10)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert failures == []
    assert host.cgroups() == []


def test_restarted_agent_takes_up_its_containers(host: EngineHost, engine: Engine) -> None:
    """A new engine finds the running container by its monitor; no line is lost or doubled; the exit status arrives."""
    spec = host.spec("trap 'exit 9' USR1; i=0; while :; do i=$((i+1)); echo tick $i; done")
    engine.create(spec, 1)
    pid = engine.start(spec.id).pid
    for _ in range(3):
        engine.close()
        engine = host.engine()
        assert (engine.inspect(spec.id).state, engine.inspect(spec.id).pid) == (State.RUNNING, pid)
        time.sleep(0.1)
    engine.kill(spec.id, "USR1")
    assert engine.wait(spec.id, 30).exit_code == 9
    numbers = [int(entry.data.split()[1]) for entry in engine.logs(spec.id)]
    assert numbers == list(range(numbers[0], numbers[-1] + 1))  # the first ones may have been rotated away
    assert len(numbers) > 1000
    engine.remove(spec.id)
    engine.close()


AGENT = """
import sys
sys.path.insert(0, sys.argv[1])
from pathlib import Path
from agent.engine.spec import ContainerSpec
from tests.system.engine_host import EngineHost
engine = EngineHost(Path(sys.argv[2])).engine()
spec = ContainerSpec.from_json(sys.argv[3])
engine.create(spec, 1)
print(engine.start(spec.id).pid, flush=True)
sys.stdin.read()
"""


@pytest.fixture
def killed_agent(host: EngineHost) -> Callable[[ContainerSpec], int]:
    """Runs the container under an agent process of its own, kills that process with SIGKILL, returns init's pid."""

    def start(spec: ContainerSpec) -> int:
        argv = [sys.executable, "-c", AGENT, str(ROOT), str(host.directory), spec.to_json()]
        agent = subprocess.Popen(argv, stdin=subprocess.PIPE, stdout=subprocess.PIPE)
        assert agent.stdin is not None
        assert agent.stdout is not None
        pid = int(agent.stdout.readline())
        agent.kill()
        agent.wait()
        agent.stdin.close()
        agent.stdout.close()
        return pid

    return start


def test_container_outlives_a_killed_agent(host: EngineHost, killed_agent: Callable[[ContainerSpec], int]) -> None:
    """SIGKILL to the agent touches neither the container nor its log; what happened meanwhile is known afterwards."""
    running, ended = host.spec(TICKER), host.spec("sleep 1; echo done; exit 3")
    pid = killed_agent(running)
    killed_agent(ended)
    time.sleep(1.5)  # one of them ends while no agent lives
    engine = host.engine()
    assert (engine.inspect(running.id).state, engine.inspect(running.id).pid) == (State.RUNNING, pid)
    status = engine.inspect(ended.id)
    assert (status.state, status.exit_code) == (State.EXITED, 3)
    assert output(engine, ended.id) == "done\n"
    assert engine.stop(running.id, 0.1).exit_code == 137
    for spec in (running, ended):
        engine.remove(spec.id)
    until(lambda: (host.cgroups(), host.mounts(), host.links()) == ([], [], {"lo", host.config.bridge}))
    engine.close()


def test_agent_killed_between_create_and_start(host: EngineHost) -> None:
    """A container whose init still waits for the word is not running: recovery undoes it and it can be started."""
    spec = host.spec("echo ran")
    engine = host.engine()
    engine.create(spec, 1)
    with engine.store.lock(spec.id):
        client = engine.roles.spawn_monitor(spec.id)
        engine.make_cgroup(spec)
        ids = {"ids_base": spec.ids.base, "ids_count": spec.ids.count}
        client.request("fork", flags=init.AHEAD, cgroup=str(engine.cgroup(spec.id).freezer), **ids)
        client.request("create", plan=engine.plan(spec))
    engine.close()
    engine = host.engine()
    assert engine.inspect(spec.id).state == State.CREATED
    assert (host.cgroups(), host.mounts()) == ([], [])
    engine.start(spec.id)
    assert engine.wait(spec.id, 10).exit_code == 0
    assert output(engine, spec.id) == "ran\n"
    engine.remove(spec.id)
    engine.close()


def test_monitor_stands_outside_the_containers_cgroup(host: EngineHost, engine: Engine) -> None:
    """It is in the cgroup of monitors, so that neither the container's limits nor its freezing touch it."""
    spec = host.spec(TICKER)
    engine.create(spec, 1)
    pid = engine.start(spec.id).pid
    monitor = int((host.config.runtime_dir / spec.id / "monitor.pid").read_text())
    for process, name in ((monitor, "monitors"), (pid, spec.id)):
        paths = Path(f"/proc/{process}/cgroup").read_text()
        assert f"0::/{host.cgroup_parent}/{name}\n" in paths
    engine.cgroup(spec.id).freeze(True)
    assert engine.roles.monitor(spec.id).request("status", timeout_s=5)["state"] == "running"
    engine.cgroup(spec.id).freeze(False)
