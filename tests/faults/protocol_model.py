"""An explicit-state checker of a move: the saga's, the steps', the runner's and the recovery's own code over two hosts in memory.

A state is all that outlives a process: the journal and the owner (the coordinator's database), both hosts, calls that are still on their
way. A life of the coordinator goes from its start to its end; every instant of it is a state, and a crash there begins another life from
that state. States that were seen are not begun again, so crashes are explored to their fixpoint, however many come in a row. Other faults
are bounded: at most `faults` of them on the way to a state, each tried at every call (lost, its answer lost, twice, late, ...) or instant
(a host reboots, the move is cancelled).

What is asked of every state: no two copies run, no copy of the past runs, nobody ends the only copy (World.violations). And of every end:
the owner runs it and nobody else has anything, or what is lost is said, with a command that helps where it is typed.
"""

from __future__ import annotations

import argparse
import copy
import dataclasses
import logging
import re
import sqlite3
import time
from collections import Counter, deque
from collections.abc import Callable, Hashable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field

from migrate.coordinator import allocate, decisions, moves, orders, sightings
from migrate.coordinator.cancelling import Cancelling
from migrate.coordinator.events import Feed
from migrate.coordinator.moves import MoveRunner, Patience
from migrate.coordinator.orders import MoveOrder
from migrate.coordinator.store import ACTIVE, SCHEMA, Container, Host, Migration, MoveState, PrecopyOptions, Store
from migrate.errors import MigrateError
from migrate.saga.database import Database
from tests.fakes import agent as fakes
from tests.fakes.agent import FROZEN, HAS_TASKS, RUNNING, World
from tests.fakes.wire import KINDS, Wire

AT_ONCE = Patience(undo_limit_s=0.0, first_s=0.0, longest_s=0.0, ask_s=0.0)
HOST_FAULTS = ("reboot host1", "reboot host2", "cancel")
MOST_INSTANTS = 400  # of one life: beyond, it does not end


class Violation(BaseException):
    """The way to a state that must not be. A BaseException: what is explored takes no other for a step that failed."""


class _Memory(Database):
    """In memory; the same statements."""

    def __init__(self) -> None:
        self._only = sqlite3.connect(":memory:", isolation_level=None)
        self._only.row_factory = sqlite3.Row
        self._upgrade(SCHEMA)

    @property
    def connection(self) -> sqlite3.Connection:
        return self._only

    @contextmanager
    def transaction(self) -> Iterator[sqlite3.Connection]:
        self._only.execute("begin")
        try:
            yield self._only
            self._only.execute("commit")
        except BaseException:
            self._only.execute("rollback")
            raise

    def close(self) -> None:
        """It is closed with the model."""


class _Store(Store):
    def __init__(self) -> None:
        self.database = _Memory()
        self.reserved = set()


class _Inline(MoveRunner):
    """A life of a move goes in the caller's thread."""

    def live(self, move: Migration, *, after_a_crash: bool) -> None:
        self._cancels[move.id] = Cancelling()
        state, error = self._attempt(move, Feed(), after_a_crash=after_a_crash)
        self._store.set_migration_state(move.id, state, error)

    def _launch(self, move: Migration, *, after_a_crash: bool = False) -> None:
        self.live(move, after_a_crash=after_a_crash)


@dataclass(frozen=True)
class _Node:
    """Where a life begins. `way`: how it came to be, for people."""

    world: World
    late: list[tuple[int, str, str, object]]
    database: bytes
    faults: int
    way: tuple[str, ...]


@dataclass
class Counts:
    """`states`: different ones, each of which a crash was tried in; `lives`: of the coordinator, each from a state to an end; `ends`: by
    the move's state.
    """

    states: int = 0
    lives: int = 0
    ends: Counter[str] = field(default_factory=Counter)


