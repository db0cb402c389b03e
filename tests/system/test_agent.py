"""The agent as a process, asked over gRPC as the coordinator asks it: containers, streams, images, restart."""

from __future__ import annotations

import queue
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import grpc
import pytest

from agent.engine.spec import ContainerSpec
from agent.services import convert
from migrate import errors
from migrate.rpc import channels, version
from migrate.rpc.errors import native
from protos import agent_pb2 as pb
from protos import agent_pb2_grpc, types_pb2
from tests.system import registry_host
from tests.system.engine_host import IMAGE, EngineHost, engine_host
from tests.unit.agent.storage import tars

pytestmark = pytest.mark.system

ROOT = Path(__file__).resolve().parents[2]
FOREVER = "while :; do sleep 0.1; done"


class Running:
    """One agent process and a channel to it."""

    def __init__(self, host: EngineHost) -> None:
        self.config = host.config
        file = host.directory / "agent.toml"
        fields = ("host", "state_dir", "run_dir", "bridge", "cgroup_parent")
        file.write_text("".join(f'{name} = "{getattr(host.config, name)}"\n' for name in fields))
        self.argv = [sys.executable, "-m", "agent", "--config", str(file)]
        self.log = (host.directory / "agent.log").open("ab")
        self.process = subprocess.Popen(self.argv, cwd=ROOT, stdin=subprocess.DEVNULL, stderr=self.log)
        self.channel = channels.unix_channel(host.config.socket)
        try:
            grpc.channel_ready_future(self.channel).result(60)
        except grpc.FutureTimeoutError:
            self.stop(signal.SIGKILL)
            raise
        self.containers = agent_pb2_grpc.ContainersStub(self.channel)
        self.images = agent_pb2_grpc.ImagesStub(self.channel)
        self.host = agent_pb2_grpc.HostStub(self.channel)

    def run(self, spec: ContainerSpec) -> str:
        self.containers.Create(pb.CreateRequest(spec=convert.spec_to_proto(spec), epoch=1))
        self.containers.Start(pb.StartRequest(id=spec.id))
        return spec.id

    def logs(self, container_id: str, **request: object) -> bytes:
        asked = pb.LogsRequest(id=container_id, all=True, **request)  # type: ignore[arg-type]
        return b"".join(chunk.data for chunk in self.containers.Logs(asked))

    def stop(self, number: int = signal.SIGTERM) -> int:
        """Its exit status. It has ended then, whatever happens: one that lived on would be said to be the fault of a later test."""
        self.channel.close()
        self.process.send_signal(number)
        try:
            return self.process.wait(20)
        finally:
            self.process.kill()
            self.process.wait()
            self.log.close()


class Stream:
    """A conversation over Exec or Attach: what the client says and what it has heard."""

    def __init__(self, call: Callable[..., grpc.Call], container_id: str, *argv: str, **start: object) -> None:
        self._inputs: queue.SimpleQueue[pb.ExecInput | None] = queue.SimpleQueue()
        self.say(start=pb.ExecStart(id=container_id, argv=argv, **start))  # type: ignore[arg-type]
        self.outputs = call(iter(self._inputs.get, None))
        self.stdout = self.stderr = b""
        self.exit_code: int | None = None
        assert next(self.outputs).started

    def say(self, **what: object) -> None:
        self._inputs.put(pb.ExecInput(**what))  # type: ignore[arg-type]

    def until(self, text: bytes) -> None:
        while text not in self.stdout:
            self._hear(next(self.outputs))

    def rest(self) -> None:
        for output in self.outputs:
            self._hear(output)
        self._inputs.put(None)

    def _hear(self, output: pb.ExecOutput) -> None:
        self.stdout += output.stdout
        self.stderr += output.stderr
        if output.WhichOneof("kind") == "exit_code":
            self.exit_code = output.exit_code


@pytest.fixture(scope="module")
def host() -> Iterator[EngineHost]:
    with engine_host() as made:
        yield made


@contextmanager
def agent_on(host: EngineHost) -> Iterator[Running]:
    running = Running(host)
    try:
        yield running
    finally:
        if running.process.poll() is None:
            for one in running.containers.List(pb.ListRequest()).containers:
                running.containers.Remove(pb.RemoveRequest(id=one.spec.id, force=True))
            assert running.stop() == 0


