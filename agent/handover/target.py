"""The target's side of a move: accept, receive, restore, finish. Every call is idempotent.

Until finish(committed=True) no task of the container runs here: its address is on no link, its tasks are in a frozen cgroup.
Calls of one move take turns (turns.py); each looks first whether the move is over (ended.py).
"""

from __future__ import annotations

import dataclasses
import logging
import threading
import time
from collections.abc import Callable, Sequence
from contextlib import ExitStack, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from agent.config import AgentConfig
from agent.criu import marks as criu_marks
from agent.door import Door
from agent.engine import mounted, network
from agent.engine.container import Engine
from agent.engine.spec import ContainerSpec, Mount
from agent.engine.volumes import Volume
from agent.errors import AgentError, AlreadyExists, NotFound, StaleEpoch, TransferError, WrongState
from agent.handover import kept_logs, lacking, rehearsals, stage
from agent.handover.ended import EndedMoves
from agent.handover.kept import KeptMemory
from agent.handover.lacking import Lacking
from agent.handover.receivers import ROLE, Receivers, lacks_memory, volume_paths
from agent.handover.record import Move, MoveRecord
from agent.handover.restore import Restore, Restored, check_received, write_image
from agent.handover.target_tasks import TargetTasks
from agent.handover.trial import Trial, Tried
from agent.handover.turns import Turns
from agent.setup.criu import CriuInstall
from agent.storage import layers
from agent.storage.images import Image, ImageStore
from agent.transfer import later

CONFIRM_LIMIT_S = 30.0  # for the source to hear of the last page, and to close
FILL_LIMIT_S = 600.0

_log = logging.getLogger(__name__)


@dataclass(frozen=True, kw_only=True)
class Accepted:
    missing_layers: list[str]
    restore_mode: str  # "lazy": the container runs before its memory is in place; or "plain"


