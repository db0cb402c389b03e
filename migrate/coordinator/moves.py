"""Runs moves: a thread each, watched by anybody, cancelled before the pivot, gone on with after a crash.

The database is the truth: which moves are active, which container they hold, how far they are. A thread only works on
what is written there, so losing every thread (a crash, a shutdown) loses nothing.
"""

from __future__ import annotations

import dataclasses
import logging
import sqlite3
import threading
import time
from collections.abc import Iterator
from dataclasses import dataclass

from migrate.coordinator import decisions, events, migration, move_logs, orders, outcome, recovery, sightings, unknown
from migrate.coordinator.cancelling import Cancelling
from migrate.coordinator.events import Done, Event, Feed, MigrationRecord, Progress
from migrate.coordinator.move import Agents, Move, Signer
from migrate.coordinator.orders import MoveOrder
from migrate.coordinator.preflight import report
from migrate.coordinator.preflight.report import Report
from migrate.coordinator.recovery import Verdict
from migrate.coordinator.store import (
    ACTIVE,
    Migration,
    MigrationId,
    MoveState,
    Store,
)
from migrate.errors import (
    Cancelled,
    ErrorRecord,
    InvalidArgument,
    NeedsAttention,
    Unreachable,
    WrongState,
)
from migrate.saga.journal import Direction, Journal
from migrate.saga.saga import Interrupted, Pace, SagaStuck, SagaUndone
from protos import agent_pb2

DATABASE_RETRY_S = 2.0  # the disk is full, say: nothing can be decided without the journal

# By what an operator wants to keep: whether a repair may go on.
_JUDGES = {"": recovery.judge, "source": recovery.may_keep_source, "target": recovery.may_keep_target}

log = logging.getLogger(__name__)


@dataclass(frozen=True, kw_only=True)
class Patience:
    """How long a move tries. `ask_s`: how long both hosts are asked after a restart before it goes on without."""

    undo_limit_s: float = 60.0
    first_s: float = 0.2
    longest_s: float = 10.0
    ask_s: float = 30.0


@dataclass(frozen=True, kw_only=True)
class CancelAnswer:
    """`state` of the move as it is now, `text` for the person who asked."""

    state: MoveState
    text: str


