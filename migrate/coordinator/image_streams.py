"""Images in bulk: one stream that the caller sends, fed to several hosts, and the events of several hosts in one stream."""

from __future__ import annotations

import queue
import threading
from collections.abc import Callable, Iterator, Sequence

from migrate.coordinator.agents import Agent, AgentPool, Stream
from migrate.coordinator.containers import Call, bind
from migrate.coordinator.hosts import LIST_RETRIES, ask_all, needed
from migrate.coordinator.store import Store
from migrate.errors import Cancelled, InvalidArgument, MigrateError, NotFound
from protos import agent_pb2, coordinator_pb2, types_pb2

BEHIND = 8  # chunks that a slow host may be behind the fastest before it holds up all of them


def import_to(
    store: Store, pool: AgentPool, chunks: Iterator[coordinator_pb2.ImportImageChunk]
) -> list[types_pb2.Image]:
    """Read the stream once and send it to the host that it names, or to every host; returns each host's image.

    A host that fails does not stop the others. Raises the first host's error, saying which others succeeded.
    """
    start = _start(chunks)
    if not start.name:
        raise InvalidArgument("an image needs a name", hint="migrate import FILE NAME")
    agents = _agents(store, pool, start.host)
    answers: queue.SimpleQueue[agent_pb2.ImageEvent] = queue.SimpleQueue()

    def send(agent: Agent, requests: Iterator[agent_pb2.ImportChunk]) -> None:
        answers.put(agent_pb2.ImageEvent(image=agent.call("Images", "Import", requests), host=agent.name))

    branches = [_Branch(agent, _import_start(start), send) for agent in agents]
    _feed(chunks, branches)
    _raise_failures(branches)
    images = []
    while not answers.empty():
        event = answers.get()
        event.image.host = event.host
        images.append(event.image)
    return sorted(images, key=lambda image: [agent.name for agent in agents].index(image.host))


def load(
    store: Store, pool: AgentPool, chunks: Iterator[coordinator_pb2.ImportImageChunk], call: Call
) -> Iterator[agent_pb2.ImageEvent]:
    """As `import_to`, of an archive of images: each host's progress and images as they come, then the first error."""
    start = _start(chunks)
    events: queue.SimpleQueue[agent_pb2.ImageEvent | None] = queue.SimpleQueue()

    def send(agent: Agent, requests: Iterator[agent_pb2.ImportChunk]) -> None:
        stream = agent.stream("Images", "Load", requests)
        bind(call, stream)
        for event in stream:
            events.put(_of_host(event, agent.name))

    branches = [_Branch(agent, _import_start(start), send) for agent in _agents(store, pool, start.host)]
    failed: list[BaseException] = []

    def feed() -> None:
        try:
            _feed(chunks, branches)
        except BaseException as exc:  # noqa: BLE001  # raised again below, in the thread of the call
            failed.append(exc)
        finally:
            for branch in branches:
                branch.join()
            events.put(None)

    threading.Thread(target=feed, name="load", daemon=True).start()
    while (event := events.get()) is not None:
        yield event
    if failed:
        raise failed[0]
    _raise_failures(branches)


def run(agents: Sequence[Agent], begin: Callable[[Agent], Stream], call: Call) -> Iterator[agent_pb2.ImageEvent]:
    """The events of one streaming call on each of the hosts, as they come, then the first error."""
    events: queue.SimpleQueue[agent_pb2.ImageEvent | None] = queue.SimpleQueue()

    def send(agent: Agent, _requests: Iterator[agent_pb2.ImportChunk]) -> None:
        try:
            stream = begin(agent)
            bind(call, stream)
            for event in stream:
                events.put(_of_host(event, agent.name))
        finally:
            events.put(None)

    branches = [_Branch(agent, agent_pb2.ImportStart(), send) for agent in agents]
    for _ in branches:
        while (event := events.get()) is not None:
            yield event
    for branch in branches:
        branch.join()
    _raise_failures(branches)


def pull(
    store: Store, pool: AgentPool, request: agent_pb2.PullImageRequest, call: Call
) -> Iterator[agent_pb2.ImageEvent]:
    """On the host that the request names, or on every host, at the same time."""
    return run(_agents(store, pool, request.host), lambda agent: agent.stream("Images", "Pull", request), call)


def push(
    store: Store, pool: AgentPool, request: agent_pb2.PushImageRequest, call: Call
) -> Iterator[agent_pb2.ImageEvent]:
    """From the host that the request names, or the first that has the image."""
    agent = pool.agent(_having(store, pool, [request.name], request.host))
    return run([agent], lambda agent: agent.stream("Images", "Push", request), call)


def save(
    store: Store, pool: AgentPool, request: agent_pb2.SaveImagesRequest, call: Call
) -> Iterator[agent_pb2.SaveChunk]:
    """From the host that the request names, or the first that has all the images."""
    agent = pool.agent(_having(store, pool, list(request.names), request.host))
    stream = agent.stream("Images", "Save", agent_pb2.SaveImagesRequest(names=request.names))
    bind(call, stream)
    return iter(stream)