@pytest.fixture(scope="module")
def agent(host: EngineHost) -> Iterator[Running]:
    with agent_on(host) as running:
        yield running


def test_the_socket_is_roots_alone(agent: Running) -> None:
    """Nobody but root can connect to gRPC, and nobody but root can walk to the layers."""
    assert agent.config.socket.stat().st_mode & 0o777 == 0o600
    assert agent.config.socket.stat().st_uid == 0
    assert agent.config.state_dir.stat().st_mode & 0o777 == 0o700
    code = (
        f"import os, socket; os.setresuid(1, 1, 1); socket.socket(socket.AF_UNIX).connect({str(agent.config.socket)!r})"
    )
    refused = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert "PermissionError" in refused.stderr


def test_a_second_agent_does_not_take_over(agent: Running) -> None:
    """One agent a host: the second one says so and leaves the first one's socket alone."""
    second = subprocess.run(agent.argv, cwd=ROOT, capture_output=True, text=True, timeout=30)
    assert second.returncode == 1
    assert "another agent" in second.stderr
    assert agent.containers.List(pb.ListRequest(), timeout=5) is not None


def test_facts_are_this_hosts(agent: Running) -> None:
    """Memory, disk, capabilities and versions arrive, for the coordinator's checks."""
    facts = agent.host.Facts(pb.FactsRequest())
    assert facts.host == "host1"
    assert facts.protocol == version.MAJOR
    assert facts.memory_total_bytes > facts.memory_available_bytes > 0
    assert facts.disk_available_bytes > 0
    assert "idmapped-mounts" in {capability.name for capability in facts.capabilities}


def test_a_container_lives_and_ends(agent: Running, host: EngineHost) -> None:
    """Create, start, logs, wait, inspect: with the program's own exit code."""
    container_id = agent.run(host.spec("echo out; echo err >&2; exit 4"))
    status = agent.containers.Wait(pb.WaitRequest(id=container_id), timeout=20)
    assert (status.state, status.exit_code) == (types_pb2.CONTAINER_STATE_EXITED, 4)
    assert sorted(agent.logs(container_id).splitlines()) == [b"err", b"out"]


def test_an_error_arrives_with_code_and_hint(agent: Running) -> None:
    """What the engine refuses is told in its own words."""
    with pytest.raises(errors.NotFound, match="no container"), native():
        agent.containers.Inspect(pb.InspectRequest(id="0" * 32))
    with pytest.raises(errors.NotFound), native():
        agent.containers.Remove(pb.RemoveRequest(id="../../etc"))


def test_logs_are_followed_to_the_end(agent: Running, host: EngineHost) -> None:
    """A follower gets what is written later, and its stream ends with the container."""
    container_id = agent.run(host.spec("for i in 1 2 3; do echo line $i; sleep 0.2; done"))
    assert agent.logs(container_id, follow=True) == b"line 1\nline 2\nline 3\n"


def test_a_follower_that_goes_away_holds_no_thread(agent: Running, host: EngineHost) -> None:
    """Cancelled followers of a silent container give their threads back."""
    container_id = agent.run(host.spec(FOREVER))
    threads = Path(f"/proc/{agent.process.pid}/task")
    before = len(list(threads.iterdir()))
    calls = [agent.containers.Logs(pb.LogsRequest(id=container_id, follow=True, all=True)) for _ in range(40)]
    time.sleep(0.5)
    for call in calls:
        call.cancel()
    time.sleep(1)
    # The pool keeps its threads; if they were stuck, forty more calls would need forty more.
    many = len(list(threads.iterdir()))
    for _ in range(40):
        agent.containers.Logs(pb.LogsRequest(id=container_id, follow=True, all=True)).cancel()
    time.sleep(0.5)
    assert len(list(threads.iterdir())) <= many + 2
    assert many - before <= 45


def test_exec_talks_both_ways(agent: Running, host: EngineHost) -> None:
    """Input, both outputs and the exit code of a command in a running container."""
    container_id = agent.run(host.spec(FOREVER))
    stream = Stream(agent.containers.Exec, container_id, "sh", "-c", "cat; echo err >&2; exit 3", stdin=True)
    stream.say(stdin=b"hello\n")
    stream.until(b"hello\n")
    stream.say(close_stdin=True)
    stream.rest()
    assert (stream.stdout, stream.stderr, stream.exit_code) == (b"hello\n", b"err\n", 3)


