"""Runs evacuations and restores: a thread each, and as many for its moves as may go at once.

    drain ─ plan ─ for each item: try ─ follow its move ─ elsewhere, or done ─ report

The store is the truth, as it is for moves: a thread that is lost (a crash, a shutdown) is begun again with the next start, and finds in the
items how far it was. A container that cannot be moved holds up no other.
"""

from __future__ import annotations

import dataclasses
import logging
import secrets
import threading
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass

from migrate.coordinator.containers import FleetContainers
from migrate.coordinator.evacuation.plan import MOVES, Planner
from migrate.coordinator.evacuation.records import (
    ACTIONS,
    EVACUATE,
    GOOD,
    OPEN,
    RESTORE,
    Evacuation,
    Evacuations,
    Item,
    ItemState,
    Options,
    State,
)
from migrate.coordinator.moves import MoveRunner
from migrate.coordinator.orders import MoveOrder
from migrate.coordinator.rates import LEAST_BANDWIDTH
from migrate.coordinator.store import ACTIVE, MoveState, PrecopyOptions, Store, TransferOptions
from migrate.errors import ErrorRecord, InvalidArgument, MigrateError, NotFound, Unreachable
from migrate.saga.saga import Interrupted
from protos import coordinator_pb2

MOST_TRIES = 3
LOOK_S = 0.1  # at a move under way, and at what has changed
DRAIN_S = 600.0  # how long creates and moves under way are waited for, before the plan is made without them
WAITING_S = 60.0  # of a move past its pivot, before others take its place
MODES = {"live": "", "stop-and-copy": "stop-and-copy"}

log = logging.getLogger(__name__)


@dataclass(frozen=True, kw_only=True)
class Planned:
    """The first event: the evacuation with all its items."""

    evacuation: Evacuation


@dataclass(frozen=True, kw_only=True)
class Note:
    """A line for people."""

    text: str


@dataclass(frozen=True, kw_only=True)
class Ended:
    """The last event."""

    evacuation: Evacuation


Event = Planned | Item | Note | Ended


