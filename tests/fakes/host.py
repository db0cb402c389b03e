"""One host in memory: the services Host, Containers and Images as an agent offers them, over a real gRPC server.

`fail` maps "Containers.Start" to the error that this call raises. Commands that `Exec` knows: `cat` (stdin to stdout),
`exit N`, `sleep` (until it is cancelled), `size` (prints each window size it is told).
"""

from __future__ import annotations

import queue
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from contextlib import AbstractContextManager
from pathlib import Path
from typing import Any

import grpc

from agent import errors
from agent.engine.events import EventLog
from agent.engine.spec import ContainerSpec
from agent.engine.volumes import Volumes
from agent.services import convert
from agent.services.volumes import VolumesService
from migrate.rpc import channels, version
from migrate.rpc import errors as rpc_errors
from protos import agent_pb2, agent_pb2_grpc, types_pb2
from tests.fakes.files import FilesService
from tests.fakes.lifecycle import LifecycleService

CREATED = types_pb2.CONTAINER_STATE_CREATED
RUNNING = types_pb2.CONTAINER_STATE_RUNNING
EXITED = types_pb2.CONTAINER_STATE_EXITED
PAUSED = types_pb2.CONTAINER_STATE_PAUSED


class FakeHost:
    """`serve` and `stop` it; everything else may be looked at and changed by a test at any time."""

    def __init__(self, name: str, directory: Path) -> None:
        self.name = name
        self.path = directory / f"{name}.sock"
        self.changed = threading.Condition()
        self.containers: dict[str, FakeContainer] = {}
        self.images: dict[str, types_pb2.Image] = {}
        self.access: agent_pb2.RegistryAccess | None = None  # of the last pull or push
        self.fail: dict[str, Exception] = {}
        self.starts_at_create = True  # False: as an agent that does not know CreateRequest.start
        self.calls: list[str] = []
        self.boot_id = "first"
        self.trusted: list[str] = []  # whose certificates its sshd takes
        self.facts: dict[str, Any] = {}  # fields of HostFacts that are not the usual ones
        self.speaks = self.hears = (
            version.OURS
        )  # what it is, for its next serve(); what its coordinator is, for its next tunnel()
        self.cancelled = threading.Event()  # a sleeping command was cancelled
        self._server: grpc.Server | None = None
        self.files = FilesService(self, directory)
        self.volumes = Volumes(directory / f"{name}-volumes", self._specs)
        self.lifecycle = LifecycleService(self, EventLog(directory / f"{name}-events.jsonl"))

    def serve(self, migration: agent_pb2_grpc.MigrationServicer | None = None) -> FakeHost:
        """`migration`: what answers for this host's part of moves, tests.fakes.agent.FakeAgent."""
        self._server = grpc.server(
            ThreadPoolExecutor(max_workers=32),
            interceptors=[
                rpc_errors.ErrorInterceptor(),
                version.VersionInterceptor(f"the agent of {self.name}", "the coordinator", self.speaks),
            ],
            options=channels.SERVER_OPTIONS,
        )
        agent_pb2_grpc.add_HostServicer_to_server(HostService(self), self._server)
        agent_pb2_grpc.add_ContainersServicer_to_server(ContainersService(self), self._server)
        agent_pb2_grpc.add_ImagesServicer_to_server(ImagesService(self), self._server)
        agent_pb2_grpc.add_BuildsServicer_to_server(BuildsService(self), self._server)
        agent_pb2_grpc.add_FilesServicer_to_server(self.files, self._server)
        agent_pb2_grpc.add_VolumesServicer_to_server(VolumesService(self.volumes), self._server)
        agent_pb2_grpc.add_LifecycleServicer_to_server(self.lifecycle, self._server)
        if migration is not None:
            agent_pb2_grpc.add_MigrationServicer_to_server(_Late(migration), self._server)
        self._server.add_insecure_port(channels.unix_target(self.path))
        self._server.start()
        return self

    def stop(self) -> None:
        """As if the machine had lost its power."""
        if self._server is not None:
            self._server.stop(0).wait()
            self._server = None

    def tunnel(self) -> FakeTunnel:
        return FakeTunnel(self)

    def add_image(self, name: str, **config: Any) -> types_pb2.Image:
        image = types_pb2.Image(
            name=name, digest=f"sha256:{name}", layers=["sha256:base"], config=types_pb2.ImageConfig(**config)
        )
        self.images[name] = image
        return image

    def _specs(self) -> list[ContainerSpec]:
        return [convert.spec_from_proto(each.spec) for each in self.containers.values()]

    def called(self, name: str) -> None:
        self.calls.append(name)
        if name in self.fail:
            raise self.fail[name]

    def container(self, container_id: str) -> FakeContainer:
        if container_id not in self.containers:
            raise errors.NotFound(f"no container {container_id}", code="container.not_found")
        return self.containers[container_id]

    def write(self, container_id: str, text: str, *, unix_ns: int = 0, stream: str = "stdout") -> None:
        """A line of the container's output."""
        chunk = agent_pb2.LogChunk(unix_ns=unix_ns or time.time_ns(), stream=stream, data=text.encode())
        with self.changed:
            self.containers[container_id].log.append(chunk)
            self.changed.notify_all()

    def exit(self, container_id: str, code: int) -> None:
        with self.changed:
            container = self.containers[container_id]
            container.state, container.exit_code = EXITED, code
            self.changed.notify_all()

    def hand_over(self, container_id: str, target: FakeHost) -> None:
        """What a move does to both hosts: the container and its log are there and no longer here."""
        with self.changed, target.changed:
            moved = self.containers.pop(container_id)
            copy = FakeContainer(moved.spec)
            copy.state, copy.log = moved.state, list(moved.log)
            target.containers[container_id] = copy
            self.changed.notify_all()
            target.changed.notify_all()