def test_exec_with_a_terminal(agent: Running, host: EngineHost) -> None:
    """Window size at the start and later, and keys that are signals."""
    container_id = agent.run(host.spec(FOREVER))
    script = "trap 'stty size' WINCH; stty size; while :; do sleep 0.1; done"
    stream = Stream(agent.containers.Exec, container_id, "sh", "-c", script, tty=True, stdin=True, rows=30, columns=90)
    stream.until(b"30 90")
    stream.say(resize=pb.WindowSize(rows=40, columns=100))
    stream.until(b"40 100")
    stream.say(stdin=b"\x03")
    stream.rest()
    assert stream.exit_code == 128 + signal.SIGINT


def test_exec_forwards_signals(agent: Running, host: EngineHost) -> None:
    """A signal named by the client reaches the command."""
    container_id = agent.run(host.spec(FOREVER))
    stream = Stream(agent.containers.Exec, container_id, "sh", "-c", f"trap 'exit 9' USR1; echo up; {FOREVER}")
    stream.until(b"up")
    stream.say(signal="USR1")
    stream.rest()
    assert stream.exit_code == 9


def test_exec_of_nothing_and_in_nothing(agent: Running, host: EngineHost) -> None:
    """A program that is not there, and a container that does not run, are errors with their own codes."""
    container_id = agent.run(host.spec(FOREVER))
    with pytest.raises(errors.MigrateError, match="no such file") as caught, native():
        Stream(agent.containers.Exec, container_id, "no-such-program")
    assert caught.value.code == "container.exec_failed"
    agent.containers.Kill(pb.KillRequest(id=container_id, signal="SIGKILL"))
    agent.containers.Wait(pb.WaitRequest(id=container_id))
    with pytest.raises(errors.WrongState, match="exited"), native():
        Stream(agent.containers.Exec, container_id, "true")


def test_a_client_that_vanishes_takes_its_command_with_it(agent: Running, host: EngineHost) -> None:
    """Cancelling an exec leaves no process in the container: it could not be moved with one."""
    spec = host.spec(FOREVER)
    container_id = agent.run(spec)
    stream = Stream(agent.containers.Exec, container_id, "sh", "-c", "echo up; exec sleep 1000", stdin=True)
    stream.until(b"up")
    stream.outputs.cancel()
    deadline = time.monotonic() + 10
    ps = ""
    while time.monotonic() < deadline:
        look = Stream(agent.containers.Exec, container_id, "ps")
        look.rest()
        ps = look.stdout.decode()
        if "sleep 1000" not in ps:
            break
        time.sleep(0.2)
    assert "sleep 1000" not in ps


def test_attach_before_the_start_misses_nothing(agent: Running, host: EngineHost) -> None:
    """Output from the first byte, and input that was given before the program ran."""
    spec = host.spec("echo first; read line; echo got $line; exit 6", stdin_open=True)
    agent.containers.Create(pb.CreateRequest(spec=convert.spec_to_proto(spec), epoch=1))
    stream = Stream(agent.containers.Attach, spec.id)
    stream.say(stdin=b"word\n")
    time.sleep(0.2)
    agent.containers.Start(pb.StartRequest(id=spec.id))
    stream.rest()
    assert (stream.stdout, stream.exit_code) == (b"first\ngot word\n", 6)


def test_attach_with_a_terminal_has_the_clients_size_from_the_start(agent: Running, host: EngineHost) -> None:
    """The first thing a program sees of its terminal is the client's window."""
    spec = host.spec("stty size", tty=True)
    agent.containers.Create(pb.CreateRequest(spec=convert.spec_to_proto(spec), epoch=1))
    stream = Stream(agent.containers.Attach, spec.id, tty=True, rows=31, columns=91)
    agent.containers.Start(pb.StartRequest(id=spec.id))
    stream.rest()
    assert stream.stdout == b"31 91\r\n"


def test_detaching_leaves_the_container_alone(agent: Running, host: EngineHost) -> None:
    """A client that goes away from attach changes nothing for the program."""
    container_id = agent.run(host.spec(f"echo up; {FOREVER}"))
    stream = Stream(agent.containers.Attach, container_id)
    stream.outputs.cancel()
    time.sleep(0.3)
    assert agent.containers.Inspect(pb.InspectRequest(id=container_id)).state == types_pb2.CONTAINER_STATE_RUNNING