class EvacuationRunner:
    """Thread-safe. One a coordinator, beside its MoveRunner."""

    def __init__(
        self, store: Store, evacuations: Evacuations, planner: Planner, moves: MoveRunner, containers: FleetContainers
    ) -> None:
        self._store, self._evacuations, self._planner = store, evacuations, planner
        self._moves, self._containers = moves, containers
        self._stop = threading.Event()
        self._lock = threading.Lock()
        self._threads: dict[str, threading.Thread] = {}

    # ------------------------------------------------------------ what people ask for

    def dry_run(self, kind: str, host: str, options: Options, reason: str = "") -> Evacuation:
        """The plan, as it would be now; nothing is touched."""
        wanted = self._wanted(kind, host, options, reason, "")
        items, predicted_s = self._planner.items(wanted) if not options.skip else ([], 0.0)
        return dataclasses.replace(
            wanted, id="", state=State.PLANNED, planned=True, items=tuple(items), predicted_s=predicted_s
        )

    def check(self, kind: str, host: str, options: Options) -> None:
        """Raises as `start` does for what makes no sense; nothing is touched."""
        self._wanted(kind, host, options, "", "")

    def start(self, kind: str, host: str, options: Options, reason: str = "", request_id: str = "") -> str:
        """Begin, or return the id of what the same request began. From then on the host is cordoned, or no longer.

        Raises NotFound, InvalidArgument, WrongState (another one of this host goes on).
        """
        if known := self._evacuations.of_request(request_id):
            return self._same(known, kind, host)
        if self._stop.is_set():
            raise Unreachable("the coordinator is going down", hint="try again when it is back")
        wanted = self._wanted(kind, host, options, reason, request_id)
        begun = self._evacuations.begin(wanted)
        if begun.id != wanted.id:
            return self._same(begun, kind, host)
        self._launch(begun.id)
        return begun.id

    def watch(self, evacuation_id: str, *, wanted: threading.Event | None = None) -> Iterator[Event]:
        """From its beginning, then live, up to Ended; until `wanted` is cleared. Raises Unreachable when this process goes down first."""
        known = self._evacuations.get(evacuation_id)
        if not known.planned and known.state is State.RUNNING:
            waits = "waiting for what is under way there, then planning" if known.kind == EVACUATE else "planning"
            yield Note(text=f"{known.kind} {known.id} of {known.host}: {waits}")
        seen: dict[str, Item] = {}
        told = False
        while wanted is None or wanted.is_set():
            now = self._evacuations.get(
                known.id
            )  # before the threads are looked at: what has ended has written all of it
            over = now.state is not State.RUNNING
            if now.planned and not told:
                told = True
                yield Planned(evacuation=now)
                seen = {item.container_id: item for item in now.items}
            for item in now.items:
                if seen.get(item.container_id) != item:
                    seen[item.container_id] = item
                    yield item
            if over:
                yield Ended(evacuation=now)
                return
            if self._stop.wait(LOOK_S):
                raise Unreachable(
                    f"the coordinator is going down; {known.kind} {known.id} goes on when it is back",
                    hint=f"migrate evacuations watch {known.id}",
                    touched="something",
                )

    def cancel(self, evacuation_id: str) -> Evacuation:
        """No more moves are begun; those under way come to their end. The host stays cordoned."""
        known = self._evacuations.get(evacuation_id)
        if known.state is State.RUNNING:
            self._evacuations.cancel(known.id)
        return self._evacuations.get(known.id)

    # ------------------------------------------------------------ the coordinator's own life

    def recover(self) -> None:
        """At the coordinator's start, after the moves': go on with every one that a crash or a shutdown left."""
        for evacuation in self._evacuations.newest(active=True):
            self._launch(evacuation.id)

    def shutdown(self, timeout_s: float = 5.0) -> None:
        """Stop working, before the moves stop; what is under way is left for `recover`."""
        self._stop.set()
        with self._lock:
            threads = list(self._threads.values())
        give_up = time.monotonic() + timeout_s
        for thread in threads:
            thread.join(max(0.0, give_up - time.monotonic()))

    # ------------------------------------------------------------ inside

    def _wanted(self, kind: str, host: str, options: Options, reason: str, request_id: str) -> Evacuation:
        name = self._store.host(host).name
        for target in options.to:
            if self._store.host(target).name == name:
                raise InvalidArgument(f"{name} is emptied: it cannot be a target of that", hint="name other hosts")
        if options.action and options.action not in ACTIONS:
            raise InvalidArgument(f"no action {options.action!r}", hint=f"one of {', '.join(ACTIONS)}")
        if options.bandwidth and options.bandwidth // options.max_parallel < LEAST_BANDWIDTH:
            raise InvalidArgument(
                f"{options.bandwidth} bytes a second for {options.max_parallel} moves at once is too little",
                hint=f"at least {LEAST_BANDWIDTH >> 10}k for each, or a smaller --max-parallel",
            )
        return Evacuation(
            id=secrets.token_hex(8),
            kind=kind,
            host=name,
            state=State.RUNNING,
            reason=reason,
            options=options,
            request_id=request_id,
            started_unix_ns=time.time_ns(),
        )

    @staticmethod
    def _same(known: Evacuation, kind: str, host: str) -> str:
        if (known.kind, known.host) != (kind, host):
            text = f"request {known.request_id!r} was for {known.kind} of {known.host}, not for this"
            raise InvalidArgument(text, hint="another one needs a new request id")
        return known.id

    def _launch(self, evacuation_id: str) -> None:
        thread = threading.Thread(
            target=self._work, args=(evacuation_id,), name=f"evacuation-{evacuation_id}", daemon=True
        )
        with self._lock:
            self._threads[evacuation_id] = thread
        thread.start()

    def _work(self, evacuation_id: str) -> None:
        """The whole life of an evacuation's thread."""
        try:
            evacuation = self._evacuations.get(evacuation_id)
            if not evacuation.planned:
                evacuation = self._plan(evacuation)
            self._carry_out(evacuation)
            self._evacuations.finish(evacuation_id, self._verdict(evacuation_id))
            log.info("%s %s of %s: %s", evacuation.kind, evacuation_id, evacuation.host, self._verdict(evacuation_id))
        except Interrupted:
            log.info("evacuation %s is left for the next start", evacuation_id)
        except Exception:  # a mistake of ours must leave a state that somebody sees, not one that waits for ever
            log.exception("evacuation %s", evacuation_id)
            self._evacuations.finish(evacuation_id, State.INCOMPLETE)
        finally:
            with self._lock:
                self._threads.pop(evacuation_id, None)
            self._store.database.close()

    def _plan(self, evacuation: Evacuation) -> Evacuation:
        if evacuation.kind == EVACUATE:
            self._drain(evacuation)
        items, predicted_s = self._planner.items(evacuation) if not evacuation.options.skip else ([], 0.0)
        self._evacuations.write_plan(evacuation.id, items, predicted_s)
        return self._evacuations.get(evacuation.id)

    def _drain(self, evacuation: Evacuation) -> None:
        """Until no container is being made on the host, and none is on its way to it or away from it: they passed before the cordon."""
        give_up = time.monotonic() + DRAIN_S
        while time.monotonic() < give_up and not self._evacuations.get(evacuation.id).cancelled:
            made = {one.id for one in self._store.containers(evacuation.host)} & self._containers.coming()
            moves = [
                one
                for one in self._store.migrations(active=True)
                if evacuation.host in (one.source, one.target) and one.state is not MoveState.NEEDS_ATTENTION
            ]
            if not made and not moves:
                return
            self._wait()

    def _carry_out(self, evacuation: Evacuation) -> None:
        """Those that had begun before a crash first."""
        pending = [item for item in evacuation.items if item.state in OPEN]
        pending.sort(key=lambda item: item.state is ItemState.PLANNED)
        with ThreadPoolExecutor(max_workers=evacuation.options.max_parallel, thread_name_prefix="evacuate") as lanes:
            done = [lanes.submit(self._one, evacuation, item) for item in pending]
        for one in done:
            one.result()

    def _one(self, evacuation: Evacuation, item: Item) -> None:
        """One container to its end; whatever goes wrong is its own."""
        try:
            if item.state is ItemState.PLANNED:
                self._interrupt()
                state, why = self._too_late(evacuation, item)
                if state is not None:
                    self._write(evacuation, dataclasses.replace(item, state=state, why=why))
                    return
            if item.action in MOVES:
                self._move(evacuation, item)
            else:
                self._stop_or_start(evacuation, item)
        except Interrupted:
            raise
        except Exception as exc:
            self._interrupt()  # the process goes down: that is no failure of this container's
            if not isinstance(exc, MigrateError):
                log.exception("evacuation %s: %s", evacuation.id, item.container)
            latest = next(
                one for one in self._evacuations.items(evacuation.id) if one.container_id == item.container_id
            )
            self._write(evacuation, dataclasses.replace(latest, state=ItemState.FAILED, error=ErrorRecord.of(exc)))
        finally:
            self._store.database.close()

    def _too_late(self, evacuation: Evacuation, item: Item) -> tuple[ItemState | None, str]:
        """Why it is not begun any more, or (None, "")."""
        if self._evacuations.get(evacuation.id).cancelled:
            return ItemState.CANCELLED, "the evacuation was cancelled before its turn"
        if 0 < evacuation.options.deadline_unix_ns < time.time_ns():
            return ItemState.LATE, "the deadline was over before its turn"
        try:
            container = self._store.container(item.container_id)
        except NotFound:
            return ItemState.SKIPPED, "it was removed meanwhile"
        if container.owner != item.source:
            return ItemState.SKIPPED, f"it has moved to {container.owner} meanwhile"
        return None, ""

    # ------------------------------------------------------------ one container

    def _move(self, evacuation: Evacuation, item: Item) -> None:
        while True:
            if item.state is ItemState.PLANNED:
                item = dataclasses.replace(item, state=ItemState.MOVING, tries=item.tries + 1, migration_id="")
                self._write(evacuation, item)
            item = self._tried(evacuation, item)
            if item.state is not ItemState.PLANNED:
                self._finish_move(evacuation, item)
                return
            state, why = self._too_late(evacuation, item)
            if state is not None:
                self._write(evacuation, dataclasses.replace(item, state=state, why=why))
                return

    def _tried(self, evacuation: Evacuation, item: Item) -> Item:
        """Begin or take up the move of the present try and follow it; PLANNED again where it is to be tried elsewhere."""
        try:
            migration_id = self._moves.start(self._order(evacuation, item))
        except MigrateError as exc:
            self._interrupt()
            return self._again(evacuation, item, ErrorRecord.of(exc))
        if item.migration_id != migration_id:
            item = dataclasses.replace(item, migration_id=migration_id)
            self._write(evacuation, item)
        state = self._followed(item)
        record = self._moves.record(migration_id)
        error = record.error
        if state is MoveState.SUCCEEDED:
            return dataclasses.replace(
                item,
                state=ItemState.MOVED,
                took_s=record.facts.get("total_s", 0.0),
                downtime_s=record.facts.get("downtime_s", 0.0),
                error=None,
            )
        if state is MoveState.WAITING:
            return dataclasses.replace(item, state=ItemState.WAITING, error=error, why="its move goes on by itself")
        if state is MoveState.CANCELLED:
            return dataclasses.replace(item, state=ItemState.CANCELLED, error=error, why="its move was cancelled")
        if state is MoveState.NEEDS_ATTENTION:
            return dataclasses.replace(item, state=ItemState.FAILED, error=error, why=f"migrate repair {migration_id}")
        return self._again(evacuation, item, error)

    def _order(self, evacuation: Evacuation, item: Item) -> MoveOrder:
        options = evacuation.options
        return MoveOrder(
            container=item.container_id,
            to=item.target,
            reason=evacuation.reason or f"{evacuation.kind} of {evacuation.host}",
            mode=MODES[item.action],
            request_id=evacuation.move_request(item),
            transfer=TransferOptions(bandwidth=options.bandwidth // options.max_parallel),
            precopy=PrecopyOptions(end_exec=options.end_exec),
        )

    def _followed(self, item: Item) -> MoveState:
        """The move's last state; WAITING only where that has lasted."""
        waiting_since: float | None = None
        while True:
            state = self._store.migration(item.migration_id).state
            if state not in ACTIVE or state is MoveState.NEEDS_ATTENTION:
                return state
            waiting_since = (waiting_since or time.monotonic()) if state is MoveState.WAITING else None
            if waiting_since is not None and time.monotonic() - waiting_since > WAITING_S:
                return state
            self._wait()

    def _again(self, evacuation: Evacuation, item: Item, error: ErrorRecord | None) -> Item:
        """To be tried elsewhere, or at the same place where there is no other; FAILED after the last try."""
        failed = dataclasses.replace(item, error=error, tried=(*item.tried, item.target))
        if item.tries >= MOST_TRIES:
            return dataclasses.replace(failed, state=ItemState.FAILED, why=f"failed {item.tries} times")
        found = self._planner.elsewhere(evacuation, failed)
        if not found.target:
            return dataclasses.replace(found, state=ItemState.FAILED, target=item.target)
        return dataclasses.replace(found, state=ItemState.PLANNED)

    def _finish_move(self, evacuation: Evacuation, item: Item) -> None:
        if evacuation.kind == RESTORE and item.state is ItemState.MOVED:
            self._evacuations.bring_home(evacuation, item)
        else:
            self._write(evacuation, item)

    def _stop_or_start(self, evacuation: Evacuation, item: Item) -> None:
        """Both can be said again, after a crash."""
        stops = item.action == "stop"
        item = dataclasses.replace(item, state=ItemState.STOPPING if stops else ItemState.STARTING, tries=1)
        self._write(evacuation, item)
        if stops:
            request = coordinator_pb2.StopContainerRequest(name=item.container_id, default_timeout=True)
            self._containers.stop(request)
            self._write(evacuation, dataclasses.replace(item, state=ItemState.STOPPED))
        else:
            self._containers.start(item.container_id)
            self._evacuations.bring_home(evacuation, dataclasses.replace(item, state=ItemState.STARTED))

    # ------------------------------------------------------------ parts

    def _write(self, evacuation: Evacuation, item: Item) -> None:
        self._evacuations.write_item(evacuation.id, item)

    def _verdict(self, evacuation_id: str) -> State:
        now = self._evacuations.get(evacuation_id)
        if all(item.state in GOOD for item in now.items) and (now.planned or now.options.skip):
            return State.SUCCEEDED
        return State.CANCELLED if now.cancelled else State.INCOMPLETE

    def _interrupt(self) -> None:
        if self._stop.is_set():
            raise Interrupted

    def _wait(self) -> None:
        if self._stop.wait(LOOK_S):
            raise Interrupted