class _Late:
    """Looks each method up when it is called: gRPC would keep the one that was there when the server was made."""

    def __init__(self, servicer: Any) -> None:
        self._servicer = servicer

    def __getattr__(self, name: str) -> Any:
        return lambda request, context: getattr(self._servicer, name)(request, context)


class FakeContainer:
    """State, log and inputs of one container."""

    def __init__(self, spec: types_pb2.ContainerSpec) -> None:
        self.spec = spec
        self.state = CREATED
        self.exit_code = -1
        self.log: list[agent_pb2.LogChunk] = []
        self.stdin: list[bytes] = []
        self.stdin_closed = False
        self.signals: list[str] = []

    def status(self, host: str) -> types_pb2.ContainerStatus:
        status = types_pb2.ContainerStatus(spec=self.spec, state=self.state, host=host, epoch=1)
        if self.state == EXITED:
            status.exit_code = self.exit_code
        return status


class FakeTunnel:
    """A channel straight to the socket."""

    def __init__(self, host: FakeHost) -> None:
        self._host = host
        self._channel = channels.unix_channel(host.path, own=host.hears)

    def channel(self) -> grpc.Channel:
        return self._channel

    def native(self) -> AbstractContextManager[None]:
        return rpc_errors.native(self._host.name)

    def close(self) -> None:
        self._channel.close()


class HostService(agent_pb2_grpc.HostServicer):
    def __init__(self, host: FakeHost) -> None:
        self._host = host

    def Beat(self, request, context):  # noqa: N802
        self._host.called("Host.Beat")
        return agent_pb2.BeatResponse(host=self._host.name, boot_id=self._host.boot_id)

    def Trust(self, request, context):  # noqa: N802
        self._host.called("Host.Trust")
        self._host.trusted = list(request.authorities)
        return agent_pb2.TrustResponse()

    def Facts(self, request, context):  # noqa: N802
        self._host.called("Host.Facts")
        usual: dict[str, Any] = {
            "host": self._host.name,
            "agent_version": self._host.speaks.version,
            "protocol": self._host.speaks.major,
            "protocol_minor": self._host.speaks.minor,
            "kernel": "6.18",
            "architecture": "x86_64",
            "criu_version": "4.2",
            "memory_total_bytes": 8 << 30,
            "memory_available_bytes": 4 << 30,
            "disk_available_bytes": 100 << 30,
            "cpus": 4,
            "instructions": ["avx", "avx2"],
            "processor": "GenuineIntel",
            "cgroup": "v2",
            "bridge_mtu": 1500,
            "unix_ns": time.time_ns(),
        }
        return agent_pb2.HostFacts(**{**usual, **self._host.facts})