def test_an_image_in_use_stays(agent: Running, host: EngineHost) -> None:
    """Removing the image of a container is refused; with force its name goes, and the image stays for the container."""
    tar = (host.directory / "state/images/blobs/sha256").iterdir()
    data = max(tar, key=lambda path: path.stat().st_size).read_bytes()
    config = types_pb2.ImageConfig(env=["OTHER=1"])  # the same layer, another image
    chunks = [
        pb.ImportChunk(start=pb.ImportStart(name="other:1", config=config)),
        *(pb.ImportChunk(data=data[i : i + 500_000]) for i in range(0, len(data), 500_000)),
        pb.ImportChunk(end=len(data)),
    ]
    image = agent.images.Import(iter(chunks))
    assert image.host == "host1"
    spec = host.spec(FOREVER, image="other:1", image_digest=image.digest, layers=tuple(image.layers))
    container_id = agent.run(spec)
    with pytest.raises(errors.WrongState, match=spec.name), native():
        agent.images.Remove(pb.RemoveImageRequest(name="other:1"))
    assert list(agent.images.Remove(pb.RemoveImageRequest(name="other:1", force=True)).removed) == []
    untagged = f"other:1@{image.digest}"
    listed = agent.images.List(pb.ListImagesRequest()).images
    assert {one.name: list(one.used_by) for one in listed}[untagged] == [spec.name]
    assert agent.images.Prune(pb.PruneImagesRequest(all=False)).deleted == []
    stream = Stream(agent.containers.Exec, container_id, "echo", "works")
    stream.rest()
    assert stream.stdout == b"works\n"
    agent.containers.Remove(pb.RemoveRequest(id=container_id, force=True))
    assert agent.images.Prune(pb.PruneImagesRequest()).deleted == [image.digest]
    assert [one.name for one in agent.images.List(pb.ListImagesRequest()).images] == [IMAGE]


def test_saved_by_one_call_and_loaded_by_the_next(agent: Running, host: EngineHost) -> None:
    """Save streams an archive, Load makes the image again; a cut archive and a damaged layer leave nothing."""
    config = types_pb2.ImageConfig(env=["SAVED=1"])
    tar = tars.make((tars.member("only-here"), b"x" * 100_000))
    chunks = [pb.ImportChunk(start=pb.ImportStart(name="saved:1", config=config)), pb.ImportChunk(data=tar)]
    image = agent.images.Import(iter([*chunks, pb.ImportChunk(end=len(tar))]))
    data = b"".join(chunk.data for chunk in agent.images.Save(pb.SaveImagesRequest(names=["saved:1"])))
    agent.images.Remove(pb.RemoveImageRequest(name="saved:1"))

    def load(sent: bytes) -> list[pb.ImageEvent]:
        requests = [pb.ImportChunk(start=pb.ImportStart()), pb.ImportChunk(data=sent), pb.ImportChunk(end=len(sent))]
        with native():
            return list(agent.images.Load(iter(requests)))

    position = data.index(b"x" * 1000)
    for broken in (data[:position], data[:position] + b"y" + data[position + 1 :]):
        with pytest.raises(errors.MigrateError):
            load(broken)
        assert not list((host.directory / "state/images/tmp").iterdir())
        assert not (host.directory / "state/images/layers" / image.layers[0][7:]).exists()
    events = load(data)
    assert events[-1].image.digest == image.digest
    assert {event.progress.text for event in events[:-1]} == {"reading", "waiting", "fetching", "done"}
    agent.images.Remove(pb.RemoveImageRequest(name="saved:1"))


