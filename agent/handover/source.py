"""The source's side of a move: describe, tunnel, layers, precopy, freeze, finish. Every call is idempotent.

Who dies when, and what then: docs/migration.md. The tasks are never killed here but by finish(committed=True), and never thawed
after it. Calls of one move take turns (turns.py); each looks first whether the move is over (ended.py).
"""

from __future__ import annotations

import dataclasses
import json
import logging
import threading
import time
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from typing import Any

from agent import atomic
from agent.config import AgentConfig
from agent.criu import images, options
from agent.engine import mounted, throttle
from agent.engine.container import Engine
from agent.engine.spec import ContainerSpec
from agent.engine.state import State
from agent.engine.volumes import Volume
from agent.errors import AgentError, NotFound, StaleEpoch, TransferError, WrongState
from agent.handover import carried, end_exec, inside, kept_logs, rehearsals, stage
from agent.handover.end_exec import Ended
from agent.handover.ended import EndedMoves
from agent.handover.freeze import ROLE, Freeze, Frozen
from agent.handover.kept import KeptMemory
from agent.handover.record import Move, MoveRecord
from agent.handover.rest import RestOfMemory
from agent.handover.source_tasks import SourceTasks
from agent.handover.turns import Turns
from agent.memory.policy import Goal
from agent.scan import container, made
from agent.scan.finding import Blocker
from agent.setup.criu import CriuInstall
from agent.storage.layers import tree_bytes
from agent.transfer.commands import Progress, TransferProcess

FILLING_PAUSE_S = 0.05
SKELETON_STAGE_BYTES = 512 << 20  # images and what memory cannot be lazy; a plain dump needs room for all of it

_log = logging.getLogger(__name__)


@dataclass(frozen=True, kw_only=True)
class Description:
    spec: ContainerSpec
    state: State
    memory_bytes: int
    layer_bytes: int
    tasks: int
    blockers: list[Blocker]
    volumes: list[Volume]
    pid: int  # init's, 0 without a task