class ContainersService(agent_pb2_grpc.ContainersServicer):
    def __init__(self, host: FakeHost) -> None:
        self._host = host

    def Create(self, request, context):  # noqa: N802
        self._host.called("Containers.Create")
        container = self._host.containers[request.spec.id] = FakeContainer(request.spec)
        self._host.volumes.ensure(convert.spec_from_proto(request.spec))
        if request.start and self._host.starts_at_create:
            try:
                self._host.called("Containers.Start")  # counts and fails as one: it is the same thing to who asks
            except errors.AgentError:
                del self._host.containers[request.spec.id]
                raise
            container.state = RUNNING
        return container.status(self._host.name)

    def Start(self, request, context):  # noqa: N802
        self._host.called("Containers.Start")
        container = self._host.container(request.id)
        with self._host.changed:
            container.state = RUNNING
            self._host.changed.notify_all()
        return container.status(self._host.name)

    def Stop(self, request, context):  # noqa: N802
        self._host.called("Containers.Stop")
        self._host.container(request.id)
        self._host.exit(request.id, 143)
        return self._host.container(request.id).status(self._host.name)

    def Kill(self, request, context):  # noqa: N802
        self._host.called("Containers.Kill")
        self._host.container(request.id).signals.append(request.signal)
        return agent_pb2.KillResponse()

    def Update(self, request, context):  # noqa: N802
        self._host.called("Containers.Update")
        container = self._host.container(request.id)
        container.spec.limits.CopyFrom(request.limits)
        return container.status(self._host.name)

    def Pause(self, request, context):  # noqa: N802
        self._host.called("Containers.Pause")
        container = self._host.container(request.id)
        container.state = PAUSED
        return container.status(self._host.name)

    def Unpause(self, request, context):  # noqa: N802
        self._host.called("Containers.Unpause")
        container = self._host.container(request.id)
        if container.state != PAUSED:
            raise errors.WrongState(f"{container.spec.name} is not paused")
        container.state = RUNNING
        return container.status(self._host.name)

    def Usage(self, request, context):  # noqa: N802
        self._host.called("Containers.Usage")
        here = [one for one in request.ids if one in self._host.containers]
        usages = [types_pb2.ContainerUsage(id=one, unix_ns=time.time_ns(), memory_bytes=7, tasks=1) for one in here]
        return agent_pb2.UsageResponse(usages=usages)

    def Top(self, request, context):  # noqa: N802
        self._host.called("Containers.Top")
        self._host.container(request.id)
        return agent_pb2.TopResponse(processes=[types_pb2.ContainerProcess(pid=1, command="serve", state="S")])

    def Remove(self, request, context):  # noqa: N802
        self._host.called("Containers.Remove")
        container = self._host.container(request.id)
        if container.state == RUNNING and not request.force:
            raise errors.WrongState(f"{container.spec.name} is running", hint="stop it first, or rm -f")
        with self._host.changed:
            del self._host.containers[request.id]
            self._host.changed.notify_all()
        if request.volumes:
            self._host.volumes.remove_anonymous(convert.spec_from_proto(container.spec))
        return agent_pb2.RemoveResponse()

    def Inspect(self, request, context):  # noqa: N802
        self._host.called("Containers.Inspect")
        return self._host.container(request.id).status(self._host.name)

    def List(self, request, context):  # noqa: N802
        self._host.called("Containers.List")
        return agent_pb2.ListResponse(containers=[c.status(self._host.name) for c in self._host.containers.values()])

    def Wait(self, request, context):  # noqa: N802
        self._host.called("Containers.Wait")
        while context.is_active():
            with self._host.changed:
                container = self._host.container(request.id)  # NotFound when it is gone
                if container.state == EXITED:
                    return container.status(self._host.name)
                self._host.changed.wait(0.05)
        self._host.cancelled.set()
        return types_pb2.ContainerStatus()

    def Logs(self, request, context):  # noqa: N802
        self._host.called("Containers.Logs")
        host = self._host
        host.container(request.id)
        position = 0
        first = True
        while context.is_active():
            with host.changed:
                container = host.containers.get(request.id)
                if container is None:
                    return  # moved or removed
                news = [c for c in container.log[position:] if c.unix_ns >= request.since_unix_ns]
                position = len(container.log)
                over = container.state == EXITED or not request.follow
            if first and not request.all:
                news = news[len(news) - request.tail :] if request.tail else []
            first = False
            yield from news
            if over:
                return
            with host.changed:
                current = host.containers.get(request.id)
                if current is container and len(container.log) == position and container.state != EXITED:
                    host.changed.wait(0.05)

    def Exec(self, request_iterator, context):  # noqa: N802
        self._host.called("Containers.Exec")
        start = next(request_iterator).start
        container = self._host.container(start.id)
        if container.state != RUNNING:
            raise errors.WrongState(f"{container.spec.name} does not run")
        yield agent_pb2.ExecOutput(started=True)
        if start.argv[0] == "exit":
            yield agent_pb2.ExecOutput(exit_code=int(start.argv[1]))
        elif start.argv[0] == "sleep":
            context.add_callback(self._host.cancelled.set)
            self._host.cancelled.wait(30)
        elif start.argv[0] in ("cat", "size"):
            for item in request_iterator:
                if item.HasField("close_stdin"):
                    break
                if item.HasField("stdin"):
                    yield agent_pb2.ExecOutput(stdout=item.stdin)
                if item.HasField("resize"):
                    yield agent_pb2.ExecOutput(stdout=f"{item.resize.rows}x{item.resize.columns}\n".encode())
            yield agent_pb2.ExecOutput(stderr=b"end of input\n")
            yield agent_pb2.ExecOutput(exit_code=0)
        else:
            raise errors.StartError(f"exec: {start.argv[0]}: no such file in PATH=/bin")

    def Attach(self, request_iterator, context):  # noqa: N802
        """Echoes stdin; ends without an exit code when the container is no longer here."""
        self._host.called("Containers.Attach")
        start = next(request_iterator).start
        self._host.container(start.id)
        inputs: queue.SimpleQueue[agent_pb2.ExecInput] = queue.SimpleQueue()

        def read() -> None:
            try:
                for item in request_iterator:
                    inputs.put(item)
            except grpc.RpcError:
                pass  # the other side is gone

        threading.Thread(target=read, daemon=True).start()
        yield agent_pb2.ExecOutput(started=True)
        while context.is_active():
            container = self._host.containers.get(start.id)
            if container is None:
                return
            if container.state == EXITED:
                yield agent_pb2.ExecOutput(exit_code=container.exit_code)
                return
            try:
                item = inputs.get(timeout=0.05)
            except queue.Empty:
                continue
            if item.HasField("close_stdin"):
                container.stdin_closed = True
            if item.HasField("signal"):
                container.signals.append(item.signal)
            if item.HasField("stdin"):
                container.stdin.append(item.stdin)
                yield agent_pb2.ExecOutput(stdout=b"%s:%s" % (self._host.name.encode(), item.stdin))