class MoveRunner:
    """Thread-safe. One a coordinator; one coordinator a database."""

    def __init__(self, store: Store, agents: Agents, signer: Signer, patience: Patience | None = None) -> None:
        self._store = store
        self._agents = agents
        self._signer = signer
        self._patience = patience or Patience()
        self._lock = threading.Lock()
        self._repairing = threading.Lock()
        self._stop = threading.Event()
        self._threads: dict[MigrationId, threading.Thread] = {}
        self._feeds: dict[MigrationId, Feed] = {}
        self._cancels: dict[MigrationId, Cancelling] = {}

    # ------------------------------------------------------------ what people ask for

    def check(self, order: MoveOrder) -> Report:
        """What speaks against the move, and how long it would take. Nothing is touched. Raises as `start` does."""
        planned = orders.planned(order, self._store)
        return report.make(self._move(planned, Feed()), planned, orders.last_moves(self._store, planned))

    def start(self, order: MoveOrder) -> MigrationId:
        """Begin, or return the move that the same request_id began.

        Raises NotFound, InvalidArgument, WrongState (another move is active); failures of the move itself are events.
        """
        if order.request_id and (known := self._store.migration_of_request(order.request_id)):
            return orders.same(known, order)
        self._refuse_when_going_down()  # before a row is written: it would wait for the next start to be acted upon
        planned = orders.planned(order, self._store)
        created = self._store.create_migration(planned)
        if created.id == planned.id:
            self._launch(created)
            return created.id
        return orders.same(created, order)

    def watch(self, migration_id: str) -> Iterator[Event]:
        """From its beginning, then live, up to Done. Raises Unreachable when this process goes down first."""
        move = self._store.migration(migration_id)
        with self._lock:
            feed = self._feeds.setdefault(move.id, Feed())
        watcher = feed.watch()
        journal = Journal(self._store.database, move.id)
        seen = 0
        try:
            while True:
                progress, ended = watcher.take()
                # Read before the rows: a state that is final has all its rows written.
                final = self._is_final(move.id)
                steps = [events.step_event(entry) for entry in journal.entries(seen)]
                seen = steps[-1].seq if steps else seen
                news: list[events.StepEvent | Progress] = [*steps, *progress]
                yield from sorted(news, key=lambda event: event.unix_ns)
                if final:
                    break
                if ended or self._stop.is_set():
                    text = f"the coordinator is going down; move {move.id} goes on when it is back"
                    raise Unreachable(text, hint=f"migrate migrations show {move.id}", touched="something")
        finally:
            watcher.close()
            self._forget_idle_feed(move.id)
        yield Done(record=self.record(move.id))

    def cancel(self, migration_id: str) -> CancelAnswer:
        """Ask for it; the move itself ends in `cancelled` a little later, or it was too late."""
        move = self._store.migration(migration_id)
        if move.state not in ACTIVE:
            return CancelAnswer(state=move.state, text=f"too late: move {move.id} has ended, {move.state}")
        journal = self._journal(move.id)
        if journal.request_cancel():
            with self._lock:
                wanted = self._cancels.get(move.id)
            if wanted is not None:
                wanted.set()
            return CancelAnswer(state=move.state, text=f"{move.container} will run on {move.source} as before")
        if journal.direction() is Direction.BACK:
            return CancelAnswer(state=move.state, text="it is being undone already")
        return CancelAnswer(state=move.state, text=f"too late: {move.target} owns {move.container}")

    def commit(self, migration_id: str) -> str:
        """Let a move that holds switch over; what happens now, for people. Raises WrongState, Unreachable."""
        move = self._store.migration(migration_id)
        return decisions.commit(move, self._move(move, self._feed(move.id)))

    def undo(self, migration_id: str) -> MigrationId:
        """Begin the move back of one that succeeded; its id. Raises WrongState, NotFound, Unreachable; as `start`."""
        move = self._store.migration(migration_id)
        decisions.refuse_undo(move, self._store)
        if sightings.sight(self._move(move, Feed()), move, move.target) is None:
            raise decisions.nothing_kept(move)
        return self.start(MoveOrder(container=move.container_id, to=move.source, reason=f"undo of {move.id}"))

    def set_bandwidth(self, migration_id: str, bandwidth: int) -> str:
        """Bytes per second from now on, 0 = no limit; returns what that means, for people.

        Raises WrongState once the move sends no more, and where its steps would not end in time at that rate.
        """
        move = self._store.migration(migration_id)
        return decisions.set_bandwidth(move, self._move(move, self._feed(move.id)), self._store, bandwidth)

    def known(self, word: str, *, dry_run: bool = False) -> MigrationId:
        """The id of the move that a repair is for: see unknown.known()."""
        with self._repairing:
            return unknown.known(self._store, self._agents, word, dry_run=dry_run)

    def repair(self, migration_id: str, *, dry_run: bool = False, keep: str = "") -> Iterator[Event]:
        """Go on with, or undo, what a crash or an error left; the first event says which, the last is Done.

        `keep`: "source" or "target", an operator's decision where the coordinator makes none.
        Raises WrongState (nothing to repair, or it is under way), NeedsAttention (the hosts contradict the journal).
        """
        if keep not in _JUDGES:
            raise InvalidArgument(f"keep is source or target, not {keep!r}")
        with self._repairing:  # two operators must not decide differently
            move = self._store.migration(migration_id)
            if move.state not in ACTIVE:
                raise WrongState(f"move {move.id} has ended, {move.state}: there is nothing to repair")
            if self._is_running(move.id):
                raise WrongState(f"move {move.id} is under way", hint=f"migrate migrations show {move.id}")
            context = self._move(move, Feed())
            seen = sightings.look(context, move, ask_s=0.0, wait=self._wait)
            verdict = _JUDGES[keep](move, seen)
            if not verdict.go_on:
                raise WrongState(verdict.text, hint=verdict.hint) if keep else verdict.error()
            if not dry_run:
                if keep:
                    decisions.keep(context, seen, keep)
                self._store.set_migration_state(move.id, MoveState.RUNNING, None)
                self._launch(move)
        return self._repaired(move, verdict, dry_run=dry_run)

    def record(self, migration_id: str) -> MigrationRecord:
        """By id or an unambiguous prefix, with its journal."""
        move = self._store.migration(migration_id)
        return events.record(move, Journal(self._store.database, move.id).entries())

    def logs(self, migration_id: str) -> agent_pb2.MoveLogs:
        """What both hosts have of its logs, also when it is over and was undone."""
        return move_logs.fetch(self._move(self._store.migration(migration_id), Feed()))

    def records(self, *, container: str = "", active: bool = False, limit: int = 0) -> list[MigrationRecord]:
        """Newest first, without journals. `container`: a name or id; of one that is removed, its id."""
        container_id = ""
        if container:
            known = [c.id for c in self._store.containers() if container in (c.name, c.id)]
            container_id = known[0] if known else container
        moves = self._store.migrations(container_id=container_id, active=active, limit=limit)
        return [
            events.record(move, Journal(self._store.database, move.id).entries(), with_journal=False) for move in moves
        ]

    # ------------------------------------------------------------ the coordinator's own life

    def recover(self) -> None:
        """At the coordinator's start: go on with every move that a crash or a shutdown left. Returns at once."""
        for move in self._store.migrations(active=True):
            if move.state is not MoveState.NEEDS_ATTENTION:  # that one waits for `repair`
                self._launch(move, after_a_crash=True)

    def shutdown(self, timeout_s: float = 5.0) -> None:
        """Stop working; moves under way are left as they are for `recover`. Watchers are told."""
        self._stop.set()
        with self._lock:
            threads, feeds = list(self._threads.values()), list(self._feeds.values())
        give_up = time.monotonic() + timeout_s
        for thread in threads:
            thread.join(max(0.0, give_up - time.monotonic()))
        for feed in feeds:
            feed.end()

    # ------------------------------------------------------------ inside

    def _feed(self, migration_id: MigrationId) -> Feed:
        """Of whoever watches it; one that nobody reads where nobody does."""
        with self._lock:
            return self._feeds.get(migration_id) or Feed()

    def _journal(self, migration_id: MigrationId) -> Journal:
        return Journal(self._store.database, migration_id, on_append=self._feed(migration_id).wake)

    def _move(self, move: Migration, feed: Feed) -> Move:
        cancel = self._cancels.get(move.id) or Cancelling()

        def poll() -> None:
            self._wait(0)
            if cancel.is_set():
                raise Cancelled("cancelled")

        return Move(
            id=move.id,
            container_id=move.container_id,
            container=move.container,
            source=move.source,
            target=move.target,
            epoch=move.epoch,
            max_downtime_s=move.max_downtime_s,
            transfer=lambda: self._store.migration(move.id).transfer,
            precopy=move.precopy,
            skip=move.skip,
            rehearsal=move.rehearsal,
            mode=move.mode,
            agents=self._agents,
            signer=self._signer,
            journal=Journal(self._store.database, move.id, on_append=feed.wake),
            report=feed.report,
            poll=poll,
            reading=cancel.reading,
        )

    def _wait(self, seconds: float) -> None:
        if self._stop.wait(seconds):
            raise Interrupted

    def _is_running(self, migration_id: MigrationId) -> bool:
        with self._lock:
            return migration_id in self._threads

    def _is_final(self, migration_id: MigrationId) -> bool:
        """Nothing more will happen by itself."""
        state = self._store.migration(migration_id).state
        return state not in ACTIVE or (state is MoveState.NEEDS_ATTENTION and not self._is_running(migration_id))

    def _forget_idle_feed(self, migration_id: MigrationId) -> None:
        final = self._is_final(migration_id)
        with self._lock:
            if final and migration_id not in self._threads:
                self._feeds.pop(migration_id, None)

    def _refuse_when_going_down(self) -> None:
        if self._stop.is_set():
            raise Unreachable("the coordinator is going down", hint="try again when it is back")

    def _launch(self, move: Migration, *, after_a_crash: bool = False) -> None:
        with self._lock:
            self._refuse_when_going_down()
            if move.id in self._threads:
                raise WrongState(f"move {move.id} is under way", hint=f"migrate migrations show {move.id}")
            self._feeds.setdefault(move.id, Feed())
            self._cancels[move.id] = Cancelling()
            thread = threading.Thread(
                target=self._work, args=(move, after_a_crash), name=f"move-{move.id}", daemon=True
            )
            self._threads[move.id] = thread
            thread.start()

    def _work(self, move: Migration, after_a_crash: bool) -> None:
        """The whole life of a move's thread."""
        feed = self._feeds[move.id]
        try:
            while True:
                try:
                    state, error = self._attempt(move, feed, after_a_crash=after_a_crash)
                    self._store.set_migration_state(move.id, state, error)
                    break
                except sqlite3.Error:
                    log.exception("move %s: the database cannot be used; trying again", move.id)
                    self._wait(DATABASE_RETRY_S)
            log.info("move %s of %s to %s: %s", move.id, move.container, move.target, state)
        except Interrupted:
            log.info("move %s of %s is left for the next start", move.id, move.container)
        finally:
            with self._lock:
                self._threads.pop(move.id, None)
                self._cancels.pop(move.id, None)
                self._feeds.pop(move.id, None)
            feed.end()
            self._store.database.close()

    def _attempt(self, move: Migration, feed: Feed, *, after_a_crash: bool) -> tuple[MoveState, ErrorRecord | None]:
        """Run the saga to its end; returns how it ended."""
        context = self._move(move, feed)
        try:
            if after_a_crash:
                verdict = recovery.judge(
                    move, sightings.look(context, move, ask_s=self._patience.ask_s, wait=self._wait)
                )
                log.info("move %s after a restart: %s", move.id, verdict.text)
                if not verdict.go_on:
                    raise verdict.error()
                if move.rehearsal:
                    decisions.end_rehearsal(context)
            migration.saga(
                move.mode, hold=move.precopy.hold, end_exec=move.precopy.end_exec, rehearsal=move.rehearsal
            ).run(context, context.journal, self._pace(context))
        except SagaUndone as exc:
            return outcome.failed(context, exc)
        except SagaStuck as exc:
            return MoveState.NEEDS_ATTENTION, outcome.stuck(move, exc)
        except NeedsAttention as exc:
            return MoveState.NEEDS_ATTENTION, ErrorRecord.of(exc)
        except (sqlite3.Error, Interrupted):
            raise
        except Exception as exc:  # a mistake of ours must leave a state that somebody sees, not a dead thread
            log.exception("move %s", move.id)
            hint = f"migrate repair {move.id} --dry-run"
            return MoveState.NEEDS_ATTENTION, dataclasses.replace(ErrorRecord.of(exc), hint=hint)
        return MoveState.SUCCEEDED, None

    def _pace(self, context: Move) -> Pace:
        def waiting(step: str, error: Exception, seconds: float) -> None:
            found = ErrorRecord.of(error)
            text = f"{found.message}; again in {seconds:g} s"
            context.report(
                Progress(phase=step, text=text, done_bytes=0, total_bytes=0, facts={}, unix_ns=time.time_ns())
            )
            if context.journal.direction() is Direction.COMMITTED:
                self._store.set_migration_state(context.id, MoveState.WAITING, found)

        patience = self._patience
        return Pace(
            wait=self._wait,
            waiting=waiting,
            undo_limit_s=patience.undo_limit_s,
            first_s=patience.first_s,
            longest_s=patience.longest_s,
        )

    def _repaired(self, move: Migration, verdict: Verdict, *, dry_run: bool) -> Iterator[Event]:
        yield Progress(phase="repair", text=verdict.text, done_bytes=0, total_bytes=0, facts={}, unix_ns=time.time_ns())
        if dry_run:
            yield Done(record=self.record(move.id))
        else:
            yield from self.watch(move.id)