class Model:
    """`faults`: besides crashes, on the way to any state; `kinds`: of KINDS and HOST_FAULTS, "a+b": both at once. `hold`:
    the move holds, and is committed as soon as it does.
    """

    def __init__(self, *, faults: int, hold: bool = False, kinds: Sequence[str] = (*KINDS, *HOST_FAULTS)) -> None:
        self.counts = Counts()
        self._faults, self._hold, self._kinds = faults, hold, kinds
        self._store = _Store()
        for name in ("host1", "host2"):
            self._store.put_host(Host(name=name, address=fakes.address(name)))
        self._container: Container = allocate.create(
            self._store, owner="host1", name="web1", make_spec=lambda _allocation: "{}"
        )
        self._world, self._wire, self._runner = World(), Wire(World()), None
        self._seen: set[Hashable] = set()
        self._queue: deque[_Node] = deque()
        self._node: _Node | None = None

    # ------------------------------------------------------------ exploring

    def explore(self, *, limit_s: float = 0.0, first_life_only: bool = False) -> Counts:
        """All states within the bound; raises Violation with the way to the first that must not be. `limit_s`: 0 = to the end.

        `first_life_only`: faults happen in the first life of the coordinator only; crashes anywhere.
        """
        world = World("host1", "host2")
        world.run("host1", self._container.id)
        order = MoveOrder(container="web1", to="host2", precopy=PrecopyOptions(hold=self._hold))
        self._store.create_migration(orders.planned(order, self._store))
        began = time.monotonic()
        self._queue.append(_Node(world, [], self._store.database.connection.serialize(), 0, ()))
        while self._queue:
            node = self._queue.popleft()
            calls, instants = self._life(node, None)
            if node.faults < self._faults and (not node.way or not first_life_only):
                for kind in self._kinds:
                    for at in range(1, (instants if _of_hosts(kind) else calls) + 1):
                        self._life(node, (kind, at))
            if limit_s and time.monotonic() - began > limit_s:
                raise TimeoutError(f"{len(self._queue)} states left")
        return self.counts

    def _life(self, node: _Node, fault: tuple[str, int] | None) -> tuple[int, int]:
        """From `node` to an end; what is new on the way is queued. (calls, instants)"""
        self.counts.lives += 1
        self._restore(node)
        kind, at = fault or ("", 0)
        if fault and kind not in HOST_FAULTS:
            self._wire.fault = (at, kind)
        way = (*node.way, f"{kind} at {at}") if fault else node.way
        self._wire.on_instant = lambda number: self._instant(number, kind if _of_hosts(kind) else "", at, way, node)
        move = self._move()
        try:
            self._live(move, after_a_crash=bool(node.way))
            self._check_end(way)
        except AssertionError as exc:
            raise Violation(f"{' -> '.join(way) or 'no fault'}: {exc}") from exc
        return self._wire.calls, self._wire.instants

    def _live(self, move: Migration, *, after_a_crash: bool) -> None:
        assert self._runner is not None
        if move.state is MoveState.NEEDS_ATTENTION:
            return
        self._runner.live(move, after_a_crash=after_a_crash)

    def _instant(self, number: int, kind: str, at: int, way: tuple[str, ...], node: _Node) -> None:
        if number > MOST_INSTANTS:
            raise Violation(f"{' -> '.join(way) or 'no fault'}: it does not end")
        if self._world.violations:
            raise Violation(f"{' -> '.join(way) or 'no fault'}, instant {number}: {self._world.violations}")
        if kind and number == at:
            self._happen(kind)
        if self._hold and self._holds():
            self._say(lambda runner, move_id: runner.commit(move_id))
        used = node.faults + (1 if len(way) > len(node.way) else 0)
        key = (self._key(), min(used, self._faults))
        if key in self._seen:
            return
        self._seen.add(key)
        self.counts.states += 1
        after = (*way, f"crash at {number}")
        late = [(call - self._wire.calls, *rest) for call, *rest in self._wire._late]
        self._queue.append(
            _Node(copy.deepcopy(self._world), late, self._store.database.connection.serialize(), used, after)
        )

    def _happen(self, kind: str) -> None:
        for each in kind.split("+"):
            if each == "cancel":
                self._say(lambda runner, move_id: runner.cancel(move_id))
            else:
                self._world.agents[each.removeprefix("reboot ")].reboot()

    def _say(self, what: Callable[[_Inline, str], object]) -> None:
        """In the middle of a call: the word itself passes no instants."""
        assert self._runner is not None
        quiet, self._wire.on_instant = self._wire.on_instant, lambda _number: None
        try:
            what(self._runner, self._move().id)
        except MigrateError:
            pass  # it is refused: too late
        finally:
            self._wire.on_instant = quiet

    # ------------------------------------------------------------ states

    def _restore(self, node: _Node) -> None:
        self._store.database.connection.deserialize(node.database)
        self._world, self._wire = copy.deepcopy(node.world), Wire(World())
        self._wire.world = self._world
        self._wire._late = [tuple(call) for call in node.late]  # type: ignore[misc]
        self._runner = _Inline(self._store, self._wire, self._wire, AT_ONCE)

    def _move(self) -> Migration:
        return self._store.migrations()[0]

    def _holds(self) -> bool:
        rows = self._rows()
        return ("hold", "started") in rows and ("hold", "done") not in rows and ("saga", "commit_requested") not in rows

    def _rows(self) -> set[tuple[str, str]]:
        rows = self._store.database.connection.execute("select distinct step, event from journal")
        return {(row[0], row[1]) for row in rows}

    def _key(self) -> Hashable:
        """All that a new life could notice. Memory by how much it is behind: 0 or something."""
        newest = self._world.newest.get(self._container.id, 0)

        def age(memory: int | None) -> int:
            return -1 if memory is None else int(memory < newest)

        hosts = tuple(
            (
                tuple((c.state, c.epoch, age(c.memory), c.migration_id) for c in agent.containers.values()),
                tuple(
                    (m.role, m.epoch, m.finished, m.committed, m.tunnel, m.switch, tuple(map(age, m.received.values())))
                    for m in agent.moves.values()
                ),
                tuple(agent.epochs.items()),
                len(agent.layers),
            )
            for agent in self._world.agents.values()
        )
        late = tuple((call - self._wire.calls, host, method) for call, host, method, _ in self._wire._late)
        # Whether a step has begun, ended, failed is asked, not how often: each life begins its step once more. And the last decision.
        query = "select event from journal where step='saga' and event in ('aborting', 'committed') order by seq desc limit 1"
        decision = self._store.database.connection.execute(query).fetchone()
        query = "select owner, containers.epoch, migrations.state from containers, migrations"
        recorded = self._store.database.connection.execute(query).fetchone()
        return hosts, frozenset(self._rows()), tuple(decision or ()), tuple(recorded), late

    # ------------------------------------------------------------ ends

    def _check_end(self, way: tuple[str, ...]) -> None:
        """The move is over or needs attention; then what is typed helps; and late calls change nothing."""
        move = self._move()
        self.counts.ends[str(move.state)] += 1
        self._wire.on_instant = lambda _number: None
        rebooted = any("reboot" in each for each in way)
        if move.state is MoveState.NEEDS_ATTENTION:
            assert move.error is not None
            told = re.search(r"--keep (source|target)", move.error.hint)
            assert told or "migrate repair" in move.error.hint or "look at" in move.error.hint, move.error
            try:
                self._repair(move, told[1] if told else "")
            except MigrateError as exc:
                assert rebooted and not told, (
                    exc
                )  # what a hint offers helps; the rest needs a person's eyes, where something was lost
        move = self._move()
        container = self._store.container("web1")
        states = {
            name: found.state
            for name, agent in self._world.agents.items()
            if (found := agent.containers.get(self._container.id))
        }
        running = [name for name, state in states.items() if state == RUNNING]
        assert not self._world.violations, self._world.violations
        assert running in ([], [container.owner]), (move.state, states, container.owner)
        if not rebooted:
            assert move.state not in ACTIVE, (move.state, move.error)
            assert states == {container.owner: RUNNING}, (move.state, states, move.error)
            assert container.owner == ("host2" if move.state is MoveState.SUCCEEDED else "host1")
            before = dict(states)
            self._wire.deliver_late()
            after = {
                name: found.state
                for name, agent in self._world.agents.items()
                if (found := agent.containers.get(self._container.id))
            }
            assert after == before, ("a late call changed something", before, after)
        elif not running:
            died_here = states.get(container.owner) not in HAS_TASKS and move.state not in ACTIVE
            said = move.state is MoveState.NEEDS_ATTENTION and move.error is not None and bool(move.error.hint)
            assert said or died_here, (move.state, states, container.owner, move.error)
            assert FROZEN not in states.values() or said, (move.state, states)

    def _repair(self, move: Migration, keep: str) -> None:
        """As MoveRunner.repair, in this thread."""
        assert self._runner is not None
        runner = self._runner
        context = runner._move(move, Feed())
        seen = sightings.look(context, move, ask_s=0.0, wait=runner._wait)
        verdict = moves._JUDGES[keep](move, seen)
        if not verdict.go_on:
            raise verdict.error()
        if keep:
            decisions.keep(context, seen, keep)
        self._store.set_migration_state(move.id, MoveState.RUNNING, None)
        runner.live(dataclasses.replace(move, state=MoveState.RUNNING), after_a_crash=False)