def test_pushed_to_a_registry_and_pulled_from_it(agent: Running, host: EngineHost, tmp_path: Path) -> None:
    """Over gRPC: progress by layer, the digest of a push, the image of a pull; refusals carry their code; nothing is logged."""
    subprocess.run(["ip", "link", "set", "lo", "up"], check=True)  # of the host's own network
    with registry_host.registry(tmp_path / "registry", password=True) as registry:
        access = pb.RegistryAccess(unverified=True, credentials=registry.credentials())
        name = f"{registry.name}/busybox:1"
        pushed = list(agent.images.Push(pb.PushImageRequest(name=IMAGE, destination=name, access=access)))
        assert pushed[-1].digest.startswith("sha256:")
        with pytest.raises(errors.MigrateError) as caught, native():
            list(agent.images.Pull(pb.PullImageRequest(name=name, access=pb.RegistryAccess(unverified=True))))
        assert (caught.value.code, caught.value.hint) == ("registry.denied", f"migrate login {registry.name}")
        events = list(agent.images.Pull(pb.PullImageRequest(name=name, access=access)))
        assert events[-1].image.name == name
        assert list(events[-1].image.repo_digests) == [f"{registry.name}/busybox@{pushed[-1].digest}"]
        assert [event.progress.text for event in events[:-1]] == ["here"]
        login = pb.LoginRequest(registry=registry.name, username=registry_host.USER, access=access)
        with pytest.raises(errors.MigrateError) as caught, native():
            agent.images.Login(login)
        login.password = registry_host.PASSWORD.encode()
        agent.images.Login(login)
    log = (host.directory / "agent.log").read_bytes()
    assert registry_host.PASSWORD.encode() not in log and registry.credentials()[-40:-4] not in log
    agent.images.Remove(pb.RemoveImageRequest(name=name))


def test_an_import_that_is_cut_off_leaves_nothing(agent: Running) -> None:
    """A client that goes away in the middle of an archive leaves no image."""
    chunks = [pb.ImportChunk(start=pb.ImportStart(name="half:1")), pb.ImportChunk(data=b"x" * 1000)]
    with pytest.raises(errors.MigrateError), native():
        agent.images.Import(iter(chunks))
    assert "half:1" not in {one.name for one in agent.images.List(pb.ListImagesRequest()).images}


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGKILL])
def test_containers_outlive_their_agent(number: int) -> None:
    """However the agent ends, its containers run on, and the next agent has them, their output and their exit code."""
    with engine_host() as host:
        first = Running(host)
        spec = host.spec("n=0; while [ ! -e /stop ]; do n=$((n+1)); echo $n; sleep 0.05; done; exit 5")
        container_id = first.run(spec)
        pid = first.containers.Inspect(pb.InspectRequest(id=container_id)).pid
        status = first.stop(number)
        assert status == (0 if number == signal.SIGTERM else -number)
        time.sleep(0.5)
        with agent_on(host) as second:
            now = second.containers.Inspect(pb.InspectRequest(id=container_id))
            assert (now.state, now.pid) == (types_pb2.CONTAINER_STATE_RUNNING, pid)
            Stream(second.containers.Exec, container_id, "touch", "/stop").rest()
            ended = second.containers.Wait(pb.WaitRequest(id=container_id), timeout=20)
            assert ended.exit_code == 5
            lines = [int(line) for line in second.logs(container_id).split()]
            assert lines == list(range(1, len(lines) + 1))


def test_sigterm_does_not_wait_for_streams(host: EngineHost) -> None:
    """An agent with followers and sessions under way stops within seconds."""
    with engine_host() as own:
        running = Running(own)
        container_id = running.run(own.spec(FOREVER))
        stream = Stream(running.containers.Exec, container_id, "sleep", "1000")
        follower = running.containers.Logs(pb.LogsRequest(id=container_id, follow=True, all=True))
        waiter = running.containers.Wait.future(pb.WaitRequest(id=container_id))
        time.sleep(0.5)
        started = time.monotonic()
        running.process.send_signal(signal.SIGTERM)
        assert running.process.wait(20) == 0
        assert time.monotonic() - started < 10
        for call in (stream.outputs, follower, waiter):
            call.cancel()
        running.channel.close()
        running.log.close()


def test_a_bad_configuration_is_told(tmp_path: Path) -> None:
    """A configuration that is none ends in a message with a hint, not in a traceback."""
    (tmp_path / "agent.toml").write_text('hots = "x"\n')
    argv = [sys.executable, "-m", "agent", "--config", str(tmp_path / "agent.toml")]
    result = subprocess.run(argv, cwd=ROOT, capture_output=True, text=True, timeout=30)
    assert result.returncode == 1
    assert "unknown field 'hots'" in result.stderr
    assert "Traceback" not in result.stderr


def test_grpc_does_not_run_its_fork_handlers() -> None:
    """The agent never forks, so gRPC's handlers are off before it is imported."""
    code = "import sys, os, agent.__main__; print(os.environ['GRPC_ENABLE_FORK_SUPPORT'], 'grpc' in sys.modules)"
    out = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, check=True).stdout
    assert out.split() == ["false", "False"]