class Source:
    """All moves that leave this host."""

    def __init__(
        self,
        config: AgentConfig,
        engine: Engine,
        criu: Callable[[], CriuInstall],
        ended: EndedMoves,
        *,
        lazy: bool,
        tracker: str,
        watch: bool,
    ) -> None:
        """`criu`: found when needed, so that containers run on a host without it. `lazy`: the kernel has userfaultfd.

        `tracker`: how writes are seen, a key of agent.memory.watching.WAYS.
        """
        self._config, self._engine, self._criu, self._ended = config, engine, criu, ended
        self._lazy, self._tracker, self._watch = lazy, tracker, watch
        self._freeze = Freeze(config, engine, ended)
        self.kept = KeptMemory(config)
        self._turns = Turns()
        self._senders: dict[str, TransferProcess] = {}
        self._answers: dict[
            str, dict[str, Any]
        ] = {}  # of a sender, by what it was asked: a repeated call gets it again
        self._guard = threading.Lock()
        self._rest = RestOfMemory()
        self._tasks = SourceTasks(config, engine)

    # ------------------------------------------------------------ before the freeze

    def describe(self, container_id: str, epoch: int) -> Description:
        """Read-only. Raises NotFound, StaleEpoch."""
        with _named_not_found():
            status = self._engine.inspect(container_id)
        self._fence(container_id, epoch)
        with self._engine.checks.quiet(container_id):  # a health check is no reason against a move
            pids = self._engine.cgroup(container_id).procs()
            spec = status.spec
            return Description(
                spec=status.spec,
                state=status.state,
                memory_bytes=max(inside.memory_bytes(pids), stage.arriving_bytes(self._config.moves_dir, container_id))
                + inside.tmpfs_bytes(status.pid),
                layer_bytes=sum(tree_bytes(root) for root in carried.roots(self._engine, spec)),
                tasks=len(pids),
                blockers=made.of_network(spec.network)
                + self._mount_blockers(spec)
                + self._scan(spec, status.pid, pids),
                volumes=self._engine.volumes.of(spec),
                pid=status.pid,
            )

    def prepare_tunnel(self, migration_id: str, epoch: int, container_id: str, *, rehearsal: bool = False) -> str:
        """Take the part of the source; returns the public key of this move."""
        with self._turns.call(migration_id, "PrepareTunnel"):
            self._ended.refuse(migration_id, ROLE)
            self._fence(container_id, epoch)
            move = self._move(migration_id)
            if move.exists and (known := move.require(epoch)).container_id != container_id:
                raise WrongState(f"migration {migration_id} moves container {known.container_id}, not {container_id}")
            with _named_not_found():
                self._engine.roles.begin(container_id, migration_id, ROLE, epoch)
            if blockers := self._mount_blockers(
                self._engine.store.spec(container_id)
            ):  # somebody came since the precheck
                raise WrongState(blockers[0].what, hint=blockers[0].remedy)
            if not move.exists:
                move.begin(
                    MoveRecord(
                        migration_id=migration_id,
                        container_id=container_id,
                        role=ROLE,
                        epoch=epoch,
                        lazy=self._lazy,
                        rehearsal=rehearsal,
                    )
                )
            memory = 0 if self._lazy else inside.memory_bytes(self._engine.cgroup(container_id).procs())
            memory += inside.tmpfs_bytes(self._engine.inspect(container_id).pid)
            stage.mount(move, SKELETON_STAGE_BYTES + memory)
            if "key" not in self._answers.get(migration_id, {}):
                self._close_sender(migration_id)
                self._start_sender(move)
            return str(self._ask_once(migration_id, "key")["public_key"])

    def open_tunnel(self, migration_id: str, epoch: int, **target: Any) -> dict[str, Any]:
        """ssh to the target, warm. `target`: certificate, address, port, user, host_keys."""
        with self._turns.call(migration_id, "OpenTunnel"):
            record = self._begun(migration_id, epoch)
            pycriu_path = self._criu().pycriu_path
            images.load(pycriu_path)  # here, while the container runs: the first time takes a fifth of a second
            keep, keep_bytes = self.kept.place(migration_id)
            return self._ask_once(
                migration_id,
                "open",
                migration=migration_id,
                pycriu_path=str(pycriu_path),
                keep=str(keep),
                keep_bytes=keep_bytes if record.lazy else 0,
                **target,
            )

    def set_bandwidth(self, migration_id: str, epoch: int, rate: int) -> None:
        """Bytes per second from now on, 0 = no limit. Beside whatever is being sent. Raises WrongState before there is a tunnel."""
        self._begun(migration_id, epoch)
        if "open" not in self._answers.get(migration_id, {}):
            raise WrongState(f"migration {migration_id} has no tunnel here yet", code="migration.no_tunnel")
        self._sender(migration_id).tell("bandwidth", rate=rate)

    def send_layers(self, migration_id: str, epoch: int, layers: list[str], progress: Progress) -> int:
        """Returns bytes sent."""
        with self._turns.call(migration_id, "SendLayers"):
            self._begun(migration_id, epoch)
            answer = self._ask_once(migration_id, "layers", progress, layers=layers, store=str(self._config.images_dir))
            return int(answer["sent_bytes"])

    def precopy(self, migration_id: str, epoch: int, goal: Goal, progress: Progress) -> dict[str, Any]:
        """Send what can be sent while the container runs: files, then memory in rounds. Returns the last report."""
        with self._turns.call(migration_id, "Precopy"):
            record = self._begun(migration_id, epoch)
            self._wait_until_filled(record, progress)
            directory = self._engine.store.directory(record.container_id)
            move = self._move(migration_id)
            try:
                answer = self._ask_once(
                    migration_id,
                    "precopy",
                    progress,
                    host=self._config.host,
                    roots=carried.trees(self._engine, record.container_id),
                    watch=self._watch,
                    logs=str(directory),
                    freezer=str(self._engine.cgroup(record.container_id).freezer),
                    tracker=self._tracker if record.lazy else "",
                    shared=bool(record.lazy and self._tracker and self._criu().withheld),
                    goal=dataclasses.asdict(goal),
                    throttle=self._throttle_plan(move, record.container_id) if goal.throttle else None,
                )
            finally:
                _release_throttle(move)
        memory = answer["memory"]
        return {
            "text": f"{memory['rounds']} rounds of memory{f' ({self._tracker})' if memory['rounds'] else ''}: {memory['why']}",
            "done_bytes": _precopied(answer),
            "facts": {
                "rounds": memory["rounds"],
                "memory_bytes": memory["sent_bytes"],
                "layer_bytes": answer["layer_bytes"],
                "predicted_downtime_s": memory["predicted_s"],
                "rest_later": float(memory["rest_later"]),
                "shadowed_tasks": memory["shadowed"],
            },
        }

    def hold(self, migration_id: str, epoch: int, progress: Progress) -> dict[str, Any]:
        """Rounds go on while the container runs, until switch_over(). Returns the last report."""
        with self._turns.call(migration_id, "Hold"):
            record = self._begun(migration_id, epoch)
            answer = self._ask_once(
                migration_id, "hold", progress, roots=carried.trees(self._engine, record.container_id)
            )
        held_s, sent_bytes = float(answer["held_s"]), int(answer["sent_bytes"])
        return {"text": f"held {held_s:.0f} s", "done_bytes": sent_bytes, "facts": {"held_s": held_s}}

    def switch_over(self, migration_id: str, epoch: int) -> None:
        """A Hold, under way or to come, ends with one round more. Beside it; idempotent."""
        self._begun(migration_id, epoch)
        self._sender(migration_id).tell("switch")

    def _throttle_plan(self, move: Move, container_id: str) -> dict[str, Any]:
        """How its processor time is limited and given back, durable before anything is limited."""
        limits = self._engine.store.spec(container_id).limits
        plan = dataclasses.asdict(throttle.plan(self._engine.cgroup(container_id), limits))
        atomic.write(move.throttle, json.dumps(plan))
        return plan

    def recover(self) -> None:
        """At the agent's start: whoever throttled a container for a move of the agent before this one is gone. A rehearsal is over."""
        for move in Move.all(self._config.moves_dir):
            _release_throttle(move)
            rehearsals.throw_away(move, ROLE, self.finish)

    def _wait_until_filled(self, record: MoveRecord, progress: Progress) -> None:
        """A container that has just come here may still lack memory: that can neither be sent nor dumped. Seconds, mostly none."""
        monitor = self._engine.roles.monitor(record.container_id)
        said = False
        while (status := monitor.request("status").fields).get("filling"):
            self._ended.refuse(record.migration_id, ROLE)
            if not said:
                progress({"text": "waiting until the memory of the last move is in place"})
                said = True
            time.sleep(FILLING_PAUSE_S)
        if status.get("memory_lost"):
            raise WrongState(f"container {record.container_id} lost memory in its last move: {status.get('error')}")

    def end_exec(self, migration_id: str, epoch: int) -> list[Ended]:
        """End what came into the container by exec. Repeated: all that were ended for this move. Raises WrongState."""
        with self._turns.call(migration_id, "EndExec"):
            record = self._begun(migration_id, epoch)
            move = self._move(migration_id)
            before = [Ended(**one) for one in (move.answered("end-exec") or {"ended": []})["ended"]]

            def note(found: list[Ended]) -> None:
                move.remember("end-exec", {"ended": [dataclasses.asdict(one) for one in (*before, *found)]})

            container = self._engine.inspect(record.container_id)
            return before + end_exec.end(container.pid, self._engine.cgroup(record.container_id).procs, note)

    # ------------------------------------------------------------ the freeze

    def freeze(self, migration_id: str, epoch: int, progress: Progress, *, postcopy: bool = False) -> Frozen:
        """Dump, hold frozen, send the rest; returns when the target has confirmed it. Any error leaves the undo to finish().

        `postcopy`: memory that the target lacks stays here; it begins to go as soon as this has returned.
        """
        with self._turns.call(migration_id, "Freeze"):
            record = self._begun(migration_id, epoch)
            move = self._move(migration_id)
            if (before := move.answered("freeze")) is not None:
                return Frozen(**before)
            if postcopy and record.rehearsal:
                raise WrongState("a rehearsal leaves no memory behind", hint="migrate rehearse without --mode postcopy")
            if postcopy and not record.lazy:
                raise WrongState(
                    "this host cannot leave memory behind: its kernel has no userfaultfd",
                    hint="migrate move without --mode postcopy",
                )
            try:
                frozen = self._freeze.run(
                    move, record, self._criu(), self._sender(migration_id), progress, postcopy=postcopy
                )
            except TransferError:
                self._ended.refuse(migration_id, ROLE)  # then that is the reason
                raise
            finally:
                if record.rehearsal:  # at once: nobody is to wait for the coordinator's word
                    thawed = self._tasks.let_go(record.container_id)
            if record.rehearsal:
                frozen.marks += thawed
            move.remember("freeze", dataclasses.asdict(frozen))
            if frozen.later_bytes:
                self._rest.begin(migration_id, self._sender(migration_id))
            return frozen

    def send_rest(self, migration_id: str, epoch: int, progress: Progress, *, complete: bool = False) -> dict[str, Any]:
        """Post-copy: until the target has confirmed what Freeze kept back. Raises TransferError when the tunnel breaks: PrepareTunnel,
        OpenTunnel and this once more go on with what is missing then. `complete`: the target lacks nothing, whatever we have heard.
        """
        with self._turns.call(migration_id, "SendRest"):
            record = self._begun(migration_id, epoch)
            move = self._move(migration_id)
            if (before := move.answered("rest")) is not None:
                return before
            if move.answered("freeze") is None:
                raise WrongState(f"container {record.container_id} was not frozen for migration {migration_id}")
            pids = self._engine.cgroup(record.container_id).procs()
            try:
                sent = {"pages": 0, "bytes": 0, "asked": 0}
                if not complete:
                    sent = self._rest.wait(migration_id, self._sender(migration_id), pids, progress)
            except TransferError:
                self._close_sender(migration_id)  # the next one begins with what the target says it lacks
                raise
            move.remember("rest", sent)
            return sent

    # ------------------------------------------------------------ the end

    def finish(
        self, migration_id: str, epoch: int, container_id: str, *, committed: bool
    ) -> tuple[list[dict[str, Any]], list[str]]:
        """Committed: the frozen tasks die and nothing stays. Else: the container runs on as if nothing had been. (marks, left over)

        What is being worked on is interrupted by an undo, and waited for. Repeated: what the first one answered.
        """
        with self._turns.finish(migration_id):
            ended = self._ended.get(migration_id, ROLE)
            if ended is None:
                move = self._move(migration_id)
                if move.exists:
                    move.require(epoch)
                self._fence(container_id, epoch)
            elif ended.done and ended.committed == committed:
                return ended.marks, []
            marks = (self._commit if committed else self._undo)(migration_id, epoch, container_id)
        return marks, []

    def _commit(self, migration_id: str, epoch: int, container_id: str) -> list[dict[str, Any]]:
        self._tasks.refuse_to_kill(container_id, migration_id)  # at once, not after what is being worked on
        with self._turns.quiet(migration_id):
            self._tasks.refuse_to_kill(container_id, migration_id)
            ended = self._ended.decide(migration_id, ROLE, container_id, epoch, committed=True)
            with suppress(NotFound):  # released before
                self._engine.volumes.leave(self._engine.store.spec(container_id), migration_id)
            marks = self._tasks.release(container_id)
            self._keep(migration_id, container_id)
            self._engine.volumes.drop(migration_id)
            self._clear(migration_id)
            self._ended.done(ended, marks)
        return marks

    def _undo(self, migration_id: str, epoch: int, container_id: str) -> list[dict[str, Any]]:
        ended = self._ended.decide(migration_id, ROLE, container_id, epoch, committed=False)
        thawed: list[dict[str, Any]] = []

        def interrupt(call: str) -> None:
            with self._guard:
                sender = self._senders.get(migration_id)
            if sender:
                sender.interrupt()
            if call == "Freeze":
                thawed.extend(self._tasks.call_off(container_id))

        with self._turns.quiet(migration_id, interrupt):
            marks = thawed + self._tasks.run_on(container_id, migration_id, epoch)
            kept_logs.keep(self._config.move_logs_dir, self._move(migration_id), ROLE)
            self._clear(migration_id)
            self._ended.done(ended, marks)
        return marks

    def _keep(self, migration_id: str, container_id: str) -> None:
        """Of the memory that has left, for the day it comes back. Whatever fails here, the move does not."""
        with self._guard:
            sender = self._senders.get(migration_id)
        try:
            if sender and sender.request("keep")["kept_bytes"]:
                self.kept.settle(migration_id, container_id)
        except (AgentError, OSError) as exc:
            _log.info("container %s: its memory is not kept: %s", container_id, exc)

    def _clear(self, migration_id: str) -> None:
        move = self._move(migration_id)
        self._close_sender(migration_id)
        self.kept.drop(migration_id)
        _release_throttle(move)  # the sender may have been killed between a step and its end
        self._rest.forget(migration_id)
        stage.unmount(move)
        move.forget()

    # ------------------------------------------------------------ parts

    def _begun(self, migration_id: str, epoch: int) -> MoveRecord:
        """What every call but the first looks at once it has its turn. Raises WrongState, NotFound, StaleEpoch."""
        self._ended.refuse(migration_id, ROLE)
        record = self._move(migration_id).require(epoch)
        self._fence(record.container_id, epoch)
        return record

    def _fence(self, container_id: str, epoch: int) -> None:
        known = max(self._engine.roles.epoch(container_id), self._ended.known_epoch(container_id))
        if epoch < known:
            raise StaleEpoch(f"container {container_id} has epoch {known} here, the call has {epoch}")

    def _move(self, migration_id: str) -> Move:
        return Move(self._config.moves_dir, migration_id, ROLE)

    def _mount_blockers(self, spec: ContainerSpec) -> list[Blocker]:
        shared = {each.name for each in self._engine.volumes.of(spec) if each.shared}
        return made.of_mounts(spec, self._engine.volumes.used_by, shared)

    def _scan(self, spec: ContainerSpec, pid: int, pids: Iterable[int]) -> list[Blocker]:
        ahead = {mounted.clean(each.target) for each in mounted.tmpfs(spec)}
        return container.scan(spec.name, pid, pids, ghost_limit=options.GHOST_LIMIT_BYTES, ahead=ahead)

    def _start_sender(self, move: Move) -> None:
        sender = TransferProcess("agent.transfer.sender", [str(move.directory)], log=move.directory / "sender.log")
        with self._guard:
            self._senders[move.migration_id] = sender
            self._answers[move.migration_id] = {}

    def _sender(self, migration_id: str) -> TransferProcess:
        self._ended.refuse(migration_id, ROLE)
        with self._guard:
            sender = self._senders.get(migration_id)
        if sender is None:
            raise WrongState(
                f"migration {migration_id} has no tunnel here: the agent was restarted", code="migration.no_tunnel"
            )
        return sender

    def _ask_once(
        self, migration_id: str, command: str, progress: Progress = lambda _facts: None, **fields: Any
    ) -> dict[str, Any]:
        """The sender's answer; of a command that it has carried out before, the answer from then."""
        answers = self._answers.setdefault(migration_id, {})
        if command not in answers:
            sender = self._sender(migration_id)
            try:
                answers[command] = sender.request(command, progress, **fields)
            except TransferError:
                self._ended.refuse(migration_id, ROLE)  # then that is the reason
                raise
        answer: dict[str, Any] = answers[command]
        return answer

    def _close_sender(self, migration_id: str) -> None:
        with self._guard:
            sender = self._senders.pop(migration_id, None)
            self._answers.pop(migration_id, None)
        if sender:
            sender.close()

    def close(self) -> None:
        for migration_id in list(self._senders):
            self._close_sender(migration_id)


def _release_throttle(move: Move) -> None:
    """Give a container that may be throttled its processor time back. Idempotent."""
    try:
        throttle.release(throttle.Plan(**json.loads(move.throttle.read_text())))
    except FileNotFoundError:
        return  # nobody has throttled it
    except (AgentError, OSError, ValueError, TypeError) as exc:
        _log.error("migration %s: the container is still throttled: %s", move.migration_id, exc)


def _precopied(answer: Mapping[str, Any]) -> int:
    return int(answer["layer_bytes"]) + int(answer["memory"]["sent_bytes"])


@contextmanager
def _named_not_found() -> Iterator[None]:
    """Of the calls that name a container: it is the container that is not there, not the move."""
    try:
        yield
    except NotFound as exc:
        raise NotFound(exc.message, hint=exc.hint, code="container.not_found") from exc
