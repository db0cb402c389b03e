"""Images in bulk: one stream that the caller sends, fed to several hosts."""

from __future__ import annotations

import queue
import threading
from collections.abc import Iterator

from migrate.coordinator.agents import Agent, AgentPool
from migrate.coordinator.store import Store
from migrate.errors import Cancelled, InvalidArgument, MigrateError
from protos import agent_pb2, coordinator_pb2, types_pb2

BEHIND = 8  # chunks that a slow host may be behind the fastest before it holds up all of them


def import_to(
    store: Store, pool: AgentPool, chunks: Iterator[coordinator_pb2.ImportImageChunk]
) -> list[types_pb2.Image]:
    """Read the stream once and send it to the host that it names, or to every host; returns each host's image.

    A host that fails does not stop the others. Raises the first host's error, saying which others succeeded.
    """
    first = next(chunks, None)
    if first is None or not first.HasField("start"):
        raise InvalidArgument("an import begins with the image's name and config")
    start = first.start
    if not start.name:
        raise InvalidArgument("an image needs a name", hint="migrate image import FILE NAME")
    names = [store.host(start.host).name] if start.host else [host.name for host in store.hosts()]
    branches = [_Branch(pool.agent(name), start) for name in names]
    try:
        _feed(chunks, branches)
    except BaseException:
        for branch in branches:
            branch.abandon()  # an image of half a stream must not be registered
        raise
    return _results(branches)


def _feed(chunks: Iterator[coordinator_pb2.ImportImageChunk], branches: list[_Branch]) -> None:
    """Until the end that the caller has announced, or until all branches have failed."""
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


def _results(branches: list[_Branch]) -> list[types_pb2.Image]:
    for branch in branches:
        branch.join()
    images = [branch.image for branch in branches if branch.image is not None]
    failed = [branch for branch in branches if branch.error is not None]
    if not failed:
        return images
    error = failed[0].error
    assert error is not None
    if len(branches) == 1:
        raise error
    lines = [f"{image.host}: imported" for image in images]
    lines += [f"{branch.host}: {branch.error}" for branch in failed]
    raise type(error)(
        f"{failed[0].host}: {error.message}",
        hint=error.hint,
        detail="\n".join([*lines, error.detail] if error.detail else lines),
        code=error.code,
        touched="something" if images else error.touched,
    ) from error


class _Branch:
    """One host's import, fed from the one stream."""

    def __init__(self, agent: Agent, start: coordinator_pb2.ImportImageStart) -> None:
        self.host = agent.name
        self.image: types_pb2.Image | None = None
        self.error: MigrateError | None = None
        self._agent = agent
        self._start = start
        self._chunks: queue.Queue[bytes | None] = queue.Queue(maxsize=BEHIND)
        self._abandoned = False
        self._thread = threading.Thread(target=self._run, name=f"import-{agent.name}", daemon=True)
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
            self.image = self._agent.call("Images", "Import", self._requests())
            self.image.host = self.host
        except MigrateError as exc:
            self.error = exc

    def _requests(self) -> Iterator[agent_pb2.ImportChunk]:
        start = agent_pb2.ImportStart(name=self._start.name, config=self._start.config)
        yield agent_pb2.ImportChunk(start=start)
        size = 0
        while (data := self._chunks.get()) is not None:
            size += len(data)
            yield agent_pb2.ImportChunk(data=data)
        if self._abandoned:
            raise _Abandoned  # gRPC cancels the call
        yield agent_pb2.ImportChunk(end=size)


class _Abandoned(Exception):  # ends a request stream in a way that cannot be taken for its end
    pass
