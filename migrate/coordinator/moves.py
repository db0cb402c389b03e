"""Runs moves: a thread each, watched by anybody, cancelled before the pivot, gone on with after a crash.

The database is the truth: which moves are active, which container they hold, how far they are. A thread only works on
what is written there, so losing every thread (a crash, a shutdown) loses nothing.
"""

from __future__ import annotations

import dataclasses
import logging
import re
import secrets
import sqlite3
import threading
import time
from collections.abc import Iterator
from dataclasses import dataclass, field

from migrate.coordinator import decisions, events, learned, migration, move_logs, recovery
from migrate.coordinator.cancelling import Cancelling
from migrate.coordinator.checks import state_name
from migrate.coordinator.events import Done, Event, Feed, MigrationRecord, Progress
from migrate.coordinator.explained import explained
from migrate.coordinator.move import Agents, Move, Signer
from migrate.coordinator.preflight import catalog, report
from migrate.coordinator.preflight.report import Report
from migrate.coordinator.recovery import Seen, Sighting, Verdict
from migrate.coordinator.steps import SLOWEST_BYTES_PER_S
from migrate.coordinator.store import (
    ACTIVE,
    COMPRESS,
    ON_TIMEOUT,
    Migration,
    MigrationId,
    MoveState,
    PrecopyOptions,
    Store,
    TransferOptions,
)
from migrate.errors import (
    Cancelled,
    ErrorRecord,
    InvalidArgument,
    MigrateError,
    NeedsAttention,
    Unreachable,
    WrongState,
)
from migrate.saga.journal import SAGA, Direction, Journal
from migrate.saga.journal import Event as JournalEvent
from migrate.saga.saga import Interrupted, Pace, SagaStuck, SagaUndone
from protos import agent_pb2

DEFAULT_DOWNTIME_S = 0.3
LEAST_BANDWIDTH = 64 << 10
LEARN_FROM, LEARN_FROM_MOST = 5, 50  # moves that say what a freeze costs; how far back they are looked for
DATABASE_RETRY_S = 2.0  # the disk is full, say: nothing can be decided without the journal
ASK_S = 10.0  # deadline of Where
ASK_AGAIN_S = 1.0
NO_TUNNEL = "migration.no_tunnel"  # an agent's code

# By what an operator wants to keep: whether a repair may go on.
_JUDGES = {"": recovery.judge, "source": recovery.may_keep_source, "target": recovery.may_keep_target}

log = logging.getLogger(__name__)