class ImagesService(agent_pb2_grpc.ImagesServicer):
    def __init__(self, host: FakeHost) -> None:
        self._host = host

    def Import(self, request_iterator, context):  # noqa: N802
        start = next(request_iterator).start
        self._host.called("Images.Import")
        size = 0
        for chunk in request_iterator:
            if chunk.HasField("end"):
                break
            size += len(chunk.data)
        else:
            raise errors.TransferError("the image was cut")
        image = types_pb2.Image(name=start.name, digest=f"sha256:{size:x}", size_bytes=size, config=start.config)
        self._host.images[start.name] = image
        return image

    def List(self, request, context):  # noqa: N802
        self._host.called("Images.List")
        return agent_pb2.ListImagesResponse(images=self._host.images.values())

    def Inspect(self, request, context):  # noqa: N802
        self._host.called("Images.Inspect")
        if request.name not in self._host.images:
            raise errors.NotFound(f"no image {request.name!r}", code="image.not_found")
        return self._host.images[request.name]

    def Remove(self, request, context):  # noqa: N802
        self._host.called("Images.Remove")
        if request.name not in self._host.images:
            raise errors.NotFound(f"no image {request.name!r}", code="image.not_found")
        if self._host.images[request.name].used_by and not request.force:
            raise errors.WrongState(f"image {request.name} is used")
        image = self._host.images.pop(request.name)
        return agent_pb2.RemoveImageResponse(removed=["sha256:base"], untagged=[image.name], deleted=[image.digest])

    def Tag(self, request, context):  # noqa: N802
        self._host.called("Images.Tag")
        image = types_pb2.Image()
        image.CopyFrom(self.Inspect(request, context))
        image.name = request.tag
        self._host.images[request.tag] = image
        return image

    def Prune(self, request, context):  # noqa: N802
        self._host.called("Images.Prune")
        gone = [name for name, image in self._host.images.items() if not image.used_by and (request.all or "@" in name)]
        for name in gone:
            del self._host.images[name]
        return agent_pb2.PruneImagesResponse(untagged=gone, freed_bytes=len(gone))

    def Load(self, request_iterator, context):  # noqa: N802
        start = next(request_iterator).start
        self._host.called("Images.Load")
        size = 0
        for chunk in request_iterator:
            if chunk.HasField("end"):
                break
            size += len(chunk.data)
            yield _progress("archive", "reading", size)
        else:
            raise errors.TransferError("the archive was cut")
        image = types_pb2.Image(name=start.name or "loaded:1", digest=f"sha256:{size:x}", size_bytes=size)
        self._host.images[image.name] = image
        yield agent_pb2.ImageEvent(image=image)

    def Save(self, request, context):  # noqa: N802
        self._host.called("Images.Save")
        data = " ".join([self._host.name, *request.names]).encode()
        yield agent_pb2.SaveChunk(total_bytes=len(data))
        yield agent_pb2.SaveChunk(data=data)
        if "cut" not in request.names:
            yield agent_pb2.SaveChunk(end=len(data))

    def Pull(self, request, context):  # noqa: N802
        self._host.called("Images.Pull")
        self._host.access = request.access
        yield _progress("sha256:" + "1" * 64, "waiting", 0)
        yield _progress("sha256:" + "1" * 64, "fetching", 500)
        yield _progress("sha256:" + "1" * 64, "done", 1000)
        yield agent_pb2.ImageEvent(image=self._host.add_image(request.name))

    def Push(self, request, context):  # noqa: N802
        self._host.called("Images.Push")
        self._host.access = request.access
        yield _progress("sha256:" + "1" * 64, "sending", 500)
        yield agent_pb2.ImageEvent(digest="sha256:" + "2" * 64)

    def Login(self, request, context):  # noqa: N802
        self._host.called("Images.Login")
        if request.password != b"secret":
            raise errors.InvalidArgument("the registry refused", code="registry.denied")
        return agent_pb2.LoginResponse()


