"""Streams between a caller and a container's host: stdio of commands and of the main process, logs that follow a move."""

from __future__ import annotations

import hashlib
import threading
import time
from collections import Counter, deque
from collections.abc import Iterator

import grpc

from migrate.coordinator.containers import STOPPED, Call, FleetContainers, bind
from migrate.coordinator.store import Container
from migrate.errors import InvalidArgument, MigrateError, NotFound, Unreachable
from protos import agent_pb2, coordinator_pb2, types_pb2

SETTLE_S = 0.2  # between looks at a container whose stream has ended for no reason of its own
PATIENCE_S = 60.0  # how long its host may be away
OVERLAP_NS = 10 * 10**9  # how far apart the clocks of two hosts may be; lines of that time are told apart by content
OVERLAP_LINES = 50_000


# ---------------------------------------------------------------- stdio


def exec_(
    containers: FleetContainers, requests: Iterator[agent_pb2.ExecInput], call: Call
) -> Iterator[agent_pb2.ExecOutput]:
    """A command: bound to the host it started on. Ends for the agent when it ends for the caller, and the reverse."""
    start = _first(requests)
    container = containers.store.container(start.id)
    start.id = container.id
    stream = containers.pool.agent(container.owner).stream("Containers", "Exec", _after(start, requests))
    bind(call, stream)
    yield from stream


def attach(
    containers: FleetContainers, requests: Iterator[agent_pb2.ExecInput], call: Call
) -> Iterator[agent_pb2.ExecOutput]:
    """The main process's stdio; goes on with the new owner when the container is moved."""
    start = _first(requests)
    container = containers.store.container(start.id)
    start.id = container.id
    inputs = _Inputs(requests)
    started = False
    for now in _owners(containers, container, call):
        stream = containers.pool.agent(now.owner).stream("Containers", "Attach", inputs.lease(start))
        bind(call, stream)
        try:
            for reply in stream:
                if reply.WhichOneof("kind") == "started":
                    if started:
                        continue  # the caller has been told, on the host before
                    started = True
                yield reply
                if reply.WhichOneof("kind") == "exit_code":
                    return
        except MigrateError as exc:
            if not _elsewhere(containers, now, exc):
                raise
        finally:
            # In this order: a lease that ends first would be the end of the agent's requests, which a cancelled call has not.
            stream.cancel()
            inputs.revoke()
    # It exited while nobody was connected.
    status = containers.inspect(container.id)
    if status.HasField("exit_code"):
        yield agent_pb2.ExecOutput(exit_code=status.exit_code)


def _first(requests: Iterator[agent_pb2.ExecInput]) -> agent_pb2.ExecStart:
    first = next(requests, None)
    if first is None or not first.HasField("start"):
        raise InvalidArgument("the stream must begin with what to start")
    start = agent_pb2.ExecStart()
    start.CopyFrom(first.start)
    return start


def _after(start: agent_pb2.ExecStart, requests: Iterator[agent_pb2.ExecInput]) -> Iterator[agent_pb2.ExecInput]:
    yield agent_pb2.ExecInput(start=start)
    try:
        yield from requests
    except grpc.RpcError:
        pass  # the caller is gone; bind() cancels the agent's call


class _Inputs:
    """One caller's input, leased to one stream after the other. What a revoked lease has not taken, the next one gets."""

    def __init__(self, requests: Iterator[agent_pb2.ExecInput]) -> None:
        self._ready = threading.Condition()
        self._items: deque[agent_pb2.ExecInput] = deque()
        self._current = 0
        self._size: agent_pb2.ExecInput | None = None  # the new host must know the window's size too
        threading.Thread(target=self._read, args=(requests,), name="attach-input", daemon=True).start()

    def lease(self, start: agent_pb2.ExecStart) -> Iterator[agent_pb2.ExecInput]:
        with self._ready:
            self._current += 1
            mine = self._current
        return self._taken_by(mine, start)

    def revoke(self) -> None:
        with self._ready:
            self._current += 1
            self._ready.notify_all()

    def _taken_by(self, mine: int, start: agent_pb2.ExecStart) -> Iterator[agent_pb2.ExecInput]:
        yield agent_pb2.ExecInput(start=start)
        if self._size is not None:
            yield self._size
        while True:
            with self._ready:
                # Not until the caller's input ends: when the caller dies, that must not reach the process as end-of-file.
                self._ready.wait_for(lambda: self._items or self._current != mine)
                if self._current != mine:
                    return
                item = self._items.popleft()
            if item.HasField("resize"):
                self._size = item
            yield item

    def _read(self, requests: Iterator[agent_pb2.ExecInput]) -> None:
        try:
            for item in requests:
                with self._ready:
                    self._items.append(item)
                    self._ready.notify_all()
        except grpc.RpcError:
            pass  # the caller is gone