@dataclass(frozen=True, kw_only=True)
class MoveOrder:
    """As MoveRequest in protos/coordinator.proto. `mode` "" = "auto"; `max_downtime_s` 0 = the default."""

    container: str
    to: str
    reason: str = ""
    mode: str = ""
    max_downtime_s: float = 0.0
    request_id: str = ""
    transfer: TransferOptions = field(default_factory=TransferOptions)
    precopy: PrecopyOptions = field(default_factory=PrecopyOptions)
    skip: tuple[str, ...] = ()


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
        planned = self._planned(order)
        return report.make(self._move(planned, Feed()), planned, self._last_moves(planned))

    def start(self, order: MoveOrder) -> MigrationId:
        """Begin, or return the move that the same request_id began.

        Raises NotFound, InvalidArgument, WrongState (another move is active); failures of the move itself are events.
        """
        if order.request_id and (known := self._store.migration_of_request(order.request_id)):
            return self._same(known, order)
        self._refuse_when_going_down()  # before a row is written: it would wait for the next start to be acted upon
        planned = self._planned(order)
        created = self._store.create_migration(planned)
        if created.id == planned.id:
            self._launch(created)
            return created.id
        return self._same(created, order)

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
        if self._sight(move, move.target) is None:
            raise decisions.nothing_kept(move)
        return self.start(MoveOrder(container=move.container_id, to=move.source, reason=f"undo of {move.id}"))

    def set_bandwidth(self, migration_id: str, bandwidth: int) -> str:
        """Bytes per second from now on, 0 = no limit; returns what that means, for people.

        Raises WrongState once the move sends no more, and where its steps would not end in time at that rate.
        """
        _check_bandwidth(bandwidth)
        move = self._store.migration(migration_id)
        journal = self._journal(move.id)
        if move.state not in ACTIVE or not _sends(journal):
            raise WrongState(f"move {move.id} sends nothing any more: it is {move.state}")
        least = min(SLOWEST_BYTES_PER_S, move.transfer.bandwidth or SLOWEST_BYTES_PER_S)
        if bandwidth and bandwidth < least and journal.has("layers", JournalEvent.STARTED):
            raise WrongState(
                f"move {move.id} has begun with time for {least} bytes a second at least",
                hint="to send more slowly, cancel it and move with that --bandwidth from the beginning",
            )
        self._store.set_migration_bandwidth(move.id, bandwidth)
        if journal.has("tunnel", JournalEvent.DONE):
            request = agent_pb2.SetBandwidthRequest(migration_id=move.id, epoch=move.epoch, bandwidth=bandwidth)
            try:
                self._move(move, Feed()).call(move.source, "SetBandwidth", request, timeout_s=ASK_S)
            except WrongState as exc:
                if exc.code != NO_TUNNEL:
                    raise  # else the next one, which post-copy opens when it can, gets it
        what = f"{bandwidth} bytes a second" if bandwidth else "as much as there is"
        return f"move {move.id} of {move.container} sends {what}"

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
            seen = self._look(move, ask_s=0.0)
            verdict = _JUDGES[keep](move, seen)
            if not verdict.go_on:
                raise WrongState(verdict.text, hint=verdict.hint) if keep else verdict.error()
            if not dry_run:
                if keep:
                    self._decide(move, seen, keep)
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

    def _planned(self, order: MoveOrder) -> Migration:
        mode = order.mode or "auto"
        migration.saga(mode)  # raises for a mode that does not exist
        if order.max_downtime_s < 0:
            raise InvalidArgument(f"max_downtime_s is {order.max_downtime_s}, and cannot be below 0")
        if order.transfer.compress not in COMPRESS:
            raise InvalidArgument(f"no codec {order.transfer.compress!r}", hint=f"one of {', '.join(COMPRESS)}")
        _check_bandwidth(order.transfer.bandwidth)
        _check_precopy(mode, order)
        skip = catalog.checked_skips(order.skip)
        container = self._store.container(order.container)
        target = self._store.host(order.to)
        if container.owner == target.name:
            raise InvalidArgument(f"{container.name} is on {target.name} already", hint="choose another host")
        planned = Migration(
            id=MigrationId(secrets.token_hex(8)),
            container_id=container.id,
            container=container.name,
            source=container.owner,
            target=target.name,
            epoch=container.epoch,
            state=MoveState.RUNNING,
            reason=order.reason,
            mode=mode,
            max_downtime_s=order.max_downtime_s or DEFAULT_DOWNTIME_S,
            request_id=order.request_id,
            started_unix_ns=time.time_ns(),
            finished_unix_ns=0,
            error=None,
            transfer=order.transfer,
            precopy=dataclasses.replace(order.precopy, binding=order.max_downtime_s > 0),
            skip=skip,
        )
        fixed_s = learned.fixed_s(self._last_moves(planned))
        return dataclasses.replace(planned, precopy=dataclasses.replace(planned.precopy, fixed_s=fixed_s))

    def _last_moves(self, planned: Migration) -> list[MigrationRecord]:
        """Newest first: of this container if there are any, else those between the same two hosts."""
        there = [
            move
            for move in self._store.migrations(limit=LEARN_FROM_MOST)
            if move.state is MoveState.SUCCEEDED and (move.source, move.target) == (planned.source, planned.target)
        ]
        own = [move for move in there if move.container_id == planned.container_id]
        return [events.record(move, self._journal(move.id).entries()) for move in (own or there)[:LEARN_FROM]]

    def _same(self, known: Migration, order: MoveOrder) -> MigrationId:
        if order.to != known.target or order.container not in (known.container, known.container_id):
            text = f"request {order.request_id!r} was for {known.container} to {known.target}, not for this"
            raise InvalidArgument(text, hint="a new move needs a new request id")
        return known.id

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
                verdict = recovery.judge(move, self._look(move, ask_s=self._patience.ask_s))
                log.info("move %s after a restart: %s", move.id, verdict.text)
                if not verdict.go_on:
                    raise verdict.error()
            migration.saga(move.mode, hold=move.precopy.hold).run(context, context.journal, self._pace(context))
        except SagaUndone as exc:
            return _failed(context, exc)
        except SagaStuck as exc:
            return MoveState.NEEDS_ATTENTION, _stuck(move, exc)
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

    def _decide(self, move: Migration, seen: Seen, keep: str) -> None:
        context = self._move(move, Feed())
        facts = {
            "step": SAGA,
            "keep": keep,
            "cancelled": False,
            "error": ErrorRecord(code="cancelled", message=f"an operator kept the copy on {keep}").to_json(),
        }
        if keep == "target":
            context.journal.decide(JournalEvent.COMMITTED, lambda db: migration.pivot(context, db), facts)
        elif seen.direction is Direction.COMMITTED:
            context.journal.decide(JournalEvent.ABORTING, lambda db: migration.unpivot(context, db), facts)
        else:
            context.journal.decide(JournalEvent.ABORTING, lambda _db: None, facts)

    def _look(self, move: Migration, *, ask_s: float) -> Seen:
        journal = self._journal(move.id)
        entries = journal.entries()
        give_up = time.monotonic() + ask_s
        sightings: dict[str, Sighting | None] = {}
        for host in (move.source, move.target):
            while (sighting := self._sight(move, host)) is None and time.monotonic() < give_up:
                self._wait(ASK_AGAIN_S)
            sightings[host] = sighting
        return Seen(
            direction=journal.direction(),
            done={entry.step for entry in entries if entry.event is JournalEvent.DONE},
            undone={entry.step for entry in entries if entry.event is JournalEvent.UNDONE},
            source=sightings[move.source],
            target=sightings[move.target],
            kept_back=bool(journal.results().get("freeze", {}).get("later_bytes")),
        )

    def _sight(self, move: Migration, host: str) -> Sighting | None:
        context = self._move(move, Feed())
        request = agent_pb2.WhereRequest(container_id=move.container_id)
        try:
            answer = context.call(host, "Where", request, timeout_s=ASK_S)
        except MigrateError as exc:
            log.warning("move %s: %s cannot say what is there: %s", move.id, host, exc.message)
            return None
        return Sighting(
            present=answer.present,
            state=state_name(answer.state),
            epoch=answer.epoch,
            migration_id=answer.migration_id,
            role=answer.role,
            committed=answer.committed,
        )