class Target:
    """All moves that come to this host."""

    def __init__(
        self,
        config: AgentConfig,
        engine: Engine,
        image_store: ImageStore,
        door: Door,
        criu: Callable[[], CriuInstall],
        ended: EndedMoves,
        *,
        lazy: bool,
    ) -> None:
        self._config, self._engine, self._images = config, engine, image_store
        self._ended, self._lazy = ended, lazy
        self._kept = KeptMemory(config)
        self._turns = Turns()
        self._tasks = TargetTasks(config, engine)
        self.collect_layers: Callable[[], object] = lambda: None  # delete those that nothing names; set by the agent
        self._receivers = Receivers(config, engine, door, criu, ended, self._turns, self._kept)
        self._restore = Restore(config, engine, image_store, criu, ended, self._receivers)

    # ------------------------------------------------------------ accept

    def accept(
        self,
        migration_id: str,
        epoch: int,
        spec: ContainerSpec,
        image: Image,
        memory_bytes: int,
        source_host: str,
        volumes: Sequence[Volume] = (),
        *,
        rehearsal: bool = False,
        connections: int = 1,
    ) -> Accepted:
        """Keep id, address, memory for the container; be ready for the stream. Raises AlreadyExists, StorageError, WrongState."""
        with self._turns.call(migration_id, "Accept"):
            self._ended.refuse(migration_id, ROLE)
            self._fence(spec.id, epoch)
            move = self._move(migration_id)
            if move.exists and (known := move.require(epoch)).container_id != spec.id:
                raise WrongState(f"migration {migration_id} moves container {known.container_id}, not {spec.id}")
            if not self._reserved(migration_id, spec):
                self._reserve(
                    move,
                    epoch,
                    spec,
                    image,
                    memory_bytes,
                    source_host,
                    volumes,
                    rehearsal=rehearsal,
                    connections=connections,
                )
            self._receivers.listen(move)
            return self._accepted(spec)

    def _reserve(
        self,
        move: Move,
        epoch: int,
        spec: ContainerSpec,
        image: Image,
        memory_bytes: int,
        source_host: str,
        volumes: Sequence[Volume],
        *,
        rehearsal: bool,
        connections: int,
    ) -> None:
        record = MoveRecord(
            migration_id=move.migration_id,
            container_id=spec.id,
            role=ROLE,
            epoch=epoch,
            lazy=self._lazy,
            peer_host=source_host,
            rehearsal=rehearsal,
            brought=self._images.missing(spec.layers) if rehearsal else [],
            connections=connections,
        )
        move.begin(record)
        try:
            if missing := self.why_not_mounts(spec.mounts, ()):
                raise WrongState(missing[0][0], hint=missing[0][1])
            if rehearsal:
                hosts_own = [Path(each.source) for each in spec.mounts if each.kind == "bind" and not each.read_only]
                rehearsals.refuse_what_cannot_be_undone(hosts_own)
            # Twice: it is copied out of the stage, which goes when all of it is in place.
            stage.mount(move, memory_bytes, beside_bytes=memory_bytes)
            write_image(move, image)
            self._engine.volumes.arrive(volumes, move.migration_id)
            stage.mount_scratch(move, mounted.scratch(spec))
            # The first to make it has it: another move, or a container that is here, is refused in there.
            self._engine.create(spec, epoch, migration_id=move.migration_id, role=ROLE)
            self._restore.make_ready(move, spec)
        except (AgentError, OSError):
            self._discard(move, spec.id)
            raise

    def why_not_mounts(self, mounts: Sequence[Mount], volumes: Sequence[Volume]) -> list[tuple[str, str]]:
        """(what this host lacks for a container with these mounts, what to do)."""
        found = [
            (f"bind source {path} is not on this host", f"make it there, as it is on the container's host: {path}")
            for path in mounted.missing(mounts)
        ]
        for volume in volumes:
            if reason := self._engine.volumes.why_not_arrive(volume):
                if volume.shared:
                    found.append((reason, f"mount the shared file system there: {volume.shared}"))
                else:
                    found.append((reason, f"look at it there, and remove it: migrate volume inspect {volume.name}"))
        return found

    def _reserved(self, migration_id: str, spec: ContainerSpec) -> bool:
        """Whether this move has its place here already. Raises AlreadyExists when something else has it."""
        try:
            status = self._engine.inspect(spec.id)
        except NotFound:
            return False
        if (status.migration_id, status.role) == (migration_id, ROLE):
            return True
        raise AlreadyExists(
            f"container {spec.name} is on this host already: it is {status.state}",
            hint="see which copy is the right one: migrate migrations, migrate repair",
        )

    def _accepted(self, spec: ContainerSpec) -> Accepted:
        return Accepted(
            missing_layers=self._images.missing(spec.layers), restore_mode="lazy" if self._lazy else "plain"
        )

    def reopen(self, migration_id: str, epoch: int) -> bool:
        """Post-copy: the tunnel broke; expect another one, for what the running container still lacks. False: it lacks nothing."""
        with self._turns.call(migration_id, "Reopen"):
            move = self._move(migration_id)
            if not lacks_memory(move):
                return False
            move.require(epoch)
            self._receivers.discard(move)
            self._receivers.listen(move)
            return True

    def lacking(self, container_id: str) -> list[Lacking]:
        """Post-copy: what a container that runs here already still lacks. Raises TransferError when that cannot be told."""
        moves = []
        for move in Move.all(self._config.moves_dir):
            with suppress(NotFound):  # it has just been cleared away
                record = move.read()
                if (record.role, record.container_id, record.committed) == (ROLE, container_id, True):
                    moves.append(move)
        return lacking.of(moves, self._engine.cgroup(container_id).procs()) if moves else []

    # ------------------------------------------------------------ restore

    def restore(self, migration_id: str, epoch: int, digest: str) -> Restored:
        """Make the tasks, frozen, with their link down. Raises CriuError, TransferError; nothing of it runs then."""
        with self._turns.call(migration_id, "Restore"):
            self._ended.refuse(migration_id, ROLE)
            move = self._move(migration_id)
            record = move.require(epoch)
            self._fence(record.container_id, epoch)
            check_received(move, digest)
            if not record.restored or (before := move.answered("restore")) is None:
                restored = self._restore.run(move, record)
                move.remember("restore", dataclasses.asdict(restored))
                move.update(restored=True)
                return restored
            return Restored(**before)

    def try_out(self, migration_id: str, epoch: int) -> Tried:
        """Of a rehearsal: let what was restored run, sealed off, and look at it. Raises WrongState, MonitorError."""
        with self._turns.call(migration_id, "Try"):
            self._ended.refuse(migration_id, ROLE)
            move = self._move(migration_id)
            record = move.require(epoch)
            if not record.rehearsal:
                raise WrongState(
                    f"migration {migration_id} is no rehearsal: what was restored runs when it is committed"
                )
            if not record.restored:
                raise WrongState(f"container {record.container_id} was not restored here")
            if (before := move.answered("try")) is not None:
                return Tried(**before)
            spec = self._engine.store.spec(record.container_id)
            try:
                tried = Trial(self._engine, spec, lambda: self._ended.refuse(migration_id, ROLE)).run()
            except AgentError:
                self._ended.refuse(migration_id, ROLE)  # then that is the reason
                raise
            move.remember("try", dataclasses.asdict(tried))
            return tried

    # ------------------------------------------------------------ the end

    def finish(
        self, migration_id: str, epoch: int, container_id: str, *, committed: bool
    ) -> tuple[list[dict[str, Any]], list[str]]:
        """Committed: link up, thaw, announce. Else: nothing of the container stays here. (marks, left over)

        What is being worked on is ended by an undo, and waited for. Repeated: what the first one answered.
        """
        with self._turns.finish(migration_id):
            ended = self._ended.get(migration_id, ROLE)
            if ended is None:
                move = self._move(migration_id)
                if move.exists and (known := move.require(epoch)).container_id != container_id:
                    raise WrongState(f"migration {migration_id} moves container {known.container_id} here")
                self._fence(container_id, epoch)
            elif ended.done and ended.committed == committed:
                return ended.marks, []
            marks = (self._commit if committed else self._undo)(migration_id, epoch, container_id)
        return marks, []

    def _commit(self, migration_id: str, epoch: int, container_id: str) -> list[dict[str, Any]]:
        """Thaw; then make durable what the source is about to delete; then say so. The client waits for the first only.

        A repeated Finish waits for all of it. Until the new epoch is on the disk this host does not claim to have run the
        container: after a power cut in between, the source's frozen copy is still there, and somebody decides.
        """
        with self._turns.quiet(migration_id), ExitStack() as until_adopted:
            move = self._move(migration_id)
            marks: list[dict[str, Any]] = []
            if self._ended.get(migration_id, ROLE) is None:
                record = move.require(epoch)
                if record.rehearsal:
                    raise WrongState(f"migration {migration_id} is a rehearsal: its copy never becomes the container")
                if not record.restored:
                    raise WrongState(f"container {container_id} was not restored here")
                marks = record.resumed or self._resume(move, self._engine.store.spec(container_id), until_adopted)
                directory, spec = self._engine.store.directory(container_id), self._engine.store.spec(container_id)
                # A layer of a limited size is a file system of its own, in a file of the next one.
                layers.sync(directory / "layer", directory, self._config.images_dir, *volume_paths(self._engine, spec))
            ended = self._ended.decide(migration_id, ROLE, container_id, epoch, committed=True, marks=marks)
            self._engine.volumes.settle(migration_id)
            self._engine.roles.end(container_id, migration_id, epoch + 1)
            self._ended.done(ended, ended.marks)
            self._kept.forget(container_id)
        if move.exists:  # not after a reboot
            threading.Thread(target=self._clean_when_filled, args=(move,), daemon=True).start()
        return ended.marks

    def _resume(self, move: Move, spec: ContainerSpec, until_adopted: ExitStack) -> list[dict[str, Any]]:
        record = move.update(committed=True)
        self._engine.roles.impose_limits(spec.id)
        marks = self._tasks.run(move, spec, record, until_adopted)
        if spec.network.address:
            network.announce(
                network.uplinks(self._config.bridge, self._config.uplink), spec.network.mac, spec.network.address
            )
        marks.append({"name": "announced", "unix_ns": time.time_ns()})
        move.update(resumed=marks)
        return marks

    def _undo(self, migration_id: str, epoch: int, container_id: str) -> list[dict[str, Any]]:
        self._tasks.refuse_if_it_has_run(self._move(migration_id), container_id)
        ended = self._ended.decide(migration_id, ROLE, container_id, epoch, committed=False)

        def interrupt(call: str) -> None:
            if call in ("Restore", "Try"):
                self._restore.end(container_id)

        with self._turns.quiet(migration_id, interrupt):
            kept_logs.keep(self._config.move_logs_dir, self._move(migration_id), ROLE)
            self._discard(self._move(migration_id), container_id)
            self._ended.done(ended, [])
        return []

    def _clean_when_filled(self, move: Move) -> None:
        """The staging tmpfs holds memory that the container still lacks; it goes when the last page is in place."""
        record = move.read()
        deadline = time.monotonic() + FILL_LIMIT_S
        while record.lazy and (time.monotonic() < deadline or _may_lack_memory(move)):
            if (move.images / criu_marks.FILLED).exists():  # also where its monitor is another one since
                break
            try:
                status = self._engine.roles.monitor(record.container_id).request("status").fields
            except AgentError:
                break  # the container is over, and with it the need
            if any(mark["name"] == "filled" for mark in status.get("marks", ())):
                break
            if status.get("error"):
                _log.error("container %s: %s", record.container_id, status["error"])
                return  # the memory is kept: it is the only copy
            time.sleep(0.05 if time.monotonic() < deadline else 1.0)
        record = move.read()  # a tunnel that was opened again has another receiver
        deadline = time.monotonic() + CONFIRM_LIMIT_S
        while any(move.memory.glob("*.later")) and self._receivers.receives(record) and time.monotonic() < deadline:
            time.sleep(0.05)  # it has yet to tell the source that the last page is here
        self._receivers.stop(record)
        stage.unmount(move)
        move.forget()

    def _discard(self, move: Move, container_id: str) -> None:
        record = move.read() if move.exists else None
        self._receivers.discard(move)
        try:
            status = self._engine.inspect(container_id)
        except NotFound:
            status = None
        if status is not None and status.role == ROLE and status.migration_id == move.migration_id:
            self._engine.roles.forget(container_id, discard=True)
        self._engine.volumes.drop(move.migration_id)
        if record and set(record.brought) - set(self._images.missing(record.brought)):
            self.collect_layers()
        stage.unmount(move)
        move.forget()

    # ------------------------------------------------------------ parts

    def recover(self) -> None:
        """After the agent's start: go on cleaning up after moves that are past their pivot; the others wait for their coordinator."""
        for move in Move.all(self._config.moves_dir):
            record = move.read()
            if record.role != ROLE:
                continue
            rehearsals.throw_away(move, ROLE, self.finish)
            if record.committed and not self._moving(record):
                threading.Thread(target=self._clean_when_filled, args=(move,), daemon=True).start()

    def _moving(self, record: MoveRecord) -> bool:
        try:
            return bool(self._engine.inspect(record.container_id).migration_id)
        except NotFound:
            return False

    def _fence(self, container_id: str, epoch: int) -> None:
        known = max(self._engine.roles.epoch(container_id), self._ended.known_epoch(container_id))
        if epoch < known:
            raise StaleEpoch(f"container {container_id} has epoch {known} here, the call has {epoch}")

    def _move(self, migration_id: str) -> Move:
        return Move(self._config.moves_dir, migration_id, ROLE)


def _may_lack_memory(move: Move) -> bool:
    """No answer is not "no"."""
    try:
        return bool(later.still_missing(move.images))
    except TransferError:
        return True