def _progress(layer: str, text: str, done: int) -> agent_pb2.ImageEvent:
    return agent_pb2.ImageEvent(
        progress=types_pb2.Progress(phase=layer, text=text, done_bytes=done, total_bytes=1000, unix_ns=time.time_ns())
    )


class BuildsService(agent_pb2_grpc.BuildsServicer):
    """Says what it was asked for; "WAIT" as Dockerfile waits for the caller to go."""

    def __init__(self, host: FakeHost) -> None:
        self._host = host

    def Build(self, request_iterator, context):  # noqa: N802
        start = next(request_iterator).start
        self._host.called("Builds.Build")
        self._host.access = start.access
        if start.dockerfile == "WAIT":
            context.add_callback(self._host.cancelled.set)
            yield agent_pb2.BuildEvent(step=agent_pb2.BuildStep(number=1, total=1, text="WAIT"))
            self._host.cancelled.wait(30)
            return
        size = 0
        for chunk in request_iterator:
            if chunk.HasField("end"):
                break
            size += len(chunk.data)
        else:
            raise errors.TransferError("the context was cut")
        yield agent_pb2.BuildEvent(warning=f"{size} bytes, {start.address.address}, ids from {start.ids.base}")
        yield agent_pb2.BuildEvent(stderr=b"said")
        if start.file.endswith("Steps"):
            for number, text in enumerate(start.dockerfile.splitlines(), 1):
                yield agent_pb2.BuildEvent(step=agent_pb2.BuildStep(number=number, total=2, text=text))
                done = agent_pb2.BuildStepDone(number=number, cached=number == 1, layer="sha256:" + "a" * 64)
                yield agent_pb2.BuildEvent(step_done=done)
        yield agent_pb2.BuildEvent(done=types_pb2.Image(name=start.tags[0], digest="sha256:1"))