# ---------------------------------------------------------------- logs


class Seen:
    """Tells lines of the log apart that were delivered already, when it is read again on another host.

    By stamp and content, within OVERLAP_NS before the last one: a line that was written on the new host while its clock
    was behind is still new.
    """

    def __init__(self) -> None:
        self.last_ns = 0
        self._order: deque[tuple[int, bytes]] = deque()
        self._again: Counter[tuple[int, bytes]] = Counter()

    def deliver(self, chunk: agent_pb2.LogChunk) -> bool:
        """Whether it is new; remembers it."""
        key = (chunk.unix_ns, hashlib.blake2b(chunk.data, digest_size=8, salt=chunk.stream.encode()[:16]).digest())
        if self._again[key] > 0:
            self._again[key] -= 1
            return False
        del self._again[key]
        self._order.append(key)
        self.last_ns = max(self.last_ns, chunk.unix_ns)
        while self._order and (self._order[0][0] < self.last_ns - OVERLAP_NS or len(self._order) > OVERLAP_LINES):
            self._order.popleft()
        return True

    def restart(self) -> int:
        """The log will be read again: from which instant."""
        self._again = Counter(self._order)
        begin_ns = max(0, self.last_ns - OVERLAP_NS)
        if len(self._order) == OVERLAP_LINES:
            return max(begin_ns, self._order[0][0])  # not from before what is remembered
        return begin_ns


def logs(
    containers: FleetContainers, request: coordinator_pb2.ContainerLogsRequest, call: Call
) -> Iterator[agent_pb2.LogChunk]:
    """Without `follow` what there is; with it until the container has exited, on whatever host, each line once."""
    container = containers.store.container(request.name)
    message = agent_pb2.LogsRequest(
        id=container.id,
        follow=request.follow,
        tail=request.tail,
        since_unix_ns=request.since_unix_ns,
        all=request.all,
    )
    if not request.follow:
        _, stream = containers.at_owner(container.id, lambda agent, _: agent.stream("Containers", "Logs", message))
        bind(call, stream)
        yield from stream
        return
    seen = Seen()
    began_ns = time.time_ns()
    for now in _owners(containers, container, call):
        stream = containers.pool.agent(now.owner).stream("Containers", "Logs", message)
        bind(call, stream)
        try:
            for chunk in stream:
                if seen.deliver(chunk):
                    yield chunk
        except MigrateError as exc:
            if not _elsewhere(containers, now, exc):
                raise
        finally:
            stream.cancel()
        # Everything from about where it was cut; what comes twice is recognised.
        message.all, message.tail = True, 0
        message.since_unix_ns = max(seen.restart() if seen.last_ns else began_ns, request.since_unix_ns)


# ---------------------------------------------------------------- through moves


def _owners(containers: FleetContainers, container: Container, call: Call) -> Iterator[Container]:
    """The container with its owner, again after each end of a stream, as long as it may have more to say."""
    away_since = time.monotonic()
    while True:
        began = time.monotonic()
        yield container
        if time.monotonic() - began > 10 * SETTLE_S:
            away_since = time.monotonic()  # that stream was alive for a while
        while True:
            if not call.is_active():
                return
            owner = container.owner
            try:
                container = containers.store.container(container.id)
            except NotFound:
                return  # removed
            if container.owner != owner:
                break
            status = containers.inspect(container.id)
            if status.state in STOPPED:
                return
            if not status.migration_id and time.monotonic() - away_since > PATIENCE_S:
                raise Unreachable(f"{container.name} on {owner}: {status.error or 'its stream ends at once'}")
            time.sleep(SETTLE_S)
            if status.state == types_pb2.CONTAINER_STATE_RUNNING:
                break  # where it was: the connection was at fault


def _elsewhere(containers: FleetContainers, container: Container, error: MigrateError) -> bool:
    """Whether an error at the end of a stream may only mean that the container has moved, or its host is away."""
    if isinstance(error, Unreachable):
        return True
    try:
        now = containers.store.container(container.id)
    except NotFound:
        return False
    return now.owner != container.owner or bool(containers.store.migrations(container_id=now.id, active=True))