def _check_bandwidth(bandwidth: int) -> None:
    if bandwidth and bandwidth < LEAST_BANDWIDTH:
        raise InvalidArgument(
            f"a bandwidth of {bandwidth} bytes a second is too little to move anything",
            hint=f"at least {LEAST_BANDWIDTH >> 10}k, or 0 for no limit",
        )


def _failed(context: Move, undone: SagaUndone) -> tuple[MoveState, ErrorRecord]:
    """The whole move's error: of the step that failed, saying that the container runs on as before, and what to type."""
    began = {entry.step for entry in context.journal.entries() if entry.event is JournalEvent.STARTED}
    touched = "undone" if began - {"precheck"} else "nothing"
    error = dataclasses.replace(undone.error, touched=touched)
    if undone.cancelled:
        return MoveState.CANCELLED, error
    if not error.hint:  # else who failed knows what to do
        again = f"try again: migrate move {context.container} --to {context.target}"
        why = f"why: migrate doctor {context.id}"
        remedy = re.sub(
            r"[,;]? (then |and )?move again$|^move again$", "", explained(error).hint
        )  # which is said in full
        error = dataclasses.replace(explained(error), hint="; ".join(each for each in (remedy, again, why) if each))
    if undone.step not in (SAGA, "precheck"):
        error = dataclasses.replace(error, message=f"{undone.step} failed: {error.message}")
    return MoveState.FAILED, error


def _stuck(move: Migration, stuck: SagaStuck) -> ErrorRecord:
    hints = [error.hint for error in stuck.errors.values() if error.code == NeedsAttention.code and error.hint]
    return ErrorRecord(
        code=NeedsAttention.code,
        message=str(stuck),
        hint=hints[0] if hints else f"migrate repair {move.id}",
        touched="something",
        detail="\n".join(
            line
            for step, error in stuck.errors.items()
            for line in (f"{step}: {explained(error).message}", *error.detail.splitlines())
        ),
    )


def _sends(journal: Journal) -> bool:
    """Up to the end of the freeze; with post-copy until all memory has followed."""
    if not journal.has("freeze", JournalEvent.DONE):
        return journal.direction() is Direction.FORWARD
    later_bytes = journal.results()["freeze"].get("later_bytes")
    return (
        bool(later_bytes) and journal.direction() is not Direction.BACK and not journal.has("rest", JournalEvent.DONE)
    )


def _check_precopy(mode: str, order: MoveOrder) -> None:
    options = order.precopy
    if options.on_timeout not in ON_TIMEOUT:
        raise InvalidArgument(
            f"no way {options.on_timeout!r} to end sending ahead", hint=f"one of {', '.join(ON_TIMEOUT)}"
        )
    if options.timeout_s < 0:
        raise InvalidArgument(f"a timeout of {options.timeout_s} s")
    if mode == "stop-and-copy" and (options.max_rounds or options.timeout_s or options.throttle):
        raise InvalidArgument("stop-and-copy sends nothing ahead: rounds, a timeout and a throttle are of no use")