def login(store: Store, pool: AgentPool, request: agent_pb2.LoginRequest) -> agent_pb2.LoginResponse:
    """Tried by the host that the request names, or by the first that answers."""
    names = [store.host(request.host).name] if request.host else needed(store)
    facts = agent_pb2.ListImagesRequest()
    answering = [
        answer.host
        for answer in ask_all(pool, names, lambda agent: agent.call("Images", "List", facts, retries=LIST_RETRIES))
        if answer.error is None
    ]
    response: agent_pb2.LoginResponse = pool.agent((answering or names)[0]).call("Images", "Login", request)
    return response


# ---------------------------------------------------------------- inside


def _having(store: Store, pool: AgentPool, images: list[str], host: str) -> str:
    """The host, or the first that has all images. Raises NotFound saying what is missing."""
    if not images:
        raise InvalidArgument("no image is named", hint="migrate images")
    if host:
        return store.host(host).name
    hosts = needed(store)
    for name in images:
        answers = ask_all(pool, hosts, lambda agent, name=name: _inspect(agent, name))  # type: ignore[misc]
        hosts = [answer.host for answer in answers if answer.value is not None]
        if not hosts:
            others = f" beside {', '.join(images[: images.index(name)])}" if name != images[0] else ""
            raise NotFound(f"no host has the image {name!r}{others}", hint="migrate images", code="image.not_found")
    return hosts[0]


def _inspect(agent: Agent, name: str) -> types_pb2.Image:
    image: types_pb2.Image = agent.call(
        "Images", "Inspect", agent_pb2.InspectImageRequest(name=name), retries=LIST_RETRIES
    )
    return image


def _agents(store: Store, pool: AgentPool, host: str) -> list[Agent]:
    names = [store.host(host).name] if host else needed(store)
    return [pool.agent(name) for name in names]


def _start(chunks: Iterator[coordinator_pb2.ImportImageChunk]) -> coordinator_pb2.ImportImageStart:
    first = next(chunks, None)
    if first is None or not first.HasField("start"):
        raise InvalidArgument("images begin with their name and config")
    return first.start


def _import_start(start: coordinator_pb2.ImportImageStart) -> agent_pb2.ImportStart:
    return agent_pb2.ImportStart(name=start.name, config=start.config, created_by=start.created_by)


def _of_host(event: agent_pb2.ImageEvent, host: str) -> agent_pb2.ImageEvent:
    event.host = host
    if event.HasField("image"):
        event.image.host = host
    return event


def _feed(chunks: Iterator[coordinator_pb2.ImportImageChunk], branches: list[_Branch]) -> None:
    """Until the end that the caller has announced, or until all branches have failed."""
    try:
        size = 0
        for chunk in chunks:
            if chunk.HasField("end"):
                if chunk.end != size:
                    raise InvalidArgument(f"the image was cut: {size} bytes came of {chunk.end}")
                for branch in branches:
                    branch.put(None)
                return
            size += len(chunk.data)
            took = [branch.put(chunk.data) for branch in branches]
            if not any(took):
                return  # read no further
        raise Cancelled(f"the caller went away after {size} bytes of the image")
    except BaseException:
        for branch in branches:
            branch.abandon()  # an image of half a stream must not be registered
        raise


def _raise_failures(branches: list[_Branch]) -> None:
    """The first host's error, saying what became of the others."""
    for branch in branches:
        branch.join()
    failed = [branch for branch in branches if branch.error is not None]
    if not failed:
        return
    error = failed[0].error
    assert error is not None
    if len(branches) == 1:
        raise error
    lines = [f"{branch.host}: done" for branch in branches if branch.error is None]
    lines += [f"{branch.host}: {branch.error}" for branch in failed]
    raise type(error)(
        f"{failed[0].host}: {error.message}",
        hint=error.hint,
        detail="\n".join([*lines, error.detail] if error.detail else lines),
        code=error.code,
        touched="something" if len(failed) < len(branches) else error.touched,
    ) from error


class _Branch:
    """One host's part, in a thread: `send` makes the call, with requests that come from the one stream."""

    def __init__(
        self,
        agent: Agent,
        start: agent_pb2.ImportStart,
        send: Callable[[Agent, Iterator[agent_pb2.ImportChunk]], None],
    ) -> None:
        self.host = agent.name
        self.error: MigrateError | None = None
        self._agent = agent
        self._start = start
        self._send = send
        self._chunks: queue.Queue[bytes | None] = queue.Queue(maxsize=BEHIND)
        self._abandoned = False
        self._thread = threading.Thread(target=self._run, name=f"images-{agent.name}", daemon=True)
        self._thread.start()

    def put(self, data: bytes | None) -> bool:
        """False once the host has failed. Waits while it is too far behind."""
        while self._thread.is_alive():
            try:
                self._chunks.put(data, timeout=0.2)
            except queue.Full:
                continue
            return True
        return False

    def abandon(self) -> None:
        self._abandoned = True
        self.put(None)

    def join(self) -> None:
        self._thread.join()

    def _run(self) -> None:
        try:
            self._send(self._agent, self._requests())
        except MigrateError as exc:
            self.error = exc

    def _requests(self) -> Iterator[agent_pb2.ImportChunk]:
        yield agent_pb2.ImportChunk(start=self._start)
        size = 0
        while (data := self._chunks.get()) is not None:
            size += len(data)
            yield agent_pb2.ImportChunk(data=data)
        if self._abandoned:
            raise _Abandoned  # gRPC cancels the call
        yield agent_pb2.ImportChunk(end=size)


class _Abandoned(Exception):  # ends a request stream in a way that cannot be taken for its end
    pass