def _of_hosts(kind: str) -> bool:
    """It happens at an instant, not to a call; "a+b": both at the same."""
    return set(kind.split("+")) <= set(HOST_FAULTS)


def main() -> None:
    """`python -m tests.faults.protocol_model`: how many states, lives and ends there are within a bound."""
    parser = argparse.ArgumentParser(
        prog="python -m tests.faults.protocol_model", description=(__doc__ or "").partition("\n")[0]
    )
    parser.add_argument("--faults", type=int, default=1, help="besides crashes, on the way to a state (default: 1)")
    parser.add_argument("--hold", action="store_true", help="of a move that holds")
    parser.add_argument("--first-life", action="store_true", help="faults in the first life of the coordinator only")
    parser.add_argument("--seconds", type=float, default=0.0, help="give up after that time (default: never)")
    args = parser.parse_args()
    logging.disable(logging.CRITICAL)
    began = time.monotonic()
    model = Model(faults=args.faults, hold=args.hold)
    left = ""
    try:
        model.explore(limit_s=args.seconds, first_life_only=args.first_life)
    except TimeoutError as exc:
        left = f"; not complete: {exc.args[0]}"
    counts = model.counts
    ends = ", ".join(f"{count} {name}" for name, count in sorted(counts.ends.items()))
    print(f"{counts.states} states, {counts.lives} lives, {time.monotonic() - began:.1f} s; ends: {ends}{left}")


if __name__ == "__main__":
    main()
