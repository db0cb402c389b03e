"""What happens in the fleet, as one stream: every host's own events, and the moves, which only the coordinator knows.

    history of each host, moves, heartbeats ─ by time ─►  caller  ◄─ one queue ─ a follower a host; moves, heartbeats

Hosts number their events and keep the last ones on disk, so a follower that is cut off (by an agent's restart, by the network)
goes on behind the last event it saw. A host that does not answer is an event too, and so is its return. Among events of different
hosts the order is that of their clocks in the history, and that of their arrival later.
"""

from __future__ import annotations

import queue
import threading
import time
from collections.abc import Iterator

from migrate.coordinator import host_records
from migrate.coordinator.agents import Agent, Stream
from migrate.coordinator.containers import Call, FleetContainers, bind
from migrate.coordinator.hosts import ask_all
from migrate.coordinator.store import Migration, MoveState, Store
from migrate.errors import MigrateError
from protos import agent_pb2, types_pb2

AGAIN_S = 1.0  # between two tries to follow a host
LOOK_S = 0.25  # at the moves, and whether the caller is still there
HISTORY_LIMIT_S = 15.0
MOST_QUEUED = 4096


def events(containers: FleetContainers, request: agent_pb2.EventsRequest, call: Call) -> Iterator[types_pb2.Event]:
    """since_unix_ns < 0: only what comes. Ends with the caller's call, at until_unix_ns, or, without follow, when all is told."""
    hosts = [host.name for host in containers.store.hosts()]
    moves, fleet = _Moves(containers.store), _Hosts(containers.store)
    old = [*moves.news(), *fleet.news()]
    history = agent_pb2.EventsRequest(since_unix_ns=max(request.since_unix_ns, 0), until_unix_ns=request.until_unix_ns)

    def ask(agent: Agent) -> list[types_pb2.Event]:
        return list(agent.stream("Lifecycle", "Events", history, timeout_s=HISTORY_LIMIT_S))

    last: dict[str, int] = {}
    silent: dict[str, types_pb2.Event] = {}
    for answer in ask_all(containers.pool, hosts, ask):
        if answer.error is not None:
            silent[answer.host] = _host_event(answer.host, "unreachable", answer.error)
        for event in answer.value or ():
            event.host = answer.host
            last[answer.host] = event.sequence
            old.append(event)
    if request.since_unix_ns >= 0:
        told = [event for event in old if _within(event, request)]
        yield from sorted(told, key=lambda event: event.unix_ns)
    yield from silent.values()
    if request.follow:
        yield from _follow(containers, request, call, last, set(silent), moves, fleet)


def _follow(
    containers: FleetContainers,
    request: agent_pb2.EventsRequest,
    call: Call,
    last: dict[str, int],
    silent: set[str],
    moves: _Moves,
    fleet: _Hosts,
) -> Iterator[types_pb2.Event]:
    news: queue.Queue[types_pb2.Event] = queue.Queue(MOST_QUEUED)
    over = threading.Event()
    call.add_callback(over.set)
    followers = [
        _Follower(containers, host.name, last.get(host.name, -1), host.name in silent, news, over, call)
        for host in containers.store.hosts()
    ]
    for follower in followers:
        threading.Thread(target=follower.run, name=f"events-{follower.host}", daemon=True).start()
    try:
        while not over.is_set() and call.is_active():
            try:
                event = news.get(timeout=LOOK_S)
                if _within(event, request):
                    yield event
            except queue.Empty:
                pass
            yield from (event for event in (*moves.news(), *fleet.news()) if _within(event, request))
            if request.until_unix_ns and time.time_ns() > request.until_unix_ns and news.empty():
                return
    finally:
        over.set()
        for follower in followers:
            follower.stop()


class _Follower:
    """One host's. `last`: the number of the last event seen, -1 where none is known: then from now on."""

    def __init__(
        self,
        containers: FleetContainers,
        host: str,
        last: int,
        silent: bool,
        news: queue.Queue[types_pb2.Event],
        over: threading.Event,
        call: Call,
    ) -> None:
        self.host = host
        self._containers, self._last, self._silent = containers, last, silent
        self._news, self._over, self._call = news, over, call
        self._since_ns = 0 if last >= 0 else time.time_ns()
        self._stream: Stream | None = None

    def run(self) -> None:
        while not self._over.is_set():
            try:
                self._once()
            except MigrateError as exc:
                if not self._silent and not self._over.is_set():
                    self._silent = True
                    self._tell(_host_event(self.host, "unreachable", exc))
            self._over.wait(AGAIN_S)

    def _once(self) -> None:
        agent = self._containers.pool.agent(self.host)
        if self._silent:
            agent.call("Containers", "List", agent_pb2.ListRequest(), retries=0)
            self._silent = False
            self._tell(_host_event(self.host, "reachable"))
        request = agent_pb2.EventsRequest(follow=True, after=max(self._last, 0), since_unix_ns=self._since_ns)
        stream = agent.stream("Lifecycle", "Events", request)
        bind(self._call, stream)
        self._stream = stream
        if self._over.is_set():
            stream.cancel()
        for event in stream:
            event.host = self.host
            self._last = event.sequence
            self._tell(event)

    def _tell(self, event: types_pb2.Event) -> None:
        while not self._over.is_set():
            try:
                self._news.put(event, timeout=LOOK_S)
                return
            except queue.Full:
                continue  # the caller reads slowly: the host remembers meanwhile

    def stop(self) -> None:
        if self._stream is not None:
            self._stream.cancel()


class _Moves:
    """Begin and end of each move, once."""

    def __init__(self, store: Store) -> None:
        self._store = store
        self._begun: set[str] = set()
        self._ended: set[str] = set()

    def news(self) -> list[types_pb2.Event]:
        found = []
        for move in reversed(self._store.migrations()):
            if move.id not in self._begun:
                self._begun.add(move.id)
                found.append(_move_event(move, "migrate-begin", move.started_unix_ns))
            if move.finished_unix_ns and move.id not in self._ended:
                self._ended.add(move.id)
                found.append(_move_event(move, "migrate-end", move.finished_unix_ns))
        return found


class _Hosts:
    """Who joined and left, and what heartbeats told, once."""

    def __init__(self, store: Store) -> None:
        self._store = store
        self._last = 0

    def news(self) -> list[types_pb2.Event]:
        rows = host_records.events(self._store.database, self._last)
        self._last = rows[-1].sequence if rows else self._last
        return [
            types_pb2.Event(
                type="host",
                action=row.action,
                id=row.host,
                name=row.host,
                host=row.host,
                unix_ns=row.unix_ns,
                attributes=dict(row.attributes),
            )
            for row in rows
        ]


def _move_event(move: Migration, action: str, unix_ns: int) -> types_pb2.Event:
    attributes = {"migration": move.id, "source": move.source, "target": move.target}
    if action == "migrate-end":
        attributes["state"] = str(move.state)
    there = action == "migrate-end" and move.state is MoveState.SUCCEEDED
    return types_pb2.Event(
        type="container",
        action=action,
        id=move.container_id,
        name=move.container,
        host=move.target if there else move.source,
        unix_ns=unix_ns,
        attributes=attributes,
    )


def _host_event(host: str, action: str, error: MigrateError | None = None) -> types_pb2.Event:
    attributes = {"error": error.message} if error else {}
    return types_pb2.Event(
        type="host", action=action, id=host, name=host, host=host, unix_ns=time.time_ns(), attributes=attributes
    )


def _within(event: types_pb2.Event, request: agent_pb2.EventsRequest) -> bool:
    return event.unix_ns >= request.since_unix_ns and not (0 < request.until_unix_ns < event.unix_ns)
